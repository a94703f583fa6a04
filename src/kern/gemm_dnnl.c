/* gemm_dnnl.c - see gemm.h: oneDNN's sgemm and its bf16 matmul primitive, or the answer that it is not built in.
 *
 * dnnl_sgemm is the one entry that versions 2.6 and 3.x share. It is row-major here and picks its blocking from the
 * shape and the number of threads; with OpenMP held at one thread the shape alone decides the result.
 *
 * The bf16 primitive is made for weights packed by us and for dense activations and results, as only those reach the
 * kernel that both versions are fastest with ("brg..."). Anything else they would choose is several times slower, or
 * copies the weights itself, so there create says that it is not supported. Scratch belongs to the rank: the library's
 * own would be shared. */
#include "kern/gemm.h"

#ifdef MZM_ONEDNN

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kern/threads.h"

bool mzm_gemm_available(void)
{
	return true;
}

const char *mzm_gemm_version(void)
{
	static _Thread_local char text[48];
	const dnnl_version_t *v = dnnl_version();
	snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
	return text;
}

static const char *reason(dnnl_status_t status)
{
	switch (status) {
	case dnnl_out_of_memory:
		return "out of memory";
	case dnnl_invalid_arguments:
		return "wrong shape";
	case dnnl_unimplemented:
		return "not implemented";
	default:
		return "failed";
	}
}

static mzm_status sgemm(char trans_b, float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
			int32_t m, int32_t n, int32_t k, bool accumulate, mzm_err *err)
{
	int previous = mzm_threads_alone_begin();
	dnnl_status_t status = dnnl_sgemm('N', trans_b, m, n, k, 1.0f, a, (dnnl_dim_t)lda, b, (dnnl_dim_t)ldb,
					  accumulate ? 1.0f : 0.0f, c, (dnnl_dim_t)ldc);
	mzm_threads_alone_end(previous);
	if (status == dnnl_success)
		return MZM_OK;
	return mzm_fail(err, status == dnnl_out_of_memory ? MZM_ENOMEM : MZM_EINTERNAL,
			"oneDNN: product of %d x %d by %d: %s (status %d)", m, k, n, reason(status), (int)status);
}

mzm_status mzm_gemm_nt(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, mzm_err *err)
{
	return sgemm('T', c, ldc, a, lda, b, ldb, m, n, k, false, err);
}

mzm_status mzm_gemm_nn(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, bool accumulate, mzm_err *err)
{
	return sgemm('N', c, ldc, a, lda, b, ldb, m, n, k, accumulate, err);
}

/* ---- bf16 ---- */

/* What is multiplied: a[m, k] and the weights[k, n]. */
typedef struct task {
	int32_t           m, n, k;
	dnnl_data_type_t  type;
	dnnl_format_tag_t weights; /* their layout, or any */
} task;

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t shape_desc;

static dnnl_status_t describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attr,
			      const task *t)
{
	dnnl_memory_desc_t a = NULL, b = NULL, c = NULL;
	dnnl_status_t st;
	st = dnnl_memory_desc_create_with_tag(&a, 2, (dnnl_dims_t){t->m, t->k}, t->type, dnnl_ab);
	if (st == dnnl_success)
		st = dnnl_memory_desc_create_with_tag(&b, 2, (dnnl_dims_t){t->k, t->n}, t->type, t->weights);
	if (st == dnnl_success)
		st = dnnl_memory_desc_create_with_tag(&c, 2, (dnnl_dims_t){t->m, t->n}, dnnl_f32, dnnl_ab);
	if (st == dnnl_success)
		st = dnnl_matmul_primitive_desc_create(out, engine, a, b, NULL, c, attr);
	dnnl_memory_desc_destroy(a);
	dnnl_memory_desc_destroy(b);
	dnnl_memory_desc_destroy(c);
	return st;
}
#else
typedef const dnnl_memory_desc_t *shape_desc;

static dnnl_status_t describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attr,
			      const task *t)
{
	dnnl_memory_desc_t a, b, c;
	dnnl_matmul_desc_t op;
	dnnl_status_t st;
	st = dnnl_memory_desc_init_by_tag(&a, 2, (dnnl_dims_t){t->m, t->k}, t->type, dnnl_ab);
	if (st == dnnl_success)
		st = dnnl_memory_desc_init_by_tag(&b, 2, (dnnl_dims_t){t->k, t->n}, t->type, t->weights);
	if (st == dnnl_success)
		st = dnnl_memory_desc_init_by_tag(&c, 2, (dnnl_dims_t){t->m, t->n}, dnnl_f32, dnnl_ab);
	if (st == dnnl_success)
		st = dnnl_matmul_desc_init(&op, &a, &b, NULL, &c);
	if (st == dnnl_success)
		st = dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
	return st;
}
#endif

/* What a rank hands to the primitive: the same objects at every call, pointed elsewhere. */
enum { SRC, WEIGHTS, DST, SCRATCH, N_ARGS };

typedef struct caller {
	dnnl_memory_t arg[N_ARGS];
	dnnl_stream_t stream;
	void         *scratch;
} caller;

struct mzm_gemm {
	dnnl_engine_t         engine;
	dnnl_primitive_attr_t attr;
	dnnl_primitive_desc_t desc;
	dnnl_primitive_t      primitive;
	task                  task;
	bool                  alone; /* runs on the calling thread */
	int                   n_callers;
	caller               *of;
};

static shape_desc shape_of(const mzm_gemm *g, dnnl_query_t what)
{
	return dnnl_primitive_desc_query_md(g->desc, what, 0);
}

/* Only the primitive that packed weights are for. */
static bool is_fast(const mzm_gemm *g)
{
	const char *name = NULL;
	return dnnl_primitive_desc_query(g->desc, dnnl_query_impl_info_str, 0, (void *)&name) == dnnl_success && name &&
	       strncmp(name, "brg", 3) == 0;
}

static mzm_status failed(dnnl_status_t status, const mzm_gemm *g, mzm_err *err)
{
	mzm_status st = status == dnnl_out_of_memory  ? MZM_ENOMEM
			: status == dnnl_unimplemented ? MZM_EUNSUPPORTED
						       : MZM_EINTERNAL;
	return mzm_fail(err, st, "oneDNN: product of %d x %d by %d: %s (status %d)", g->task.m, g->task.k, g->task.n,
			reason(status), (int)status);
}

static dnnl_status_t compile(mzm_gemm *g)
{
	dnnl_status_t st;
	if ((st = dnnl_engine_create(&g->engine, dnnl_cpu, 0)) == dnnl_success &&
	    (st = dnnl_primitive_attr_create(&g->attr)) == dnnl_success &&
	    (st = dnnl_primitive_attr_set_scratchpad_mode(g->attr, dnnl_scratchpad_mode_user)) == dnnl_success &&
	    (st = describe(&g->desc, g->engine, g->attr, &g->task)) == dnnl_success)
		st = !g->alone || is_fast(g) ? dnnl_primitive_create(&g->primitive, g->desc) : dnnl_unimplemented;
	return st;
}

static mzm_status caller_init(caller *c, const mzm_gemm *g, mzm_err *err)
{
	static const dnnl_query_t queries[N_ARGS] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md,
						     dnnl_query_scratchpad_md};
	size_t n_bytes = dnnl_memory_desc_get_size(shape_of(g, dnnl_query_scratchpad_md));
	if (n_bytes > 0)
		MZM_TRY(mzm_alloc_for(&c->scratch, n_bytes, "scratch of a matrix product", err));
	dnnl_status_t st = dnnl_stream_create(&c->stream, g->engine, dnnl_stream_default_flags);
	for (int i = 0; i < N_ARGS && st == dnnl_success; i++)
		st = dnnl_memory_create(&c->arg[i], shape_of(g, queries[i]), g->engine,
					i == SCRATCH ? c->scratch : DNNL_MEMORY_NONE);
	return st == dnnl_success ? MZM_OK : failed(st, g, err);
}

static mzm_status create(mzm_gemm **out, task t, bool alone, int n_ranks, mzm_err *err)
{
	mzm_status st;
	mzm_gemm *g;
	*out = NULL;
	MZM_TRY(mzm_alloc_for((void **)&g, sizeof *g, "a matrix product", err));
	g->task = t;
	g->alone = alone;
	int previous = alone ? mzm_threads_alone_begin() : 0;
	dnnl_status_t status = compile(g);
	if (alone)
		mzm_threads_alone_end(previous);
	if (status != dnnl_success)
		MZM_TRY_OUT(failed(status, g, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&g->of, (size_t)n_ranks * sizeof *g->of, "a matrix product", err));
	g->n_callers = n_ranks;
	for (int r = 0; r < n_ranks; r++)
		MZM_TRY_OUT(caller_init(&g->of[r], g, err));
	*out = g;
	return MZM_OK;
out:
	mzm_gemm_free(g);
	return st;
}

mzm_status mzm_gemm_create(mzm_gemm **out, int32_t m, int32_t k, int n_ranks, mzm_err *err)
{
	*out = NULL;
	if (m < 1 || k < 1 || k % MZM_GEMM_STEP != 0 || n_ranks < 1)
		return mzm_fail(err, MZM_EARG, "a product of %d x %d for %d ranks", m, k, n_ranks);
	return create(out, (task){m, MZM_GEMM_COLS, k, dnnl_bf16, dnnl_BA16a64b2a}, true, n_ranks, err);
}

mzm_status mzm_gemm_create_whole(mzm_gemm **out, int32_t m, int32_t n, int32_t k, bool bf16, mzm_err *err)
{
	*out = NULL;
	if (m < 1 || n < 1 || k < 1)
		return mzm_fail(err, MZM_EARG, "a product of %d x %d by %d", m, k, n);
	return create(out, (task){m, n, k, bf16 ? dnnl_bf16 : dnnl_f32, dnnl_format_tag_any}, false, 1, err);
}

size_t mzm_gemm_weight_bytes(const mzm_gemm *g)
{
	return dnnl_memory_desc_get_size(shape_of(g, dnnl_query_weights_md));
}

void mzm_gemm_free(mzm_gemm *g)
{
	if (!g)
		return;
	for (int r = 0; r < g->n_callers; r++) {
		for (int i = 0; i < N_ARGS; i++)
			if (g->of[r].arg[i])
				dnnl_memory_destroy(g->of[r].arg[i]);
		if (g->of[r].stream)
			dnnl_stream_destroy(g->of[r].stream);
		mzm_free(g->of[r].scratch);
	}
	mzm_free(g->of);
	if (g->primitive)
		dnnl_primitive_destroy(g->primitive);
	if (g->desc)
		dnnl_primitive_desc_destroy(g->desc);
	if (g->attr)
		dnnl_primitive_attr_destroy(g->attr);
	if (g->engine)
		dnnl_engine_destroy(g->engine);
	mzm_free(g);
}

static dnnl_status_t execute(mzm_gemm *g, caller *r, float *c, const void *a, const void *weights)
{
	/* The library takes pointers to what it reads and to what it writes alike. */
	union {
		const void *read;
		void       *handle;
	} from = {.read = a}, by = {.read = weights};
	dnnl_exec_arg_t args[N_ARGS] = {{DNNL_ARG_SRC, r->arg[SRC]},
					{DNNL_ARG_WEIGHTS, r->arg[WEIGHTS]},
					{DNNL_ARG_DST, r->arg[DST]},
					{DNNL_ARG_SCRATCHPAD, r->arg[SCRATCH]}};
	dnnl_status_t st;
	if ((st = dnnl_memory_set_data_handle(r->arg[SRC], from.handle)) == dnnl_success &&
	    (st = dnnl_memory_set_data_handle(r->arg[WEIGHTS], by.handle)) == dnnl_success &&
	    (st = dnnl_memory_set_data_handle(r->arg[DST], c)) == dnnl_success)
		st = dnnl_primitive_execute(g->primitive, r->stream, N_ARGS, args);
	return st;
}

mzm_status mzm_gemm_run(mzm_gemm *g, int rank, float *c, const void *a, const void *weights, mzm_err *err)
{
	int previous = g->alone ? mzm_threads_alone_begin() : 0;
	dnnl_status_t status = execute(g, &g->of[rank], c, a, weights);
	if (g->alone)
		mzm_threads_alone_end(previous);
	return status == dnnl_success ? MZM_OK : failed(status, g, err);
}

#else /* without oneDNN */

static mzm_status absent(mzm_err *err)
{
	return mzm_fail(err, MZM_EUNSUPPORTED, "this build has no oneDNN");
}

bool mzm_gemm_available(void)
{
	return false;
}

const char *mzm_gemm_version(void)
{
	return "none";
}

mzm_status mzm_gemm_nt(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, mzm_err *err)
{
	(void)c, (void)ldc, (void)a, (void)lda, (void)b, (void)ldb, (void)m, (void)n, (void)k;
	return absent(err);
}

mzm_status mzm_gemm_nn(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, int32_t m,
		       int32_t n, int32_t k, bool accumulate, mzm_err *err)
{
	(void)c, (void)ldc, (void)a, (void)lda, (void)b, (void)ldb, (void)m, (void)n, (void)k, (void)accumulate;
	return absent(err);
}

mzm_status mzm_gemm_create(mzm_gemm **out, int32_t m, int32_t k, int n_ranks, mzm_err *err)
{
	(void)m, (void)k, (void)n_ranks;
	*out = NULL;
	return absent(err);
}

mzm_status mzm_gemm_create_whole(mzm_gemm **out, int32_t m, int32_t n, int32_t k, bool bf16, mzm_err *err)
{
	(void)m, (void)n, (void)k, (void)bf16;
	*out = NULL;
	return absent(err);
}

size_t mzm_gemm_weight_bytes(const mzm_gemm *g)
{
	(void)g;
	return 0;
}

void mzm_gemm_free(mzm_gemm *g)
{
	(void)g;
}

mzm_status mzm_gemm_run(mzm_gemm *g, int rank, float *c, const void *a, const void *weights, mzm_err *err)
{
	(void)g, (void)rank, (void)c, (void)a, (void)weights;
	return absent(err);
}

#endif
