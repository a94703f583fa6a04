/* matmul.c - products of activations with weight matrices, split over the team by output. Row kernels serve up to
 * MZM_MAX_POS positions; prefill chunks go through oneDNN (matmul_gemm.c). */
#include <stdatomic.h>
#include <string.h>

#include "model/state.h"

#define ROW_GRAIN 16 /* rows a thread takes at once: whole register tiles */

static void pack(mzm_state *s, const mzm_matrix *m, mzm_acts *x, char *packed, size_t stride, int32_t n_pos)
{
	if (x->is_packed && x->form == m->dtype)
		return;
	for (int32_t p = 0; p < n_pos; p++)
		s->kern->pack(packed + (size_t)p * stride, x->x + (size_t)p * (size_t)m->n_cols, m->dtype, m->n_cols);
	x->is_packed = true;
	x->form = m->dtype;
}

mzm_status mzm_pin_span(mzm_state *s, mzm_store_order order, int32_t span)
{
	uint64_t n = (uint64_t)mzm_store_n_spans(s->w->store, order);
	if (s->on_span && s->on_span(s->user, "reading weights", (uint64_t)span, n))
		return mzm_fail(&s->why, MZM_ECANCELLED, "cancelled while weights were read");
	return mzm_store_pin(s->w->store, span, &s->span, &s->why);
}

bool mzm_next_part(mzm_state *s, const mzm_matrix *m, mzm_part *part, mzm_team *team, int rank)
{
	int32_t from = part->row1;
	if (m->w) {
		*part = (mzm_part){0, m->n_rows, m->w};
		return from == 0;
	}
	mzm_team_barrier(team, rank); /* all are done with the part before, and have seen it */
	if (rank == 0) {
		if (s->span)
			mzm_store_unpin(s->w->store);
		s->span = NULL;
		bool more = from < m->n_rows && atomic_load_explicit(&s->failed, memory_order_relaxed) == MZM_OK;
		if (more && mzm_pin_span(s, MZM_ORDER_PASS, m->span + from / m->span_rows) != MZM_OK)
			atomic_store_explicit(&s->failed, (int)s->why.code, memory_order_relaxed);
	}
	mzm_team_barrier(team, rank);
	if (!s->span)
		return false;
	part->row0 = from;
	part->row1 = m->n_rows - from < m->span_rows ? m->n_rows : from + m->span_rows;
	part->base = (const char *)((uintptr_t)(s->span + m->offset) - (uintptr_t)from * m->stride);
	return true;
}

/* First list entry whose row is not below `row`. */
static int32_t lower_bound(const int32_t *rows, int32_t n, int32_t row)
{
	int32_t lo = 0, hi = n;
	while (lo < hi) {
		int32_t mid = lo + (hi - lo) / 2;
		if (rows[mid] < row)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void mzm_list_range(const int32_t *rows, int32_t n, int32_t row0, int32_t row1, int32_t *lo, int32_t *hi)
{
	*lo = rows ? lower_bound(rows, n, row0) : row0;
	*hi = rows ? lower_bound(rows, n, row1) : row1;
}

static void rows_by_kernel(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank,
			   int32_t *begin, int32_t *end)
{
	const mzm_matrix *m = p->m;
	int32_t lo, hi;
	mzm_list_range(p->rows, p->n_rows, part->row0, part->row1, &lo, &hi);
	mzm_team_range(hi - lo, ROW_GRAIN, rank, mzm_team_size(team), begin, end);
	*begin += lo;
	*end += lo;
	if (*begin >= *end)
		return;
	char *packed = s->packed + (size_t)rank * s->packed_len;
	size_t stride = mzm_pack_stride(s->kern, m->dtype, m->n_cols);
	pack(s, m, p->x, packed, stride, p->n_pos);
	mzm_rows_job job = {
		.dtype = m->dtype, .w = part->base, .stride = m->stride, .rows = p->rows, .n_rows = hi,
		.n_cols = m->n_cols, .x = packed, .ldx = stride, .n_pos = p->n_pos, .y = p->y, .ldy = p->ldy,
	};
	s->kern->rows(&job, *begin, *end);
}

bool mzm_next_group(const mzm_state *s, int32_t n_pos, mzm_group *g)
{
	static const int32_t sizes[] = {MZM_CHUNK_BIG, MZM_CHUNK};
	g->first += g->n;
	int32_t left = n_pos - g->first, pos = s->pos0 + g->first;
	g->n = left < MZM_MAX_POS ? left : MZM_MAX_POS;
	for (int i = 0; i < 2 && s->pass->gemm; i++) {
		if (pos % sizes[i] == 0 && left >= sizes[i] && s->max_pos >= sizes[i]) {
			g->n = sizes[i];
			break;
		}
	}
	return left > 0;
}

static void add_bias(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	const int32_t *at = p->bias_at ? p->bias_at : p->m->by_input ? NULL : p->rows;
	for (int32_t i = 0; i < p->n_pos; i++) {
		float *y = p->y + (size_t)i * p->ldy;
		if (!at)
			s->kern->add(y + begin, p->bias + begin, end - begin);
		for (int32_t k = begin; at && k < end; k++)
			y[k] += p->bias[at[k]];
	}
}

static void group_product(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank)
{
	int32_t begin, end;
	if (p->n_pos > MZM_MAX_POS)
		mzm_gemm_rows(s, p, part, team, rank, &begin, &end);
	else
		rows_by_kernel(s, p, part, team, rank, &begin, &end);
	if (begin >= end)
		return;
	if (p->bias)
		add_bias(s, p, begin, end);
	if (p->after)
		p->after(s, p, begin, end);
}

/* Several groups take turns with what is packed for them: all meet before it is packed anew for everybody. */
static void meet_for(const mzm_group *g, int32_t n_pos, mzm_team *team, int rank)
{
	if (g->n > MZM_MAX_POS && g->n < n_pos)
		mzm_team_barrier(team, rank);
}

/* ---- sums of rows ---- */

/* y[n_pos, columns of m] += a[n_pos, lda] times the rows of m that are in the part and on the list; a in list order. */
typedef struct summing {
	const mzm_matrix *m;
	mzm_neurons       of;
	const float      *a;
	size_t            lda;
	float            *y;
	int32_t           n_pos;
} summing;

/* One section. */
static void sum_section(mzm_state *s, const summing *u, const mzm_part *part, int32_t row0, int32_t begin, int32_t end,
			int rank)
{
	const mzm_matrix *m = u->m;
	int32_t row1 = part->row1 - row0 < MZM_SECTION ? part->row1 : row0 + MZM_SECTION, lo, hi;
	const int32_t *list = u->of.at ? u->of.at : u->of.rows;
	mzm_list_range(u->of.rows, u->of.n, row0, row1, &lo, &hi);
	mzm_accum_job job = {
		.dtype = m->dtype, .w = (const void *)((uintptr_t)part->base + (list ? 0 : (uintptr_t)lo * m->stride)),
		.stride = m->stride, .rows = list ? list + lo : NULL, .n_rows = hi - lo, .n_cols = m->n_cols,
		.a = u->a + lo, .lda = u->lda, .n_pos = u->n_pos, .y = u->y, .ldy = (size_t)m->n_cols,
		.scratch = s->sums + (size_t)rank * (MZM_ACCUM_SCRATCH / sizeof(float)),
	};
	if (begin < end && lo < hi)
		s->kern->accum(&job, begin, end);
}

static void sum_part(mzm_state *s, const summing *u, const mzm_part *part, mzm_team *team, int rank)
{
	int32_t begin, end;
	mzm_team_range(mzm_accum_units(u->m->dtype, u->m->n_cols), 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t row = part->row0; row < part->row1; row += MZM_SECTION)
		sum_section(s, u, part, row, begin, end, rank);
}

/* A group of a product by input. */
static void sum_group(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank)
{
	summing u = {p->m, {p->rows, NULL, p->n_rows}, p->x->x, (size_t)p->m->n_rows, p->y, p->n_pos};
	if (p->n_pos > MZM_MAX_POS)
		mzm_gemm_sums(s, p, part, team, rank);
	else
		sum_part(s, &u, part, team, rank);
}

void mzm_matmul_part(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank)
{
	mzm_group g = {0};
	while (mzm_next_group(s, p->n_pos, &g)) {
		size_t first = (size_t)g.first;
		mzm_product one = *p;
		mzm_acts x = {.x = p->x->x + first * (size_t)(p->m->by_input ? p->m->n_rows : p->m->n_cols)};
		meet_for(&g, p->n_pos, team, rank);
		one.x = g.n < p->n_pos ? &x : p->x;
		one.y = p->y + first * p->ldy;
		one.z = p->z ? p->z + first * p->ldy : NULL;
		one.n_pos = g.n;
		one.pos = g.first;
		(p->m->by_input ? sum_group : group_product)(s, &one, part, team, rank);
	}
}

/* The kernels' units of columns do not lie side by side, so what is done column by column has a share of its own. */
static void sum_all(mzm_state *s, const mzm_product *p, mzm_team *team, int rank)
{
	mzm_part part = {0};
	int32_t begin, end;
	mzm_team_range(p->m->n_cols, MZM_COL_GRAIN, rank, mzm_team_size(team), &begin, &end);
	for (int32_t i = 0; i < p->n_pos && begin < end; i++)
		memset(p->y + (size_t)i * p->ldy + begin, 0, (size_t)(end - begin) * sizeof *p->y);
	mzm_team_barrier(team, rank);
	while (mzm_next_part(s, p->m, &part, team, rank))
		mzm_matmul_part(s, p, &part, team, rank);
	if (!p->bias && !p->after)
		return;
	mzm_team_barrier(team, rank);
	if (p->bias && begin < end)
		add_bias(s, p, begin, end);
	if (p->after && begin < end)
		p->after(s, p, begin, end);
}

void mzm_matmul(mzm_state *s, const mzm_product *p, mzm_team *team, int rank)
{
	mzm_part part = {0};
	if (p->m->by_input) {
		sum_all(s, p, team, rank);
		return;
	}
	while (mzm_next_part(s, p->m, &part, team, rank))
		mzm_matmul_part(s, p, &part, team, rank);
}

void mzm_matmul_down(mzm_state *s, const mzm_matrix *m, const mzm_part *part, mzm_neurons of, const float *a,
		     mzm_team *team, int rank)
{
	mzm_group g = {0};
	while (mzm_next_group(s, s->pass->n_pos, &g)) {
		const float *of_group = a + (size_t)g.first * (size_t)s->w->cfg.n_ffn;
		meet_for(&g, s->pass->n_pos, team, rank);
		if (g.n > MZM_MAX_POS)
			mzm_gemm_down(s, m, part, g, of_group, team, rank);
		summing u = {m, of, of_group, (size_t)s->w->cfg.n_ffn,
			     mzm_ffn_sink(s) + (size_t)g.first * (size_t)m->n_cols, g.n};
		if (g.n <= MZM_MAX_POS)
			sum_part(s, &u, part, team, rank);
	}
}

void mzm_norm(mzm_state *s, float *h, const float *x, const float *weight, const float *bias, int32_t n_pos,
	      mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t dim = (size_t)cfg->dim;
	int32_t begin, end;
	mzm_team_range(n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		float *to = h + (size_t)p * dim;
		if (cfg->norm == MZM_NORM_LAYER)
			s->kern->layernorm(to, x + (size_t)p * dim, weight, bias, cfg->norm_eps, cfg->dim);
		else
			s->kern->rmsnorm(to, x + (size_t)p * dim, weight, cfg->norm_eps, cfg->dim);
	}
	mzm_team_barrier(team, rank);
}

void mzm_join_normed(mzm_state *s, float *y, const float *weight, mzm_team *team, int rank)
{
	const mzm_config *cfg = &s->w->cfg;
	size_t dim = (size_t)cfg->dim;
	int32_t begin, end;
	mzm_team_range(s->pass->n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		float *row = y + (size_t)p * dim;
		s->kern->rmsnorm(row, row, weight, cfg->norm_eps, cfg->dim);
		s->kern->add(s->x + (size_t)p * dim, row, cfg->dim);
	}
	mzm_team_barrier(team, rank);
}

static void add_proj(mzm_state *s, float *to, const mzm_product *p, int32_t begin, int32_t end)
{
	size_t dim = (size_t)s->w->cfg.dim;
	for (int32_t i = p->pos; i < p->pos + p->n_pos; i++)
		s->kern->add(to + (size_t)i * dim + begin, s->proj + (size_t)i * dim + begin, end - begin);
}

void mzm_add_to_sink(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	add_proj(s, mzm_ffn_sink(s), p, begin, end);
}

void mzm_add_residual(mzm_state *s, const mzm_product *p, int32_t begin, int32_t end)
{
	add_proj(s, s->x, p, begin, end);
}
