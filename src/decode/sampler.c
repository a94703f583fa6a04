/* sampler.c - see sampler.h. */
#include "decode/sampler.h"

#include <math.h>
#include <string.h>

#include "base/carve.h"
#include "base/rng.h"

typedef struct candidate {
	double  p; /* probability, not normalised */
	int32_t id;
} candidate;

struct mzm_sampler {
	int32_t         n_vocab;
	const mzm_kern *kern;
	float           temp, top_p, min_p, repeat_penalty;
	int32_t         top_k, repeat_last;
	uint64_t        seed;
	float          *work;  /* [n_vocab] processed logits */
	float          *prob;  /* [n_vocab] */
	candidate      *cand;  /* [n_vocab] */
	int32_t        *stamp; /* [n_vocab] last pass that penalised the token */
	int32_t         pass;
};

static void sampler_layout(mzm_sampler *s, mzm_carve *c)
{
	s->work = MZM_CARVE(c, float, s->n_vocab);
	s->prob = MZM_CARVE(c, float, s->n_vocab);
	s->cand = MZM_CARVE(c, candidate, s->n_vocab);
	s->stamp = MZM_CARVE(c, int32_t, s->n_vocab);
}

size_t mzm_sampler_bytes(int32_t n_vocab)
{
	mzm_sampler shape = {.n_vocab = n_vocab};
	mzm_carve c = {0};
	MZM_CARVE(&c, mzm_sampler, 1);
	sampler_layout(&shape, &c);
	return c.used;
}

mzm_status mzm_sampler_create(mzm_sampler **out, int32_t n_vocab, const mzm_kern *kern, mzm_err *err)
{
	mzm_sampler shape = {.n_vocab = n_vocab, .kern = kern};
	mzm_carve c = {0};
	*out = NULL;
	MZM_CARVE(&c, mzm_sampler, 1);
	sampler_layout(&shape, &c);
	MZM_TRY(mzm_alloc_for((void **)&c.base, c.used, "the sampler", err));
	c.used = 0;
	*out = MZM_CARVE(&c, mzm_sampler, 1);
	**out = shape;
	sampler_layout(*out, &c);
	return MZM_OK;
}

void mzm_sampler_free(mzm_sampler *s)
{
	mzm_free(s);
}

void mzm_sampler_configure(mzm_sampler *s, const mzm_gen_params *params)
{
	s->temp = params->temp;
	s->top_k = params->top_k;
	s->top_p = params->top_p;
	s->min_p = params->min_p;
	s->repeat_penalty = params->repeat_penalty;
	s->repeat_last = params->repeat_last;
	s->seed = params->seed;
}

const float *mzm_sampler_process(mzm_sampler *s, const float *logits, const int32_t *ids, int32_t n)
{
	if (s->repeat_penalty == 1.0f || s->repeat_last == 0)
		return logits;
	memcpy(s->work, logits, (size_t)s->n_vocab * sizeof *s->work);
	if (++s->pass == INT32_MAX) { /* stamps start over, once in 2^31 tokens */
		memset(s->stamp, 0, (size_t)s->n_vocab * sizeof *s->stamp);
		s->pass = 1;
	}
	for (int32_t i = n > s->repeat_last ? n - s->repeat_last : 0; i < n; i++) {
		int32_t id = ids[i];
		if (s->stamp[id] == s->pass)
			continue;
		s->stamp[id] = s->pass;
		s->work[id] = s->work[id] > 0 ? s->work[id] / s->repeat_penalty : s->work[id] * s->repeat_penalty;
	}
	return s->work;
}

static int32_t argmax(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++) {
		if (x[i] > x[best])
			best = i;
	}
	return best;
}

/* Heap order: larger probability first, then lower id. */
static bool before(const candidate *a, const candidate *b)
{
	return a->p > b->p || (a->p == b->p && a->id < b->id);
}

static void sift_down(candidate *heap, int32_t n, int32_t i)
{
	for (;;) {
		int32_t child = 2 * i + 1;
		if (child >= n)
			return;
		if (child + 1 < n && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &heap[i]))
			return;
		candidate t = heap[i];
		heap[i] = heap[child];
		heap[child] = t;
		i = child;
	}
}

/* Moves the best of heap[0..n) to heap[n-1]. */
static void pop(candidate *heap, int32_t n)
{
	candidate best = heap[0];
	heap[0] = heap[n - 1];
	heap[n - 1] = best;
	sift_down(heap, n - 1, 0);
}

/* Applies top-k, then top-p to the candidates; the survivors end up in cand[n - kept .. n). */
static int32_t filter(mzm_sampler *s, int32_t n)
{
	double total = 0, sum = 0;
	int32_t limit = s->top_k > 0 && s->top_k < n ? s->top_k : n, kept = 0;
	if (limit == n && s->top_p >= 1.0f)
		return n;
	for (int32_t i = n / 2 - 1; i >= 0; i--)
		sift_down(s->cand, n, i);
	if (limit < n) { /* top-p counts within the k best */
		for (kept = 0; kept < limit; kept++) {
			pop(s->cand, n - kept);
			total += s->cand[n - kept - 1].p;
		}
		if (s->top_p >= 1.0f)
			return kept;
		for (kept = 0; kept < limit && (kept == 0 || sum < s->top_p * total); kept++)
			sum += s->cand[n - kept - 1].p;
	} else {
		for (int32_t i = 0; i < n; i++)
			total += s->cand[i].p;
		for (kept = 0; kept < n && (kept == 0 || sum < s->top_p * total); kept++) {
			pop(s->cand, n - kept);
			sum += s->cand[n - kept - 1].p;
		}
	}
	return kept;
}

/* What top-k and top-p leave for a choice, in cand[n - kept .. n); min-p is left to the caller. */
static int32_t candidates(mzm_sampler *s, const float *processed, int32_t top)
{
	for (int32_t i = 0; i < s->n_vocab; i++)
		s->cand[i] = (candidate){exp(((double)processed[i] - processed[top]) / s->temp), i};
	return filter(s, s->n_vocab);
}

int32_t mzm_sampler_choose(mzm_sampler *s, const float *processed, int32_t pos)
{
	int32_t n = s->n_vocab, top = argmax(processed, n);
	if (s->temp <= 0)
		return top;
	int32_t kept = candidates(s, processed, top), best_id = top;
	double best = -INFINITY;
	for (int32_t i = n - kept; i < n; i++) {
		const candidate *c = &s->cand[i];
		if (c->p < s->min_p) /* the best has p = 1 */
			continue;
		double u = mzm_rng_unit(s->seed, (uint64_t)pos, (uint64_t)c->id);
		double key = ((double)processed[c->id] - processed[top]) / s->temp - log(-log(u));
		if (key > best || (key == best && c->id < best_id)) {
			best = key;
			best_id = c->id;
		}
	}
	return best_id;
}

int32_t mzm_sampler_likeliest(const mzm_sampler *s, const float *processed)
{
	return argmax(processed, s->n_vocab);
}

double mzm_sampler_unit(const mzm_sampler *s, mzm_purpose purpose, int32_t pos, uint64_t round, int32_t line)
{
	uint64_t stream = (uint64_t)pos | (uint64_t)purpose << 32; /* a choice's has purpose 0 */
	return mzm_rng_unit(s->seed, stream | (uint64_t)line << 40, round);
}

double mzm_sampler_weights(mzm_sampler *s, float *w, const float *processed)
{
	int32_t n = s->n_vocab, top = argmax(processed, n), kept = candidates(s, processed, top);
	double total = 0;
	memset(w, 0, (size_t)n * sizeof *w);
	for (int32_t i = n - kept; i < n; i++) {
		if (s->cand[i].p >= s->min_p)
			w[s->cand[i].id] = (float)s->cand[i].p;
	}
	for (int32_t i = 0; i < n; i++)
		total += (double)w[i];
	if (total > 0 && isfinite(total))
		return total;
	memset(w, 0, (size_t)n * sizeof *w); /* logits that are no numbers: as a choice has it */
	w[top] = 1;
	return 1;
}

int32_t mzm_sampler_draw(const mzm_sampler *s, const float *w, double total, double u)
{
	double sum = 0;
	int32_t last = 0;
	for (int32_t i = 0; i < s->n_vocab; i++) {
		sum += (double)w[i];
		if (w[i] > 0)
			last = i;
		if (sum > u * total)
			break;
	}
	return last; /* by rounding, none may pass it */
}

float mzm_sampler_prob(mzm_sampler *s, const float *logits, int32_t id, float temp, float *max, float *entropy)
{
	int32_t n = s->n_vocab;
	int32_t best = argmax(logits, n);
	for (int32_t i = 0; i < n; i++)
		s->prob[i] = (logits[i] - logits[best]) / temp;
	if (entropy) /* H = log Z - sum p x, with x the shifted logits; a copy of x lives in cand's place */
		memcpy((float *)(void *)s->cand, s->prob, (size_t)n * sizeof(float));
	s->kern->softmax(s->prob, n);
	float p_max = s->prob[best]; /* = 1 / Z */
	if (max)
		*max = p_max;
	if (entropy) {
		float h = -logf(p_max) - s->kern->dot(s->prob, (float *)(void *)s->cand, n);
		*entropy = h > 0 ? h : 0;
	}
	return s->prob[id];
}

mzm_certainty mzm_sampler_certainty(mzm_sampler *s, const float *logits, int32_t id)
{
	mzm_certainty c;
	float best = -INFINITY, second = -INFINITY;
	for (int32_t i = 0; i < s->n_vocab; i++) {
		if (logits[i] > best) {
			second = best;
			best = logits[i];
		} else if (logits[i] > second) {
			second = logits[i];
		}
	}
	c.prob = mzm_sampler_prob(s, logits, id, 1.0f, NULL, &c.entropy);
	c.margin = s->n_vocab > 1 ? best - second : INFINITY;
	return c;
}
