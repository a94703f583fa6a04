/* bench_fit.c - seconds that the fits of `mirzam calibrate` take for one layer of a given shape: random weights, and
 * inputs whose variance falls from direction to direction and stays above nothing, as real ones' does. (A model made
 * wide by `synth --inflate` has inputs of low rank, which are easier.)
 *
 * Usage: bench_fit DIM N_FFN [POSITIONS [N_THREADS [FIT]]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "predictors/fit.h"
#include "predictors/linalg.h"

static mzm_team *team;

static float *floats(size_t n)
{
	float *p = malloc(n * sizeof *p);
	if (!p) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}

static float *draw(size_t n, float size, uint64_t seed)
{
	float *p = floats(n);
	for (size_t i = 0; i < n; i++)
		p[i] = size * (float)(mzm_rng_unit(seed, 0, (uint64_t)i) * 2 - 1);
	return p;
}

static float *product(const float *x, const float *w, int32_t m, int32_t k, int32_t n)
{
	mzm_err err;
	float *y = floats((size_t)m * (size_t)k);
	if (mzm_times_t(y, x, w, m, k, n, team, &err) != MZM_OK) {
		fprintf(stderr, "%s\n", err.message);
		exit(1);
	}
	return y;
}

/* Directions are mixed by a random matrix; that of rank i has a size of 1 / sqrt(1 + i / 8). */
static float *inputs(int32_t n, int32_t dim)
{
	float *x = draw((size_t)n * (size_t)dim, 1, 1);
	float *mix = draw((size_t)dim * (size_t)dim, 1 / sqrtf((float)dim), 2);
	for (size_t i = 0; i < (size_t)n * (size_t)dim; i++)
		x[i] /= sqrtf(1 + (float)(i % (size_t)dim) / 8);
	float *mixed = product(x, mix, n, dim, dim);
	free(x);
	free(mix);
	return mixed;
}

static void silu_gates(float *gate, float *z, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		gate[i] /= 1 + expf(-gate[i]);
		z[i] *= gate[i];
	}
}

static void norms(float *to, const float *w, int32_t n, int32_t dim)
{
	for (int32_t j = 0; j < n; j++) {
		double sum = 0;
		const float *row = w + (size_t)j * (size_t)dim;
		for (int32_t c = 0; c < dim; c++)
			sum += (double)row[c] * (double)row[c];
		to[j] = (float)sqrt(sum);
	}
}

static void time_fit(const mzm_fit *fit, const mzm_fit_layer *l)
{
	mzm_err err;
	mzm_calib_writer *w;
	mzm_fit_options o = {0};
	int64_t start = mzm_now_ns();
	if (mzm_calib_create(&w, "bench", &err) != MZM_OK || fit->layer(l, &o, w, &err) != MZM_OK) {
		fprintf(stderr, "%s: %s\n", fit->name, err.message);
		exit(1);
	}
	mzm_calib_writer_free(w);
	printf("%-12s %7.2f s\n", fit->name, (double)(mzm_now_ns() - start) * 1e-9);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	mzm_err err;
	if (argc < 3) {
		fprintf(stderr, "usage: bench_fit DIM N_FFN [POSITIONS [N_THREADS [FIT]]]\n");
		return 2;
	}
	mzm_config cfg = {.dim = atoi(argv[1]), .n_ffn = atoi(argv[2]), .n_layers = 1, .act = MZM_ACT_SILU};
	int32_t n_test = 64, n = (argc > 3 ? atoi(argv[3]) : 4096) + n_test, dim = cfg.dim, n_ffn = cfg.n_ffn;
	if (mzm_team_create(&team, argc > 4 ? atoi(argv[4]) : 0, &err) != MZM_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	float *x = inputs(n, dim), *gate = draw((size_t)n_ffn * (size_t)dim, 1 / sqrtf((float)dim), 3),
	      *up = draw((size_t)n_ffn * (size_t)dim, 1 / sqrtf((float)dim), 4), *norm = floats((size_t)n_ffn);
	float *act = product(x, gate, n, n_ffn, dim), *z = product(x, up, n, n_ffn, dim);
	silu_gates(act, z, (size_t)n * (size_t)n_ffn);
	norms(norm, up, n_ffn, dim);
	mzm_fit_layer l = {.cfg = &cfg, .n_train = n - n_test, .n_test = n_test, .x = x, .gate = act, .z = z,
			   .w_gate = gate, .w_up = up, .up_norm = norm, .down_norm = norm, .team = team};
	printf("a layer of %d, %d neurons, %d positions, %d threads\n", (int)dim, (int)n_ffn, (int)l.n_train,
	       mzm_team_size(team));
	for (int i = 0; mzm_fit_at(i); i++)
		if (argc > 5 ? strcmp(mzm_fit_at(i)->name, argv[5]) == 0 : !mzm_fit_at(i)->named_only)
			time_fit(mzm_fit_at(i), &l);
	return 0;
}
