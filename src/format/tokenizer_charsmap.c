/* tokenizer_charsmap.c - the normaliser "Precompiled": SentencePiece's table of replacements, such as nmt_nfkc.
 *
 * The blob is a length, a double-array trie of that many bytes (units of 32 bits as Darts-clone writes them) and
 * the replacements, each with a NUL behind it; a key's value is where its replacement starts. At each place of the
 * text the longest key is replaced, as SentencePiece does, and what no key starts with stays.
 *
 * Nothing in the blob is believed: each step stays inside the array and takes a byte of the text, keys end at
 * MAX_KEY bytes, so a trie with cycles is only strange; values are checked against the replacements, which end with a
 * NUL. Most text is ASCII of which no key consists: a table knows where that may be copied without a look. */
#include "format/tokenizer_impl.h"

#define MAX_KEY 256

struct mzm_charsmap {
	char *blob;      /* what the file holds */
	uint32_t *units; /* [n_units] */
	size_t n_units;
	const char *texts; /* [n_texts], the last is a NUL */
	size_t n_texts;
	bool starts[256]; /* some key starts with this byte */
};

/* ---- units ---- */

static uint32_t offset_of(uint32_t unit)
{
	return unit >> 10 << ((unit & 0x200) >> 6);
}

static bool has_label(uint32_t unit, unsigned char byte)
{
	return (unit & 0x800000ffu) == byte;
}

/* Place of what stands behind `byte` in the trie; SIZE_MAX: nothing does. */
static size_t step(const mzm_charsmap *m, size_t at, unsigned char byte, bool *ends)
{
	at ^= byte;
	if (at >= m->n_units || !has_label(m->units[at], byte))
		return SIZE_MAX;
	*ends = m->units[at] >> 8 & 1;
	return at ^ offset_of(m->units[at]);
}

/* The longest key at the start of s: its length, and where its replacement starts; 0: there is none. */
static size_t longest_key(const mzm_charsmap *m, const char *s, size_t len, size_t *text)
{
	size_t at = offset_of(m->units[0]), used = 0;
	bool ends = false;
	for (size_t i = 0; i < len && i < MAX_KEY; i++) {
		at = step(m, at, (unsigned char)s[i], &ends);
		if (at == SIZE_MAX)
			break;
		if (ends && at < m->n_units) {
			used = i + 1;
			*text = m->units[at] & 0x7fffffffu;
		}
	}
	return used;
}

/* ---- reading ---- */

static int sextet(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* out has room for 3/4 of len. False: not base64. */
static bool decode_base64(char *out, size_t *n_out, const char *s, size_t len)
{
	uint32_t bits = 0;
	size_t n = 0;
	while (len && s[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		int six = sextet(s[i]);
		if (six < 0)
			return false;
		bits = bits << 6 | (uint32_t)six;
		if (i % 4)
			out[n++] = (char)(bits >> (6 - 2 * (i % 4)));
	}
	*n_out = n;
	return len % 4 != 1;
}

static mzm_status split_blob(mzm_charsmap *m, size_t n, mzm_err *err)
{
	uint32_t bytes = 0;
	if (n >= sizeof bytes)
		memcpy(&bytes, m->blob, sizeof bytes);
	if (n < sizeof bytes || !bytes || bytes % sizeof *m->units || bytes > n - sizeof bytes)
		return mzm_fail(err, MZM_EFORMAT, "charsmap: a trie of %u bytes in %zu", bytes, n);
	m->n_units = bytes / sizeof *m->units;
	MZM_TRY(mzm_alloc_for((void **)&m->units, bytes, "a charsmap", err));
	memcpy(m->units, m->blob + sizeof bytes, bytes); /* aligned */
	m->texts = m->blob + sizeof bytes + bytes;
	m->n_texts = n - sizeof bytes - bytes;
	if (m->n_texts && m->texts[m->n_texts - 1] != 0)
		return mzm_fail(err, MZM_EFORMAT, "charsmap: its last text has no end");
	return MZM_OK;
}

/* Texts become part of the text that patterns are matched against, so they are UTF-8. */
static mzm_status check_texts(const mzm_charsmap *m, mzm_err *err)
{
	size_t valid = mzm_utf8_valid(m->texts, m->n_texts);
	if (valid != m->n_texts)
		return mzm_fail(err, MZM_EFORMAT, "charsmap: byte %zu of its texts is not UTF-8", valid);
	for (size_t at = 0; at < m->n_units; at++) {
		uint32_t unit = m->units[at];
		size_t leaf = at ^ offset_of(unit);
		if (at == 0 || unit >> 31 || !(unit >> 8 & 1) || leaf >= m->n_units)
			continue;
		size_t text = m->units[leaf] & 0x7fffffffu;
		if (text >= m->n_texts || ((unsigned char)m->texts[text] & 0xc0) == 0x80)
			return mzm_fail(err, MZM_EFORMAT, "charsmap: unit %zu names no text", at);
	}
	return MZM_OK;
}

mzm_status mzm_charsmap_parse(mzm_charsmap **out, const char *base64, size_t len, mzm_err *err)
{
	mzm_charsmap *m = NULL;
	mzm_status st;
	size_t n;
	bool ends;
	*out = NULL;
	MZM_TRY_OUT(mzm_alloc_for((void **)&m, sizeof *m, "a charsmap", err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&m->blob, len / 4 * 3 + 3, "a charsmap", err));
	if (!decode_base64(m->blob, &n, base64, len))
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "charsmap: not base64"));
	MZM_TRY_OUT(split_blob(m, n, err));
	MZM_TRY_OUT(check_texts(m, err));
	for (unsigned b = 0; b < 256; b++)
		m->starts[b] = step(m, offset_of(m->units[0]), (unsigned char)b, &ends) != SIZE_MAX;
	*out = m;
	return MZM_OK;
out:
	mzm_charsmap_free(m);
	return st;
}

void mzm_charsmap_free(mzm_charsmap *m)
{
	if (!m)
		return;
	mzm_free(m->blob);
	mzm_free(m->units);
	mzm_free(m);
}

/* ---- applying ---- */

/* The character at i is no key, nor what it starts with: copied as it stands. */
static size_t skip_plain(const mzm_charsmap *m, const char *s, size_t len, size_t i)
{
	size_t text, n;
	for (; i < len; i += n) {
		n = mzm_utf8_need((unsigned char)s[i]);
		if (m->starts[(unsigned char)s[i]] && longest_key(m, s + i, len - i, &text))
			break;
	}
	return i;
}

mzm_status mzm_charsmap_apply(mzm_str *out, const mzm_charsmap *m, const char *s, size_t len, size_t max, mzm_err *err)
{
	size_t text = 0;
	for (size_t i = 0; i < len;) {
		size_t plain = skip_plain(m, s, len, i), n;
		mzm_str_add(out, s + i, plain - i);
		i = plain;
		if (i == len)
			break;
		n = longest_key(m, s + i, len - i, &text);
		mzm_str_puts(out, m->texts + text);
		i += n;
		while (i < len && ((unsigned char)s[i] & 0xc0) == 0x80)
			i++; /* a key that ends inside a character takes all of it */
		if (out->len > max)
			return mzm_fail(err, MZM_EUNSUPPORTED, "the normalizer grows this text too much");
		if (out->failed)
			break;
	}
	return MZM_OK;
}
