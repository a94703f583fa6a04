/* dijiang.c - linear attention over features of frequencies, in both forms of DiJiang (arXiv 2403.19928).
 *
 * Features of x, a rotated query or key: the paper's are D exp(T C x), those of the released code softmax(t (C^T x)),
 * C being the cosine transform. A token t adds features(k) v^T to a state; the released form multiplies the state with
 * rho_t first and the addend with sigma_t (config.h, MZM_T_DECAY). A position's output is its features times that
 * state; the paper's is divided by its features times the sum of features, unless the model says otherwise; the
 * released one is normalised in groups of neighbouring channels and gated.
 *
 * The latest tokens are not in the state yet (kv.h): their scores are taken one by one, as in softmax attention, so
 * that drafts, trees and going back need nothing of their own. The state moves on in steps of fixed size at fixed
 * places, by the row kernels; positions between two of these share a walk. So a position's bits depend on nothing but
 * the tokens before it: however many share a pass, however the prompt arrived. KV heads are shared out; each is one
 * rank's.
 *
 * The paper's exponentials have no bound. Features of a head and token are kept divided by a power of two, which makes
 * their largest about 2^HEADROOM, and the state of a head by the largest of its tokens'; who adds up multiplies with
 * the differences. Powers of two round nothing, and which they are depends on the tokens that a position sees alone.
 * They cancel in the quotient. Lost is what f32 cannot hold beside the largest: features below e^-112 of their head's
 * largest, products of features below e^-137 of the two largest ones'; where nothing else is left of a position, its
 * output is 0. Sums of values (no_denominator) have the size that they have; no output is above MOST. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "model/state.h"

#define GROUP_EPS  1e-5
#define HEADROOM   36     /* f32 holds 2^72 times features, tokens and values */
#define MAX_SHIFT  80     /* of weights of features; so it holds 2^HEADROOM times that */
#define MOST       0x1p40 /* of an output: what comes behind squares it */
#define MOST_POWER 1000.0 /* beyond it even 2^-149 is above MOST, or 2^127 nothing */
#define LOG2E      1.4426950408889634
#define LN2        0.6931471805599453

/* ---- features ---- */

static void transform(mzm_state *s, float *x, int32_t n, int rank)
{
	mzm_dijiang *dj = &s->dijiang;
	int32_t d = s->w->cfg.head_dim;
	if (dj->by_halves) {
		double *lanes = dj->lanes + (size_t)rank * mzm_dct_scratch(d);
		if (s->w->cfg.attn == MZM_ATTN_DIJIANG)
			mzm_dct_inverse(&dj->dct, x, n, lanes);
		else
			mzm_dct_forward(&dj->dct, x, n, lanes);
	} else {
		size_t stride = mzm_pack_stride(s->kern, MZM_F32, d);
		char *packed = s->packed + (size_t)rank * s->packed_len;
		for (int32_t i = 0; i < n; i++)
			s->kern->pack(packed + (size_t)i * stride, x + (size_t)i * (size_t)d, MZM_F32, d);
		mzm_rows_job job = {.dtype = MZM_F32, .w = dj->matrix, .stride = (size_t)d * sizeof(float), .n_rows = d,
				    .n_cols = d, .x = packed, .ldx = stride, .n_pos = n, .y = x, .ldy = (size_t)d};
		s->kern->rows(&job, 0, d);
	}
}

/* exp(x) times the layer's weights, divided by 2 to the power that is returned. */
static float exponentials(const mzm_state *s, const mzm_layer *l, float *x)
{
	int32_t d = s->w->cfg.head_dim;
	int of_weight;
	float top = x[0], most = (float)(HEADROOM * LN2), weight = s->kern->max_abs(l->feature, d);
	(void)frexpf(isfinite(weight) ? weight : 1, &of_weight);
	of_weight = of_weight < -MAX_SHIFT ? -MAX_SHIFT : of_weight;
	for (int32_t c = 1; c < d; c++)
		top = x[c] > top ? x[c] : top;
	float power = ceilf((float)((double)top * LOG2E)) - HEADROOM, by = ldexpf(1, -of_weight);
	if (!isfinite(power))
		power = 0; /* nor are the features then */
	for (int32_t c = 0; c < d; c++) {
		float y = (float)((double)x[c] - (double)power * LN2);
		x[c] = by * mzm_expf(y > most ? most : y); /* NaN stays */
	}
	s->kern->mul(x, l->feature, d);
	return power + (float)of_weight;
}

/* Of n heads one behind the other, in place; powers: of the paper's form, as above. */
static void features(mzm_state *s, const mzm_layer *l, float *x, float *powers, int32_t n, int rank)
{
	int32_t d = s->w->cfg.head_dim;
	for (int32_t i = 0; i < n; i += MZM_DCT_LANES)
		transform(s, x + (size_t)i * (size_t)d, n - i < MZM_DCT_LANES ? n - i : MZM_DCT_LANES, rank);
	for (int32_t i = 0; i < n; i++, x += d) {
		s->kern->mul(x, l->freq, d);
		if (s->w->cfg.attn == MZM_ATTN_DIJIANG) {
			s->kern->softmax(x, d);
			continue;
		}
		powers[i] = exponentials(s, l, x);
	}
}

/* This rank's share of n_pos times n_heads heads of x. */
static void share_features(mzm_state *s, const mzm_layer *l, float *x, float *powers, int32_t n_heads,
			   const float *norm, mzm_team *team, int rank)
{
	int32_t d = s->w->cfg.head_dim, begin, end;
	mzm_team_range(s->pass->n_pos * n_heads, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = begin; i < end; i++)
		mzm_turn_head(s, x + (size_t)i * (size_t)d, norm, 0, i / n_heads);
	features(s, l, x + (size_t)begin * (size_t)d, powers ? powers + begin : NULL, end - begin, rank);
}

/* ---- the rows and states of a head ---- */

typedef struct walk {
	mzm_state       *s;
	const mzm_layer *l;
	int32_t          layer, head; /* head -1: only moves `at`, as all heads do */
	mzm_kv_place     at;
	int              rank;
} walk;

static float *row_of(const walk *w, char *rows, int32_t tok)
{
	const mzm_kv *kv = w->s->kv;
	size_t of_head = ((size_t)w->layer * (size_t)kv->n_kv_heads + (size_t)w->head) * (size_t)kv->n_rows;
	return (float *)(void *)(rows + (of_head + (size_t)(tok - w->at.first)) * kv->row_bytes);
}

/* Moves the rows that may be wanted to the front when those up to end would not fit. */
static void make_room(walk *w, int32_t tok, int32_t end)
{
	const mzm_kv *kv = w->s->kv;
	char *const both[] = {kv->k, kv->v};
	if (end - w->at.first <= kv->n_rows)
		return;
	for (int i = 0; i < 2 && w->head >= 0; i++)
		memmove(row_of(w, both[i], w->at.first), row_of(w, both[i], w->at.oldest),
			(size_t)(tok - w->at.oldest) * kv->row_bytes);
	w->at.first = w->at.oldest;
}

/* Keys and values of positions p .. p + n - 1 of the pass become the rows of tokens tok and on. */
static void append(const walk *w, int32_t p, int32_t tok, int32_t n)
{
	const mzm_state *s = w->s;
	size_t d = (size_t)s->w->cfg.head_dim, n_kv = (size_t)s->w->cfg.n_kv_heads;
	for (int32_t i = 0; i < n && w->head >= 0; i++) {
		size_t at = ((size_t)(p + i) * n_kv + (size_t)w->head) * d;
		memcpy(row_of(w, s->kv->k, tok + i), s->k + at, d * sizeof(float));
		memcpy(row_of(w, s->kv->v, tok + i), s->v + at, d * sizeof(float));
		if (s->dijiang.k_power)
			row_of(w, s->kv->k, tok + i)[d] = s->dijiang.k_power[at / d];
	}
}

/* to[c] = past * from[c], from NULL: 0. */
static void fade(float *to, const float *from, float past, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from ? past * from[i] : 0.0f;
}

/* ---- what a token counts ---- */

/* Where the power of a row's features is. */
static float *power_of(const walk *w, int32_t tok)
{
	return row_of(w, w->s->kv->k, tok) + w->s->w->cfg.head_dim;
}

static float two_to(float n) /* a whole number, not above 0 */
{
	return n > -127 ? mzm_bits_f32((uint32_t)(127 + (int32_t)n) << 23) : 0;
}

/* Brings a state and n rows to one power, the largest of theirs. */
static float bring_together(const walk *w, int32_t base, int32_t n, const int32_t *slots, float *weight, float *power)
{
	float past = base ? *mzm_kv_power(w->s->kv, w->layer, w->head, base) : -INFINITY, most = past;
	for (int32_t i = 0; i < n; i++) {
		weight[i] = *power_of(w, slots ? w->at.first + slots[i] : base + i);
		most = weight[i] > most ? weight[i] : most;
	}
	for (int32_t i = 0; i < n; i++)
		weight[i] = two_to(weight[i] - most);
	*power = most;
	return two_to(past - most);
}

static float decay(const walk *w, int32_t base, int32_t n, float *weight)
{
	int32_t len = w->s->w->cfg.decay_len;
	const float *of_head = w->l->decay + 2 * (size_t)w->head * (size_t)len;
	double past = 1;
	for (int32_t t = base + n - 1; t >= base; t--) {
		const float *at = of_head + 2 * (size_t)(t < len ? t : len - 1);
		weight[t - base] = (float)(past * (double)at[1]);
		past *= 1 - (double)at[0];
	}
	return (float)past;
}

/* weight[i] = what token base + i, whose row slots or the order says, counts at the last of these n; returns what the
 * state before base does. All of it is to be taken times 2^power. */
static float weigh(const walk *w, int32_t base, int32_t n, const int32_t *slots, float *weight, float *power)
{
	if (w->s->w->cfg.attn == MZM_ATTN_DIJIANG_PAPER)
		return bring_together(w, base, n, slots, weight, power);
	*power = 0;
	return decay(w, base, n, weight);
}

/* ---- the state ---- */

/* The state a step on: the older one, faded, and the sum of features times values of the step's tokens. */
static void add_step(const walk *w)
{
	mzm_state *s = w->s;
	int32_t d = s->w->cfg.head_dim, base = w->at.base;
	size_t size = (size_t)d;
	float *to = mzm_kv_sums(s->kv, w->layer, w->head, base + MZM_KV_STEP), *z = to + size * size;
	float *outer = s->dijiang.outer + (size_t)w->rank * size * MZM_KV_STEP, weight[MZM_KV_STEP];
	float past = weigh(w, base, MZM_KV_STEP, NULL, weight,
			   mzm_kv_power(s->kv, w->layer, w->head, base + MZM_KV_STEP));
	fade(to, base ? mzm_kv_sums(s->kv, w->layer, w->head, base) : NULL, past, (size + 1) * size);
	for (int32_t t = 0; t < MZM_KV_STEP; t++) {
		const float *k = row_of(w, s->kv->k, base + t);
		for (int32_t i = 0; i < d; i++) {
			outer[i * MZM_KV_STEP + t] = weight[t] * k[i];
			z[i] += weight[t] * k[i];
		}
	}
	mzm_accum_job job = {.dtype = MZM_F32, .w = row_of(w, s->kv->v, base), .stride = s->kv->row_bytes,
			     .n_rows = MZM_KV_STEP, .n_cols = d, .lda = MZM_KV_STEP, .ldy = size,
			     .scratch = s->sums + (size_t)w->rank * (MZM_ACCUM_SCRATCH / sizeof(float))};
	for (int32_t i = 0; i < d; i += MZM_MAX_POS) {
		job.a = outer + (size_t)i * MZM_KV_STEP;
		job.y = to + (size_t)i * size;
		job.n_pos = d - i < MZM_MAX_POS ? d - i : MZM_MAX_POS;
		s->kern->accum(&job, 0, mzm_accum_units(MZM_F32, d));
	}
}

static void advance(walk *w, int32_t base)
{
	while (w->at.base < base) {
		if (w->head >= 0)
			add_step(w);
		w->at.base += MZM_KV_STEP;
		if (w->at.base - w->at.oldest == MZM_KV_STATES * MZM_KV_STEP)
			w->at.oldest += MZM_KV_STEP; /* whose place the new one took */
	}
}

/* ---- attending ---- */

/* Rows of queries, counted over positions and then over the query heads of the KV head: n from first on. They see the
 * state of base and n_tok tokens behind it, which slots lists; NULL: in order. */
typedef struct q_rows {
	int32_t first, n, base, n_tok;
	const int32_t *slots;
} q_rows;

static int32_t group_of(const walk *w)
{
	return w->s->w->cfg.n_heads / w->s->w->cfg.n_kv_heads;
}

static size_t q_at(const walk *w, const q_rows *r, int32_t i)
{
	const mzm_config *cfg = &w->s->w->cfg;
	int32_t group = group_of(w), p = (r->first + i) / group;
	int32_t head = w->head * group + (r->first + i) % group;
	return ((size_t)p * (size_t)cfg->n_heads + (size_t)head) * (size_t)cfg->head_dim;
}

/* Scores become weights of values; q, of which they were made, the weights of the state's rows. Returns what the sum is
 * to be divided by: that of the weights; of sums of values by what they are too large. */
static double weigh_row(const walk *w, const q_rows *r, int32_t i, float *q, float *score)
{
	const mzm_state *s = w->s;
	const mzm_config *cfg = &s->w->cfg;
	int32_t d = cfg->head_dim, seen = mzm_pass_position(s, (r->first + i) / group_of(w)) + 1 - r->base;
	float weight[MZM_KV_LAG + MZM_KV_STEP], power;
	float past = weigh(w, r->base, seen, r->slots, weight, &power);
	double den = 0;
	if (r->base) {
		const float *z = mzm_kv_sums(s->kv, w->layer, w->head, r->base) + (size_t)d * (size_t)d;
		den = (double)past * (double)s->kern->dot(q, z, d);
		for (int32_t c = 0; c < d; c++)
			q[c] *= past;
	}
	for (int32_t t = 0; t < seen; t++) {
		score[t] *= weight[t];
		den += (double)score[t];
	}
	memset(score + seen, 0, (size_t)(r->n_tok - seen) * sizeof *score);
	if (cfg->attn != MZM_ATTN_DIJIANG_PAPER)
		return 1;
	if (cfg->no_denominator) {
		double of_sum = (double)power + (double)s->dijiang.q_power[q_at(w, r, i) / (size_t)d];
		return exp2(-fmax(-MOST_POWER, fmin(of_sum, MOST_POWER)));
	}
	return den != 0 ? den : 1; /* its inverse may be too large for a float */
}

static void add_values(const walk *w, const q_rows *r, const char *q, size_t stride, const float *score, float *value)
{
	mzm_state *s = w->s;
	int32_t d = s->w->cfg.head_dim, units = mzm_accum_units(MZM_F32, d);
	mzm_accum_job job = {.dtype = MZM_F32, .n_cols = d, .stride = (size_t)d * sizeof(float), .n_pos = r->n,
			     .y = value, .ldy = (size_t)d,
			     .scratch = s->sums + (size_t)w->rank * (MZM_ACCUM_SCRATCH / sizeof(float))};
	memset(value, 0, (size_t)r->n * (size_t)d * sizeof *value);
	if (r->base) {
		job.w = mzm_kv_sums(s->kv, w->layer, w->head, r->base);
		job.n_rows = d;
		job.a = (const float *)(const void *)q;
		job.lda = stride / sizeof(float);
		s->kern->accum(&job, 0, units);
	}
	job.w = row_of(w, s->kv->v, r->slots ? w->at.first : r->base);
	job.stride = s->kv->row_bytes;
	job.rows = r->slots;
	job.n_rows = r->n_tok;
	job.a = score;
	job.lda = (size_t)s->walk;
	s->kern->accum(&job, 0, units);
}

/* Finite, as long as x is a number. */
static float limited(double x)
{
	x = x > MOST ? MOST : x;
	return (float)(x < -MOST ? -MOST : x);
}

static void attend(const walk *w, const q_rows *r)
{
	mzm_state *s = w->s;
	int32_t d = s->w->cfg.head_dim;
	size_t stride = mzm_pack_stride(s->kern, MZM_F32, d), ld = (size_t)s->walk;
	float *score = s->score + (size_t)w->rank * MZM_ATT_ROWS * ld;
	float *value = s->value + (size_t)w->rank * MZM_ATT_ROWS * (size_t)d;
	char *packed = s->packed + (size_t)w->rank * s->packed_len;
	double by[MZM_ATT_ROWS];
	for (int32_t i = 0; i < r->n; i++)
		s->kern->pack(packed + (size_t)i * stride, s->q + q_at(w, r, i), MZM_F32, d);
	mzm_rows_job job = {.dtype = MZM_F32, .w = row_of(w, s->kv->k, r->slots ? w->at.first : r->base),
			    .stride = s->kv->row_bytes, .rows = r->slots, .n_rows = r->n_tok, .n_cols = d, .x = packed,
			    .ldx = stride, .n_pos = r->n, .y = score, .ldy = ld};
	s->kern->rows(&job, 0, r->n_tok);
	for (int32_t i = 0; i < r->n; i++)
		by[i] = weigh_row(w, r, i, (float *)(void *)(packed + (size_t)i * stride), score + (size_t)i * ld);
	add_values(w, r, packed, stride, score, value);
	for (int32_t i = 0; i < r->n; i++) {
		float *to = s->att + q_at(w, r, i);
		for (int32_t c = 0; c < d; c++)
			to[c] = limited((double)value[(size_t)i * (size_t)d + (size_t)c] / by[i]);
	}
}

/* Positions p .. p + n - 1 of the pass, which see the same state. */
static void attend_block(const walk *w, int32_t p, int32_t n, int32_t base, const int32_t *slots)
{
	const mzm_config *cfg = &w->s->w->cfg;
	int32_t group = cfg->n_heads / cfg->n_kv_heads;
	for (int32_t i = 0; i < n * group && w->head >= 0; i += MZM_ATT_ROWS) {
		q_rows r = {.first = p * group + i, .base = base, .slots = slots};
		r.n = n * group - i < MZM_ATT_ROWS ? n * group - i : MZM_ATT_ROWS;
		r.n_tok = mzm_pass_position(w->s, (r.first + r.n - 1) / group) + 1 - base;
		attend(w, &r);
	}
}

static void walk_line(walk *w)
{
	int32_t n_pos = w->s->pass->n_pos, n;
	for (int32_t p = 0; p < n_pos; p += n) {
		int32_t tok = w->s->pos0 + p, base = mzm_kv_base(tok), end = base + MZM_KV_LAG + MZM_KV_STEP;
		n = end - tok < n_pos - p ? end - tok : n_pos - p;
		make_room(w, tok, tok + n);
		advance(w, base);
		append(w, p, tok, n);
		attend_block(w, p, n, base, NULL);
	}
}

/* The rows of the tokens from base on that node p of the pass sees, its own the last. */
static void list_path(const walk *w, int32_t p, int32_t base, int32_t *slots)
{
	const mzm_tree *tree = w->s->pass->tree;
	int32_t node = w->s->pos0 - tree->root + p, t = tree->root + tree->depth[node];
	for (; t >= base && t >= tree->root; t--, node = tree->parent[node])
		slots[t - base] = tree->root + node - w->at.first;
	for (; t >= base; t--)
		slots[t - base] = t - w->at.first;
}

/* Nodes see different tokens: each walks alone. */
static void walk_tree(walk *w)
{
	mzm_state *s = w->s;
	int32_t *slots = s->slots + (size_t)w->rank * (size_t)s->walk;
	for (int32_t p = 0; p < s->pass->n_pos; p++) {
		int32_t tok = s->pos0 + p, base = mzm_kv_base(mzm_pass_position(s, p));
		make_room(w, tok, tok + 1);
		advance(w, base);
		append(w, p, tok, 1);
		list_path(w, p, base, slots);
		attend_block(w, p, 1, base, slots);
	}
}

/* ---- group norm and gate ---- */

/* Channels in as many groups as a head has dimensions, each of neighbours, wherever the borders of heads are. */
static void normalise(float *x, const float *weight, const float *bias, int32_t n_groups, int32_t size)
{
	for (int32_t g = 0; g < n_groups; g++, x += size, weight += size, bias += size) {
		double sum = 0, squares = 0;
		for (int32_t i = 0; i < size; i++)
			sum += (double)x[i];
		double mean = sum / size;
		for (int32_t i = 0; i < size; i++)
			squares += ((double)x[i] - mean) * ((double)x[i] - mean);
		double by = 1 / sqrt(squares / size + GROUP_EPS);
		for (int32_t i = 0; i < size; i++)
			x[i] = (float)(((double)x[i] - mean) * by * (double)weight[i] + (double)bias[i]);
	}
}

static void gate(mzm_state *s, const mzm_layer *l, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t n = cfg->n_heads * cfg->head_dim, begin, end;
	mzm_team_range(s->pass->n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		float *att = s->att + (size_t)p * (size_t)n, *by = s->dijiang.gate + (size_t)p * (size_t)n;
		normalise(att, l->group_norm, l->group_norm_bias, cfg->head_dim, cfg->n_heads);
		s->kern->act(by, MZM_ACT_SILU, 0, n);
		s->kern->mul(att, by, n);
	}
	mzm_team_barrier(team, rank);
}

/* ---- the whole ---- */

void mzm_linear_attention(mzm_state *s, const mzm_layer *l, int32_t layer, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	void (*go)(walk *w) = s->pass->tree ? walk_tree : walk_line;
	const walk start = {.s = s, .l = l, .layer = layer, .head = -1, .at = s->kv->place[layer], .rank = rank};
	walk w = start;
	int32_t begin, end;
	share_features(s, l, s->q, s->dijiang.q_power, cfg->n_heads, l->q_norm, team, rank);
	share_features(s, l, s->k, s->dijiang.k_power, cfg->n_kv_heads, l->k_norm, team, rank);
	mzm_team_barrier(team, rank);
	mzm_team_range(cfg->n_kv_heads, 1, rank, mzm_team_size(team), &begin, &end);
	if (begin == end)
		go(&w);
	for (int32_t head = begin; head < end; head++) {
		w = start;
		w.head = head;
		go(&w);
	}
	mzm_team_barrier(team, rank);
	if (rank == 0)
		s->kv->place[layer] = w.at;
	if (l->wg.n_rows > 0)
		gate(s, l, team, rank);
}

void mzm_dijiang_layout(mzm_state *s, int n_ranks, mzm_carve *c)
{
	const mzm_config *cfg = &s->w->cfg;
	mzm_dijiang *dj = &s->dijiang;
	size_t d = (size_t)cfg->head_dim;
	if (!mzm_config_is_linear(cfg))
		return;
	dj->by_halves = mzm_dct_wins(cfg->head_dim);
	if (dj->by_halves) {
		mzm_dct_layout(&dj->dct, cfg->head_dim, c);
		dj->lanes = MZM_CARVE(c, double, (size_t)n_ranks * mzm_dct_scratch(cfg->head_dim));
	} else {
		dj->matrix = MZM_CARVE(c, float, d * d);
	}
	if (cfg->attn == MZM_ATTN_DIJIANG)
		dj->gate = MZM_CARVE(c, float, (size_t)s->max_pos * (size_t)cfg->n_heads * d);
	if (cfg->attn == MZM_ATTN_DIJIANG_PAPER) {
		dj->q_power = MZM_CARVE(c, float, (size_t)s->max_pos * (size_t)cfg->n_heads);
		dj->k_power = MZM_CARVE(c, float, (size_t)s->max_pos * (size_t)cfg->n_kv_heads);
	}
	dj->outer = MZM_CARVE(c, float, (size_t)n_ranks * d * MZM_KV_STEP);
}

void mzm_dijiang_fill(mzm_state *s)
{
	const mzm_config *cfg = &s->w->cfg;
	if (s->dijiang.by_halves)
		mzm_dct_fill(&s->dijiang.dct);
	else if (mzm_config_is_linear(cfg))
		mzm_dct_matrix(s->dijiang.matrix, cfg->head_dim, cfg->attn == MZM_ATTN_DIJIANG);
}
