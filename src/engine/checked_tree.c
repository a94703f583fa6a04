/* checked_tree.c - a draft that is a tree, or several lines joined to one, its check, and which of its paths is kept
 * (Sirius, arXiv 2409.03856).
 *
 * The check is one dense pass over the nodes that some living line needs. A node is judged by the logits of its parent,
 * as a token of a line is by those of the token before it; the full model's own token comes from the row of the last
 * node that stands. The rows of the path move side by side, and what follows is as for a line (checked.c). Near the end
 * of the context, and with linear attention, where a wide tree has no room for its rows, it is narrower. */
#include "engine/generate_impl.h"

#include <math.h>

#include "decode/draft_tree.h"

mzm_status mzm_gen_prepare_tree(mzm_generation *g)
{
	bool tests = g->s->always_tree && !g->lossless; /* which draws lines */
	bool lines = g->n_drafters > 1 && !mzm_draft_is_auto(g->p->draft);
	if (g->p->tree_width <= 1 && !tests && !lines)
		return MZM_OK;
	return mzm_alloc_for((void **)&g->tree, sizeof *g->tree, "the tree of drafts", g->err);
}

static bool line_stops(void *ctx, const int32_t *ids, int32_t n)
{
	mzm_generation *g = ctx;
	mzm_verdict v = MZM_GO_ON;
	mzm_output_probe(g->probe, g->out);
	for (int32_t i = 0; i < n && v == MZM_GO_ON; i++)
		v = mzm_output_push(g->probe, ids[i]);
	return v != MZM_GO_ON;
}

/* As wide as was asked for, as there is room for behind the root, and as there are tokens. */
static int32_t width_for(const mzm_generation *g, int32_t depth)
{
	int32_t room = mzm_kv_room(g->kv, g->n), n_vocab = g->s->model->weights->cfg.n_vocab;
	int32_t width = g->p->tree_width > 1 ? g->p->tree_width : 1;
	if (depth > 0 && width > room / depth)
		width = room / depth;
	return width < n_vocab ? width : n_vocab;
}

static mzm_status grow(mzm_generation *g)
{
	mzm_draft_job job = mzm_gen_draft_job(g, 0);
	job.width = width_for(g, job.max);
	job.line_stops = line_stops;
	job.ctx = g;
	MZM_TRY(mzm_draft_tree_grow(g->tree, &job, g->err));
	mzm_gen_count_draft(g, &job);
	int32_t n_grown = g->tree->n, n_cut = mzm_draft_tree_prune(g->tree, MZM_MAX_POS);
	g->r->n_nodes += n_grown;
	g->r->n_live += g->tree->n;
	g->r->n_cut += n_cut;
	g->r->n_dead += n_grown - g->tree->n - n_cut;
	return MZM_OK;
}

/* ---- which path ---- */

/* A checked tree as the full model sees it. */
typedef struct verdicts {
	mzm_generation       *g;
	const mzm_draft_tree *t;
	const float          *rows;                /* [t->n, n_vocab] */
	int32_t               choice[MZM_MAX_POS]; /* the full model's token behind a node */
	bool                  stands[MZM_MAX_POS]; /* the node behind its parent */
	bool                  reached[MZM_MAX_POS]; /* it does, and so do all before it; of lossless sampling, which
						     * judges no others: it is on the path */
	double                log_p[MZM_MAX_POS];  /* of its line, by the full model */
} verdicts;

static const float *row_of(const verdicts *v, int32_t node)
{
	mzm_session *s = v->g->s;
	size_t n_vocab = (size_t)s->model->weights->cfg.n_vocab;
	mzm_draft_tree_tokens(v->t, node, s->ids + v->g->n);
	return mzm_sampler_process(s->sampler, v->rows + (size_t)node * n_vocab, s->ids, v->g->n + v->t->depth[node]);
}

/* The rule for a node: that of the drafter whose line it is in; of several the loosest, which the sparse one has. */
static const mzm_verifier *rule_of(const verdicts *v, int32_t node)
{
	const mzm_draft_lines *lines = v->g->lines;
	const mzm_verifier *rule = mzm_gen_verifier(v->g, 0);
	for (int32_t i = 0; lines && i < lines->n; i++) {
		for (int32_t k = 0; k < lines->len[i]; k++) {
			if (lines->node[i][k] == node && (rule = mzm_gen_verifier(v->g, i)) != &mzm_verify_exact)
				return rule;
		}
	}
	return rule;
}

/* Chooses behind a node and judges its children. */
static void judge_node(verdicts *v, int32_t node, bool likelihood)
{
	mzm_generation *g = v->g;
	const float *logits = row_of(v, node);
	int32_t pos = g->n + v->t->depth[node];
	v->choice[node] = mzm_sampler_choose(g->s->sampler, logits, pos);
	for (int32_t c = node + 1; c < v->t->n; c++) {
		if (v->t->parent[c] != node)
			continue;
		int32_t id = v->t->id[c];
		v->stands[c] = mzm_gen_stands(g, rule_of(v, c), logits, id, v->choice[node], pos);
		v->reached[c] = v->reached[node] && v->stands[c];
		float p = likelihood ? mzm_sampler_prob(g->s->sampler, logits, id, g->p->check_temp, NULL, NULL) : 1;
		v->log_p[c] = v->log_p[node] + log((double)p);
	}
}

/* The best line that goes through a node. */
static int32_t line_through(const mzm_draft_tree *t, int32_t node)
{
	for (int32_t i = 0; i < t->n_leaves; i++) {
		int32_t at = t->leaf[i];
		while (t->depth[at] > t->depth[node])
			at = t->parent[at];
		if (at == node)
			return t->leaf[i];
	}
	return node;
}

/* The node that most tokens lead to; of several the one that the draft model found likeliest. */
static int32_t longest(const verdicts *v, int32_t *leaf)
{
	const mzm_draft_tree *t = v->t;
	int32_t best = 0;
	for (int32_t i = 1; i < t->n; i++) {
		bool longer = t->depth[i] > t->depth[best];
		if (v->reached[i] && (longer || (t->depth[i] == t->depth[best] && t->score[i] > t->score[best])))
			best = i;
	}
	*leaf = line_through(t, best);
	return best;
}

/* As much as stands of the line that the full model finds likeliest, by the token, as lines differ in length. */
static int32_t likeliest(const verdicts *v, int32_t *leaf)
{
	const mzm_draft_tree *t = v->t;
	double best = -INFINITY;
	*leaf = t->leaf[0];
	for (int32_t i = 0; i < t->n_leaves; i++) {
		int32_t at = t->leaf[i];
		double mean = v->log_p[at] / (t->depth[at] > 0 ? t->depth[at] : 1);
		if (mean > best) {
			best = mean;
			*leaf = at;
		}
	}
	int32_t node = *leaf;
	while (!v->reached[node])
		node = t->parent[node];
	return node;
}

static int32_t child_with(const mzm_draft_tree *t, int32_t node, int32_t id)
{
	for (int32_t c = node + 1; c < t->n; c++) {
		if (t->parent[c] == node && t->id[c] == id)
			return c;
	}
	return -1;
}

/* Along the best line; where a token does not stand, on with the line that has the full model's own token there. */
static int32_t jump(const verdicts *v, int32_t *leaf)
{
	const mzm_draft_tree *t = v->t;
	int32_t node = 0, path[MZM_MAX_PERIOD];
	*leaf = t->leaf[0];
	mzm_draft_tree_path(t, *leaf, path);
	while (node != *leaf) {
		int32_t next = path[t->depth[node] + 1];
		if (!v->stands[next]) {
			next = child_with(t, node, v->choice[node]);
			if (next < 0)
				break;
			*leaf = line_through(t, next);
			mzm_draft_tree_path(t, *leaf, path);
		}
		node = next;
	}
	return node;
}

/* Lossless sampling (decode/lossless.h): at a node the lines that pass there propose its next token in turn. The child
 * that stands, and the lines that pass there; -1: none does, and the node's choice is the token drawn instead. */
static int32_t judge_place(verdicts *v, int32_t node, unsigned *passing)
{
	mzm_generation *g = v->g;
	const mzm_draft_lines *lines = g->lines;
	int32_t k = v->t->depth[node], next = -1;
	bool bonus = true;
	mzm_gen_lossless_begin(g, row_of(v, node));
	for (int i = 0; i < lines->n && next < 0; i++) {
		if (!(*passing & 1u << i) || k == lines->len[i])
			continue;
		bonus = false;
		if (mzm_gen_lossless_stands(g, i, k, lines->id[i][k]))
			next = lines->node[i][k];
	}
	if (next < 0)
		v->choice[node] = mzm_gen_lossless_draw(g, k, bonus);
	for (int i = 0; i < lines->n; i++) {
		if (k >= lines->len[i] || lines->node[i][k] != next)
			*passing &= ~(1u << i);
	}
	return next;
}

/* The path that this draws. Behind its nodes but the last, and behind others, choices are the likeliest tokens. */
static int32_t draw_path(verdicts *v, int32_t *leaf)
{
	mzm_generation *g = v->g;
	unsigned passing = (1u << g->lines->n) - 1;
	int32_t node = 0;
	for (int32_t i = 0; g->choice && i < v->t->n; i++)
		v->choice[i] = mzm_sampler_likeliest(g->s->sampler, row_of(v, i));
	for (int32_t next = 0; next >= 0; next = judge_place(v, node, &passing)) {
		node = next;
		v->reached[node] = true;
	}
	*leaf = line_through(v->t, node);
	return node;
}

/* The last node that stands, on the line to *leaf. In exact mode there is one line at most that stands. */
static int32_t choose_path(verdicts *v, int32_t *leaf)
{
	bool longest_is = v->g->p->mode != MZM_MODE_SIRIUS || v->g->lines;
	mzm_tree_path by = longest_is ? MZM_TREE_LONGEST : v->g->p->tree_path;
	v->reached[0] = true;
	v->log_p[0] = 0;
	if (v->g->lossless)
		return draw_path(v, leaf);
	for (int32_t i = 0; i < v->t->n; i++) {
		if (by != MZM_TREE_LONGEST || v->reached[i] || v->g->choice) /* below one not reached, none is */
			judge_node(v, i, by == MZM_TREE_LIKELIEST);
	}
	if (by == MZM_TREE_JUMP)
		return jump(v, leaf);
	return by == MZM_TREE_LIKELIEST ? likeliest(v, leaf) : longest(v, leaf);
}

/* The path as a line is left behind: its tokens, what is known about them, the rows of those that stand. */
static void take_path(verdicts *v, int32_t leaf, const mzm_round *r)
{
	mzm_generation *g = v->g;
	const mzm_draft_tree *t = v->t;
	int32_t path[MZM_MAX_PERIOD], rows[MZM_MAX_PERIOD];
	mzm_draft_tree_path(t, leaf, path);
	for (int32_t i = 0; i <= r->n_kept; i++) {
		const float *logits = row_of(v, path[i]);
		if (i < r->n_draft)
			g->full_prob[i] = mzm_gen_traced_prob(g, logits, t->id[path[i + 1]]);
		if (i == r->n_kept)
			g->next_prob = mzm_gen_traced_prob(g, logits, r->next);
		rows[i] = g->n - 1 + path[i];
	}
	for (int32_t i = 0; i < r->n_draft; i++) {
		g->evidence[i] = t->evidence[path[i + 1]];
		g->confidence[i] = t->confidence[path[i + 1]];
	}
	mzm_draft_tree_tokens(t, leaf, g->s->ids + g->n);
	mzm_kv_gather(g->kv, g->n - 1, rows, r->n_kept + 1);
}

/* From the best line, which the monitor looks at while the tree grows, whatever line was kept. */
static void learn(verdicts *v, const mzm_round *r)
{
	const mzm_draft_tree *t = v->t;
	int32_t path[MZM_MAX_PERIOD], n = t->depth[t->leaf[0]], n_stand = 0;
	mzm_evidence evidence[MZM_MAX_PERIOD];
	mzm_draft_tree_path(t, t->leaf[0], path);
	for (int32_t i = 0; i < n; i++) {
		evidence[i] = t->evidence[path[i + 1]];
		n_stand += v->reached[path[i + 1]];
	}
	mzm_gen_learn_line(v->g, 0, evidence, n, n_stand, r->n_kept + 1, t->n);
}

/* The same from every line of several drafters, and what they want to know. */
static void learn_lines(verdicts *v, const mzm_round *r)
{
	mzm_generation *g = v->g;
	mzm_draft_lines *lines = g->lines;
	for (int i = 0; i < lines->n; i++) {
		int32_t n = 0;
		while (n < lines->len[i] && v->reached[lines->node[i][n]])
			n++;
		lines->kept[i] = n;
		mzm_gen_learn_line(g, i, lines->evidence[i], lines->len[i], n, r->n_kept + 1, v->t->n);
		if (!g->drafter[i].d->ops->wants_choices)
			continue;
		g->choice[0] = v->choice[0];
		for (int32_t k = 0; k < lines->len[i]; k++)
			g->choice[k + 1] = v->choice[lines->node[i][k]];
	}
}

mzm_status mzm_gen_check_tree(mzm_generation *g, mzm_round *r)
{
	verdicts v = {.g = g, .t = g->tree};
	float *rows;
	int32_t leaf;
	mzm_tree tree = {.root = g->n - 1, .parent = v.t->parent, .depth = v.t->depth};
	mzm_pass pass = {.ids = v.t->id, .n_pos = v.t->n, .n_rows = v.t->n, .tree = &tree};
	mzm_kv_truncate(g->kv, tree.root);
	MZM_TRY(mzm_gen_check(g, &pass, &rows));
	v.rows = rows;
	int32_t node = choose_path(&v, &leaf);
	*r = (mzm_round){v.t->depth[leaf], v.t->depth[node], v.choice[node], -1};
	if (g->lines)
		learn_lines(&v, r);
	else
		learn(&v, r);
	take_path(&v, leaf, r);
	return MZM_OK;
}

mzm_status mzm_gen_tree_round(mzm_generation *g, mzm_round *r)
{
	MZM_TRY(grow(g));
	return mzm_gen_check_tree(g, r);
}
