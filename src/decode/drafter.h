/* drafter.h - who proposes tokens for the full model to judge. A new idea is a new file.
 *
 * A drafter sees verified tokens only, appends its proposals behind them and may leave provisional
 * rows in the KV: the driver rolls them back. It may be wrong, slow or silent, never harmful. */
#ifndef MZM_DRAFTER_H
#define MZM_DRAFTER_H

#include "decode/monitor.h"
#include "model/forward.h"

typedef struct mzm_draft_job {
	mzm_state     *state;     /* KV holds rows for all verified tokens but the last */
	mzm_sampler   *sampler;
	mzm_predictor *predictor;
	mzm_monitor   *monitor;
	bool           image;     /* drafts read the model's draft image */
	bool           held;      /* drafts use the neurons that the state holds */
	bool           adaptive;  /* the monitor may end the draft; else only max does */
	float          check_below; /* a token of less confidence ends the draft, too; 0: none does */
	const uint8_t *classes;   /* [n_vocab] of tokens (token_class.h); NULL: not known */
	int32_t       *ids;       /* [n + max] verified tokens, then room for the draft */
	int32_t        n;
	int32_t        max;       /* draft tokens at most */
	bool         (*is_stop)(void *ctx, int32_t id); /* this token would end the text: check at once */
	void          *ctx;
	int32_t        n_vocab;
	int32_t        width;     /* lines of a tree (draft_tree.h) */
	/* Of a tree, in place of is_stop: the text would end with the last of these n draft tokens. */
	bool         (*line_stops)(void *ctx, const int32_t *ids, int32_t n);

	mzm_evidence  *evidence;  /* out: [max] */
	float         *confidence; /* out: [max] */
	int32_t        n_draft;   /* out */
	int32_t        n_passes;  /* out: sparse passes run */
	int32_t        n_positions; /* out: positions of those */
	double         ffn_share; /* out: sum over the passes of the share of FFN weights they read */
	double         node_share; /* out: the same, each pass weighted by its positions */
} mzm_draft_job;

typedef struct mzm_drafter {
	const char *name;
	mzm_status (*propose)(mzm_draft_job *job, mzm_err *err);
} mzm_drafter;

extern const mzm_drafter mzm_draft_sparse; /* the model itself on predicted neurons */

const mzm_drafter *mzm_drafter_find(const char *name); /* NULL: unknown */

#endif
