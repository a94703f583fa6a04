/* output.c - see output.h. */
#include "engine/output.h"

#include <string.h>

/* The model's end-of-text ids, then stop strings that spell a special token. */
static mzm_status collect_stop_ids(mzm_output *o, const mzm_model *model, mzm_err *err)
{
	const mzm_config *cfg = &model->weights->cfg;
	for (int32_t i = 0; i < cfg->n_eos && !o->params->ignore_eos; i++)
		o->stop_ids[o->n_stop_ids++] = cfg->eos_ids[i];
	o->n_eos = o->n_stop_ids;
	for (int32_t i = 0; i < o->params->n_stop && o->tok; i++) {
		int32_t id = mzm_token_find(o->tok, o->params->stop[i]);
		if (id < 0 || !mzm_token_is_special(o->tok, id))
			continue;
		if (o->n_stop_ids == MZM_MAX_STOP_IDS)
			return mzm_fail(err, MZM_EARG, "more than %d stop tokens", MZM_MAX_STOP_IDS);
		o->stop_ids[o->n_stop_ids++] = id;
	}
	return MZM_OK;
}

mzm_status mzm_output_create(mzm_output **out, const mzm_model *model, const mzm_gen_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_output *o;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&o, sizeof *o, "the output", err));
	o->params = params;
	o->tok = model->tokenizer;
	o->releases = true;
	for (int32_t i = 0; i < params->n_stop; i++) {
		size_t n = strlen(params->stop[i]);
		o->longest_stop = n > o->longest_stop ? n : o->longest_stop;
	}
	MZM_TRY_OUT(collect_stop_ids(o, model, err));
	if (o->tok) {
		o->decoder = mzm_text_decoder_init(o->tok);
		o->decoder.started = true; /* the prompt was first: a blank at the front of the answer is its own */
		o->cap = o->longest_stop + mzm_text_decoder_max(o->tok) + 1;
		MZM_TRY_OUT(mzm_alloc_for((void **)&o->held, o->cap, "the text", err));
	}
	*out = o;
	return MZM_OK;
out:
	mzm_output_free(o);
	return st;
}

void mzm_output_free(mzm_output *o)
{
	if (!o)
		return;
	mzm_free(o->held);
	mzm_free(o);
}

static void release(mzm_output *o, size_t n)
{
	if (n == 0)
		return;
	if (o->releases && o->params->on_text && o->params->on_text(o->params->user, o->held, n))
		o->cancelled = true;
	memmove(o->held, o->held + n, o->n_held - n);
	o->n_held -= n;
}

/* Offset of the earliest stop string in the held text, or n_held. */
static size_t find_stop(const mzm_output *o)
{
	size_t best = o->n_held;
	for (int32_t i = 0; i < o->params->n_stop; i++) {
		const char *stop = o->params->stop[i];
		const char *at = memmem(o->held, o->n_held, stop, strlen(stop));
		if (at && (size_t)(at - o->held) < best)
			best = (size_t)(at - o->held);
	}
	return best;
}

/* Length of the longest end of the held text that begins a stop string. */
static size_t possible_stop(const mzm_output *o)
{
	size_t longest = 0;
	for (int32_t i = 0; i < o->params->n_stop; i++) {
		const char *stop = o->params->stop[i];
		size_t n = strlen(stop) - 1;
		for (n = n < o->n_held ? n : o->n_held; n > longest; n--) {
			if (memcmp(o->held + o->n_held - n, stop, n) == 0)
				longest = n;
		}
	}
	return longest;
}

mzm_verdict mzm_output_push(mzm_output *o, int32_t id)
{
	for (int32_t i = 0; i < o->n_stop_ids; i++) {
		if (id == o->stop_ids[i])
			return i < o->n_eos ? MZM_AT_EOS : MZM_AT_STOP;
	}
	if (!o->tok)
		return MZM_GO_ON;
	o->n_held += mzm_text_decoder_push(&o->decoder, id, o->held + o->n_held, o->cap - o->n_held);
	size_t stop = find_stop(o);
	if (stop < o->n_held) {
		release(o, stop);
		o->n_held = 0;
		o->decoder.n_pending = 0;
		return MZM_AT_STOP;
	}
	release(o, o->n_held - possible_stop(o));
	return MZM_GO_ON;
}

void mzm_output_finish(mzm_output *o)
{
	if (!o->tok)
		return;
	o->n_held += mzm_text_decoder_flush(&o->decoder, o->held + o->n_held, o->cap - o->n_held);
	release(o, o->n_held);
}

void mzm_output_probe(mzm_output *probe, const mzm_output *from)
{
	probe->releases = false;
	probe->decoder = from->decoder;
	probe->n_held = from->n_held;
	if (from->n_held)
		memcpy(probe->held, from->held, from->n_held);
}
