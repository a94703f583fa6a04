/* gguf_merges.h - the merges that a SentencePiece vocabulary with scores stands for. */
#ifndef MZM_GGUF_MERGES_H
#define MZM_GGUF_MERGES_H

#include "base/json.h"
#include "format/gguf.h"

typedef struct mzm_gguf_piece {
	mzm_gguf_text text; /* valid UTF-8, not empty, no blank */
	int32_t       id;
	float         score;
} mzm_gguf_piece;

/* Adds "merges" and "ranks" to the model: all cuts of one of pieces [n], all different, into two others, best score
 * first; those of equal score have the same rank, so that the leftmost of them is merged first. */
mzm_status mzm_gguf_merges(json_t *model, const mzm_gguf_piece *pieces, size_t n, mzm_err *err);

#endif
