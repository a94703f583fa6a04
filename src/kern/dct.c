/* dct.c - see dct.h.
 *
 * Sums and weighted differences of mirrored elements are two transforms of half the length: the first gives the even
 * frequencies, the second sums of neighbouring odd ones. The inverse walks the same steps backwards. In double, as odd
 * frequencies are taken apart by subtracting. One element of all vectors is one
 * compiler's vector. */
#include "kern/dct.h"

#include <math.h>
#include <string.h>

typedef double lanes __attribute__((vector_size(MZM_DCT_LANES * sizeof(double))));

static const double pi = 3.14159265358979323846;

static int32_t odd_part(int32_t n)
{
	while (n % 2 == 0)
		n /= 2;
	return n;
}

void mzm_dct_layout(mzm_dct *d, int32_t n, mzm_carve *c)
{
	d->n = n;
	d->n_odd = odd_part(n);
	d->halves = MZM_CARVE(c, double, n);
	d->odd = MZM_CARVE(c, double, (size_t)d->n_odd * (size_t)d->n_odd);
}

void mzm_dct_fill(mzm_dct *d)
{
	int32_t m = d->n_odd;
	for (int32_t len = d->n; len > m; len /= 2) {
		for (int32_t i = 0; i < len / 2; i++)
			d->halves[len / 2 + i] = 2 * cos(pi * (2 * i + 1) / (2.0 * len));
	}
	for (int32_t k = 0; k < m; k++) {
		for (int32_t i = 0; i < m; i++)
			d->odd[k * m + i] = cos(pi * (2 * i + 1) * k / (2.0 * m));
	}
}

/* y[r] = sum over c of odd[r][c] x[c], or of odd[c][r]; then back to x. */
static void by_matrix(const mzm_dct *d, lanes *restrict x, lanes *restrict y, bool inverse)
{
	int32_t m = d->n_odd;
	for (int32_t r = 0; r < m; r++) {
		y[r] = (lanes){0};
		for (int32_t c = 0; c < m; c++)
			y[r] += (inverse ? d->odd[c * m + r] : d->odd[r * m + c]) * x[c];
	}
	memcpy(x, y, (size_t)m * sizeof *x);
}

/* x, t: [n]; without the factors c_k. */
static void forward(const mzm_dct *d, lanes *restrict x, lanes *restrict t, int32_t n)
{
	int32_t h = n / 2;
	if (n == d->n_odd) {
		by_matrix(d, x, t, false);
		return;
	}
	for (int32_t i = 0; i < h; i++) {
		t[i] = x[i] + x[n - 1 - i];
		t[h + i] = (x[i] - x[n - 1 - i]) * d->halves[h + i];
	}
	forward(d, t, x, h);
	forward(d, t + h, x, h);
	x[0] = t[0];
	x[1] = 0.5 * t[h];
	for (int32_t k = 1; k < h; k++) {
		x[2 * k] = t[k];
		x[2 * k + 1] = t[h + k] - x[2 * k - 1];
	}
}

static void inverse(const mzm_dct *d, lanes *restrict x, lanes *restrict t, int32_t n)
{
	int32_t h = n / 2;
	if (n == d->n_odd) {
		by_matrix(d, x, t, true);
		return;
	}
	t[0] = x[0];
	t[h] = x[1];
	for (int32_t k = 1; k < h; k++) {
		t[k] = x[2 * k];
		t[h + k] = x[2 * k + 1] + x[2 * k - 1];
	}
	inverse(d, t, x, h);
	inverse(d, t + h, x, h);
	for (int32_t i = 0; i < h; i++) {
		lanes odd = t[h + i] / d->halves[h + i];
		x[i] = t[i] + odd;
		x[n - 1 - i] = t[i] - odd;
	}
}

static double scale_of(int32_t n, int32_t k)
{
	return sqrt((k == 0 ? 1.0 : 2.0) / n);
}

/* Vectors into lanes, and back, with the factors c_k of whichever side has frequencies. */
static void spread(lanes *restrict to, const float *restrict x, int32_t n_vec, int32_t n, double first, double rest)
{
	memset(to, 0, (size_t)n * sizeof *to);
	for (int32_t l = 0; l < n_vec; l++) {
		for (int32_t i = 0; i < n; i++)
			to[i][l] = (double)x[l * n + i] * (i == 0 ? first : rest);
	}
}

static void collect(float *restrict x, const lanes *restrict from, int32_t n_vec, int32_t n, double first, double rest)
{
	for (int32_t l = 0; l < n_vec; l++) {
		for (int32_t i = 0; i < n; i++)
			x[l * n + i] = (float)(from[i][l] * (i == 0 ? first : rest));
	}
}

void mzm_dct_forward(const mzm_dct *d, float *x, int32_t n_vec, double *scratch)
{
	lanes *x8 = (lanes *)(void *)scratch;
	spread(x8, x, n_vec, d->n, 1, 1);
	forward(d, x8, x8 + d->n, d->n);
	collect(x, x8, n_vec, d->n, scale_of(d->n, 0), scale_of(d->n, 1));
}

void mzm_dct_inverse(const mzm_dct *d, float *x, int32_t n_vec, double *scratch)
{
	lanes *x8 = (lanes *)(void *)scratch;
	spread(x8, x, n_vec, d->n, scale_of(d->n, 0), scale_of(d->n, 1));
	inverse(d, x8, x8 + d->n, d->n);
	collect(x, x8, n_vec, d->n, 1, 1);
}

double mzm_dct_element(int32_t n, int32_t k, int32_t i)
{
	return scale_of(n, k) * cos(pi * (2 * i + 1) * k / (2.0 * n));
}

void mzm_dct_matrix(float *out, int32_t n, bool inverse_one)
{
	for (int32_t r = 0; r < n; r++)
		for (int32_t c = 0; c < n; c++)
			out[(size_t)r * (size_t)n + (size_t)c] =
				(float)(inverse_one ? mzm_dct_element(n, c, r) : mzm_dct_element(n, r, c));
}
