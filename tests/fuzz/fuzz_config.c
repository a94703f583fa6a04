/* fuzz_config.c - config.json, as Hugging Face writes it and as containers hold it. What is accepted must
 * survive the way through our own form. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		__builtin_trap();
}

/* Our form, written and read again, is the same model. */
static void round_trip(const mzm_config *cfg)
{
	mzm_config again;
	json_t *tree = mzm_config_to_json(cfg), *parsed = NULL;
	char *text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;
	require(text != NULL && mzm_json_parse(&parsed, text, strlen(text), "again", NULL) == MZM_OK);
	require(mzm_config_from_json(&again, parsed, NULL) == MZM_OK);
	json_t *second = mzm_config_to_json(&again);
	char *same = second ? json_dumps(second, JSON_COMPACT) : NULL;
	require(same != NULL && strcmp(same, text) == 0);
	free(same);
	json_decref(second);
	require(again.dim == cfg->dim && again.n_layers == cfg->n_layers && again.n_vocab == cfg->n_vocab);
	require(again.norm_eps == cfg->norm_eps && again.rope_theta == cfg->rope_theta && again.n_eos == cfg->n_eos);
	require(mzm_config_n_params(&again) == mzm_config_n_params(cfg));
	mzm_tensor last = mzm_tensor_at(cfg, mzm_tensor_count(cfg) - 1);
	require(mzm_tensor_index(cfg, last.kind, last.layer) == mzm_tensor_count(cfg) - 1);
	free(text);
	json_decref(tree);
	json_decref(parsed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mzm_config cfg;
	mzm_err err = {0};
	json_t *tree;
	size_t live = mzm_mem_live();
	if (mzm_json_parse(&tree, (const char *)data, size, "config.json", &err) != MZM_OK)
		return 0;
	json_t *generation = json_object_get(tree, "generation"); /* no such key in either form */
	mzm_status st = mzm_config_from_hf(&cfg, tree, generation, &err);
	require(st == err.code && (st == MZM_OK || err.message[0]));
	if (st == MZM_OK)
		round_trip(&cfg);
	err = (mzm_err){0};
	st = mzm_config_from_json(&cfg, tree, &err);
	require(st == err.code && (st == MZM_OK || err.message[0]));
	if (st == MZM_OK)
		round_trip(&cfg);
	json_decref(tree);
	require(mzm_mem_live() == live);
	return 0;
}
