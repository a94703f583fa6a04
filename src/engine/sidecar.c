/* sidecar.c - see sidecar.h. */
#include "engine/sidecar.h"

#include <string.h>

#include "base/io.h"
#include "base/str.h"

#define EXTENSION ".mzc"
#define IN_FOLDER "mirzam.mzc"

/* "dir/model.mzm" -> "dir/model.mzc"; "dir" -> "dir/mirzam.mzc" */
mzm_status mzm_calibration_path(char **path, const char *model_path, mzm_err *err)
{
	mzm_str text = {0};
	const char *name = strrchr(model_path, '/');
	name = name ? name + 1 : model_path;
	const char *end = strrchr(name, '.');
	*path = NULL;
	if (mzm_path_is_dir(model_path)) {
		mzm_str_path(&text, model_path, IN_FOLDER);
	} else {
		mzm_str_add(&text, model_path, end && end > name ? (size_t)(end - model_path) : strlen(model_path));
		mzm_str_puts(&text, EXTENSION);
	}
	if (text.failed) {
		mzm_str_free(&text);
		return mzm_fail(err, MZM_ENOMEM, "out of memory: a path");
	}
	*path = text.data;
	return MZM_OK;
}

/* *path NULL: none is wanted, or there is none. */
static mzm_status wanted(char **path, const char *model_path, const mzm_model_params *params, mzm_err *err)
{
	*path = NULL;
	if (params->calib && strcmp(params->calib, "off") == 0)
		return MZM_OK;
	if (params->calib) {
		*path = mzm_strdup(params->calib);
		return *path ? MZM_OK : mzm_fail(err, MZM_ENOMEM, "out of memory: a path");
	}
	MZM_TRY(mzm_calibration_path(path, model_path, err));
	if (!mzm_path_exists(*path)) {
		mzm_free(*path);
		*path = NULL;
	}
	return MZM_OK;
}

mzm_status mzm_sidecar_open(mzm_calib **out, const char *model_path, const char *hash, const mzm_model_params *params,
			    mzm_err *err)
{
	mzm_status st;
	char *path;
	mzm_err why = {0};
	*out = NULL;
	MZM_TRY(wanted(&path, model_path, params, err));
	if (!path)
		return MZM_OK;
	st = mzm_calib_open(out, path, hash, &why);
	if (st != MZM_OK)
		st = mzm_fail(err, st, "%s; calibrate the model again, or do without (--calib off)", why.message);
	mzm_free(path);
	return st;
}

uint64_t mzm_sidecar_factor_bytes(const char *model_path, const mzm_model_params *params)
{
	const mzm_gen_params *gen = params->drafts;
	const mzm_predictor_ops *ops = gen && gen->mode != MZM_MODE_DENSE ? mzm_predictor_find(gen->predictor) : NULL;
	uint64_t n_sessions = params->n_sessions > 0 ? (uint64_t)params->n_sessions : 1;
	return ops && ops->score ? n_sessions * (mzm_sidecar_bytes(model_path, params) * 17 / 32) : 0;
}

uint64_t mzm_sidecar_bytes(const char *model_path, const mzm_model_params *params)
{
	char *path = NULL;
	mzm_file *f = NULL;
	uint64_t bytes = 0;
	if (wanted(&path, model_path, params, NULL) == MZM_OK && path && mzm_file_open(&f, path, NULL) == MZM_OK)
		bytes = mzm_file_size(f);
	mzm_file_close(f);
	mzm_free(path);
	return bytes;
}
