/* tokenizer_decode.c - from ids back to text.
 *
 * All that a decoder does to one token alone (ByteLevel, Replace, ByteFallback, Metaspace, Strip before a
 * Fuse) is done once per token when the file is read; what it does to the whole text is the loss of one
 * first blank. So decoding is copying, and streaming needs no more state than an unfinished UTF-8 sequence.
 *
 * A WordPiece decoder makes a blank in front of each token that starts a word, so all but the first blank stand in
 * the table; where it meets a first token that continues a word it takes its prefix off, which the reference leaves.
 * Where a Metaspace decoder meets a first token of several blanks it loses one, as that is what the
 * encoder had put there; the reference loses all of them. */
#include "format/tokenizer_impl.h"

#define BYTES_GROWTH 16 /* all tokens' bytes against their contents */

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- when the file is read: the bytes of each token ---- */

int mzm_byte_of_name(const char *s, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";
	if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
		return -1;
	const char *high = memchr(digits, s[3], 16), *low = memchr(digits, s[4], 16);
	return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

static void unmap_bytes(mzm_str *out, const char *s, size_t len)
{
	size_t n, start = out->len;
	for (size_t i = 0; i < len; i += n) {
		int byte = mzm_char_to_byte(mzm_utf8_next(s + i, &n));
		char c = (char)byte;
		if (byte < 0) { /* not of that alphabet: taken as it stands */
			out->len = start;
			mzm_str_add(out, s, len);
			return;
		}
		mzm_str_add(out, &c, 1);
	}
}

/* Up to n_start characters equal to mark from the start, n_stop from the end. */
static void strip(mzm_str *out, const mzm_step *step, const char *s, size_t len)
{
	const mzm_str *mark = &step->content;
	for (int32_t i = 0; i < step->n_start && len >= mark->len && memcmp(s, mark->data, mark->len) == 0; i++) {
		s += mark->len;
		len -= mark->len;
	}
	for (int32_t i = 0; i < step->n_stop && len >= mark->len; i++) {
		if (memcmp(s + len - mark->len, mark->data, mark->len) != 0)
			break;
		len -= mark->len;
	}
	mzm_str_add(out, s, len);
}

static void unmark(mzm_str *out, const mzm_str *mark, const char *s, size_t len)
{
	const char *end = s + len, *hit;
	while ((hit = memmem(s, (size_t)(end - s), mark->data, mark->len))) {
		mzm_str_add(out, s, (size_t)(hit - s));
		mzm_str_puts(out, " ");
		s = hit + mark->len;
	}
	mzm_str_add(out, s, (size_t)(end - s));
}

/* A token that starts a word has a blank in front, except punctuation and the ends of English contractions. */
static void open_word(mzm_str *out, const mzm_step *step, const char *s, size_t len)
{
	static const char *const tight[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
	const mzm_str *prefix = &step->content;
	bool joins = prefix->len && len >= prefix->len && memcmp(s, prefix->data, prefix->len) == 0;
	size_t cut = joins ? prefix->len : 0;
	for (size_t i = 0; i < sizeof tight / sizeof *tight && step->clean && !joins; i++)
		joins = strncmp(s, tight[i], strlen(tight[i])) == 0;
	if (!joins)
		mzm_str_puts(out, " ");
	mzm_str_add(out, s + cut, len - cut);
}

/* One step on one token; *done: the result is bytes that no further step may touch. */
static mzm_status apply(const mzm_step *step, mzm_find *find, mzm_str *out, const mzm_str *in, bool *done, mzm_err *err)
{
	int byte = step->kind == MZM_DEC_BYTE_FALLBACK && in->len ? mzm_byte_of_name(in->data, in->len) : -1;
	char c = (char)byte;
	const char *s = in->len ? in->data : "";
	out->len = 0;
	switch (step->kind) {
	case MZM_DEC_BYTELEVEL:
		unmap_bytes(out, s, in->len);
		*done = true;
		break;
	case MZM_DEC_REPLACE:
		return mzm_tok_replace(out, find, step, s, in->len, err);
	case MZM_DEC_STRIP:
		strip(out, step, s, in->len);
		break;
	case MZM_DEC_WORDPIECE:
		open_word(out, step, s, in->len);
		break;
	case MZM_DEC_METASPACE:
		unmark(out, &step->content, s, in->len);
		break;
	default: /* ByteFallback */
		*done = byte >= 0;
		mzm_str_add(out, byte >= 0 ? &c : s, byte >= 0 ? 1 : in->len);
	}
	return MZM_OK;
}

static mzm_status token_bytes(mzm_tokenizer *tok, const mzm_steps *dec, mzm_find *find, mzm_str buf[2], int32_t id,
			      mzm_err *err)
{
	mzm_vocab *v = &tok->vocab;
	mzm_tok_token *t = &v->tokens[id];
	int in = 0;
	bool verbatim = (v->flags[id] & MZM_TOKEN_ADDED) && tok->byte_level, done = verbatim;
	buf[0].len = 0;
	mzm_str_add(&buf[0], v->arena + t->content, t->content_len);
	for (int32_t i = 0; i < dec->n && !done; i++) {
		if (dec->v[i].kind == MZM_DEC_FUSE)
			break;
		MZM_TRY(apply(&dec->v[i], find, &buf[in ^ 1], &buf[in], &done, err));
		in ^= 1;
		if (v->bytes.len + buf[in].len > BYTES_GROWTH * v->arena_len + MZM_TOK_GROWTH_MIN)
			return mzm_fail(err, MZM_EUNSUPPORTED, "decoder: makes too much text of the tokens");
	}
	t->bytes = (uint32_t)v->bytes.len;
	t->bytes_len = (uint32_t)buf[in].len;
	mzm_str_add(&v->bytes, buf[in].data, buf[in].len);
	if (v->bytes.failed || buf[0].failed || buf[1].failed)
		return mzm_fail(err, MZM_ENOMEM, "out of memory for decoding");
	if (buf[in].len > tok->max_bytes)
		tok->max_bytes = buf[in].len;
	return MZM_OK;
}

/* What the decoder does to the text as a whole: at most, it takes one blank from its start. */
static mzm_status whole_text_steps(mzm_tokenizer *tok, const mzm_steps *dec, mzm_err *err)
{
	bool fused = false;
	for (int32_t i = 0; i < dec->n; i++) {
		const mzm_step *step = &dec->v[i];
		if (step->kind == MZM_DEC_WORDPIECE ||
		    (step->kind == MZM_DEC_METASPACE && step->scheme != MZM_PREPEND_NEVER)) {
			tok->drop_first = true;
			tok->first_char = ' ';
		}
		if (fused && step->kind == MZM_DEC_STRIP) {
			if (tok->drop_first || step->n_start > 1 || step->n_stop > 0 || step->content.len > 1)
				return mzm_fail(err, MZM_EUNSUPPORTED, "decoder: Strip of more than one first blank");
			tok->drop_first = step->n_start == 1;
			tok->first_char = step->content.data[0];
		} else if (fused && step->kind != MZM_DEC_FUSE) {
			return mzm_fail(err, MZM_EUNSUPPORTED,
					"decoder: nothing but Strip may follow Fuse or ByteLevel");
		}
		fused = fused || step->kind == MZM_DEC_FUSE || step->kind == MZM_DEC_BYTELEVEL;
	}
	return MZM_OK;
}

mzm_status mzm_tok_build_bytes(mzm_tokenizer *tok, const mzm_steps *decoder, bool has_decoder, mzm_err *err)
{
	mzm_str buf[2] = {{0}, {0}};
	mzm_find find = {0};
	mzm_status st;
	tok->join_blank = !has_decoder;
	MZM_TRY_OUT(whole_text_steps(tok, decoder, err));
	for (int32_t id = 0; id < tok->vocab.n; id++)
		if ((tok->vocab.flags[id] & MZM_TOKEN_PRESENT) && !(tok->vocab.flags[id] & MZM_TOKEN_SPECIAL))
			MZM_TRY_OUT(token_bytes(tok, decoder, &find, buf, id, err));
out:
	mzm_str_free(&buf[0]);
	mzm_str_free(&buf[1]);
	mzm_find_free(&find);
	return st;
}

/* ---- decoding ---- */

const char *mzm_token_bytes(const mzm_tokenizer *tok, int32_t id, size_t *len)
{
	*len = mzm_vocab_has(&tok->vocab, id) ? tok->vocab.tokens[id].bytes_len : 0;
	return *len ? tok->vocab.bytes.data + tok->vocab.tokens[id].bytes : "";
}

mzm_text_decoder mzm_text_decoder_init(const mzm_tokenizer *tok)
{
	return (mzm_text_decoder){.tok = tok};
}

/* Each byte may turn out to be a U+FFFD of three; so may what was pending; and a joining blank. */
size_t mzm_text_decoder_max(const mzm_tokenizer *tok)
{
	return 3 * tok->max_bytes + 4;
}

typedef struct sink {
	char *out;
	size_t n, cap;
} sink;

static void put(sink *k, const void *s, size_t n)
{
	if (n > k->cap - k->n)
		return; /* a caller that gave less than mzm_text_decoder_max() loses text, not memory */
	memcpy(k->out + k->n, s, n);
	k->n += n;
}

/* One more byte for the pending sequence; false: it does not belong there, and comes again. */
static bool feed_pending(mzm_text_decoder *dec, sink *k, char byte)
{
	size_t used;
	dec->pending[dec->n_pending++] = (unsigned char)byte;
	mzm_utf8_kind kind = mzm_utf8_scan((const char *)dec->pending, dec->n_pending, &used);
	if (kind == MZM_UTF8_PARTIAL)
		return true;
	if (kind == MZM_UTF8_WHOLE)
		put(k, dec->pending, used);
	else
		put(k, replacement, 3);
	dec->n_pending = 0;
	return kind == MZM_UTF8_WHOLE;
}

static void feed(mzm_text_decoder *dec, sink *k, const char *s, size_t len)
{
	size_t i = 0, used;
	while (i < len) {
		if (dec->n_pending) {
			i += feed_pending(dec, k, s[i]);
			continue;
		}
		size_t valid = mzm_utf8_valid(s + i, len - i);
		put(k, s + i, valid);
		i += valid;
		if (i == len)
			break;
		if (mzm_utf8_scan(s + i, len - i, &used) == MZM_UTF8_BROKEN) {
			put(k, replacement, 3);
		} else {
			memcpy(dec->pending, s + i, used);
			dec->n_pending = (uint8_t)used;
		}
		i += used;
	}
}

size_t mzm_text_decoder_push(mzm_text_decoder *dec, int32_t id, char *out, size_t cap)
{
	const mzm_tokenizer *tok = dec->tok;
	sink k = {.out = out, .cap = cap};
	size_t len;
	const char *s = mzm_token_bytes(tok, id, &len);
	if (!len)
		return 0;
	if (dec->started && tok->join_blank)
		put(&k, " ", 1);
	if (!dec->started && tok->drop_first && *s == tok->first_char) {
		s++;
		len--;
	}
	dec->started = true;
	feed(dec, &k, s, len);
	return k.n;
}

size_t mzm_text_decoder_flush(mzm_text_decoder *dec, char *out, size_t cap)
{
	sink k = {.out = out, .cap = cap};
	if (dec->n_pending)
		put(&k, replacement, 3);
	dec->n_pending = 0;
	return k.n;
}

mzm_status mzm_detokenize(const mzm_tokenizer *tok, const int32_t *ids, size_t n_ids, char **text, size_t *len,
			  mzm_err *err)
{
	mzm_text_decoder dec = mzm_text_decoder_init(tok);
	mzm_str out = {0};
	size_t n;
	*text = NULL;
	*len = 0;
	for (size_t i = 0; i < n_ids; i++) {
		(void)mzm_token_bytes(tok, ids[i], &n);
		if (mzm_tok_room(&out, 3 * n + 4))
			out.len += mzm_text_decoder_push(&dec, ids[i], out.data + out.len, out.cap - out.len);
	}
	if (mzm_tok_room(&out, 4))
		out.len += mzm_text_decoder_flush(&dec, out.data + out.len, out.cap - out.len);
	mzm_str_add(&out, "", 0);
	if (out.failed) {
		mzm_str_free(&out);
		return mzm_fail(err, MZM_ENOMEM, "out of memory for the text of %zu tokens", n_ids);
	}
	*text = out.data;
	*len = out.len;
	return MZM_OK;
}

void mzm_string_free(char *s)
{
	mzm_free(s);
}
