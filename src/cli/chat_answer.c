/* chat_answer.c - one answer of `mirzam chat`: the talk made to fit, generated, shown, kept; see chat.h.
 *
 * Ctrl-C stops an answer, and what was said until then is the answer. A failure, or an answer that never began, leaves
 * the talk as it was before the question. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

/* To people, unless they want quiet. */
static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
	va_list ap;
	if (mzm_cli_quiet())
		return;
	va_start(ap, fmt);
	fprintf(stderr, "%s(", mzm_cli_sgr(stderr, MZM_SGR_DIM));
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ")%s\n", mzm_cli_sgr(stderr, MZM_SGR_RESET));
	va_end(ap);
}

/* Tokens that an answer should have room for before older turns make way: what it may take, a quarter of the context at
 * most. */
static int32_t room_of(const mzm_chat_run *run)
{
	int32_t quarter = mzm_session_n_ctx(run->session) / 4, wanted = run->decode.gen.max_tokens;
	int32_t room = wanted && wanted < quarter ? wanted : quarter;
	return room > 1 ? room : 1;
}

static mzm_status print_json(const mzm_chat_run *run, const mzm_run_sink *s, const mzm_gen_params *gen,
			     const mzm_gen_result *r, json_t *ids, mzm_err *err)
{
	const mzm_talk *talk = &run->talk;
	json_t *root = json_pack("{s:i, s:s, s:o, s:O, s:i, s:i}", "turn", (int)talk->n, "question",
				 talk->turns[talk->n - 1].question, "settings", mzm_cli_settings_json(gen),
				 "prompt_tokens", ids, "kept_tokens", (int)r->n_kept, "left_out_turns",
				 (int)talk->first);
	mzm_status st = MZM_OK;
	if (!root || mzm_run_answer_json(root, r, gen, s->text.data, s->text.n))
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for JSON output");
	else
		st = mzm_cli_json_line(stdout, root, "standard output", err);
	json_decref(root);
	return st;
}

static bool has_text(const mzm_cli_bytes *text)
{
	for (size_t i = 0; i < text->n; i++)
		if (!strchr(" \t\r\n", text->data[i]) || !text->data[i])
			return true;
	return false;
}

/* What came of a generation goes into the talk, the JSON and the statistics. *said: it is an answer. */
static mzm_status take_answer(mzm_chat_run *run, const mzm_run_sink *s, const mzm_gen_params *gen, json_t *ids,
			      bool *said, mzm_err *err)
{
	const mzm_gen_result *r = &run->last;
	run->has_last = true;
	run->last_gen = *gen;
	snprintf(run->last_draft, sizeof run->last_draft, "%s", gen->draft);
	run->last_gen.draft = run->last_draft;
	if (r->finish == MZM_FINISH_CANCELLED && !has_text(&s->text)) {
		note("stopped before it said anything");
		return MZM_OK;
	}
	mzm_status st = mzm_talk_answer(&run->talk, s->text.data, s->text.n, err);
	*said = st == MZM_OK;
	if (st == MZM_OK && run->json)
		st = print_json(run, s, gen, r, ids, err);
	if (!has_text(&s->text) && !run->json)
		note("no answer");
	if (r->finish == MZM_FINISH_CONTEXT)
		note("the context of %d tokens is full: the answer was cut", (int)mzm_session_n_ctx(run->session));
	if (run->stats)
		mzm_run_print_stats(r, gen);
	return st;
}

static int generate(mzm_chat_run *run, const int32_t *ids, size_t n, bool *said)
{
	mzm_err err = {0}, gen_err = {0};
	mzm_gen_params gen = run->decode.gen;
	mzm_run_sink s;
	mzm_status done = MZM_OK;
	json_t *prompt = run->json ? mzm_run_ids_json(ids, n) : NULL;
	gen.keep_prefix = true;
	run->has_last = false;
	mzm_cli_catch_interrupt();
	const mzm_tokenizer *tok = mzm_model_tokenizer(run->model);
	if (mzm_run_sink_open(&s, tok, !run->json, run->show_drafts, NULL, &err) == MZM_OK) {
		mzm_run_sink_bind(&s, &gen);
		s.trims = true;
		s.marked = s.marked && !run->hide;
		done = mzm_generate(run->session, ids, (int32_t)n, &gen, &run->last, &gen_err);
	}
	mzm_run_sink_close(&s, &err); /* err keeps the first failure */
	if (err.code == MZM_OK && done == MZM_OK)
		take_answer(run, &s, &gen, prompt, said, &err);
	run->last.tokens = NULL; /* the session's, until its next call */
	json_decref(prompt);
	free(s.text.data);
	if (done == MZM_ECANCELLED)
		note("stopped before it said anything");
	run->over = err.code != MZM_OK; /* nobody would see the next answer */
	if (err.code != MZM_OK || done != MZM_OK)
		return mzm_cli_fail(err.code != MZM_OK ? &err : &gen_err);
	return mzm_cli_interrupted() ? MZM_CLI_INTERRUPTED : MZM_CLI_GO;
}

/* *said: the last turn has an answer now. */
static int attempt(mzm_chat_run *run, bool *said)
{
	mzm_err err = {0};
	int32_t *ids, first = run->talk.first;
	size_t n;
	*said = false;
	if (mzm_talk_fit(&run->talk, mzm_session_n_ctx(run->session), room_of(run), &ids, &n, &err) != MZM_OK)
		return mzm_cli_fail(&err);
	if (run->talk.first > first)
		note("the context of %d tokens is full: the %s", (int)mzm_session_n_ctx(run->session),
		     run->talk.first == first + 1 ? "oldest turn was left out" : "oldest turns were left out");
	int code = generate(run, ids, n, said);
	mzm_ids_free(ids);
	if (mzm_chat_line_is_terminal(run->in)) {
		if (code == MZM_CLI_INTERRUPTED)
			code = MZM_CLI_GO;
		mzm_cli_forget_interrupt(true);
	} else if (code != MZM_CLI_INTERRUPTED) {
		mzm_cli_forget_interrupt(false);
	}
	return code;
}

int mzm_chat_answer(mzm_chat_run *run)
{
	bool said;
	int code = attempt(run, &said);
	if (!said)
		mzm_talk_undo(&run->talk);
	return code;
}

int mzm_chat_retry(mzm_chat_run *run)
{
	bool said;
	mzm_chat_turn *last = &run->talk.turns[run->talk.n - 1];
	char *old = last->answer;
	last->answer = NULL;
	if (run->decode.gen.temp > 0)
		run->decode.gen.seed++;
	int code = attempt(run, &said);
	if (said)
		free(old);
	else
		last->answer = old;
	return code;
}
