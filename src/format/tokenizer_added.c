/* tokenizer_added.c - added tokens in running text: leftmost first, longest of those.
 *
 * The tokens are sorted, so those with a common beginning stand together; at each position that range is
 * narrowed byte by byte. Most positions end at the table of first bytes. A search looks at no more than
 * MZM_TOK_MAX_ADDED bytes from any position, so the whole is linear. */
#include <stdlib.h>
#include <utf8proc.h>

#include "format/tokenizer_impl.h"

static int by_match(const void *a, const void *b)
{
	const mzm_added *x = a, *y = b;
	size_t n = x->len < y->len ? x->len : y->len;
	int c = memcmp(x->match, y->match, n);
	if (c)
		return c;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

void mzm_added_sort(mzm_added_set *set)
{
	if (set->n > 1)
		qsort(set->v, (size_t)set->n, sizeof *set->v, by_match);
	int32_t i = 0;
	for (int b = 0; b <= 256; b++) {
		while (i < set->n && (unsigned char)set->v[i].match[0] < b)
			i++;
		set->first[b] = i;
	}
}

void mzm_added_free(mzm_added_set *set)
{
	for (int32_t i = 0; i < set->n; i++)
		mzm_free(set->v[i].match);
	mzm_free(set->v);
	*set = (mzm_added_set){0};
}

/* In v[lo..hi), which agree on `depth` bytes and are longer, the first whose next byte is >= c. */
static int32_t lower(const mzm_added_set *set, int32_t lo, int32_t hi, size_t depth, int c)
{
	while (lo < hi) {
		int32_t mid = lo + (hi - lo) / 2;
		if ((unsigned char)set->v[mid].match[depth] < c)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The longest token at the start of s[0..n), n >= 1; NULL: none. */
static const mzm_added *longest_at(const mzm_added_set *set, const char *s, size_t n, bool special)
{
	const mzm_added *best = NULL;
	int32_t lo = set->first[(unsigned char)s[0]], hi = set->first[(unsigned char)s[0] + 1];
	for (size_t depth = 1; lo < hi; depth++) {
		bool taken = false;
		for (; lo < hi && set->v[lo].len == depth; lo++) {
			if (taken || (set->v[lo].special && !special))
				continue;
			best = &set->v[lo];
			taken = true;
		}
		if (depth == n)
			break;
		int c = (unsigned char)s[depth];
		lo = lower(set, lo, hi, depth, c);
		hi = lower(set, lo, hi, depth, c + 1);
	}
	return best;
}

/* Of a word, as regular expressions mean it: letter, mark, digit, connector. Bytes that are not UTF-8 are not. */
static bool is_word(uint32_t c)
{
	if (c < 0x80)
		return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
	utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
	return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC || c == 0x200c ||
	       c == 0x200d;
}

/* The character at s + at, in any bytes; U+FFFD where there is none. */
static uint32_t char_at(const char *s, size_t len, size_t at, size_t *n)
{
	if (at < len && mzm_utf8_scan(s + at, len - at, n) == MZM_UTF8_WHOLE)
		return mzm_utf8_value(s + at, *n);
	*n = 1;
	return 0xfffd;
}

/* The character that ends at s + end. */
static uint32_t char_before(const char *s, size_t end, size_t *n)
{
	if (end) {
		size_t start = mzm_utf8_back(s, end), low = end > 4 ? end - 4 : 0;
		uint32_t c = char_at(s, end, start < low ? low : start, n);
		if (start >= low && start + *n == end)
			return c;
	}
	*n = 1;
	return 0xfffd;
}

static bool stands_alone(const char *s, size_t len, mzm_span at)
{
	size_t n;
	return !(at.start > 0 && is_word(char_before(s, at.start, &n))) &&
	       !(at.end < len && is_word(char_at(s, len, at.end, &n)));
}

static mzm_added_hit take_blanks(const mzm_added *a, const char *s, size_t len, size_t from, mzm_span at)
{
	size_t n;
	while (a->lstrip && at.start > from && mzm_is_space(char_before(s, at.start, &n)) && at.start - n >= from)
		at.start -= n;
	while (a->rstrip && at.end < len && mzm_is_space(char_at(s, len, at.end, &n)))
		at.end += n;
	return (mzm_added_hit){.id = a->id, .span = at};
}

mzm_added_hit mzm_added_next(const mzm_added_set *set, const char *s, size_t len, size_t pos, bool special)
{
	size_t from = pos;
	while (set->n && pos < len) {
		unsigned char b = (unsigned char)s[pos];
		const mzm_added *a = NULL;
		if (set->first[b] < set->first[b + 1])
			a = longest_at(set, s + pos, len - pos, special);
		if (!a) {
			pos++;
			continue;
		}
		mzm_span at = {pos, pos + a->len};
		if (!a->single_word || stands_alone(s, len, at))
			return take_blanks(a, s, len, from, at);
		pos = at.end;
	}
	return (mzm_added_hit){.id = -1, .span = {len, len}};
}
