/* monitor_fit.c - where a monitor starts from: logistic regression over judged draft tokens.
 *
 * The built-in prior is the ridge, so that a few cases move it a little and none not at all: the minimum of
 *     sum_i w_i log(1 + exp(-y_i z_i)) + 1/2 sum_j precision_j (weight_j - builtin_j)^2,  z = weight . features,
 * by Newton's method, which halves a step that does not go down. In double precision and in the order of the cases, so
 * the result depends on nothing else. Workload: some 10,000 cases, once a calibration. */
#include "decode/monitor.h"

#include <math.h>
#include <string.h>

#define N MZM_MONITOR_FEATURES
#define MAX_STEPS 50
#define HALVINGS  30

/* How firm a fitted weight may be. What was fitted on is another text, and
 * other settings, than what comes: the monitor is to go on learning. */
#define MOST_PRECISION 10.0

typedef struct cases {
	const mzm_monitor_case *at;
	size_t                  n;
} cases;

static double start_of(int i)
{
	return (double)mzm_monitor_builtin.weight[i];
}

static double ridge_of(int i)
{
	return (double)mzm_monitor_builtin.precision[i];
}

/* log(1 + exp(-z)) without overflow */
static double loss_of(double z)
{
	return z > 0 ? log1p(exp(-z)) : log1p(exp(z)) - z;
}

static double objective(const cases *c, const double w[N])
{
	double sum = 0, f[N];
	for (int j = 0; j < N; j++)
		sum += 0.5 * ridge_of(j) * (w[j] - start_of(j)) * (w[j] - start_of(j));
	for (size_t i = 0; i < c->n; i++) {
		double z = 0;
		if (!mzm_monitor_features(f, &c->at[i].evidence))
			continue;
		for (int j = 0; j < N; j++)
			z += w[j] * f[j];
		sum += (double)c->at[i].weight * loss_of(c->at[i].accepted ? z : -z);
	}
	return sum;
}

/* Of the objective at w: what a step has to undo, and its second derivatives (the lower triangle). */
static void derive(double down[N], double curve[N][N], const cases *c, const double w[N])
{
	double f[N];
	memset(curve, 0, sizeof(double[N][N]));
	for (int j = 0; j < N; j++) {
		down[j] = -ridge_of(j) * (w[j] - start_of(j));
		curve[j][j] = ridge_of(j);
	}
	for (size_t i = 0; i < c->n; i++) {
		double z = 0, weight = (double)c->at[i].weight;
		if (!mzm_monitor_features(f, &c->at[i].evidence))
			continue;
		for (int j = 0; j < N; j++)
			z += w[j] * f[j];
		double p = 1 / (1 + exp(-z)), miss = (c->at[i].accepted ? 1 : 0) - p;
		for (int j = 0; j < N; j++) {
			down[j] += weight * miss * f[j];
			for (int k = 0; k <= j; k++)
				curve[j][k] += weight * p * (1 - p) * f[j] * f[k];
		}
	}
}

/* x becomes the solution of a x = x, a being positive definite, by Cholesky's factors, which overwrite it. */
static void solve(double a[N][N], double x[N])
{
	for (int j = 0; j < N; j++) {
		for (int k = 0; k < j; k++)
			a[j][j] -= a[j][k] * a[j][k];
		a[j][j] = sqrt(a[j][j]); /* at least the ridge's */
		for (int i = j + 1; i < N; i++) {
			for (int k = 0; k < j; k++)
				a[i][j] -= a[i][k] * a[j][k];
			a[i][j] /= a[j][j];
		}
	}
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < i; k++)
			x[i] -= a[i][k] * x[k];
		x[i] /= a[i][i];
	}
	for (int i = N - 1; i >= 0; i--) {
		for (int k = i + 1; k < N; k++)
			x[i] -= a[k][i] * x[k];
		x[i] /= a[i][i];
	}
}

/* A Newton step from w that goes down; false: there is none. */
static bool step(double w[N], double *value, const cases *c)
{
	double by[N], curve[N][N], next[N], size = 1;
	derive(by, curve, c, w);
	solve(curve, by);
	for (int i = 0; i < HALVINGS; i++, size /= 2) {
		for (int j = 0; j < N; j++)
			next[j] = w[j] + size * by[j];
		double at = objective(c, next);
		if (at < *value) {
			bool far = *value - at > 1e-12 * *value;
			memcpy(w, next, sizeof next);
			*value = at;
			return far;
		}
	}
	return false;
}

void mzm_monitor_fit(mzm_monitor_prior *out, const mzm_monitor_case *at, size_t n)
{
	cases c = {at, n};
	double w[N], down[N], curve[N][N];
	for (int j = 0; j < N; j++)
		w[j] = start_of(j);
	double value = objective(&c, w);
	for (int i = 0; i < MAX_STEPS && step(w, &value, &c); i++) {
	}
	derive(down, curve, &c, w);
	for (int j = 0; j < N; j++) {
		out->weight[j] = (float)w[j];
		out->precision[j] = (float)fmin(curve[j][j], MOST_PRECISION);
	}
}
