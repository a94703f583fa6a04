/* checked_lines.c - several drafters fill one check: each proposes a line behind the same verified token, lines that
 * begin alike share their nodes, and the longest path that stands is kept. Which drafter proposed a token does not
 * matter to the full model, so exact mode stays exact. */
#include "engine/generate_impl.h"

#include <string.h>

#include "decode/draft_tree.h"

mzm_status mzm_gen_prepare_lines(mzm_generation *g)
{
	if (g->n_drafters < 2 || mzm_draft_is_auto(g->p->draft))
		return MZM_OK;
	return mzm_alloc_for((void **)&g->lines, sizeof *g->lines, "the lines of drafts", g->err);
}

/* Nodes that there is room for in the check and in the context. */
static int32_t most_nodes(const mzm_generation *g)
{
	int32_t room = mzm_session_n_ctx(g->s) - (g->n - 1);
	return room < MZM_MAX_POS ? room : MZM_MAX_POS;
}

/* The node of this token behind another; a new one if there is none. -1: no room. */
static int32_t node_for(mzm_draft_tree *t, int32_t parent, int32_t id, int32_t most)
{
	for (int32_t c = parent + 1; c < t->n; c++) {
		if (t->parent[c] == parent && t->id[c] == id)
			return c;
	}
	if (t->n >= most)
		return -1;
	t->id[t->n] = id;
	t->parent[t->n] = parent;
	t->depth[t->n] = t->depth[parent] + 1;
	t->score[t->n] = -t->n; /* among paths that stand equally far, that of the earlier drafter */
	return t->n++;
}

/* Joins line i to the tree; what finds no room there is cut off. */
static void add_line(mzm_generation *g, int i, int32_t n_draft)
{
	mzm_draft_lines *lines = g->lines;
	mzm_draft_tree *t = g->tree;
	int32_t at = 0, k = 0;
	for (; k < n_draft; k++) {
		if (g->lossless && t->n >= most_nodes(g)) /* whatever the token is, see lossless.h */
			break;
		int32_t n_before = t->n, next = node_for(t, at, lines->id[i][k], most_nodes(g));
		if (next < 0)
			break;
		if (t->n > n_before) {
			t->evidence[next] = lines->evidence[i][k];
			t->confidence[next] = lines->confidence[i][k];
		}
		lines->node[i][k] = at = next;
	}
	g->r->n_cut += n_draft - k;
	g->r->n_nodes += n_draft;
	lines->len[i] = k;
	t->leaf[t->n_leaves++] = at;
}

/* The line of sparse passes, if they proposed before drafter i. Only then: in lossless sampling a guess may depend on
 * what was drawn for the tokens that are judged before it, not on others. */
static void look_at_sparse(const mzm_generation *g, int i, mzm_draft_job *job)
{
	while (--i >= 0) {
		if (g->drafter[i].d->ops == &mzm_draft_sparse) {
			job->sparse = g->lines->id[i];
			job->n_sparse = g->lines->len[i];
		}
	}
}

mzm_status mzm_gen_lines_round(mzm_generation *g, mzm_round *r)
{
	mzm_draft_lines *lines = g->lines;
	mzm_draft_tree *t = g->tree;
	t->n = 1;
	t->id[0] = g->s->ids[g->n - 1];
	t->parent[0] = -1;
	t->depth[0] = t->n_leaves = 0;
	t->score[0] = 0;
	lines->n = g->n_drafters;
	for (int i = 0; i < g->n_drafters; i++) {
		mzm_draft_job job = mzm_gen_draft_job(g, i);
		job.evidence = lines->evidence[i];
		job.confidence = lines->confidence[i];
		look_at_sparse(g, i, &job);
		MZM_TRY(mzm_gen_propose(g, i, &job));
		memcpy(lines->id[i], g->s->ids + g->n, (size_t)job.n_draft * sizeof *lines->id[i]);
		add_line(g, i, job.n_draft);
	}
	g->r->n_nodes++;
	g->r->n_live += t->n;
	return mzm_gen_check_tree(g, r);
}
