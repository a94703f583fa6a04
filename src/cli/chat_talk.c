/* chat_talk.c - the conversation of `mirzam chat`: its turns, its tokens, its place in the context; see chat.h.
 *
 * The prompt of an answer is the whole talk, rendered anew: the library keeps the rows of what it begins with. Turns
 * that have no room any more stay in the talk, and in what is saved, but not in the prompt. */
#include "chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void free_turn(mzm_chat_turn *turn)
{
	free(turn->question);
	free(turn->answer);
	*turn = (mzm_chat_turn){0};
}

void mzm_talk_clear(mzm_talk *talk)
{
	while (talk->n)
		free_turn(&talk->turns[--talk->n]);
	talk->first = 0;
}

void mzm_talk_free(mzm_talk *talk)
{
	mzm_talk_clear(talk);
	free(talk->turns);
	free(talk->system);
	*talk = (mzm_talk){0};
}

mzm_status mzm_talk_ask(mzm_talk *talk, const char *question, mzm_err *err)
{
	if (talk->n == talk->cap) {
		int32_t cap = talk->cap ? 2 * talk->cap : 16;
		bool fits = talk->cap <= INT32_MAX / 4;
		mzm_chat_turn *grown = fits ? realloc(talk->turns, (size_t)cap * sizeof *grown) : NULL;
		if (!grown)
			return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
		talk->turns = grown;
		talk->cap = cap;
	}
	mzm_chat_turn turn = {.question = strdup(question)};
	if (!turn.question)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
	talk->turns[talk->n++] = turn;
	return MZM_OK;
}

static bool is_blank(char c)
{
	return c && strchr(" \t\r\n", c);
}

mzm_status mzm_talk_answer(mzm_talk *talk, const char *text, size_t n, mzm_err *err)
{
	while (n && is_blank(text[n - 1]))
		n--;
	while (n && is_blank(*text)) {
		text++;
		n--;
	}
	char *answer = malloc(n + 1);
	if (!answer)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
	if (n)
		memcpy(answer, text, n);
	answer[n] = 0;
	free(talk->turns[talk->n - 1].answer);
	talk->turns[talk->n - 1].answer = answer;
	return MZM_OK;
}

void mzm_talk_undo(mzm_talk *talk)
{
	if (talk->n == 0)
		return;
	free_turn(&talk->turns[--talk->n]);
	if (talk->first >= talk->n)
		talk->first = talk->n ? talk->n - 1 : 0;
}

/* Messages from turn `first` on into out[2 * n + 1]; returns how many. */
static size_t messages_of(const mzm_talk *talk, int32_t first, mzm_chat_message *out)
{
	size_t n = 0;
	if (talk->system)
		out[n++] = (mzm_chat_message){"system", talk->system};
	for (int32_t i = first; i < talk->n; i++) {
		out[n++] = (mzm_chat_message){"user", talk->turns[i].question};
		if (talk->turns[i].answer)
			out[n++] = (mzm_chat_message){"assistant", talk->turns[i].answer};
	}
	return n;
}

mzm_status mzm_talk_tokenize(const mzm_talk *talk, bool generate, int32_t **ids, size_t *n_ids, mzm_err *err)
{
	mzm_chat_message *messages = malloc((2 * (size_t)talk->n + 1) * sizeof *messages);
	*ids = NULL;
	*n_ids = 0;
	if (!messages)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
	size_t n = messages_of(talk, talk->first, messages);
	mzm_status st = mzm_chat_tokenize(talk->chat, messages, n, generate, ids, n_ids, err);
	free(messages);
	return st;
}

mzm_status mzm_talk_fit(mzm_talk *talk, int32_t n_ctx, int32_t room, int32_t **ids, size_t *n_ids, mzm_err *err)
{
	size_t most = (size_t)(n_ctx - room);
	int32_t kept = talk->first;
	mzm_status st;
	while ((st = mzm_talk_tokenize(talk, true, ids, n_ids, err)) == MZM_OK && *n_ids > most &&
	       talk->first < talk->n - 1) {
		mzm_ids_free(*ids);
		talk->first++;
		most = (size_t)n_ctx / 2 < most ? (size_t)n_ctx / 2 : most;
	}
	if (st == MZM_OK && *n_ids >= (size_t)n_ctx) {
		st = mzm_cli_set_err(err, MZM_ECONTEXT,
				     "the message has %zu tokens with what the template writes around it; the context "
				     "holds %d, one new token included",
				     *n_ids, n_ctx);
		mzm_ids_free(*ids);
		*ids = NULL;
	}
	if (st != MZM_OK)
		talk->first = kept;
	return st;
}

/* ---- files ---- */

static mzm_status save_message(FILE *f, const char *role, const char *content, mzm_err *err)
{
	json_t *line = json_pack("{s:s, s:s}", "role", role, "content", content);
	if (!line)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
	mzm_status st = mzm_cli_json_line(f, line, "the conversation", err);
	json_decref(line);
	return st;
}

mzm_status mzm_talk_save(const mzm_talk *talk, const char *path, mzm_err *err)
{
	mzm_cli_file file;
	mzm_chat_message *messages = malloc((2 * (size_t)talk->n + 1) * sizeof *messages);
	if (!messages)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the conversation");
	mzm_status st = mzm_cli_file_create(&file, path, err);
	if (st == MZM_OK) {
		size_t n = messages_of(talk, 0, messages);
		for (size_t i = 0; st == MZM_OK && i < n; i++)
			st = save_message(file.f, messages[i].role, messages[i].content, err);
		if (st == MZM_OK)
			st = mzm_cli_file_commit(&file, err);
		else
			mzm_cli_file_abort(&file);
	}
	free(messages);
	return st;
}

/* One message: the system's is the first line, questions and answers take turns. */
static mzm_status load_message(mzm_talk *talk, json_t *line, mzm_err *err)
{
	const char *role, *content;
	mzm_chat_turn *last = talk->n ? &talk->turns[talk->n - 1] : NULL;
	if (json_unpack(line, "{s:s, s:s !}", "role", &role, "content", &content) != 0)
		return mzm_cli_set_err(err, MZM_EFORMAT, "not an object of role and content");
	if (strcmp(role, "system") == 0 && !last && !talk->system) {
		talk->system = strdup(content);
		return talk->system ? MZM_OK : mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	}
	if (strcmp(role, "user") == 0 && (!last || last->answer))
		return mzm_talk_ask(talk, content, err);
	if (strcmp(role, "assistant") == 0 && last && !last->answer)
		return mzm_talk_answer(talk, content, strlen(content), err);
	return mzm_cli_set_err(err, MZM_EFORMAT, "a message of \"%.20s\" is out of turn", role);
}

static mzm_status load_lines(mzm_talk *talk, char *text, const char *path, mzm_err *err)
{
	int number = 0;
	for (char *line = text, *end; line; line = end) {
		json_error_t why;
		mzm_err inner = {0};
		end = strchr(line, '\n');
		if (end)
			*end++ = 0;
		number++;
		if (!line[strspn(line, " \t\r")])
			continue;
		json_t *message = json_loads(line, JSON_REJECT_DUPLICATES, &why);
		mzm_status st = message ? load_message(talk, message, &inner)
					: mzm_cli_set_err(&inner, MZM_EFORMAT, "%s", why.text);
		json_decref(message);
		if (st != MZM_OK)
			return mzm_cli_set_err(err, st, "%s, line %d: %s", path, number, inner.message);
	}
	if (talk->n && !talk->turns[talk->n - 1].answer)
		return mzm_cli_set_err(err, MZM_EFORMAT, "%s: the last message has no answer", path);
	return MZM_OK;
}

mzm_status mzm_talk_load(mzm_talk *talk, const char *path, mzm_err *err)
{
	mzm_talk loaded = {.chat = talk->chat};
	mzm_cli_bytes text = {0};
	FILE *f = fopen(path, "re");
	if (!f)
		return mzm_cli_set_err(err, MZM_EIO, "%s: %s", path, strerror(errno));
	mzm_status st = mzm_cli_read_stream(&text, f, path, err);
	fclose(f);
	mzm_cli_bytes_add(&text, "", 1);
	if (st == MZM_OK && text.failed)
		st = mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for %s", path);
	if (st == MZM_OK && strlen(text.data) + 1 != text.n)
		st = mzm_cli_set_err(err, MZM_EFORMAT, "%s: a NUL in the text", path);
	if (st == MZM_OK)
		st = load_lines(&loaded, text.data, path, err);
	free(text.data);
	mzm_talk_free(st == MZM_OK ? talk : &loaded);
	if (st == MZM_OK)
		*talk = loaded;
	return st;
}
