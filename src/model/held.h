/* held.h - some neurons of each layer in memory, for sparse passes of a model (or of its draft image) whose FFN has no
 * room there.
 *
 * Each layer has the same number of places. Which neurons have them is chosen by what the predictor wants; their rows
 * are copied as they stream by. After the prompt they all come from the file, so that a sparse pass has the bits of one
 * over the whole with the same list. Later, when checks show that others matter more, these come with the next dense
 * pass, which reads them anyway; where a draft image is held, its rows are made from the model's until the next prompt.
 * Of one session. */
#ifndef MZM_HELD_H
#define MZM_HELD_H

#include "model/weights.h"

/* The two matrices that stream apart, as bits. */
enum { MZM_HELD_GATE = 1, MZM_HELD_UPDOWN = 2 };

#define MZM_HELD_RANKS 8 /* that copy */

typedef struct mzm_held {
	int32_t    n_layers, n_ffn;
	int32_t    n;       /* places a layer */
	mzm_layer *layer;   /* [n_layers] gate, up and down: the places; no w: this layer is in memory whole */
	int32_t   *n_of;    /* [n_layers] neurons held */
	int32_t   *ids;     /* [n_layers, n] which, ascending */
	int32_t   *at;      /* [n_layers, n] their places */
	int32_t   *place;   /* [n_layers, n_ffn] of a neuron, or -1 */
	uint8_t   *missing; /* [n_layers, n] of a place: bits of what has not come yet */
	uint8_t   *taken;   /* [n] scratch */
	float     *wide;    /* [MZM_HELD_RANKS, dim] scratch */
	bool       mixed;   /* rows of a draft image may have been made from the model's */
	const mzm_kern *kern;
	void      *block;
} mzm_held;

/* Bytes for n places a layer, counted as if no layer were in memory. False: more than memory can be. */
bool       mzm_held_measure(uint64_t *bytes, const mzm_config *cfg, mzm_dtype gate, mzm_dtype updown, int32_t n);
/* of: [n_layers] whose neurons. -> mzm_held_free */
mzm_status mzm_held_create(mzm_held **out, const mzm_config *cfg, const mzm_layer *of, int32_t n, const mzm_kern *kern,
			   mzm_err *err);
void       mzm_held_free(mzm_held *h);

/* From now on the layer holds these: [n] ascending, n at most that of the places. Those that stay keep their place. */
void       mzm_held_choose(mzm_held *h, int32_t layer, const int32_t *ids, int32_t n);
/* Copies what is missing from rows row0 .. row1-1 of m, the gate or the up matrix (with down beside it) of the model or
 * the draft image, that has row 0 at base; a rank's share. Rows of another type are quantised. */
void       mzm_held_take(mzm_held *h, int32_t layer, int matrix, const mzm_matrix *m, int32_t row0, int32_t row1,
			 const char *base, int rank, int n_ranks);
bool       mzm_held_is_complete(const mzm_held *h);

#endif
