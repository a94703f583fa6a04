/* calibrate_skip.c - the search for the layers that drafts of --draft skip leave out (arXiv 2309.08168), by Bayesian
 * optimisation. Published searches time generations; here a set is judged by how often its passes agree with the dense
 * model on the calibration's texts, and by what they read: a function of model, texts and seed.
 *
 * Texts are read once by dense passes, whose keys and values are kept. A set is tried as drafts would use it: a block
 * of tokens behind rows of the dense model, with its own rows within the block. Blocks come from the last to the first,
 * so that each finds the rows before it as they were. Only those positions count where the dense model itself would
 * have written the text's next token: no draft of it would get elsewhere. */
#include "engine/calibrate_skip.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "decode/skip_set.h"
#include "engine/bayes.h"

#define BLOCK     16
#define LEAST     16 /* tokens before the first block */
#define MOST      768 /* positions of a kind, ... */
#define MOST_ROWS ((size_t)256 << 20) /* ... and bytes of keys and values in all */
#define N_RANDOM  8
#define FEW       0.125 /* of all positions: if fewer count, all do */

typedef struct piece {
	const mzm_window *w;
	size_t            at; /* of want and rows, in tokens */
} piece;

struct mzm_skip_judge {
	mzm_calibration *c;
	int32_t  n_layers, n_pieces;
	bool     image;    /* drafts read the draft image */
	size_t   per_token; /* bytes of keys and values */
	piece   *pieces;   /* [n_pieces] */
	int32_t *want;     /* [tokens] what the dense model says behind each; -1: it does not count */
	char    *rows;     /* [tokens] keys and values, piece by piece */
	uint64_t done, total; /* for the progress */
};

/* ---- pieces ---- */

static mzm_kv *kv_of(const mzm_skip_judge *j)
{
	return mzm_state_kv(j->c->session->state);
}

/* Windows of a kind, evenly as many as have `most` tokens; returns their tokens. */
static size_t take_windows(mzm_skip_judge *j, bool held_out, size_t at, double most)
{
	const mzm_calibration *c = j->c;
	double all = 0, seen = 0, taken = 0;
	for (int32_t i = 0; i < c->n_windows; i++)
		all += c->windows[i].held_out == held_out ? c->windows[i].n_tok : 0;
	for (int32_t i = 0; i < c->n_windows; i++) {
		const mzm_window *w = &c->windows[i];
		if (w->held_out != held_out)
			continue;
		seen += w->n_tok;
		if (w->n_tok <= LEAST || (all > most && taken + w->n_tok / 2.0 > seen * most / all))
			continue;
		j->pieces[j->n_pieces++] = (piece){w, at + (size_t)taken};
		taken += w->n_tok;
	}
	return (size_t)taken;
}

/* Copies the rows of a piece out of the KV, or back. */
static void copy_rows(mzm_skip_judge *j, const piece *p, bool back)
{
	mzm_kv *kv = kv_of(j);
	char *at = j->rows + p->at * j->per_token;
	size_t bytes = (size_t)p->w->n_tok * kv->row_bytes;
	for (int32_t i = 0; i < 2 * kv->n_layers * kv->n_kv_heads; i++, at += bytes) {
		int32_t layer = i / 2 / kv->n_kv_heads, head = i / 2 % kv->n_kv_heads;
		void *rows = i % 2 ? mzm_kv_v(kv, layer, head, 0) : mzm_kv_k(kv, layer, head, 0);
		memcpy(back ? rows : at, back ? at : rows, bytes);
	}
}

static int32_t likeliest(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

/* What the dense model says of a piece, and its rows. */
static mzm_status refer(mzm_skip_judge *j, const piece *p, mzm_err *err)
{
	const mzm_calibration *c = j->c;
	int32_t n_vocab = c->model->weights->cfg.n_vocab;
	mzm_session_truncate(c->session, 0);
	for (int32_t done = 0; done < p->w->n_tok;) {
		float *logits;
		int32_t left = p->w->n_tok - done, n = left < MZM_MAX_POS ? left : MZM_MAX_POS;
		mzm_pass pass = {.ids = c->ids + p->w->first + done, .n_pos = n, .n_rows = n};
		MZM_TRY(mzm_forward(c->session->state, &pass, &logits, NULL, err));
		for (int32_t i = 0; i < n; i++)
			j->want[p->at + (size_t)(done + i)] = likeliest(logits + (size_t)i * (size_t)n_vocab, n_vocab);
		done += n;
	}
	copy_rows(j, p, false);
	return MZM_OK;
}

/* Leaves out where the dense model would not have written this text, unless that is nearly everywhere. */
static void drop_strange(mzm_skip_judge *j)
{
	double all = 0, good = 0;
	for (int pass = 0; pass < 2 && (pass == 0 || good > FEW * all); pass++) {
		for (int32_t k = 0; k < j->n_pieces; k++) {
			const piece *p = &j->pieces[k];
			const int32_t *ids = j->c->ids + p->w->first;
			int32_t *want = j->want + p->at;
			for (int32_t i = 0; i + 1 < p->w->n_tok; i++) {
				all += pass == 0;
				good += pass == 0 && want[i] == ids[i + 1];
				if (pass == 1 && want[i] != ids[i + 1])
					want[i] = -1;
			}
		}
	}
}

static mzm_status read_pieces(mzm_skip_judge *j, mzm_err *err)
{
	const mzm_kv *kv = kv_of(j);
	size_t n, of_pieces, of_want, of_rows;
	j->per_token = 2 * (size_t)kv->n_layers * (size_t)kv->n_kv_heads * kv->row_bytes;
	double most = (double)(MOST_ROWS / 2 / j->per_token);
	most = most < MOST ? most : MOST;
	if (!mzm_mul_size((size_t)j->c->n_windows, sizeof *j->pieces, &of_pieces))
		return mzm_fail(err, MZM_EARG, "too many texts");
	MZM_TRY(mzm_alloc_for((void **)&j->pieces, of_pieces, "the pieces of the texts", err));
	n = take_windows(j, false, 0, most);
	n += take_windows(j, true, n, most);
	if (n < 2 * LEAST || !mzm_mul_size(n, sizeof *j->want, &of_want) || !mzm_mul_size(n, j->per_token, &of_rows))
		return mzm_fail(err, MZM_EARG,
				"the texts are too short to judge by them which layers drafts can do without");
	MZM_TRY(mzm_alloc_for((void **)&j->want, of_want, "the sample", err));
	MZM_TRY(mzm_alloc_for((void **)&j->rows, of_rows, "keys and values of the sample", err));
	for (int32_t i = 0; i < j->n_pieces; i++)
		MZM_TRY(refer(j, &j->pieces[i], err));
	drop_strange(j);
	return MZM_OK;
}

mzm_status mzm_skip_judge_create(mzm_skip_judge **out, mzm_calibration *c, mzm_err *err)
{
	mzm_skip_judge *j;
	*out = NULL;
	if (mzm_config_is_linear(&c->model->weights->cfg))
		return mzm_fail(err, MZM_EUNDEFINED,
				"the search for layers to skip goes back and forth in keys and values, of which linear "
				"attention keeps none");
	MZM_TRY(mzm_alloc_for((void **)&j, sizeof *j, "the search", err));
	*j = (mzm_skip_judge){.c = c, .n_layers = c->model->weights->cfg.n_layers};
	j->image = mzm_model_drafting(c->model, NULL, false).image;
	mzm_status st = read_pieces(j, err);
	if (st == MZM_OK)
		*out = j;
	else
		mzm_skip_judge_free(j);
	return st;
}

void mzm_skip_judge_free(mzm_skip_judge *j)
{
	if (!j)
		return;
	mzm_free(j->pieces);
	mzm_free(j->want);
	mzm_free(j->rows);
	mzm_free(j);
}

/* ---- scores ---- */

/* Adds the positions of a block that count, and those where the passes agree. */
static mzm_status try_block(mzm_skip_judge *j, const piece *p, int32_t first, const uint8_t *skip, double *n,
			    double *n_agree, mzm_err *err)
{
	float *logits;
	int32_t n_vocab = j->c->model->weights->cfg.n_vocab, left = p->w->n_tok - first;
	const int32_t *want = j->want + p->at + first;
	mzm_pass pass = {.ids = j->c->ids + p->w->first + first, .n_pos = left < BLOCK ? left : BLOCK,
			 .draft = j->image, .skip = skip};
	pass.n_rows = pass.n_pos;
	mzm_kv_truncate(kv_of(j), first);
	MZM_TRY(mzm_forward(j->c->session->state, &pass, &logits, NULL, err));
	for (int32_t i = 0; i < pass.n_pos; i++) {
		if (want[i] < 0)
			continue;
		++*n;
		*n_agree += likeliest(logits + (size_t)i * (size_t)n_vocab, n_vocab) == want[i];
	}
	return MZM_OK;
}

static mzm_status try_piece(mzm_skip_judge *j, const piece *p, const uint8_t *skip, double *n, double *n_agree,
			    mzm_err *err)
{
	mzm_session_truncate(j->c->session, 0);
	copy_rows(j, p, true);
	mzm_kv_skip(kv_of(j), p->w->n_tok);
	for (int32_t first = LEAST + (p->w->n_tok - 1 - LEAST) / BLOCK * BLOCK; first >= LEAST; first -= BLOCK)
		MZM_TRY(try_block(j, p, first, skip, n, n_agree, err));
	return MZM_OK;
}

mzm_status mzm_skip_judge_score(mzm_skip_judge *j, mzm_skip_score *out, const uint8_t *skip, bool held_out,
				mzm_err *err)
{
	double n = 0, n_agree = 0, share = mzm_state_skip_share(j->c->session->state, skip, j->image);
	mzm_costs costs;
	for (int32_t i = 0; i < j->n_pieces; i++) {
		if (j->pieces[i].w->held_out == held_out)
			MZM_TRY(try_piece(j, &j->pieces[i], skip, &n, &n_agree, err));
	}
	out->draft = mzm_model_read_density(j->c->model, share, j->image);
	out->agrees = (n_agree + 1) / (n + 2);
	costs.sparse = (float)out->draft;
	for (int m = 0; m <= MZM_MAX_PERIOD; m++)
		costs.check[m] = 1;
	out->rate = mzm_monitor_best_rate(&costs, out->agrees, &out->period);
	return MZM_OK;
}

/* ---- the search ---- */

static mzm_status try_set(mzm_skip_judge *j, mzm_bayes *b, const uint8_t *skip, mzm_err *err)
{
	mzm_skip_score score;
	if (j->done >= j->total || mzm_bayes_knows(b, skip))
		return MZM_OK;
	MZM_TRY(mzm_calibrate_tell(j->c, "trying layers to skip", j->done++, j->total, err));
	MZM_TRY(mzm_skip_judge_score(j, &score, skip, false, err));
	mzm_bayes_tell(b, skip, log(score.rate));
	return MZM_OK;
}

/* Where it begins: nothing; each sub-layer alone, if there are tries enough; every second attention, or FFN, but for
 * those of the first and the last layer; and some at random. */
static mzm_status try_first(mzm_skip_judge *j, mzm_bayes *b, uint8_t *skip, mzm_err *err)
{
	int32_t n = 2 * j->n_layers;
	memset(skip, 0, (size_t)n);
	MZM_TRY(try_set(j, b, skip, err));
	for (int32_t i = 0; i < n && (uint64_t)n <= j->total / 2; i++) {
		skip[i] = 1;
		MZM_TRY(try_set(j, b, skip, err));
		skip[i] = 0;
	}
	for (int ffn = 0; ffn < 2; ffn++) {
		memset(skip, 0, (size_t)n);
		for (int32_t l = 1; l + 1 < j->n_layers; l += 2)
			skip[2 * l + ffn] = 1;
		MZM_TRY(try_set(j, b, skip, err));
	}
	for (int k = 0; k < N_RANDOM; k++) {
		double share = 0.1 + 0.4 * mzm_rng_unit(j->c->params.seed, (uint64_t)k, (uint64_t)n);
		for (int32_t i = 0; i < n; i++)
			skip[i] = mzm_rng_unit(j->c->params.seed, (uint64_t)k, (uint64_t)i) < share;
		MZM_TRY(try_set(j, b, skip, err));
	}
	return MZM_OK;
}

mzm_status mzm_skip_judge_search(mzm_skip_judge *j, uint8_t *skip, int32_t n_tries, int32_t *n_tried, mzm_err *err)
{
	mzm_status st;
	mzm_bayes *b;
	bool found = true;
	double value;
	j->done = 0;
	j->total = (uint64_t)n_tries;
	MZM_TRY(mzm_bayes_create(&b, 2 * j->n_layers, n_tries, j->c->params.seed, j->c->session->team, err));
	MZM_TRY_OUT(try_first(j, b, skip, err));
	while (found && j->done < j->total) {
		MZM_TRY_OUT(mzm_bayes_ask(b, skip, &found, err));
		if (found)
			MZM_TRY_OUT(try_set(j, b, skip, err));
	}
	memcpy(skip, mzm_bayes_best(b, &value), 2 * (size_t)j->n_layers);
	*n_tried = (int32_t)j->done;
	st = MZM_OK;
out:
	mzm_bayes_free(b);
	return st;
}

/* ---- what the side-car gets ---- */

static int32_t tries_of(const mzm_calibration *c)
{
	int32_t n = 64 + 4 * c->model->weights->cfg.n_layers;
	return c->params.n_tries > 0 ? c->params.n_tries : n < MZM_MAX_TRIES ? n : MZM_MAX_TRIES;
}

uint64_t mzm_calibrate_skip_bytes(const mzm_calibration *c)
{
	const mzm_kv *kv = mzm_state_kv(c->session->state);
	size_t bytes = 2 * MOST * 2 * (size_t)kv->n_layers * (size_t)kv->n_kv_heads * kv->row_bytes;
	uint64_t n = (uint64_t)tries_of(c), search = n * n * sizeof(double);
	return (bytes < MOST_ROWS ? bytes : MOST_ROWS) + search;
}

static mzm_status describe(json_t **out, mzm_skip_judge *j, const uint8_t *skip, int32_t n_tried, bool *pays,
			   mzm_err *err)
{
	char text[2048];
	mzm_skip_score seen, held;
	MZM_TRY(mzm_skip_judge_score(j, &seen, skip, false, err));
	MZM_TRY(mzm_skip_judge_score(j, &held, skip, true, err));
	*pays = held.rate > 1 && held.period > 1;
	*out = json_pack("{s:s, s:b, s:i, s:f, s:f, s:f, s:i, s:f, s:f}", "set",
			 mzm_skip_print(text, sizeof text, skip, j->n_layers), "pays", *pays, "tried", (int)n_tried,
			 "draft", held.draft, "agrees", held.agrees, "rate", held.rate, "period", (int)held.period,
			 "train_agrees", seen.agrees, "train_rate", seen.rate);
	return *out ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "out of memory: the report");
}

mzm_status mzm_calibrate_skip(json_t **report, mzm_calibration *c, mzm_calib_writer *to, mzm_err *err)
{
	mzm_status st;
	mzm_skip_judge *j = NULL;
	uint8_t *skip = NULL;
	int32_t n = 2 * c->model->weights->cfg.n_layers, n_tried;
	int32_t n_tries = tries_of(c);
	bool pays;
	MZM_TRY_OUT(mzm_alloc_for((void **)&skip, (size_t)n, "the set of layers", err));
	MZM_TRY_OUT(mzm_skip_judge_create(&j, c, err));
	MZM_TRY_OUT(mzm_skip_judge_search(j, skip, n_tries, &n_tried, err));
	MZM_TRY_OUT(describe(report, j, skip, n_tried, &pays, err));
	if (!pays)
		memset(skip, 0, (size_t)n);
	st = mzm_skip_store(to, skip, n / 2, err);
out:
	mzm_skip_judge_free(j);
	mzm_free(skip);
	return st;
}
