/* synth.h - a source of random weights in the shape of a known model, for measuring speed without a file.
 *
 * Weights are bf16, normal up to 3.6 standard deviations, and scaled so that activations stay of order one through
 * all layers: 1/sqrt(columns), the two projections back into the residual stream smaller by sqrt(2 layers); norms
 * are ones. Every row is a function of (seed, tensor, row) alone. A model cut to fewer layers has the weights of the
 * whole one's first layers. There is no tokenizer: such a model continues ids. */
#ifndef MZM_SYNTH_H
#define MZM_SYNTH_H

#include "format/source.h"

/* The i-th shape known: its name, and its configuration unless cfg is NULL. NULL past the last. Biases, which the
 * engine does not have, are left out (the qwen2.5 shapes). */
const char *mzm_synth_arch(int i, mzm_config *cfg);

/* n_layers: only the first; 0 = all. EARG for a shape that is not known. -> mzm_source_close */
mzm_status mzm_source_open_synth(mzm_source **out, const char *arch, int32_t n_layers, uint64_t seed, mzm_err *err);
/* Threads that make a tensor; 0: the cores this process may use, as after opening. */
void mzm_synth_set_threads(mzm_source *src, int n_threads);

#endif
