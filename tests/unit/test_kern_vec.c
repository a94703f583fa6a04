/* test_kern_vec.c - the functions on single vectors of every table the CPU has: equal bits to the operations written
 * out one by one, and close to double precision. */
#include "kern_testing.h"

/* ---- vectors ---- */

static void vectors_keep_the_stated_order(void **state)
{
	(void)state;
	for (int32_t n = 1; n <= 150; n++) {
		float *a = floats_random((size_t)n), *b = floats_random((size_t)n), *want = floats_new((size_t)n);
		float s = random_value(), top = 0.0f;
		for (int32_t i = 0; i < n; i++)
			top = fmaxf(top, fabsf(a[i]));
		EACH_TABLE (t) {
			float *y = floats_new((size_t)n);
			float d = (*t)->dot(a, b, n), ref = stated_dot(a, b, n);
			check_same(&d, &ref, 1, (*t)->name, "dot");
#define TRY(call, expr, what)                                                     \
	for (int32_t i = 0; i < n; i++) {                                         \
		y[i] = a[i];                                                      \
		want[i] = (expr);                                                 \
	}                                                                         \
	call;                                                                     \
	check_same(y, want, (size_t)n, (*t)->name, what);                         \
	check_untouched(y, (size_t)n, (size_t)n, (size_t)n)
			TRY((*t)->axpy(y, s, b, n), fmaf(s, b[i], a[i]), "axpy");
			TRY((*t)->add(y, b, n), a[i] + b[i], "add");
			TRY((*t)->mul(y, b, n), a[i] * b[i], "mul");
			TRY((*t)->act(y, MZM_ACT_RELU, 0, n), a[i] < 0 ? 0.0f : a[i], "relu");
			TRY((*t)->act(y, MZM_ACT_SILU, 0, n), a[i] / (1.0f + mzm_expf(0.0f - a[i])), "silu");
#undef TRY
			assert_true((*t)->max_abs(a, n) == top);
			floats_free(y);
		}
		floats_free(a);
		floats_free(b);
		floats_free(want);
	}
}

static void max_abs_reports_nan(void **state)
{
	(void)state;
	float x[37] = {0};
	EACH_TABLE (t) {
		for (int i = 0; i < 37; i++) {
			x[i] = -NAN;
			x[(i + 5) % 37] = -INFINITY;
			assert_true(isnan((*t)->max_abs(x, 37)));
			x[i] = 0.0f;
			assert_true((*t)->max_abs(x, 37) == INFINITY);
			x[(i + 5) % 37] = 0.0f;
		}
		assert_true((*t)->max_abs(x, 0) == 0.0f);
	}
}

static void all_halves_widen_exactly(void **state)
{
	(void)state;
	enum { N = 65536 };
	uint16_t *h = malloc(N * sizeof *h);
	assert_non_null(h);
	for (int i = 0; i < N; i++)
		h[i] = (uint16_t)i;
	EACH_TABLE (t) {
		float *y = floats_new(N);
		(*t)->to_f32(y, h, MZM_BF16, N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(mzm_f32_bits(y[i]), mzm_f32_bits(mzm_bf16_to_f32((uint16_t)i)));
			assert_int_equal(mzm_f32_to_bf16(y[i]), isnan(y[i]) ? i | 0x40 : i);
		}
		(*t)->to_f32(y, h, MZM_F16, N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(mzm_f32_bits(y[i]), mzm_f32_bits(mzm_f16_to_f32((uint16_t)i)));
			assert_int_equal(mzm_f32_to_f16(y[i]), isnan(y[i]) ? i | 0x200 : i);
		}
		check_untouched(y, N, N, N);
		floats_free(y);
	}
	free(h);
}

/* ---- narrowing ---- */

static uint16_t narrowed(mzm_dtype d, float x)
{
	return d == MZM_BF16 ? mzm_f32_to_bf16(x) : mzm_f32_to_f16(x);
}

/* x[0 .. n), at any offset, in vectors of any length. */
static void check_narrow(const float *x, int32_t n, mzm_dtype d)
{
	uint16_t *h = malloc(((size_t)n + 2) * sizeof *h);
	assert_non_null(h);
	EACH_TABLE (t) {
		h[0] = h[n + 1] = 0xabcd;
		(*t)->narrow(h + 1, x, d, n);
		for (int32_t i = 0; i < n; i++)
			if (h[i + 1] != narrowed(d, x[i]))
				fail_msg("%s: %a becomes %s %04x, not %04x", (*t)->name, (double)x[i],
					 mzm_dtype_name(d), h[i + 1], narrowed(d, x[i]));
		assert_true(h[0] == 0xabcd && h[n + 1] == 0xabcd);
	}
	free(h);
}

/* Every value of 16 bits, its neighbours in f32, the tie between it and the next one and the neighbours of that. */
static void narrowing_rounds_to_even(void **state)
{
	(void)state;
	static const int32_t steps[] = {0, 1, -1};
	enum { N = 65536 };
	float *x = floats_new(N);
	for (mzm_dtype d = MZM_F16; d <= MZM_BF16; d++) {
		for (int tie = 0; tie < 2; tie++) {
			for (int k = 0; k < 3; k++) {
				for (uint32_t h = 0; h < N; h++) {
					uint16_t next = (uint16_t)(h + 1);
					float v = d == MZM_BF16 ? mzm_bf16_to_f32((uint16_t)h)
								: mzm_f16_to_f32((uint16_t)h);
					float w = d == MZM_BF16 ? mzm_bf16_to_f32(next) : mzm_f16_to_f32(next);
					if (tie && isfinite(v) && isfinite(w))
						v = v * 0.5f + w * 0.5f;
					x[h] = mzm_bits_f32(mzm_f32_bits(v) + (uint32_t)steps[k]);
				}
				check_narrow(x, N, d);
			}
		}
		for (uint32_t h = 0; h < N; h++) /* all exponents; NaN of many kinds */
			x[h] = mzm_bits_f32(h << 16 | (uint32_t)mzm_rng_u64(7, 6, h) % N);
		check_narrow(x, N, d);
		for (int32_t n = 0; n < 70; n++)
			check_narrow(x + 900 * n, n, d);
	}
	floats_free(x);
	assert_int_equal(mzm_f32_to_f16(65519.996f), 0x7bff); /* the last that does not overflow */
	assert_int_equal(mzm_f32_to_f16(65520.0f), 0x7c00);
	assert_int_equal(mzm_f32_to_bf16(0x1.fffffep+127f), 0x7f80);
}

static void narrowing_to_f32_copies(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		for (int32_t n = 1; n < 40; n++) {
			float *x = floats_random((size_t)n), *y = floats_new((size_t)n);
			x[n / 2] = mzm_bits_f32(0x7fa12345); /* even a signalling NaN */
			(*t)->narrow(y, x, MZM_F32, n);
			assert_memory_equal(x, y, (size_t)n * sizeof *x);
			check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
			floats_free(x);
			floats_free(y);
		}
	}
}

/* ---- exp, silu, softmax ---- */

/* Distance of got from the exact value in units of the last place of the exact value. */
static double ulps(float got, double exact)
{
	if (fabs(exact) >= 0x1.ffffffp+127)
		return isinf(got) ? 0 : INFINITY;
	int e;
	frexp(exact, &e);
	double ulp = ldexp(1, e - 24 < -149 ? -149 : e - 24);
	return fabs((double)got - exact) / ulp;
}

/* f of every step-th float, all signs and exponents. */
static double worst_ulps(float (*f)(float x), double (*exact)(double x), uint32_t step, float low)
{
	double worst = 0;
	for (uint64_t bits = 0; bits <= 0xffffffffu; bits += step) {
		float x = mzm_bits_f32((uint32_t)bits);
		if (isnan(x) || x < low)
			continue;
		double u = ulps(f(x), exact((double)x));
		worst = u > worst ? u : worst;
	}
	return worst;
}

static void exp_is_close_everywhere(void **state)
{
	(void)state;
	double worst = worst_ulps(mzm_expf, exp, 2003, -INFINITY);
	for (float x = -104.5f; x < 89.5f; x += 0x1.8p-14f) { /* evenly where it matters */
		double u = ulps(mzm_expf(x), exp((double)x));
		worst = u > worst ? u : worst;
	}
	print_message("exp: at most %.3f ulp\n", worst);
	assert_true(worst <= 2);
	assert_true(isnan(mzm_expf(NAN)) && isnan(mzm_expf(-NAN)));
	assert_true(mzm_expf(INFINITY) == INFINITY && mzm_expf(-INFINITY) == 0.0f);
	assert_true(mzm_expf(0.0f) == 1.0f && mzm_expf(-0.0f) == 1.0f);
	assert_true(mzm_expf(88.72283f) <= 0x1.fffffep+127f && mzm_expf(88.7229f) == INFINITY);
	assert_int_equal(mzm_f32_bits(mzm_expf(-103.2f)), 1); /* the smallest denormal */
}

static double exact_silu(double x)
{
	return x / (1 + exp(-x));
}

static float stated_silu(float x)
{
	return x / (1.0f + mzm_expf(0.0f - x));
}

static void silu_is_close_everywhere(void **state)
{
	(void)state;
	double worst = worst_ulps(stated_silu, exact_silu, 2003, -88.0f);
	print_message("silu: at most %.3f ulp\n", worst);
	assert_true(worst <= 4);
	enum { N = 1 << 16 }; /* a vector of all floats that 16 bits can tell apart */
	float *y = floats_new(N), *want = floats_new(N);
	EACH_TABLE (t) {
		for (uint32_t i = 0; i < N; i++) {
			y[i] = mzm_bits_f32(i << 16 | 0x1234);
			want[i] = stated_silu(y[i]);
		}
		(*t)->act(y, MZM_ACT_SILU, 0, N);
		check_same(y, want, N, (*t)->name, "silu");
	}
	/* below -88.7 exp(-x) is infinite: the result is -0, and what is lost is less than 1e-36 */
	assert_true(stated_silu(-90.0f) == 0.0f && fabs(exact_silu(-88.72)) < 1e-36);
	floats_free(y);
	floats_free(want);
}

/* What softmax states: lanes summed with Kahan's correction, folded, then a division. */
static void stated_softmax(float *x, int32_t n)
{
	float max = -INFINITY, sum[16] = {0}, lost[16] = {0};
	for (int32_t i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (int32_t i = 0; i < (n + 15) / 16 * 16; i++) {
		float e = i < n ? mzm_expf(x[i] - (max == -INFINITY ? 0.0f : max)) : 0.0f;
		float term = e - lost[i % 16], next = sum[i % 16] + term;
		lost[i % 16] = (next - sum[i % 16]) - term;
		sum[i % 16] = next;
		if (i < n)
			x[i] = e;
	}
	float total = fold(sum);
	for (int32_t i = 0; i < n; i++)
		x[i] /= total == 0.0f ? 1.0f : total;
}

static void check_softmax(const float *in, int32_t n)
{
	float *want = floats_new((size_t)n), *y = floats_new((size_t)n);
	double total = 0, max = -INFINITY;
	memcpy(want, in, (size_t)n * sizeof *in);
	stated_softmax(want, n);
	for (int32_t i = 0; i < n; i++)
		max = (double)in[i] > max ? (double)in[i] : max;
	for (int32_t i = 0; i < n; i++)
		total += exp((double)(in[i] - (float)max)); /* the difference rounded, as the kernel must */
	EACH_TABLE (t) {
		memcpy(y, in, (size_t)n * sizeof *in);
		(*t)->softmax(y, n);
		check_same(y, want, (size_t)n, (*t)->name, "softmax");
		check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
		double sum = 0;
		for (int32_t i = 0; i < n; i++) {
			assert_true(ulps(y[i], exp((double)(in[i] - (float)max)) / total) <= 4);
			sum += (double)y[i];
		}
		assert_true(fabs(sum - 1) <= 1e-6);
	}
	floats_free(want);
	floats_free(y);
}

static void softmax_sums_to_one(void **state)
{
	(void)state;
	static const int32_t sizes[] = {1000, 4096, 131072};
	for (int32_t n = 1; n <= 70; n++) {
		float *x = floats_random((size_t)n);
		check_softmax(x, n);
		x[n / 2] = 3e38f; /* all others vanish */
		check_softmax(x, n);
		for (int32_t i = 0; i < n / 2; i++)
			x[i] = -INFINITY; /* masked */
		check_softmax(x, n);
		floats_free(x);
	}
	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		int32_t n = sizes[k];
		float *x = floats_random((size_t)n);
		for (int32_t i = 0; i < n; i++)
			x[i] = 3 * fmodf(x[i], 1.0f);
		check_softmax(x, n);
		for (int32_t i = 0; i < n; i++)
			x[i] = i == 0 ? 0.0f : -1.2f; /* equal terms: every rounding errs the same way */
		check_softmax(x, n);
		floats_free(x);
	}
}

static void softmax_of_nothing_and_of_nan(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		for (int32_t n = 1; n <= 40; n++) {
			float x[40];
			for (int32_t i = 0; i < n; i++)
				x[i] = -INFINITY;
			(*t)->softmax(x, n);
			for (int32_t i = 0; i < n; i++)
				assert_true(x[i] == 0.0f);
			for (int32_t i = 0; i < n; i++)
				x[i] = i == n / 2 ? NAN : -INFINITY;
			(*t)->softmax(x, n);
			for (int32_t i = 0; i < n; i++)
				assert_true(isnan(x[i]));
		}
	}
}

/* ---- rmsnorm, rope ---- */

static void try_rmsnorm(int32_t n, float eps)
{
	float *x = floats_random((size_t)n), *w = floats_random((size_t)n), *want = floats_new((size_t)n);
	float r = 1.0f / sqrtf(stated_dot(x, x, n) / (float)n + eps);
	double squares = 0;
	for (int32_t i = 0; i < n; i++) {
		squares += (double)x[i] * (double)x[i];
		want[i] = (x[i] * r) * w[i];
	}
	double exact_r = 1 / sqrt(squares / n + (double)eps);
	EACH_TABLE (t) {
		float *y = floats_new((size_t)n);
		(*t)->rmsnorm(y, x, w, eps, n);
		check_same(y, want, (size_t)n, (*t)->name, "rmsnorm");
		check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
		for (int32_t i = 0; i < n; i++) {
			double exact = (double)x[i] * exact_r * (double)w[i];
			assert_true(fabs((double)y[i] - exact) <= 1e-6 * fabs(exact) + 0x1p-149);
		}
		memcpy(y, x, (size_t)n * sizeof *x);
		(*t)->rmsnorm(y, y, w, eps, n); /* in place */
		check_same(y, want, (size_t)n, (*t)->name, "rmsnorm in place");
		floats_free(y);
	}
	floats_free(x);
	floats_free(w);
	floats_free(want);
}

static void rmsnorm_is_close(void **state)
{
	(void)state;
	for (int32_t n = 1; n <= 70; n++)
		try_rmsnorm(n, 1e-5f);
	try_rmsnorm(1000, 1e-6f);
	try_rmsnorm(4096, 1e-5f);
	try_rmsnorm(16384, 1e-6f);
	EACH_TABLE (t) { /* an all-zero row stays zero */
		float x[20] = {0}, w[20] = {1, 2, 3}, y[20];
		(*t)->rmsnorm(y, x, w, 1e-5f, 20);
		for (int i = 0; i < 20; i++)
			assert_true(y[i] == 0.0f);
	}
}

static void rope_rotates(void **state)
{
	(void)state;
	for (int32_t n = 2; n <= 160; n += 2) {
		int32_t half = n / 2;
		float *x = floats_new((size_t)n), *cs = floats_new((size_t)n), *want = floats_new((size_t)n);
		for (int32_t i = 0; i < half; i++) {
			double angle = 131072 * pow(10000, -2.0 * i / n);
			cs[2 * i] = (float)cos(angle);
			cs[2 * i + 1] = (float)sin(angle);
		}
		for (int32_t i = 0; i < n; i++)
			x[i] = fmodf(random_value(), 1.0f);
		for (int32_t i = 0; i < half; i++) {
			want[i] = fmaf(x[i], cs[2 * i], -(x[i + half] * cs[2 * i + 1]));
			want[i + half] = fmaf(x[i + half], cs[2 * i], x[i] * cs[2 * i + 1]);
		}
		EACH_TABLE (t) {
			float *y = floats_new((size_t)n);
			memcpy(y, x, (size_t)n * sizeof *x);
			(*t)->rope(y, cs, n);
			check_same(y, want, (size_t)n, (*t)->name, "rope");
			check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
			for (int32_t i = 0; i < half; i++) {
				double angle = 131072 * pow(10000, -2.0 * i / n);
				double a = (double)x[i], b = (double)x[i + half];
				assert_true(fabs((double)y[i] - (a * cos(angle) - b * sin(angle))) <= 1e-6);
				assert_true(fabs((double)y[i + half] - (b * cos(angle) + a * sin(angle))) <= 1e-6);
			}
			floats_free(y);
		}
		floats_free(x);
		floats_free(cs);
		floats_free(want);
	}
}

/* ---- activations and norms that not all models have ---- */

static double exact_gelu(double x)
{
	return x / 2 * erfc(-x / sqrt(2));
}

static double exact_gelu_tanh(double x)
{
	return x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void gelus_are_close_and_alike(void **state)
{
	(void)state;
	enum { N = 4001 };
	float *first = floats_new(N), *y = floats_new(N);
	for (int tanh_form = 0; tanh_form < 2; tanh_form++) {
		bool is_first = true;
		double worst = 0;
		EACH_TABLE (t) {
			for (int32_t i = 0; i < N; i++)
				y[i] = (float)(i - N / 2) / 150.0f;
			(*t)->act(y, tanh_form ? MZM_ACT_GELU_TANH : MZM_ACT_GELU, 0, N);
			if (is_first)
				memcpy(first, y, N * sizeof *y);
			is_first = false;
			check_same(y, first, N, (*t)->name, "gelu");
			for (int32_t i = 0; i < N; i++) {
				double x = (double)((float)(i - N / 2) / 150.0f);
				double want = tanh_form ? exact_gelu_tanh(x) : exact_gelu(x);
				worst = fmax(worst, fabs((double)y[i] - want));
			}
			float odd[3] = {NAN, -INFINITY, INFINITY};
			(*t)->act(odd, tanh_form ? MZM_ACT_GELU_TANH : MZM_ACT_GELU, 0, 1);
			assert_true(isnan(odd[0]));
		}
		print_message("gelu%s: off by %.2g at most\n", tanh_form ? " by tanh" : "", worst);
		assert_true(worst < 2e-6);
	}
	floats_free(first);
	floats_free(y);
}

static void fatrelu_keeps_what_is_above_its_threshold(void **state)
{
	(void)state;
	EACH_TABLE (t) {
		float y[40], x[40];
		for (int i = 0; i < 40; i++)
			y[i] = x[i] = (float)(i - 20) / 10.0f;
		y[3] = x[3] = NAN;
		(*t)->act(y, MZM_ACT_FATRELU, 0.5f, 40);
		for (int i = 0; i < 40; i++) {
			if (i == 3)
				assert_true(isnan(y[i]));
			else
				assert_true(y[i] == (x[i] > 0.5f ? x[i] : 0.0f));
		}
	}
}

static void softcap_is_close_and_bounded(void **state)
{
	(void)state;
	enum { N = 2003 };
	float *first = floats_new(N), *y = floats_new(N);
	bool is_first = true;
	EACH_TABLE (t) {
		double worst = 0;
		for (int32_t i = 0; i < N; i++)
			y[i] = (float)(i - N / 2) * 0.3f;
		(*t)->softcap(y, 30.0f, N);
		if (is_first)
			memcpy(first, y, N * sizeof *y);
		is_first = false;
		check_same(y, first, N, (*t)->name, "softcap");
		check_untouched(y, N, N, N);
		for (int32_t i = 0; i < N; i++) {
			double want = 30 * tanh((double)((float)(i - N / 2) * 0.3f) / 30);
			worst = fmax(worst, fabs((double)y[i] - want));
			assert_true(fabsf(y[i]) <= 30.0f);
		}
		assert_true(worst < 1e-5);
	}
	floats_free(first);
	floats_free(y);
}

static void try_layernorm(int32_t n, float shift)
{
	float *x = floats_random((size_t)n), *w = floats_random((size_t)n), *b = floats_random((size_t)n);
	float *first = floats_new((size_t)n);
	double mean = 0, variance = 0;
	for (int32_t i = 0; i < n; i++) {
		x[i] = fmodf(x[i], 8.0f) + shift;
		mean += (double)x[i] / n;
	}
	for (int32_t i = 0; i < n; i++)
		variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
	bool is_first = true;
	EACH_TABLE (t) {
		float *y = floats_new((size_t)n);
		(*t)->layernorm(y, x, w, b, 1e-5f, n);
		check_untouched(y, (size_t)n, (size_t)n, (size_t)n);
		if (is_first)
			memcpy(first, y, (size_t)n * sizeof *y);
		is_first = false;
		check_same(y, first, (size_t)n, (*t)->name, "layernorm");
		for (int32_t i = 0; i < n; i++) {
			double z = ((double)x[i] - mean) / sqrt(variance + 1e-5);
			double want = z * (double)w[i] + (double)b[i];
			double size = (fabs(z) + fabs((double)shift) + 1) * fabs((double)w[i]) + fabs((double)b[i]);
			assert_true(fabs((double)y[i] - want) <= 3e-6 * size);
		}
		memcpy(y, x, (size_t)n * sizeof *x);
		(*t)->layernorm(y, y, w, b, 1e-5f, n); /* in place */
		check_same(y, first, (size_t)n, (*t)->name, "layernorm in place");
		floats_free(y);
	}
	floats_free(x);
	floats_free(w);
	floats_free(b);
	floats_free(first);
}

static void layernorm_is_close(void **state)
{
	(void)state;
	for (int32_t n = 2; n <= 70; n++)
		try_layernorm(n, 0);
	try_layernorm(1000, 3);
	try_layernorm(4096, -2);
	EACH_TABLE (t) { /* equal elements: the bias alone */
		float x[20], w[20], b[20], y[20];
		for (int i = 0; i < 20; i++) {
			x[i] = 2.5f;
			w[i] = 3;
			b[i] = (float)i;
		}
		(*t)->layernorm(y, x, w, b, 1e-5f, 20);
		for (int i = 0; i < 20; i++)
			assert_true(y[i] == (float)i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_keep_the_stated_order),
		cmocka_unit_test(max_abs_reports_nan),
		cmocka_unit_test(all_halves_widen_exactly),
		cmocka_unit_test(narrowing_rounds_to_even),
		cmocka_unit_test(narrowing_to_f32_copies),
		cmocka_unit_test(exp_is_close_everywhere),
		cmocka_unit_test(silu_is_close_everywhere),
		cmocka_unit_test(gelus_are_close_and_alike),
		cmocka_unit_test(fatrelu_keeps_what_is_above_its_threshold),
		cmocka_unit_test(softcap_is_close_and_bounded),
		cmocka_unit_test(layernorm_is_close),
		cmocka_unit_test(softmax_sums_to_one),
		cmocka_unit_test(softmax_of_nothing_and_of_nan),
		cmocka_unit_test(rmsnorm_is_close),
		cmocka_unit_test(rope_rotates),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
