/* tokenizer_utf8.h - UTF-8 by the letter: no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 * One scanner serves encoding (where does valid text end?), and streaming decoding (is this sequence
 * whole, broken, or merely unfinished?). Broken sequences end after their longest valid beginning, the
 * "maximal subpart" of the Unicode standard, chapter 3.9. */
#ifndef MZM_TOKENIZER_UTF8_H
#define MZM_TOKENIZER_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum mzm_utf8_kind { MZM_UTF8_WHOLE, MZM_UTF8_BROKEN, MZM_UTF8_PARTIAL } mzm_utf8_kind;

/* Bytes of a sequence that starts with this byte; 0: no sequence starts so. */
static inline size_t mzm_utf8_need(unsigned char lead)
{
	if (lead < 0x80)
		return 1;
	if (lead < 0xc2 || lead > 0xf4)
		return 0;
	return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* The sequence at s[0..n), n >= 1: its kind and how many bytes it takes. */
static inline mzm_utf8_kind mzm_utf8_scan(const char *s, size_t n, size_t *len)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t need = mzm_utf8_need(p[0]);
	*len = 1;
	if (need <= 1)
		return need ? MZM_UTF8_WHOLE : MZM_UTF8_BROKEN;
	/* the second byte has a narrower range behind these four leads */
	unsigned char lo = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
	unsigned char hi = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
	for (; *len < need; (*len)++) {
		if (*len == n)
			return MZM_UTF8_PARTIAL;
		if (p[*len] < lo || p[*len] > hi)
			return MZM_UTF8_BROKEN;
		lo = 0x80;
		hi = 0xbf;
	}
	return MZM_UTF8_WHOLE;
}

/* Code point of the whole, valid sequence s[0..len). */
static inline uint32_t mzm_utf8_value(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;
	if (len == 1)
		return p[0];
	uint32_t cp = p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++)
		cp = cp << 6 | (p[i] & 0x3fu);
	return cp;
}

/* The character at the start of valid text. */
static inline uint32_t mzm_utf8_next(const char *s, size_t *len)
{
	*len = mzm_utf8_need((unsigned char)s[0]);
	return mzm_utf8_value(s, *len);
}

/* Start of the character that ends at s + end in valid text, end > 0. */
static inline size_t mzm_utf8_back(const char *s, size_t end)
{
	do
		end--;
	while (end > 0 && ((unsigned char)s[end] & 0xc0) == 0x80);
	return end;
}

static inline size_t mzm_utf8_put(uint32_t cp, char out[4])
{
	if (cp < 0x80) {
		out[0] = (char)cp;
		return 1;
	}
	size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
	for (size_t i = len - 1; i > 0; i--, cp >>= 6)
		out[i] = (char)(0x80u | (cp & 0x3fu));
	out[0] = (char)((0xf00u >> len & 0xffu) | cp);
	return len;
}

/* Length of the valid text at the start of s[0..n). */
static inline size_t mzm_utf8_valid(const char *s, size_t n)
{
	size_t i = 0, len;
	while (i < n) {
		uint64_t eight;
		if (i + 8 <= n && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u)))
			i += 8;
		else if (mzm_utf8_scan(s + i, n - i, &len) == MZM_UTF8_WHOLE)
			i += len;
		else
			break;
	}
	return i;
}

/* Unicode's White_Space. */
static inline int mzm_is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

#endif
