/* eval_rig.h - what the tests of eval/ share: a directory for their files, and a small run on the scripted engine
 * of fake_engine.h: nine problems ("what is 10?" to 18) in dense, sparse and sirius mode. */
#ifndef MZM_EVAL_RIG_H
#define MZM_EVAL_RIG_H

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_engine.h"

#include "eval/eval.h"

static char dir[64]; /* of this run's files */

static inline const char *in_dir(const char *name)
{
	static char path[4][128];
	static int next;
	next = (next + 1) % 4;
	snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
	return path[next];
}

static inline void write_bytes(const char *path, const char *bytes, size_t n)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	fclose(f);
}

static inline void write_text(const char *path, const char *text)
{
	write_bytes(path, text, strlen(text));
}

/* -> free; NUL-terminated */
static inline char *read_file(const char *path, size_t *n)
{
	struct stat sb;
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &sb), 0);
	char *bytes = calloc(1, (size_t)sb.st_size + 1);
	assert_non_null(bytes);
	*n = fread(bytes, 1, (size_t)sb.st_size, f);
	fclose(f);
	return bytes;
}

static inline int set_up(void **state)
{
	(void)state;
	fake = (struct fake){.cost = .5f};
	unlink(in_dir("results.jsonl"));
	return 0;
}

enum { N_PROBLEMS = 9, N_ROWS = 3 };

typedef struct rig {
	mzm_gen_params rows[N_ROWS];
	mze_params     params;
	int            stop_after; /* answers; 0: never */
	atomic_int     n_done;
} rig;

static inline void on_progress(void *user, const mze_progress *at)
{
	rig *r = user;
	assert_true(at->n_done <= at->n_total && at->row_right <= at->row_done);
	atomic_store(&r->n_done, at->n_done);
}

static inline bool is_cancelled(void *user)
{
	rig *r = user;
	return r->stop_after && atomic_load(&r->n_done) >= r->stop_after;
}

static inline void write_problems(void)
{
	char text[2048];
	size_t n = 0;
	for (int i = 0; i < N_PROBLEMS; i++)
		n += (size_t)sprintf(text + n, "{\"question\": \"what is %d?\", \"answer\": \"it is\\n#### %d\"}\n",
				     10 + i, 10 + i);
	write_text(in_dir("data.jsonl"), text);
}

static inline void rig_init(rig *r)
{
	static char data[128], results[128];
	write_problems();
	snprintf(data, sizeof data, "%s", in_dir("data.jsonl"));
	snprintf(results, sizeof results, "%s", in_dir("results.jsonl"));
	*r = (rig){.params = mze_params_default()};
	for (int i = 0; i < N_ROWS; i++) {
		r->rows[i] = mzm_gen_params_default();
		r->rows[i].mode = (mzm_mode)i; /* dense, sparse, sirius */
		r->rows[i].period = 4;
	}
	r->params.data_path = data;
	r->params.results_path = results;
	r->params.rows = r->rows;
	r->params.n_rows = N_ROWS;
	r->params.progress = on_progress;
	r->params.cancelled = is_cancelled;
	r->params.user = r;
}

static inline mzm_status run_rig(mze_eval **out, rig *r, mzm_err *err)
{
	*err = (mzm_err){0};
	atomic_store(&r->n_done, 0);
	mzm_status st = mze_eval_run(out, NULL, &r->params, err);
	assert_int_equal(st, err->code);
	assert_int_equal(fake.n_live, 0);
	return st;
}

static inline void must_run(mze_eval **out, rig *r)
{
	mzm_err err;
	if (run_rig(out, r, &err) != MZM_OK)
		fail_msg("%s", err.message);
}

static inline int make_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(dir, sizeof dir, "%.30s/mirzam-eval-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : 1;
}

static inline void remove_dir(void)
{
	static const char *const names[] = {"problems.jsonl", "data.jsonl", "results.jsonl"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unlink(in_dir(names[i]));
	rmdir(dir);
}

#endif
