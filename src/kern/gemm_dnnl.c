/* gemm_dnnl.c - see gemm.h: oneDNN's sgemm, or the answer that it is not built in.
 *
 * dnnl_sgemm is the one entry that versions 2.6 and 3.x share. It is row-major here and picks its blocking from the
 * shape and the number of threads; with OpenMP held at one thread the shape alone decides the result. */
#include "kern/gemm.h"

#ifdef MZM_ONEDNN

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

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

#endif
