/* synth.c - mzm_synth: containers for measuring speed, of random weights or of an inflated model.
 *
 * What the weights are is the business of format/synth.c and format/inflate.c; how a source becomes a container,
 * that of import.c. Here is the choice between the two kinds, and its checks. */
#include <string.h>

#include "engine/import.h"
#include "format/inflate.h"
#include "format/synth.h"

const char *mzm_synth_arch_name(int i)
{
	return mzm_synth_arch(i, NULL);
}

uint64_t mzm_synth_arch_params(int i)
{
	mzm_config cfg;
	return mzm_synth_arch(i, &cfg) ? mzm_config_n_params(&cfg) : 0;
}

mzm_synth_params mzm_synth_params_default(void)
{
	return (mzm_synth_params){.import = mzm_import_params_default()};
}

static mzm_status check_params(const mzm_synth_params *p, mzm_err *err)
{
	if (!p->arch == !p->inflate)
		return mzm_fail(err, MZM_EARG, "wanted either an architecture or a model to inflate");
	if (p->arch && p->factor)
		return mzm_fail(err, MZM_EARG, "random weights cannot be inflated; choose a larger architecture");
	if (p->inflate && p->n_layers)
		return mzm_fail(err, MZM_EARG, "an inflated model has the layers of its source");
	return MZM_OK;
}

static mzm_status open_inflated(mzm_source **out, const mzm_synth_params *p, mzm_err *err)
{
	mzm_source *inner;
	MZM_TRY(mzm_source_open(&inner, p->inflate, err));
	mzm_status st = mzm_source_open_inflated(out, inner, p->factor, p->seed, err);
	if (st != MZM_OK)
		mzm_source_close(inner);
	return st;
}

mzm_status mzm_synth(const char *out_path, const mzm_synth_params *params, mzm_err *err)
{
	mzm_source *src;
	if (!out_path || !params)
		return mzm_fail(err, MZM_EARG, "synth needs a target and its parameters");
	MZM_TRY(check_params(params, err));
	MZM_TRY(params->arch ? mzm_source_open_synth(&src, params->arch, params->n_layers, params->seed, err)
			     : open_inflated(&src, params, err));
	mzm_status st = mzm_import_source(src, out_path, &params->import, err);
	mzm_source_close(src);
	return st;
}
