/* extract.c - see extract.h. */
#include "eval/extract.h"

#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_number(char c) /* [0-9.,] */
{
	return is_digit(c) || c == '.' || c == ',';
}

static bool is_money(char c) /* [$0-9.,] */
{
	return is_number(c) || c == '$';
}

/* The end of the run of such characters that starts at i. */
static size_t run_end(const char *text, size_t len, size_t i, bool (*is)(char))
{
	while (i < len && is(text[i]))
		i++;
	return i;
}

static bool starts_with(const char *text, size_t len, size_t i, const char *marker, size_t n)
{
	return len - i >= n && memcmp(text + i, marker, n) == 0;
}

mze_span mze_extract_strict(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!starts_with(text, len, i, "#### ", 5))
			continue;
		size_t start = i + 5;
		size_t number = start < len && text[start] == '-' ? start + 1 : start;
		size_t end = run_end(text, len, number, is_number);
		if (end > number)
			return (mze_span){text + start, end - start};
	}
	return (mze_span){0};
}

mze_span mze_extract_cot(const char *text, size_t len, bool *cut)
{
	const char *marker = "The answer is ";
	const size_t n = strlen(marker);
	if (cut)
		*cut = false;
	for (size_t i = 0; i < len; i++) {
		if (!starts_with(text, len, i, marker, n))
			continue;
		size_t start = i + n;
		size_t number = start < len && text[start] == '-' ? start + 1 : start;
		size_t end = run_end(text, len, number, is_number);
		if (end > number && end < len && text[end] != '\n')
			return (mze_span){text + start, end - start};
		if (end > number + 1) { /* the final point of the pattern takes the run's last character */
			if (cut)
				*cut = text[end - 1] != '.';
			return (mze_span){text + start, end - 1 - start};
		}
	}
	return (mze_span){0};
}

mze_span mze_extract_flexible(const char *text, size_t len)
{
	mze_span last = {0};
	for (size_t i = 0; i < len;) {
		size_t number = text[i] == '-' ? i + 1 : i;
		size_t end = run_end(text, len, number, is_money);
		if (end < number + 2)
			end = run_end(text, len, number, is_digit);
		if (end > number) {
			last = (mze_span){text + i, end - i};
			i = end;
		} else {
			i++;
		}
	}
	return last;
}

/* Drops every c. */
static size_t drop(char *s, size_t len, char c)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] != c)
			s[n++] = s[i];
	}
	return n;
}

size_t mze_normalise(char *s, size_t len)
{
	len = drop(s, len, ',');
	len = drop(s, len, '$');
	for (size_t i = len; i-- > 0;) {
		if (starts_with(s, len, i, "#### ", 5)) {
			len -= i + 5;
			memmove(s, s + i + 5, len);
			break;
		}
	}
	if (len && s[len - 1] == '.') {
		len--;
	} else if (len > 1 && s[len - 1] == '\n' && s[len - 2] == '.') { /* re's $ also stands before a final newline */
		s[len - 2] = '\n';
		len--;
	}
	for (size_t i = 0; i < len; i++) {
		if (s[i] >= 'A' && s[i] <= 'Z')
			s[i] = (char)(s[i] - 'A' + 'a');
	}
	return len;
}
