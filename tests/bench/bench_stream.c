/* bench_stream.c - a generation under a memory budget by a model without a tokenizer, such as one of random weights;
 * its checks keep draft tokens by chance where that is asked for.
 *
 * Usage: bench_stream MODEL.mzm BUDGET_MIB STORE MODE N_TOKENS ACCEPT_RATE KEEP    (budget 0: none; ACCEPT_RATE 0: the
 * model decides). Drafts by topk, 32 tokens a check. Run it in a memory cgroup to see its peak. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"

#define N_CTX    500
#define N_PROMPT 16

static double gib(uint64_t bytes)
{
	return (double)bytes / (double)((uint64_t)1 << 30);
}

static void print(const mzm_plan *p, const mzm_gen_result *r, const char *mode)
{
	printf("%s: planned %.3f GiB, a pass streams %.2f GiB, %d neurons held%s\n", p->store, gib(p->needed_bytes),
	       gib(p->streamed_bytes), (int)p->n_held, p->draft_on_disk ? "; no room for the draft image" : "");
	printf("%s: %d tokens, %.3f a second; prompt %.1f s; %.1f tokens a check\n", mode, r->n_tokens,
	       (r->n_tokens - 1) / ((double)r->decode_ns * 1e-9), (double)r->prefill_ns * 1e-9,
	       r->n_checks ? (double)r->n_gained / r->n_checks : 0);
	printf("read %.2f GiB in %.1f s, waited %.1f s\n", gib(r->bytes_read), (double)r->read_ns * 1e-9,
	       (double)r->wait_ns * 1e-9);
}

int main(int argc, char **argv)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_session *session = NULL;
	mzm_session_params sp = mzm_session_params_default();
	mzm_model_params mp = mzm_model_params_default();
	mzm_gen_params gen = mzm_gen_params_default();
	mzm_gen_result r;
	int32_t ids[N_PROMPT];
	for (int32_t i = 0; i < N_PROMPT; i++)
		ids[i] = 100 + 37 * i;
	if (argc != 8) {
		fprintf(stderr, "bench_stream: wrong usage, see the head of its source\n");
		return 2;
	}
	sp.n_ctx = N_CTX;
	mp.session = &sp;
	mp.drafts = &gen;
	mp.ram_bytes = strtoull(argv[2], NULL, 10) << 20;
	mp.store = argv[3];
	gen.max_tokens = atoi(argv[5]);
	gen.ignore_eos = true;
	gen.predictor = "topk";
	gen.keep = (float)atof(argv[7]);
	gen.period = MZM_MAX_PERIOD;
	mzm_status st = mzm_mode_parse(&gen.mode, argv[4], &err);
	if (st == MZM_OK)
		st = mzm_model_open(&model, argv[1], &mp, &err);
	if (st == MZM_OK)
		st = mzm_session_create(&session, model, &sp, &err);
	if (st == MZM_OK) {
		session->forced_accept = atof(argv[6]);
		session->forced_seed = 7;
		st = mzm_generate(session, ids, N_PROMPT, &gen, &r, &err);
	}
	if (st == MZM_OK)
		print(mzm_model_get_plan(model), &r, argv[4]);
	else
		fprintf(stderr, "bench_stream: %s\n", err.message);
	mzm_session_free(session);
	mzm_model_close(model);
	return st != MZM_OK;
}
