/* skip_set.c - see skip_set.h. */
#include "decode/skip_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MOST_LAYERS 100000 /* no model has as many; a number below it cannot overflow */

static mzm_status bad(const char *text, mzm_err *err)
{
	return mzm_fail(err, MZM_EARG,
			"skip: \"%.80s\" is no set of layers like \"attn:3,4 mlp:1-5\" (nor \"%s\", \"%s\")", text,
			MZM_SKIP_AUTO, MZM_SKIP_NONE);
}

/* A layer's number at *at, which moves behind it; -1: there is none. */
static int32_t number(const char **at)
{
	int32_t n = 0;
	if (**at < '0' || **at > '9')
		return -1;
	for (; **at >= '0' && **at <= '9'; ++*at)
		n = n < MOST_LAYERS ? 10 * n + (**at - '0') : n;
	return n;
}

/* "3,4" or "1-5" at *at. */
static mzm_status parse_layers(uint8_t *skip, int32_t n_layers, bool ffn, const char **at, const char *text,
			       mzm_err *err)
{
	for (;; ++*at) {
		int32_t first = number(at), last = first;
		if (**at == '-') {
			++*at;
			last = number(at);
		}
		if (first < 0 || last < first)
			return bad(text, err);
		if (n_layers > 0 && last >= n_layers)
			return mzm_fail(err, MZM_EARG, "skip: there is no layer %d; the model has 0 to %d", (int)last,
					(int)n_layers - 1);
		for (int32_t l = first; skip && l <= last; l++)
			skip[2 * l + ffn] = 1;
		if (**at != ',')
			return MZM_OK;
	}
}

mzm_status mzm_skip_parse(uint8_t *skip, int32_t n_layers, const char *text, mzm_err *err)
{
	const char *at = text;
	if (skip)
		memset(skip, 0, 2 * (size_t)n_layers);
	if (strcmp(text, MZM_SKIP_NONE) == 0)
		return MZM_OK;
	do {
		at += strspn(at, " ");
		bool ffn = strncmp(at, "mlp:", 4) == 0;
		if (!ffn && strncmp(at, "attn:", 5) != 0)
			return bad(text, err);
		at += ffn ? 4 : 5;
		MZM_TRY(parse_layers(skip, n_layers, ffn, &at, text, err));
		if (*at && *at != ' ')
			return bad(text, err);
		at += strspn(at, " ");
	} while (*at);
	return MZM_OK;
}

/* Adds to buf[cap], as far as there is room. */
static void add(char *buf, size_t cap, const char *format, int32_t a, int32_t b)
{
	size_t n = strlen(buf);
	char piece[40];
	snprintf(piece, sizeof piece, format, (int)a, (int)b);
	snprintf(buf + n, cap - n, "%s", piece);
}

static void print_kind(char *buf, size_t cap, const uint8_t *skip, int32_t n_layers, bool ffn)
{
	bool first = true;
	for (int32_t l = 0, end; l < n_layers; l = end + 1) {
		for (end = l; end < n_layers && skip[2 * end + ffn]; end++)
			;
		if (end == l)
			continue;
		if (first)
			add(buf, cap, buf[0] ? ffn ? " mlp:" : " attn:" : ffn ? "mlp:" : "attn:", 0, 0);
		else
			add(buf, cap, ",", 0, 0);
		add(buf, cap, end - l > 1 ? "%d-%d" : "%d", l, end - 1);
		first = false;
	}
}

const char *mzm_skip_print(char *buf, size_t cap, const uint8_t *skip, int32_t n_layers)
{
	buf[0] = 0;
	print_kind(buf, cap, skip, n_layers, false);
	print_kind(buf, cap, skip, n_layers, true);
	if (!buf[0])
		snprintf(buf, cap, "%s", MZM_SKIP_NONE);
	return buf;
}

bool mzm_skip_find(uint8_t *skip, const mzm_calib *c, int32_t n_layers)
{
	const float *stored = mzm_calib_find(c, MZM_SKIP_TENSOR, -1, MZM_F32, n_layers, 2);
	for (int32_t i = 0; stored && i < 2 * n_layers; i++)
		skip[i] = stored[i] > 0.5f;
	return stored != NULL;
}

mzm_status mzm_skip_store(mzm_calib_writer *to, const uint8_t *skip, int32_t n_layers, mzm_err *err)
{
	float *wide;
	MZM_TRY(mzm_alloc_for((void **)&wide, 2 * (size_t)n_layers * sizeof *wide, "the set of layers", err));
	for (int32_t i = 0; i < 2 * n_layers; i++)
		wide[i] = skip[i] != 0;
	mzm_status st = mzm_calib_add(to, MZM_SKIP_TENSOR, -1, MZM_F32, n_layers, 2, wide, err);
	mzm_free(wide);
	return st;
}

int32_t mzm_skip_count(const uint8_t *skip, int32_t n_layers, bool ffn)
{
	int32_t n = 0;
	for (int32_t l = 0; l < n_layers; l++)
		n += skip[2 * l + ffn] != 0;
	return n;
}
