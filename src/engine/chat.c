/* chat.c - conversations for a model: its template applied, and the rendering as tokens.
 *
 * Contents are hostile: they may spell a special token, and a rendering is one text in which nobody can tell a
 * template's tokens from a content's. So a content that spells one gets a mark, a character that no content has,
 * behind the first character of the token; the rendering is cut at the marks, and the parts are tokenized apart. The
 * template still sees each content in its place, and can trim or test it; what holds no such text takes none of this
 * and has the tokens of its rendering. Immutable after creation; any number of threads may use one. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "format/chat.h"
#include "format/tokenizer_utf8.h"

#define PROBE "probe" /* an answer, to see what the template writes behind it */

struct mzm_chat {
	const mzm_model   *model;
	mzm_chat_template *template;
	const char       **special; /* [n_special] special tokens, sorted; the tokenizer's */
	size_t             n_special;
	char              *end;     /* NULL: none */
};

/* ---- special tokens in texts ---- */

static int by_content(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mzm_status collect_special(mzm_chat *c, mzm_err *err)
{
	const mzm_tokenizer *tok = c->model->tokenizer;
	int32_t n = mzm_token_count(tok);
	size_t room = 0;
	for (int32_t id = 0; id < n; id++)
		room += mzm_token_is_special(tok, id);
	if (room == 0)
		return MZM_OK;
	MZM_TRY(mzm_alloc_for((void **)&c->special, room * sizeof *c->special, "the special tokens", err));
	for (int32_t id = 0; id < n; id++) {
		const char *content = mzm_token_is_special(tok, id) ? mzm_token_content(tok, id) : NULL;
		if (content && *content)
			c->special[c->n_special++] = content;
	}
	qsort(c->special, c->n_special, sizeof *c->special, by_content);
	return MZM_OK;
}

/* Of special[lo..hi), which agree on `depth` bytes, the first whose next byte is not below `byte`. */
static size_t bound(const mzm_chat *c, size_t lo, size_t hi, size_t depth, int byte)
{
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if ((unsigned char)c->special[mid][depth] < byte)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Bytes of the longest special token that s begins with; 0: none. */
static size_t special_at(const mzm_chat *c, const char *s)
{
	size_t lo = 0, hi = c->n_special, best = 0;
	for (size_t depth = 0; lo < hi; depth++) {
		int byte = (unsigned char)s[depth];
		if (c->special[lo][depth] == 0)
			best = depth;
		if (byte == 0)
			break;
		lo = bound(c, lo, hi, depth, byte);
		hi = bound(c, lo, hi, depth, byte + 1);
	}
	return best;
}

/* Whether tokens of a text depend on special tokens in it. */
static mzm_status spells_special(const mzm_chat *c, bool *out, const char *text, size_t len, mzm_err *err)
{
	int32_t *parsed, *plain;
	size_t n_parsed, n_plain;
	MZM_TRY(mzm_tokenize(c->model->tokenizer, text, len, MZM_TOK_PARSE_SPECIAL, &parsed, &n_parsed, err));
	mzm_status st = mzm_tokenize(c->model->tokenizer, text, len, 0, &plain, &n_plain, err);
	if (st == MZM_OK) {
		*out = n_parsed != n_plain || (n_plain && memcmp(parsed, plain, n_plain * sizeof *plain) != 0);
		mzm_ids_free(plain);
	}
	mzm_ids_free(parsed);
	return st;
}

/* ---- rendering ---- */

/* The messages are checked. The date is of now, by the clock and where the machine is. */
static mzm_status render(const mzm_chat *c, const mzm_chat_message *messages, size_t n, bool generate, char **text,
			 mzm_err *err)
{
	const char **parts; /* [n] roles, [n] contents */
	struct tm now;
	time_t clock = time(NULL);
	MZM_TRY(mzm_alloc_for((void **)&parts, (2 * n + 1) * sizeof *parts, "the conversation", err));
	for (size_t i = 0; i < n; i++) {
		parts[i] = messages[i].role;
		parts[n + i] = messages[i].content;
	}
	mzm_status st = mzm_chat_template_render(c->template, parts, parts + n, n, generate, localtime_r(&clock, &now),
						 text, NULL, err);
	mzm_free(parts);
	return st;
}

static mzm_status check_messages(const mzm_chat_message *messages, size_t n, mzm_err *err)
{
	for (size_t i = 0; i < n; i++) {
		const char *content = messages[i].content;
		if (!messages[i].role || !content)
			return mzm_fail(err, MZM_EARG, "message %zu lacks its role or its content", i + 1);
		if (mzm_utf8_valid(content, strlen(content)) != strlen(content))
			return mzm_fail(err, MZM_EARG, "message %zu is not UTF-8", i + 1);
	}
	return MZM_OK;
}

mzm_status mzm_chat_render(const mzm_chat *c, const mzm_chat_message *messages, size_t n, bool generate, char **text,
			   mzm_err *err)
{
	*text = NULL;
	MZM_TRY(check_messages(messages, n, err));
	return render(c, messages, n, generate, text, err);
}

bool mzm_chat_adds_special(const mzm_chat *c)
{
	return !mzm_chat_template_writes_bos(c->template);
}

/* ---- marks ---- */

typedef char mark[5]; /* a private-use character of four bytes */

/* The mark that no content holds. */
static mzm_status choose_mark(mark m, const mzm_chat_message *messages, size_t n, mzm_err *err)
{
	for (int last = 0xBD; last >= 0x80; last--) { /* U+10FFFD, U+10FFFC, ... */
		size_t i = 0;
		memcpy(m, (char[]){(char)0xF4, (char)0x8F, (char)0xBF, (char)last, 0}, sizeof(mark));
		while (i < n && !strstr(messages[i].content, m))
			i++;
		if (i == n)
			return MZM_OK;
	}
	return mzm_fail(err, MZM_EARG, "the conversation holds every private-use character that could mark its parts");
}

/* The content with a mark inside each special token that it spells. */
static void mark_content(const mzm_chat *c, mzm_str *out, const char *s, const mark m)
{
	size_t len = strlen(s), n;
	for (size_t i = 0; i < len; i += n) {
		if (mzm_utf8_scan(s + i, len - i, &n) != MZM_UTF8_WHOLE)
			n = 1;
		mzm_str_add(out, s + i, n);
		if (special_at(c, s + i) > n)
			mzm_str_puts(out, m);
	}
}

/* Tokens of text, appended to ids, each part between marks by itself. */
static mzm_status tokenize_parts(const mzm_chat *c, mzm_str *ids, const char *text, const mark m, unsigned flags,
				 mzm_err *err)
{
	while (*text) {
		const char *at = m[0] ? strstr(text, m) : NULL;
		size_t len = at ? (size_t)(at - text) : strlen(text), n;
		int32_t *part;
		MZM_TRY(mzm_tokenize(c->model->tokenizer, text, len, flags, &part, &n, err));
		if (n)
			mzm_str_add(ids, part, n * sizeof *part);
		mzm_ids_free(part);
		flags &= ~MZM_TOK_ADD_SPECIAL;
		text += len + (at ? strlen(m) : 0);
	}
	return ids->failed ? mzm_fail(err, MZM_ENOMEM, "out of memory for the tokens of the conversation") : MZM_OK;
}

/* Whether the parts of a marked content are free of special tokens. One that is a single character cannot be parted,
 * nor one that only the tokenizer's normaliser brings forth. */
static mzm_status check_parts(const mzm_chat *c, const char *text, const mark m, size_t message, mzm_err *err)
{
	while (*text) {
		const char *at = strstr(text, m);
		size_t len = at ? (size_t)(at - text) : strlen(text);
		bool special;
		MZM_TRY(spells_special(c, &special, text, len, err));
		if (special)
			return mzm_fail(err, MZM_EARG,
					"message %zu holds a special token of the model that cannot be told from text",
					message + 1);
		text += len + (at ? strlen(m) : 0);
	}
	return MZM_OK;
}

/* Messages that spell a special token get a content with marks, kept in marked[i]; m is empty when none does. */
static mzm_status guard(const mzm_chat *c, mzm_chat_message *messages, mzm_str *marked, size_t n, mark m, mzm_err *err)
{
	m[0] = 0;
	for (size_t i = 0; i < n; i++) {
		const char *content = messages[i].content;
		bool special;
		MZM_TRY(spells_special(c, &special, content, strlen(content), err));
		if (!special)
			continue;
		if (!m[0])
			MZM_TRY(choose_mark(m, messages, n, err));
		mark_content(c, &marked[i], content, m);
		if (marked[i].failed)
			return mzm_fail(err, MZM_ENOMEM, "out of memory for the conversation");
		MZM_TRY(check_parts(c, marked[i].data, m, i, err));
		messages[i].content = marked[i].data;
	}
	return MZM_OK;
}

mzm_status mzm_chat_tokenize(const mzm_chat *c, const mzm_chat_message *messages, size_t n, bool generate,
			     int32_t **ids, size_t *n_ids, mzm_err *err)
{
	mzm_status st;
	mzm_chat_message *guarded = NULL;
	mzm_str *marked = NULL, out = {0};
	char *text = NULL;
	mark m = "";
	unsigned flags = MZM_TOK_PARSE_SPECIAL | (mzm_chat_adds_special(c) ? MZM_TOK_ADD_SPECIAL : 0);
	*ids = NULL;
	*n_ids = 0;
	MZM_TRY(check_messages(messages, n, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&guarded, (n + 1) * sizeof *guarded, "the conversation", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&marked, (n + 1) * sizeof *marked, "the conversation", err));
	for (size_t i = 0; i < n; i++)
		guarded[i] = messages[i];
	MZM_TRY_OUT(guard(c, guarded, marked, n, m, err));
	MZM_TRY_OUT(render(c, guarded, n, generate, &text, err));
	MZM_TRY_OUT(tokenize_parts(c, &out, text, m, flags, err));
	*n_ids = out.len / sizeof **ids;
	*ids = (int32_t *)(void *)out.data; /* a block of the allocator's, aligned for anything */
	out = (mzm_str){0};
out:
	mzm_str_free(&out);
	for (size_t i = 0; marked && i < n; i++)
		mzm_str_free(&marked[i]);
	mzm_free(marked);
	mzm_free(guarded);
	mzm_free(text);
	return st;
}

/* ---- a chat from start to end ---- */

/* What the template writes behind an answer. One that refuses the question has no end that we could know. */
static mzm_status find_end(mzm_chat *c, mzm_err *err)
{
	static const mzm_chat_message talk[] = {{"user", "a"}, {"assistant", PROBE}};
	char *text;
	if (render(c, talk, 2, false, &text, NULL) != MZM_OK)
		return MZM_OK;
	const char *at = strstr(text, PROBE), *later;
	while (at && (later = strstr(at + 1, PROBE)))
		at = later;
	at = at ? at + strlen(PROBE) : text + strlen(text);
	at += strspn(at, " \t\r\n");
	size_t len = special_at(c, at);
	mzm_status st = MZM_OK;
	if (len && !(c->end = mzm_strndup(at, len)))
		st = mzm_fail(err, MZM_ENOMEM, "out of memory");
	mzm_free(text);
	return st;
}

const char *mzm_chat_end(const mzm_chat *c)
{
	return c->end;
}

mzm_status mzm_chat_create(mzm_chat **out, const mzm_model *model, const char *text, mzm_err *err)
{
	mzm_status st;
	mzm_chat *c;
	*out = NULL;
	if (!model->tokenizer)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s: the model has no tokenizer, and without one no chat",
				model->path);
	MZM_TRY(mzm_alloc_for((void **)&c, sizeof *c, "the chat", err));
	c->model = model;
	MZM_TRY_OUT(mzm_chat_template_create(&c->template, model->tokenizer_config, model->tokenizer_config_len, text,
					     err));
	MZM_TRY_OUT(collect_special(c, err));
	MZM_TRY_OUT(find_end(c, err));
	*out = c;
	return MZM_OK;
out:
	mzm_chat_free(c);
	return st;
}

void mzm_chat_free(mzm_chat *c)
{
	if (!c)
		return;
	mzm_chat_template_free(c->template);
	mzm_free(c->special);
	mzm_free(c->end);
	mzm_free(c);
}
