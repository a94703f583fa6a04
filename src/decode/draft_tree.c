/* draft_tree.c - see draft_tree.h. */
#include "decode/draft_tree.h"

#include <math.h>

#define SCORE_TEMP 0.6f

/* A line as a step would go on with it: a new token behind a node, or one that has ended and stays. */
typedef struct candidate {
	double  score;
	int32_t node;     /* -1: new */
	int32_t parent, id;
} candidate;

typedef struct step {
	mzm_draft_job  *job;
	mzm_draft_tree *t;
	const float    *logits;     /* [n_active, n_vocab] */
	int32_t         first;      /* of the active nodes, which come one after the other */
	int32_t         n_active;
	int32_t         n;          /* candidates, those of better lines first */
	candidate       candidate[MZM_MAX_TREE_WIDTH * MZM_MAX_TREE_WIDTH];
} step;

void mzm_draft_tree_path(const mzm_draft_tree *t, int32_t node, int32_t *path)
{
	for (; node >= 0; node = t->parent[node])
		path[t->depth[node]] = node;
}

void mzm_draft_tree_tokens(const mzm_draft_tree *t, int32_t node, int32_t *ids)
{
	for (; node > 0; node = t->parent[node])
		ids[t->depth[node] - 1] = t->id[node];
}

/* What the draft model said behind an active node. */
static const float *row_of(step *s, int32_t node)
{
	mzm_draft_job *job = s->job;
	mzm_draft_tree_tokens(s->t, node, job->ids + job->n);
	return mzm_sampler_process(job->sampler, s->logits + (size_t)(node - s->first) * (size_t)job->n_vocab, job->ids,
				   job->n + s->t->depth[node]);
}

/* The n largest logits, the largest first; ties go to the lower id. */
static void largest(int32_t *ids, int32_t n, const float *x, int32_t n_vocab)
{
	int32_t found = 0;
	for (int32_t id = 0; id < n_vocab; id++) {
		if (found == n && !(x[id] > x[ids[n - 1]]))
			continue;
		int32_t at = found < n ? found++ : n - 1;
		for (; at > 0 && x[id] > x[ids[at - 1]]; at--)
			ids[at] = ids[at - 1];
		ids[at] = id;
	}
}

/* The likeliest tokens behind an active node. */
static void expand(step *s, int32_t node)
{
	int32_t ids[MZM_MAX_TREE_WIDTH];
	float best;
	const float *x = row_of(s, node);
	largest(ids, s->job->width, x, s->job->n_vocab);
	(void)mzm_sampler_prob(s->job->sampler, x, ids[0], SCORE_TEMP, &best, NULL);
	for (int32_t i = 0; i < s->job->width; i++) {
		double log_p = (double)((x[ids[i]] - x[ids[0]]) / SCORE_TEMP) + log((double)best);
		s->candidate[s->n++] = (candidate){s->t->score[node] + log_p, -1, node, ids[i]};
	}
}

/* Takes the best of the candidates that are left; among equals the first. */
static candidate take_best(step *s)
{
	int32_t best = 0;
	for (int32_t i = 1; i < s->n; i++) {
		if (s->candidate[i].score > s->candidate[best].score)
			best = i;
	}
	candidate c = s->candidate[best];
	for (int32_t i = best + 1; i < s->n; i++)
		s->candidate[i - 1] = s->candidate[i];
	s->n--;
	return c;
}

static uint8_t class_of(const mzm_draft_job *job, int32_t id)
{
	return job->classes ? job->classes[id] : 0;
}

/* Whether the text would stop with this token. */
static bool ends(step *s, const candidate *c)
{
	mzm_draft_job *job = s->job;
	int32_t depth = s->t->depth[c->parent] + 1;
	mzm_draft_tree_tokens(s->t, c->parent, job->ids + job->n);
	job->ids[job->n + depth - 1] = c->id;
	return job->line_stops(job->ctx, job->ids + job->n, depth);
}

static int32_t add_node(step *s, const candidate *c, bool last)
{
	mzm_draft_tree *t = s->t;
	int32_t node = t->n++;
	t->id[node] = c->id;
	t->parent[node] = c->parent;
	t->depth[node] = t->depth[c->parent] + 1;
	t->score[node] = c->score;
	t->ends[node] = last;
	t->evidence[node] = (mzm_evidence){
		mzm_sampler_certainty(s->job->sampler, row_of(s, c->parent), c->id), class_of(s->job, c->id),
		class_of(s->job, t->id[c->parent])};
	t->confidence[node] = mzm_monitor_confidence(s->job->monitor, &t->evidence[node]);
	return node;
}

/* From the candidates to the lines of the next step. New nodes that go on come first, so that the rows of the next pass
 * lie together. */
static void survive(step *s)
{
	mzm_draft_tree *t = s->t;
	candidate best[MZM_MAX_TREE_WIDTH];
	bool last[MZM_MAX_TREE_WIDTH];
	t->n_leaves = s->n < s->job->width ? s->n : s->job->width;
	for (int32_t i = 0; i < t->n_leaves; i++) {
		best[i] = take_best(s);
		last[i] = best[i].node >= 0 || ends(s, &best[i]);
	}
	int32_t first = t->n, n_active = 0;
	for (int32_t i = 0; i < t->n_leaves; i++) {
		t->leaf[i] = best[i].node;
		if (!last[i])
			t->leaf[i] = add_node(s, &best[i], false);
		n_active += !last[i];
	}
	for (int32_t i = 0; i < t->n_leaves; i++) {
		if (last[i] && best[i].node < 0)
			t->leaf[i] = add_node(s, &best[i], true);
	}
	s->first = first;
	s->n_active = n_active;
}

/* A sparse pass over the active nodes. */
static mzm_status run_pass(step *s, mzm_err *err)
{
	mzm_draft_job *job = s->job;
	mzm_kv *kv = mzm_state_kv(job->state);
	mzm_tree tree = {.root = job->n - 1, .parent = s->t->parent, .depth = s->t->depth};
	mzm_pass pass = {.ids = s->t->id + s->first, .n_pos = s->n_active, .n_rows = s->n_active, .tree = &tree,
			 .sparse = job->predictor, .draft = job->image, .held = job->held};
	float *logits;
	double share;
	mzm_kv_skip(kv, tree.root + s->first - kv->len); /* over nodes that ended: nobody looks at their rows */
	MZM_TRY(mzm_forward(job->state, &pass, &logits, &share, err));
	double extra = job->predictor->ops->score ? (s->n_active - 1) * mzm_state_cost_share(job->state, job->predictor,
											     job->image)
						  : 0;
	s->logits = logits;
	job->n_passes++;
	job->n_positions += s->n_active;
	job->ffn_share += share;
	job->node_share += s->n_active * (share - extra); /* each position has its own guess already */
	return MZM_OK;
}

static mzm_status grow_once(step *s, mzm_err *err)
{
	mzm_draft_tree *t = s->t;
	MZM_TRY(run_pass(s, err));
	s->n = 0;
	for (int32_t i = 0; i < t->n_leaves; i++) {
		int32_t node = t->leaf[i];
		if (t->ends[node])
			s->candidate[s->n++] = (candidate){t->score[node], node, t->parent[node], t->id[node]};
		else
			expand(s, node);
	}
	survive(s);
	return MZM_OK;
}

mzm_status mzm_draft_tree_grow(mzm_draft_tree *t, mzm_draft_job *job, mzm_err *err)
{
	step s = {.job = job, .t = t, .n_active = 1};
	bool worth = mzm_monitor_begin(job->monitor);
	int32_t max = worth || !job->adaptive ? job->max : 0;
	t->n = t->n_leaves = 1;
	t->leaf[0] = t->depth[0] = 0;
	t->id[0] = job->ids[job->n - 1];
	t->parent[0] = -1;
	t->score[0] = 0;
	t->ends[0] = false;
	for (int32_t depth = 0; depth < max; depth++) {
		MZM_TRY(grow_once(&s, err));
		float confidence = t->confidence[t->leaf[0]];
		bool check = mzm_monitor_push(job->monitor, confidence);
		if (t->ends[t->leaf[0]] || (job->adaptive && check) || confidence < job->check_below)
			break;
	}
	return MZM_OK;
}

/* ---- what goes into a check ---- */

/* Marks the path to a node, from the root on, as far as there is room for more nodes. Returns its last one. */
static int32_t mark(const mzm_draft_tree *t, int32_t node, bool *live, int32_t *room)
{
	int32_t path[MZM_MAX_PERIOD], last = 0;
	mzm_draft_tree_path(t, node, path);
	for (int32_t d = 0; d <= t->depth[node]; d++) {
		if (!live[path[d]] && *room == 0)
			break;
		*room -= !live[path[d]];
		live[path[d]] = true;
		last = path[d];
	}
	return last;
}

static void move_node(mzm_draft_tree *t, int32_t to, int32_t from, const int32_t *number)
{
	t->id[to] = t->id[from];
	t->parent[to] = from > 0 ? number[t->parent[from]] : -1;
	t->depth[to] = t->depth[from];
	t->score[to] = t->score[from];
	t->evidence[to] = t->evidence[from];
	t->confidence[to] = t->confidence[from];
	t->ends[to] = t->ends[from];
}

int32_t mzm_draft_tree_prune(mzm_draft_tree *t, int32_t most)
{
	bool needed[MZM_TREE_NODES] = {false}, live[MZM_TREE_NODES] = {false};
	int32_t number[MZM_TREE_NODES], all = t->n, room = most, n = 0;
	for (int32_t i = 0; i < t->n_leaves; i++) {
		mark(t, t->leaf[i], needed, &all);
		t->leaf[i] = mark(t, t->leaf[i], live, &room);
	}
	for (int32_t i = 0; i < t->n; i++) {
		if (!live[i])
			continue;
		number[i] = n;
		move_node(t, n++, i, number);
	}
	for (int32_t i = 0; i < t->n_leaves; i++)
		t->leaf[i] = number[t->leaf[i]];
	int32_t n_needed = t->n - all;
	t->n = n;
	return n_needed - n;
}
