/* bench_tokenizer.c - how fast a tokenizer is, and how much memory it takes.
 *
 * Usage: bench_tokenizer TOKENIZER TEXT [MB [REPEAT]]     TOKENIZER: what `-m` takes, or tokenizer.json; TEXT: a file,
 * or
 * @UNIT for a unit of text, escapes as in printf. The text is repeated until there are MB megabytes (default 20) and
 * encoded REPEAT times (default 3); the best time counts. Prints processor time on one core, and the peak of memory
 * that encoding took over the text itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/io.h"

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double peak_mb(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_maxrss / 1024;
}

/* \n, \t and \xHH. */
static size_t unescape(char *out, const char *s)
{
	size_t n = 0;
	for (; *s; n++) {
		if (s[0] == '\\' && s[1] == 'x') {
			char hex[3] = {s[2], s[2] ? s[3] : 0, 0};
			out[n] = (char)strtol(hex, NULL, 16);
			s += 2 + strlen(hex);
		} else if (s[0] == '\\' && s[1]) {
			out[n] = s[1] == 'n' ? '\n' : s[1] == 't' ? '\t' : s[1];
			s += 2;
		} else {
			out[n] = *s++;
		}
	}
	return n;
}

static mzm_status read_unit(char **unit, size_t *n, const char *text, mzm_err *err)
{
	if (*text != '@')
		return mzm_read_all(text, (size_t)1 << 30, unit, n, err);
	MZM_TRY(mzm_alloc_for((void **)unit, strlen(text) + 1, "a unit", err));
	*n = unescape(*unit, text + 1);
	return MZM_OK;
}

static mzm_status measure(const mzm_tokenizer *tok, const char *text, size_t len, int repeat, mzm_err *err)
{
	double best = 1e30, before = peak_mb();
	size_t n_ids = 0;
	for (int i = 0; i < repeat; i++) {
		int32_t *ids;
		double start = now(CLOCK_PROCESS_CPUTIME_ID);
		MZM_TRY(mzm_tokenize(tok, text, len, 0, &ids, &n_ids, err));
		start = now(CLOCK_PROCESS_CPUTIME_ID) - start;
		best = start < best ? start : best;
		mzm_ids_free(ids);
	}
	printf("%.1f MB: %.2f s, %.1f MB/s, %zu ids, %.2f bytes an id; encoding took up to %.1f MB, %.1f bytes a "
	       "byte\n",
	       (double)len * 1e-6, best, (double)len * 1e-6 / best, n_ids, n_ids ? (double)len / (double)n_ids : 0,
	       peak_mb() - before, (peak_mb() - before) * 1048576 / (double)len);
	return MZM_OK;
}

int main(int argc, char **argv)
{
	mzm_err err = {0};
	mzm_tokenizer *tok = NULL;
	char *unit = NULL, *text = NULL;
	size_t n_unit = 0;
	if (argc < 3 || argc > 5) {
		fprintf(stderr, "bench_tokenizer: wrong usage, see the head of its source\n");
		return 2;
	}
	size_t len = (size_t)(1e6 * (argc > 3 ? atof(argv[3]) : 20));
	double start = now(CLOCK_MONOTONIC);
	mzm_status st = mzm_tokenizer_open(&tok, argv[1], &err);
	if (st == MZM_OK)
		printf("open in %.0f ms, %d tokens\n", 1e3 * (now(CLOCK_MONOTONIC) - start), (int)mzm_token_count(tok));
	if (st == MZM_OK)
		st = read_unit(&unit, &n_unit, argv[2], &err);
	if (st == MZM_OK && !n_unit)
		st = mzm_fail(&err, MZM_EARG, "the text is empty");
	if (st == MZM_OK)
		st = mzm_alloc_for((void **)&text, len + 1, "the text", &err);
	for (size_t i = 0; i < len && st == MZM_OK; i += n_unit)
		memcpy(text + i, unit, n_unit < len - i ? n_unit : len - i);
	if (st == MZM_OK)
		st = measure(tok, text, len, argc > 4 ? atoi(argv[4]) : 3, &err);
	if (st != MZM_OK)
		fprintf(stderr, "bench_tokenizer: %s\n", err.message);
	mzm_free(text);
	mzm_free(unit);
	mzm_tokenizer_close(tok);
	return st != MZM_OK;
}
