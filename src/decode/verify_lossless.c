/* verify_lossless.c - see lossless.h. */
#include "decode/lossless.h"

void mzm_lossless_begin(mzm_lossless *l, const float *p, double total)
{
	for (int32_t i = 0; i < l->n_vocab; i++)
		l->left[i] = (double)p[i];
	l->total = total;
}

/* Takes a point out. It did not stand, so there is something else. */
static void take_point(mzm_lossless *l, int32_t id)
{
	double sum = 0;
	for (int32_t i = 0; i < l->n_vocab; i++)
		sum += i == id ? 0 : l->left[i];
	if (!(sum > 0))
		return;
	l->left[id] = 0;
	l->total = sum;
}

static double residual(const mzm_lossless *l, const float *q, double q_total, int32_t i)
{
	double r = l->left[i] / l->total - (double)q[i] / q_total;
	return r > 0 ? r : 0;
}

/* Takes q out. Nothing is left where the two are the same up to rounding; then p stays. */
static void take_distribution(mzm_lossless *l, const float *q, double q_total)
{
	double sum = 0;
	for (int32_t i = 0; i < l->n_vocab; i++)
		sum += residual(l, q, q_total, i);
	if (!(sum > 0))
		return;
	for (int32_t i = 0; i < l->n_vocab; i++)
		l->left[i] = residual(l, q, q_total, i);
	l->total = sum;
}

bool mzm_lossless_judge(mzm_lossless *l, int32_t id, const float *q, double q_total, double u)
{
	bool point = !q || !(q_total > 0);
	double have = point ? 1 : (double)q[id];
	if (!(have > 0))
		return false;
	/* equal weights with equal sums give 1, and u is below: a draft that is the full model's stands always */
	if (u < (l->left[id] * (point ? 1 : q_total)) / (have * l->total))
		return true;
	if (point)
		take_point(l, id);
	else
		take_distribution(l, q, q_total);
	return false;
}

int32_t mzm_lossless_draw(const mzm_lossless *l, double u)
{
	double sum = 0;
	int32_t last = 0;
	for (int32_t i = 0; i < l->n_vocab; i++) {
		sum += l->left[i];
		if (l->left[i] > 0)
			last = i;
		if (sum > u * l->total)
			break;
	}
	return last; /* by rounding, none may pass it */
}
