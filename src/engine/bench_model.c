/* bench_model.c - a model of random weights for a benchmark, made in memory; see format/synth.h for the weights. */
#include <stdio.h>

#include "engine/engine.h"
#include "format/synth.h"

mzm_status mzm_model_open_synth(mzm_model **out, const char *arch, int32_t n_layers, uint64_t seed,
				const mzm_model_params *params, mzm_err *err)
{
	char name[96];
	mzm_source *src;
	*out = NULL;
	MZM_TRY(mzm_source_open_synth(&src, arch, n_layers, seed, err));
	if (n_layers > 0)
		snprintf(name, sizeof name, "%.64s, %d layers", arch, n_layers);
	else
		snprintf(name, sizeof name, "%.64s", arch);
	return mzm_model_open_source(out, src, name, params, err);
}
