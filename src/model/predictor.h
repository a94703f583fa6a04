/* predictor.h - which FFN neurons a sparse pass uses: the one interface between the forward pass and
 * the strategies in predictors/.
 *
 * A predictor turns what a layer knows so far into an ascending list of neurons. It never touches
 * weights. It may learn from dense passes (observe). It allocates only in create. All calls for one
 * predictor come from one thread at a time. */
#ifndef MZM_PREDICTOR_H
#define MZM_PREDICTOR_H

#include "base/mem.h"
#include "format/calib.h"
#include "format/config.h"
#include "kern/threads.h"

/* What the layer must have computed before the choice; it decides what the choice can save. */
typedef enum mzm_pred_stage {
	MZM_PRED_INPUT, /* from the layer input alone: gate, up and down all sparse */
	MZM_PRED_GATE,  /* from act(gate) of every neuron: up and down sparse */
	MZM_PRED_UP,    /* from up of every neuron: gate and down sparse. Without a gate the same as MZM_PRED_GATE */
	MZM_PRED_FULL,  /* from z = act(gate) * up of every neuron: down sparse */
} mzm_pred_stage;

typedef struct mzm_pred_env {
	const mzm_config *cfg;
	float             keep;      /* 0 < keep <= 1 */
	uint64_t          seed;
	const float      *down_norm; /* [n_layers, n_ffn] norm of each neuron's down row; NULL unless needs_down_norm */
	const float      *up_norm;   /* the same of up rows; NULL without a gate, or unless needs_down_norm */
	bool              partial;   /* memory has room for some neurons only: want() will be asked */
	const mzm_kern   *kern;
	const mzm_calib  *calib;     /* NULL: the model has no side-car */
	/* [n_layers] neurons each layer keeps; NULL: all as many. For predictors that allocate. Borrowed; who changes
	 * it calls settle() next, if there is one, and never goes above the largest number that there was at first. */
	const int32_t    *keep_of;
} mzm_pred_env;

typedef struct mzm_predictor_ops mzm_predictor_ops;

typedef struct mzm_predictor {
	const mzm_predictor_ops *ops;
	int32_t                  n_keep; /* most neurons that a layer keeps */
	const int32_t           *keep_of; /* [n_layers] where layers differ, else NULL: the env's */
	bool                     observes; /* wants observe() for dense passes over the prompt */
	/* [n_layers, 2] a sparse pass leaves out inputs of q, k and v, and of o, that are not larger (TEAL); for models
	 * where these matrices lie by input. Set by who creates it; NULL: all inputs take part */
	const float             *attn_threshold;
} mzm_predictor; /* first member of every implementation's own struct */

struct mzm_predictor_ops {
	const char    *name;
	const char    *source;          /* paper, or one line */
	mzm_pred_stage stage;
	bool           needs_down_norm;
	const char    *calibration;     /* the fit whose tensors it needs (predictors/fit.h); NULL: none */
	bool           learns;          /* where it is partial: observe() for checks too, and want() is asked anew */
	bool           refreshes;       /* observe() for checks, then settle() anew, wherever the neurons are */
	bool           allocates;       /* keeps in each layer what keep_of says, and may gain by that */
	mzm_status (*create)(mzm_predictor **out, const mzm_pred_env *env, mzm_err *err);
	void       (*free)(mzm_predictor *p);
	/* A new request begins: forget the old prompt. May be NULL. */
	void       (*reset)(mzm_predictor *p);
	/* z of a dense pass, [n_pos, n_ffn], positions ascending over the calls for a prompt. */
	void       (*observe)(mzm_predictor *p, int32_t layer, const float *z, int32_t n_pos);
	/* The prompt is done: freeze the choice. May be NULL. */
	void       (*settle)(mzm_predictor *p);
	/* Stage INPUT only. All ranks of the team call it together, before select, with the normed layer input x [dim]:
	 * between them they fill score [n_ffn], which select then gets in place of x. A barrier follows. NULL: select
	 * looks at x. */
	void       (*score)(mzm_predictor *p, int32_t layer, const float *x, float *score, mzm_team *team, int rank);
	/* Stage INPUT only. What select named are candidates, whose gates have been computed since: gate [n] holds
	 * act(gate) in list order; where positions of a tree share their neurons, the means of its sizes. Rewrites rows
	 * [n] to those that shall be used, ascending, and gate with it; returns how many (1..n). NULL: all are. */
	int32_t    (*refine)(mzm_predictor *p, int32_t layer, float *gate, int32_t *rows, int32_t n);
	/* Bytes of its own that it reads for one token; NULL: none to speak of. They count in every density. */
	uint64_t   (*cost)(const mzm_predictor *p);
	/* Share of the FFN weights that a pass is expected to read; NULL: what the stage and n_keep say. */
	double     (*share)(const mzm_predictor *p);
	/* Fills rows with ascending neuron numbers and returns how many (1..n_ffn). score: [n_ffn] act(gate)
	 * in stage GATE, up in stage UP, z in stage FULL (without a gate all are z), the normed layer input [dim] in
	 * stage INPUT. */
	int32_t    (*select)(mzm_predictor *p, int32_t layer, int32_t pos, const float *score, int32_t *rows);
	/* Of a layer that is not in memory whole: the neurons, n at most, that it is likeliest to select, ascending;
	 * returns how many. Of what it then selects, a pass uses those that are in memory; scores of the others are 0.
	 * NULL: it needs them all. */
	int32_t    (*want)(mzm_predictor *p, int32_t layer, int32_t n, int32_t *rows);
};

/* Share of the FFN weights that a sparse pass of this stage reads when it keeps a share `kept` of the neurons. */
static inline double mzm_pred_ffn_share(mzm_pred_stage stage, double kept, bool ungated)
{
	if (stage == MZM_PRED_INPUT)
		return kept;
	if (ungated)
		return (1 + kept) / 2;
	return stage == MZM_PRED_FULL ? (2 + kept) / 3 : (1 + 2 * kept) / 3;
}

/* Neurons of a layer that env->keep stands for: floor(keep * n_ffn), at least 1. The small term forgives
 * that a float keep such as 0.7 lies below its decimal. */
static inline int32_t mzm_pred_n_keep(const mzm_pred_env *env)
{
	int32_t n = (int32_t)((double)env->keep * env->cfg->n_ffn + 1e-3);
	return n < 1 ? 1 : n > env->cfg->n_ffn ? env->cfg->n_ffn : n;
}

/* Neurons that the layer which keeps most keeps: n_keep of what is made with env. */
static inline int32_t mzm_pred_most(const mzm_pred_env *env)
{
	int32_t most = env->keep_of ? 1 : mzm_pred_n_keep(env);
	for (int32_t l = 0; env->keep_of && l < env->cfg->n_layers; l++)
		most = env->keep_of[l] > most ? env->keep_of[l] : most;
	return most;
}

static inline int32_t mzm_pred_keep(const mzm_predictor *p, int32_t layer)
{
	return p->keep_of ? p->keep_of[layer] : p->n_keep;
}

/* The k largest |score[i]|, ascending order of i; ties go to the lower index. scratch: [n]. O(n). */
void mzm_select_top(int32_t *rows, int32_t k, const float *score, int32_t n, float *scratch);

#endif
