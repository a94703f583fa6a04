/* bench_monitor.c - what --period auto would gain at given costs, without the model that has them: runs a small model
 * on problems with these costs handed in, and prices its passes by them.
 *
 * Usage: bench_monitor MODEL.mzm PROBLEMS.jsonl N MODE PREDICTOR KEEP PERIOD SPARSE CHECK2 CHECK8 CHECK16 CHECK32
 * PERIOD 0: auto. Costs in dense tokens: of a sparse pass, and of checks of 2, 8, 16 and 32 tokens; between them they
 * are interpolated, and a check of m tokens is priced as such. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "mirzam.h"

typedef struct prices {
	mzm_costs costs;
	double    spent, gained;
	int32_t   last_check; /* whose price was paid */
} prices;

static void fill_costs(mzm_costs *c, char **argv)
{
	double at[] = {1, 2, 8, 16, 32};
	double cost[] = {1, atof(argv[1]), atof(argv[2]), atof(argv[3]), atof(argv[4])};
	c->sparse = (float)atof(argv[0]);
	for (int m = 1, i = 0; m <= MZM_MAX_PERIOD; m++) {
		while (i < 3 && m > at[i + 1])
			i++;
		c->check[m] = (float)(cost[i] + (cost[i + 1] - cost[i]) * (m - at[i]) / (at[i + 1] - at[i]));
	}
}

/* Pays for a check at the first of its tokens; `block` is how many it judged. */
static int on_token(void *user, const mzm_token_event *e)
{
	prices *p = user;
	if (e->check > 0 && e->check != p->last_check)
		p->spent += (double)p->costs.check[e->block];
	p->last_check = e->check;
	return 0;
}

static mzm_status answer(mzm_session *s, const char *question, const mzm_gen_params *gen, prices *p, mzm_err *err)
{
	static const char *const stop[] = {"Question:"};
	char prompt[8192];
	mzm_gen_result r;
	mzm_gen_params g = *gen;
	g.stop = stop;
	g.n_stop = 1;
	g.costs = &p->costs;
	g.on_token = on_token;
	g.user = p;
	p->last_check = 0;
	snprintf(prompt, sizeof prompt, "Question: %s\nAnswer:", question);
	mzm_status st = mzm_generate_text(s, prompt, &g, &r, err);
	p->spent += r.n_sparse_passes * (double)p->costs.sparse;
	p->gained += r.n_tokens - 1; /* the first is the prompt's */
	return st;
}

int main(int argc, char **argv)
{
	mzm_err err = {0};
	mzm_model *model = NULL;
	mzm_session *session = NULL;
	mzm_session_params sp = mzm_session_params_default();
	mzm_gen_params gen = mzm_gen_params_default();
	prices p = {0};
	char *line = NULL;
	size_t cap = 0;
	FILE *in = argc == 13 ? fopen(argv[2], "r") : NULL;
	sp.n_threads = 1;
	if (!in || mzm_mode_parse(&gen.mode, argv[4], &err) != MZM_OK ||
	    mzm_model_open(&model, argv[1], NULL, &err) != MZM_OK ||
	    mzm_session_create(&session, model, &sp, &err) != MZM_OK) {
		fprintf(stderr, "bench_monitor: %s\n", err.code ? err.message : "wrong usage: see the source");
		return 1;
	}
	gen.predictor = argv[5];
	gen.keep = (float)atof(argv[6]);
	gen.period = atoi(argv[7]);
	gen.max_tokens = 256;
	gen.fresh_monitor = true;
	fill_costs(&p.costs, argv + 8);
	for (int i = atoi(argv[3]); i > 0 && getline(&line, &cap, in) > 0 && err.code == MZM_OK; i--) {
		json_t *problem = json_loads(line, 0, NULL);
		const char *question = json_string_value(json_object_get(problem, "question"));
		if (question)
			(void)answer(session, question, &gen, &p, &err);
		json_decref(problem);
	}
	printf("cost of a token %.3f, %.2f times dense\n", p.spent / p.gained, p.gained / p.spent);
	free(line);
	fclose(in);
	mzm_session_free(session);
	mzm_model_close(model);
	return err.code != MZM_OK;
}
