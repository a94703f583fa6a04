/* draft_tree.h - a draft of several continuations at once: sparse beam search (Sirius, arXiv 2409.03856).
 *
 * Node 0 is the last verified token. Every step runs one sparse pass over the lines that are alive, each proposes its
 * likeliest tokens, and of all these the best lines stay, by the sum of log softmax(X / 0.6) since the root. A proposed
 * stop ends its line, which goes on competing; on the best line it ends the draft. The tree does not know the full
 * model: which of its paths stands is the driver's affair. */
#ifndef MZM_DRAFT_TREE_H
#define MZM_DRAFT_TREE_H

#include "decode/drafter.h"

#define MZM_TREE_NODES ((MZM_MAX_PERIOD - 1) * MZM_MAX_TREE_WIDTH + 1)

typedef struct mzm_draft_tree {
	int32_t      n;                        /* nodes; parents come before their children */
	int32_t      id[MZM_TREE_NODES];
	int32_t      parent[MZM_TREE_NODES];   /* of the root: -1 */
	int32_t      depth[MZM_TREE_NODES];    /* of the root: 0 */
	double       score[MZM_TREE_NODES];
	mzm_evidence evidence[MZM_TREE_NODES];
	float        confidence[MZM_TREE_NODES];
	bool         ends[MZM_TREE_NODES];     /* the text would stop there */
	int32_t      n_leaves;
	int32_t      leaf[MZM_MAX_TREE_WIDTH];      /* of the lines that are alive, the best first */
} mzm_draft_tree;

/* Grows a tree of lines of up to job->max draft tokens, job->width of them. As a drafter's propose, but that ids behind
 * the verified ones are scratch, and evidence and the like are in the tree. The KV must have room for its nodes. */
mzm_status mzm_draft_tree_grow(mzm_draft_tree *t, mzm_draft_job *job, mzm_err *err);

/* Drops what no line that is alive needs, and beyond `most` nodes the ends of the worst lines; of those the number is
 * returned. Nodes are renumbered; a line that was cut ends earlier. */
int32_t mzm_draft_tree_prune(mzm_draft_tree *t, int32_t most);

/* The nodes from the root to this one; [depth + 1]. */
void mzm_draft_tree_path(const mzm_draft_tree *t, int32_t node, int32_t *path);
/* The tokens of that path behind the root; [depth]. */
void mzm_draft_tree_tokens(const mzm_draft_tree *t, int32_t node, int32_t *ids);

#endif
