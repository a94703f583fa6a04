/* cli_params.c - the options about the model and about decoding that commands share; see cli.h.
 *
 * The decoding options write straight into mzm_gen_params, so the defaults shown are the library's. Ranges here give
 * early, precise messages; mzm_gen_params_check has the last word. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define DEMO_MODEL "gsmini-6m.mzm"

/* ---- model ---- */

static const char *isa_choice(int i)
{
	return i == 0 ? "auto" : mzm_isa_name(i - 1);
}

static const char *kv_choice(int i)
{
	static const char *const names[] = {"f16", "bf16", "f32"};
	return i < 3 ? names[i] : NULL;
}

static const char *store_choice(int i)
{
	static const char *const names[] = {"auto", "resident", "stream", "mmap"};
	return i < 4 ? names[i] : NULL;
}

static const char *io_choice(int i)
{
	static const char *const names[] = {"auto", "uring", "threads"};
	return i < 3 ? names[i] : NULL;
}

#define MODEL(field) .at = offsetof(mzm_cli_model, field), .group = "Model"

static const mzm_opt model_options[] = {
	{.name = "model", .letter = 'm', .type = MZM_OPT_STRING, MODEL(path), .arg = "MODEL",
	 .shown = "the demo model", .help = "A .mzm container, a Hugging Face directory or a GGUF file."},
	{.name = "isa", .type = MZM_OPT_CHOICE, MODEL(isa), .choice = isa_choice, .arg = "NAME",
	 .help = "Kernels to use; all give equal bits but avx512-bf16, which rounds activations to bf16 where weights "
		 "are."},
	{.name = "threads", .type = MZM_OPT_INT, MODEL(n_threads), .max = 1024, .arg = "N",
	 .help = "Threads; 0: the cores this process may use."},
	{.name = "ctx", .type = MZM_OPT_INT, MODEL(n_ctx), .max = INT32_MAX, .arg = "N",
	 .help = "Tokens the context can hold; 0: the model's own limit, 4096 at most."},
	{.name = "kv", .type = MZM_OPT_CHOICE, MODEL(kv), .choice = kv_choice, .arg = "TYPE",
	 .help = "Type in which keys and values are kept."},
	{.name = "ram", .type = MZM_OPT_MEMORY, MODEL(ram), .min = 1 << 20, .max = 1e15, .arg = "SIZE",
	 .shown = "no bound",
	 .help = "Bound of all memory this program takes, caches of its files included: a size such as 2G, or a share "
		 "of the machine's such as 50%. What does not fit is read from the model file for every pass."},
	{.name = "store", .type = MZM_OPT_CHOICE, MODEL(store), .choice = store_choice, .arg = "KIND",
	 .help = "Where weights are: resident: in memory. stream: what fits in memory, the rest read from the file as "
		 "it is needed. mmap: the system pages them in. auto: resident if there is room, else stream."},
	{.name = "io", .type = MZM_OPT_CHOICE, MODEL(io), .choice = io_choice, .arg = "KIND",
	 .help = "How streaming reads; auto: io_uring where the system has it, else threads."},
	{.name = "calib", .type = MZM_OPT_STRING, MODEL(calib), .arg = "FILE",
	 .shown = "MODEL.mzc, if it is there",
	 .help = "What mirzam calibrate wrote for this model, which some predictors need; off: none."},
	{.name = "plan", .type = MZM_OPT_FLAG, MODEL(plan),
	 .help = "Say before loading what will take how much memory and what a pass will read."},
	{.name = "no-onednn", .type = MZM_OPT_FLAG, MODEL(no_onednn),
	 .help = "Prefill with the program's own kernels even where oneDNN was built in."},
};

mzm_cli_model mzm_cli_model_default(void)
{
	return (mzm_cli_model){.isa = "auto", .kv = "f16", .store = "auto", .io = "auto"};
}

mzm_opt_table mzm_cli_model_table(mzm_cli_model *m)
{
	return (mzm_opt_table){model_options, MZM_CLI_COUNT(model_options), m};
}

mzm_status mzm_cli_model_path(char **path, const mzm_cli_model *m, mzm_err *err)
{
	if (!m->path)
		return mzm_cli_data_path(path, DEMO_MODEL, err);
	*path = strdup(m->path);
	return *path ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
}

static mzm_status show_plan(const char *path, const mzm_model_params *mp, mzm_err *err)
{
	mzm_plan plan;
	mzm_status st = mzm_plan_make(&plan, path, mp, err);
	if (st == MZM_OK)
		mzm_cli_print_plan(&plan, path);
	return st;
}

int mzm_cli_open(mzm_model **model, mzm_session **session, const mzm_cli_command *cmd, const mzm_cli_model *m)
{
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = mzm_session_params_default();
	char *path = NULL;
	*model = NULL;
	mp.isa = m->isa;
	mp.no_onednn = m->no_onednn;
	mp.progress = mzm_cli_progress_report;
	mp.user = &progress;
	mp.store = m->store;
	mp.io = m->io;
	mp.calib = m->calib;
	mp.ram_bytes = m->ram;
	mp.session = &sp;
	mp.n_sessions = m->n_sessions;
	mp.reserve_bytes = m->reserve;
	mp.drafts = m->drafts;
	sp.n_ctx = m->n_ctx;
	sp.n_threads = m->n_threads;
	sp.kv_type = m->kv;
	mzm_status st = mzm_cli_model_path(&path, m, &err);
	mzm_cli_note_input(st == MZM_OK ? path : NULL);
	if (st == MZM_OK && strcmp(m->store, "mmap") == 0)
		mzm_cli_catch_bus_error(path);
	if (st == MZM_OK && m->plan)
		st = show_plan(path, &mp, &err);
	if (st == MZM_OK)
		st = mzm_model_open(model, path, &mp, &err);
	mzm_cli_progress_clear(&progress);
	if (st == MZM_OK && session)
		st = mzm_session_create(session, *model, &sp, &err);
	free(path);
	if (st == MZM_OK)
		return MZM_CLI_GO;
	mzm_model_close(*model);
	*model = NULL;
	return mzm_cli_fail_usage(cmd, &err);
}

int mzm_cli_open_draft(mzm_model **draft, const char *path, const mzm_cli_command *cmd, mzm_cli_model *m)
{
	mzm_err err = {0};
	uint64_t bytes;
	mzm_cli_progress progress = mzm_cli_progress_init(NULL);
	mzm_model_params mp = mzm_model_params_default();
	mzm_session_params sp = {.n_ctx = m->n_ctx, .n_threads = m->n_threads, .kv_type = m->kv};
	*draft = NULL;
	if (!path)
		return MZM_CLI_GO;
	mp.isa = m->isa;
	mp.no_onednn = m->no_onednn;
	mp.progress = mzm_cli_progress_report;
	mp.user = &progress;
	mp.store = "resident";
	mp.ram_bytes = m->ram;
	mp.calib = "off";
	mzm_cli_note_input(path);
	mzm_status st = mzm_model_open(draft, path, &mp, &err);
	mzm_cli_progress_clear(&progress);
	if (st == MZM_OK)
		st = mzm_draft_model_bytes(&bytes, *draft, &sp, &err);
	if (st != MZM_OK)
		return mzm_cli_fail_usage(cmd, &err);
	m->reserve += bytes * (uint64_t)(m->n_sessions > 0 ? m->n_sessions : 1);
	return MZM_CLI_GO;
}

/* ---- decoding ---- */

static const char *mode_choice(int i)
{
	return i <= MZM_MODE_LOSSLESS ? mzm_mode_name((mzm_mode)i) : NULL;
}

static const char *accept_choice(int i)
{
	return i <= MZM_ACCEPT_TYPICAL ? mzm_accept_name((mzm_accept)i) : NULL;
}

static const char *path_choice(int i)
{
	return i <= MZM_TREE_JUMP ? mzm_tree_path_name((mzm_tree_path)i) : NULL;
}

#define GEN(field) .at = offsetof(mzm_cli_decode, gen.field)
#define DECODING   .group = "Decoding"
#define SAMPLING   .group = "Sampling (not in sirius mode)"
#define LENGTH     .group = "Length and stopping"

static const mzm_opt decode_options[] = {
	{.name = "mode", .type = MZM_OPT_ENUM, GEN(mode), DECODING, .choice = mode_choice, .arg = "MODE",
	 .help = "dense: the model itself. exact: drafts (--draft), the dense model's text. sirius: sparse drafts, "
		 "kept while the full model finds them likely enough. sparse: never corrected. lossless: exact, but "
		 "at a temperature every text is as likely as the model has it, not the same for a seed."},
	{.name = "draft", .type = MZM_OPT_STRING, GEN(draft), DECODING, .arg = "NAMES",
	 .help = "What writes the drafts; several, with + between them, share every check; auto: the one that has paid "
		 "best so far."},
	{.name = "jacobi", .type = MZM_OPT_CHOICE, GEN(jacobi), DECODING, .choice = mzm_jacobi_name, .arg = "FORM",
	 .help = "slide: the guesses of --draft jacobi are a window of a period that moves with the text. block: a "
		 "block that shrinks until it has converged."},
	{.name = "jacobi-seed", .type = MZM_OPT_CHOICE, GEN(jacobi_seed), DECODING, .choice = mzm_jacobi_seed_name,
	 .arg = "NAME",
	 .help = "Its first guesses. prompt: tokens of the prompt. ngram: what followed in the text when it read so, "
		 "as long as that is right more often than the model's last guess. pool: n-grams that its iterations "
		 "brought forth. sparse: a sparse draft, the next one when none of its guesses is left."},
	{.name = "skip", .type = MZM_OPT_STRING, GEN(skip), DECODING, .arg = "SET",
	 .help = "What --draft skip leaves out: attentions and FFNs by the numbers of their layers, such as "
		 "\"attn:3,4 mlp:1-5\"; none: nothing; auto: what mirzam calibrate --skip found."},
	{.name = "skip-keep", .type = MZM_OPT_FLOAT, GEN(skip_keep), DECODING, .open_min = true, .max = 1,
	 .arg = "SHARE",
	 .help = "Share of neurons that the FFNs keep which it does not leave out; below 1 the predictor chooses "
		 "them."},
	{.name = "exit", .type = MZM_OPT_STRING, .at = offsetof(mzm_cli_decode, exit), DECODING, .arg = "P",
	 .shown = "adaptive",
	 .help = "Check behind a token to which a draft of skip or model gave a probability below P; off: never; "
		 "adaptive: P follows how much is kept (with --period auto: off)."},
	{.name = "draft-model", .type = MZM_OPT_STRING, .at = offsetof(mzm_cli_decode, draft_path), DECODING,
	 .arg = "MODEL", .shown = "none",
	 .help = "The model of --draft model, any with the same tokens. It is opened first and stays in memory whole; "
		 "with --ram, what it and its context take is taken off what is left for the other."},
	{.name = "predictor", .type = MZM_OPT_CHOICE, GEN(predictor), DECODING, .choice = mzm_predictor_name,
	 .arg = "NAME", .help = "What chooses the neurons of a sparse pass."},
	{.name = "keep", .type = MZM_OPT_FLOAT, GEN(keep), DECODING, .open_min = true, .max = 1, .arg = "SHARE",
	 .help = "Share of FFN neurons that a sparse pass keeps."},
	{.name = "attn-keep", .type = MZM_OPT_FLOAT, GEN(attn_keep), DECODING, .open_min = true, .max = 1,
	 .arg = "SHARE",
	 .help = "Share of the inputs of the attention's projections that a sparse pass keeps; below 1 for models that "
		 "were imported with --attn-layout input, and calibrated."},
	{.name = "no-alloc", .type = MZM_OPT_FLAG, GEN(no_alloc), DECODING,
	 .help = "Keep that share in every layer, even where the side-car has a better one for each."},
	{.name = "period", .type = MZM_OPT_INT, GEN(period), DECODING, .min = 1, .max = MZM_MAX_PERIOD,
	 .word = "auto", .word_value = 0, .arg = "N",
	 .help = "Tokens a check, the corrected one included; auto: by measured costs and the confidence of "
		 "the draft."},
	{.name = "check-below", .type = MZM_OPT_FLOAT, GEN(check_below), DECODING, .max = 1, .arg = "P",
	 .help = "Check at once behind a draft token that the full model would keep with a probability below P, as the "
		 "monitor sees it; 0: off."},
	{.name = "no-draft-image", .type = MZM_OPT_FLAG, GEN(no_draft_image), DECODING,
	 .help = "Draft with the model's own weights even if it holds a smaller image of them for drafts."},
	{.name = "tree", .type = MZM_OPT_INT, GEN(tree_width), DECODING, .min = 1, .max = MZM_MAX_TREE_WIDTH,
	 .arg = "W",
	 .help = "Draft W lines at once, as a tree, and keep the best of them; 1: one line. Greedy decoding only."},
	{.name = "tree-path", .type = MZM_OPT_ENUM, GEN(tree_path), DECODING, .choice = path_choice, .arg = "NAME",
	 .help = "Which line of a tree a check keeps. longest: of which most stands. likeliest: by the full model. "
		 "jump: the draft's best, with changes to lines that have the full model's token where one does not "
		 "stand."},
	{.name = "accept", .type = MZM_OPT_ENUM, GEN(accept), DECODING, .choice = accept_choice, .arg = "RULE",
	 .help = "When sirius mode keeps a draft token."},
	{.name = "threshold", .type = MZM_OPT_FLOAT, GEN(threshold), DECODING, .max = 1, .arg = "P",
	 .help = "Probability by the full model from which a draft token is kept (above 0.5: the dense model's text)."},
	{.name = "check-temp", .type = MZM_OPT_FLOAT, GEN(check_temp), DECODING, .min = 0.01, .max = 100, .arg = "T",
	 .help = "Temperature of that probability; of the test only."},
	{.name = "ablate", .type = MZM_OPT_STRING, .at = offsetof(mzm_cli_decode, ablate), DECODING, .arg = "LIST",
	 .shown = "none",
	 .help = "For studies: parts of the correction that sirius mode does without, of kv-rewrite, rollback and "
		 "bonus."},

	{.name = "temp", .type = MZM_OPT_FLOAT, GEN(temp), SAMPLING, .max = 100, .arg = "T",
	 .help = "Temperature; 0: always the likeliest token."},
	{.name = "top-k", .type = MZM_OPT_INT, GEN(top_k), SAMPLING, .max = INT32_MAX, .arg = "K",
	 .help = "Only the K likeliest tokens; 0: off."},
	{.name = "top-p", .type = MZM_OPT_FLOAT, GEN(top_p), SAMPLING, .max = 1, .arg = "P",
	 .help = "Only the likeliest tokens that together have probability P; 1: off."},
	{.name = "min-p", .type = MZM_OPT_FLOAT, GEN(min_p), SAMPLING, .max = 1, .arg = "P",
	 .help = "Only tokens at least P times as likely as the likeliest; 0: off."},
	{.name = "repeat-penalty", .type = MZM_OPT_FLOAT, GEN(repeat_penalty), SAMPLING, .min = 0.01, .max = 100,
	 .arg = "X", .help = "Penalty on tokens that were there before; 1: off."},
	{.name = "repeat-last", .type = MZM_OPT_INT, GEN(repeat_last), SAMPLING, .max = INT32_MAX, .arg = "N",
	 .help = "How many tokens back the penalty looks, prompt included."},
	{.name = "seed", .type = MZM_OPT_U64, GEN(seed), SAMPLING, .arg = "N",
	 .help = "Seed of sampling and of the random predictor."},

	{.name = "max-tokens", .letter = 'n', .type = MZM_OPT_INT, GEN(max_tokens), LENGTH, .max = INT32_MAX,
	 .arg = "N", .help = "New tokens at most; 0: until the context is full."},
	{.name = "stop", .type = MZM_OPT_LIST, .at = offsetof(mzm_cli_decode, stop), LENGTH, .arg = "TEXT",
	 .help = "End before this text; may be repeated."},
	{.name = "ignore-eos", .type = MZM_OPT_FLAG, GEN(ignore_eos), LENGTH,
	 .help = "Go on after the model's end token."},
	{.name = "no-special", .type = MZM_OPT_FLAG, GEN(no_special), LENGTH,
	 .help = "Do not put the model's start token before the prompt."},
};

mzm_cli_decode mzm_cli_decode_default(void)
{
	return (mzm_cli_decode){.gen = mzm_gen_params_default()};
}

mzm_opt_table mzm_cli_decode_table(mzm_cli_decode *d)
{
	return (mzm_opt_table){decode_options, MZM_CLI_COUNT(decode_options), d};
}

int mzm_cli_split_drafts(const mzm_cli_command *cmd, char **strings, mzm_gen_params *gen)
{
	const char *list = gen->draft;
	size_t n = strlen(list);
	*strings = NULL;
	if (n == 0 || list[0] == ',' || list[n - 1] == ',' || strstr(list, ",,"))
		return mzm_cli_usage_error(cmd, "--draft: a name is missing in '%s'", list);
	*strings = malloc(n + 2);
	if (!*strings)
		return mzm_cli_exit_code(MZM_ENOMEM);
	for (size_t i = 0; i <= n; i++)
		(*strings)[i] = list[i] == ',' ? 0 : list[i];
	(*strings)[n + 1] = 0;
	gen->draft = *strings;
	return MZM_CLI_GO;
}

int mzm_cli_decode_finish(const mzm_cli_command *cmd, mzm_cli_decode *d)
{
	mzm_err err = {0};
	d->gen.stop = d->stop.item;
	d->gen.n_stop = d->stop.n;
	if (mzm_cli_was_given("draft") && !mzm_cli_was_given("mode"))
		d->gen.mode = MZM_MODE_EXACT; /* who names a drafter wants drafts */
	if ((!d->ablate || mzm_ablation_parse(&d->gen.ablate, d->ablate, &err) == MZM_OK) &&
	    (!d->exit || mzm_draft_exit_parse(&d->gen.draft_exit, d->exit, &err) == MZM_OK) &&
	    mzm_gen_params_check(&d->gen, &err) == MZM_OK)
		return MZM_CLI_GO;
	return mzm_cli_fail_usage(cmd, &err);
}

void mzm_cli_decode_free(mzm_cli_decode *d)
{
	mzm_cli_list_free(&d->stop);
	mzm_model_close(d->draft);
}
