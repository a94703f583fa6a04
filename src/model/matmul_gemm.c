/* matmul_gemm.c - products of a prefill chunk through oneDNN, in blocks of fixed shape, each computed by one thread:
 * results do not depend on the number of threads, and there is no second copy of the model, only of the block at hand.
 *
 * Where the kernels round what meets bf16 weights to bf16 (mzm_kern.bf16_acts), and oneDNN has a fast kernel for it,
 * bf16 and quantised weights take part as bf16: the activations of the chunk are rounded once, by all ranks together;
 * a block of weights is packed into a panel (gemm.h), read in place if it is bf16; a block of results goes through the
 * rank's scratch. Long sums are cut into equal parts, so that a panel stays in the cache. All other weights, and all
 * on other CPUs, are widened to f32. */
#include <stdatomic.h>
#include <string.h>

#include "kern/gemm.h"
#include "kern/quant.h"
#include "model/state.h"

#define WIDE_ROWS  64   /* outputs of an f32 block */
#define WIDE_DEPTH 256  /* neurons of an f32 block of the down projection */
#define DEPTH_MAX  4096 /* inputs of a bf16 block */
#define PART_COLS  256  /* columns of quantised rows taken at once: half of a group, and of the cache lines read */
#define N_PANELS   (PART_COLS / MZM_GEMM_COLS)

/* ---- set up ---- */

static bool takes_bf16(const mzm_matrix *m)
{
	return m->dtype == MZM_BF16 || mzm_dtype_is_quant(m->dtype);
}

static bool any_bf16(const mzm_weights *w)
{
	for (int32_t i = 0; i < w->cfg.n_layers; i++) {
		const mzm_layer *l = &w->layer[i];
		if (takes_bf16(&l->wq) || takes_bf16(&l->wk) || takes_bf16(&l->wv) || takes_bf16(&l->wo) ||
		    takes_bf16(&l->gate) || takes_bf16(&l->up) || takes_bf16(&l->down))
			return true;
	}
	return false;
}

static int32_t whole_steps(int32_t k)
{
	return (k + MZM_GEMM_STEP - 1) / MZM_GEMM_STEP * MZM_GEMM_STEP;
}

/* sections: parts are those of a down projection, else equal ones. */
static void add_input(mzm_state *s, int32_t k, bool sections)
{
	mzm_gemm_input *in = &s->gemm.input[s->gemm.n_inputs++];
	int32_t most = sections ? MZM_SECTION : DEPTH_MAX;
	in->k = k;
	in->sections = sections;
	in->n_parts = (k + most - 1) / most;
	in->depth = whole_steps(!sections ? (k + in->n_parts - 1) / in->n_parts : k < most ? k : most);
}

void mzm_gemm_shape(mzm_state *s, bool has_bf16)
{
	const mzm_config *cfg = &s->w->cfg;
	int32_t q_dim = cfg->n_heads * cfg->head_dim;
	s->gemm = (mzm_gemm_scratch){0};
	if (!mzm_gemm_available() || !s->kern->bf16_acts || !has_bf16)
		return;
	s->gemm.bf16 = true;
	add_input(s, cfg->dim, false);
	if (q_dim != cfg->dim && !cfg->attn_by_input)
		add_input(s, q_dim, false);
	if (cfg->attn_by_input)
		add_input(s, cfg->dim, true);
	if (q_dim != cfg->dim && cfg->attn_by_input)
		add_input(s, q_dim, true);
	add_input(s, cfg->n_ffn, true); /* the last */
}

static mzm_status compile(mzm_state *s, mzm_gemm_input *in, mzm_err *err)
{
	int32_t sizes[MZM_N_CHUNKS] = {MZM_CHUNK, MZM_CHUNK_BIG};
	for (int i = 0; i < MZM_N_CHUNKS && sizes[i] <= s->max_pos; i++)
		MZM_TRY(mzm_gemm_create(&in->of[i], sizes[i], in->depth, mzm_team_size(s->team), err));
	return MZM_OK;
}

mzm_status mzm_gemm_start(mzm_state *s, mzm_err *err)
{
	mzm_status st = MZM_OK;
	mzm_gemm_shape(s, any_bf16(s->w));
	for (int i = 0; i < s->gemm.n_inputs && st == MZM_OK; i++)
		st = compile(s, &s->gemm.input[i], err);
	if (st == MZM_EUNSUPPORTED) { /* then f32 it is: the answer depends on the machine alone */
		mzm_gemm_stop(s);
		return MZM_OK;
	}
	return st;
}

void mzm_gemm_stop(mzm_state *s)
{
	for (int i = 0; i < s->gemm.n_inputs; i++)
		for (int c = 0; c < MZM_N_CHUNKS; c++)
			mzm_gemm_free(s->gemm.input[i].of[c]);
	s->gemm = (mzm_gemm_scratch){0};
}

void mzm_gemm_layout(mzm_state *s, int n_ranks, mzm_carve *c)
{
	mzm_gemm_scratch *g = &s->gemm;
	const mzm_config *cfg = &s->w->cfg;
	size_t ranks = (size_t)n_ranks, q_dim = (size_t)cfg->n_heads * (size_t)cfg->head_dim, dim = (size_t)cfg->dim;
	size_t widest = dim > q_dim ? dim : q_dim, acts = 0, panel = 0;
	if (!mzm_gemm_available())
		return;
	g->wide_len = WIDE_ROWS * (widest > WIDE_DEPTH ? widest : WIDE_DEPTH);
	g->wide = MZM_CARVE(c, float, ranks * g->wide_len);
	if (!g->bf16)
		return;
	for (int i = 0; i < g->n_inputs; i++) {
		size_t depth = (size_t)g->input[i].depth, parts = (size_t)g->input[i].n_parts;
		size_t together = g->input[i].sections ? N_PANELS : parts; /* of sums: side by side */
		acts = depth * parts > acts ? depth * parts : acts;
		panel = depth * together > panel ? depth * together : panel;
	}
	g->panel_len = panel * MZM_GEMM_COLS;
	g->rows_len = widest * MZM_GEMM_COLS > MZM_GEMM_STEP * PART_COLS ? widest * MZM_GEMM_COLS
									 : MZM_GEMM_STEP * PART_COLS;
	g->block_len = (size_t)s->max_pos * MZM_GEMM_COLS;
	g->acts = MZM_CARVE(c, uint16_t, acts * (size_t)s->max_pos);
	g->panel = MZM_CARVE(c, uint16_t, ranks * g->panel_len);
	g->rows = MZM_CARVE(c, uint16_t, ranks * g->rows_len);
	g->block = MZM_CARVE(c, float, ranks * g->block_len);
}

/* ---- weights ---- */

/* The matrix as the part at hand has it: rows of the part only. */
static mzm_matrix at_hand(const mzm_matrix *m, const mzm_part *part)
{
	mzm_matrix here = *m;
	here.w = part->base;
	return here;
}

static const char *row_at(const mzm_matrix *m, int32_t row)
{
	return (const char *)((uintptr_t)m->w + (size_t)row * m->stride);
}

/* Columns c .. c+n-1 of a quantised row, both multiples of a block and inside one group, as a row of their own. */
static void quant_part(char *part, const mzm_matrix *m, const char *row, int32_t c, int32_t n)
{
	int32_t of_group = (m->n_cols - c / MZM_Q_GROUP * MZM_Q_GROUP) / MZM_Q_BLOCK, n_blocks = n / MZM_Q_BLOCK;
	size_t from = 4 * (size_t)(of_group < 16 ? of_group : 16), to = 4 * (size_t)n_blocks;
	const char *group = row + mzm_quant_bytes(m->dtype, c / MZM_Q_GROUP * MZM_Q_GROUP);
	const char *at = group + 4 * (size_t)(c % MZM_Q_GROUP / MZM_Q_BLOCK);
	for (size_t k = 0; k < (m->dtype == MZM_Q4 ? 4 : 8); k++)
		memcpy(part + k * to, at + k * from, to);
	memcpy(part + mzm_quant_bytes(m->dtype, n),
	       row + mzm_quant_bytes(m->dtype, m->n_cols) + sizeof(uint16_t) * (size_t)(c / MZM_Q_BLOCK),
	       sizeof(uint16_t) * (size_t)n_blocks);
}

/* y = columns c .. c+n-1 of a row; c a multiple of n_max, n <= n_max, n_max 64 or PART_COLS. */
static void widen_part(const mzm_state *s, float *y, const mzm_matrix *m, int32_t row, int32_t c, int32_t n)
{
	char part[PART_COLS + PART_COLS / MZM_Q_BLOCK * sizeof(uint16_t)];
	if (mzm_dtype_is_quant(m->dtype)) {
		quant_part(part, m, row_at(m, row), c, n);
		s->kern->to_f32(y, part, m->dtype, n);
	} else {
		s->kern->to_f32(y, row_at(m, row) + (size_t)c * mzm_dtype_bytes(m->dtype), m->dtype, n);
	}
}

static void note_failure(mzm_state *s, mzm_status st)
{
	if (st != MZM_OK)
		atomic_store_explicit(&s->failed, (int)st, memory_order_relaxed);
}

/* ---- f32 ---- */

static void rows_f32(mzm_state *s, const mzm_matrix *m, const mzm_product *p, int rank, int32_t begin, int32_t end)
{
	float *wide = s->gemm.wide + (size_t)rank * s->gemm.wide_len; /* [WIDE_ROWS, n_cols] */
	size_t ld = (size_t)m->n_cols;
	for (int32_t r = begin; r < end; r += WIDE_ROWS) {
		int32_t n = end - r < WIDE_ROWS ? end - r : WIDE_ROWS;
		for (int32_t i = 0; i < n; i++)
			s->kern->to_f32(wide + (size_t)i * ld, row_at(m, r + i), m->dtype, m->n_cols);
		note_failure(s, mzm_gemm_nt(p->y + r, p->ldy, p->x->x, ld, wide, ld, p->n_pos, n, m->n_cols, NULL));
	}
}

/* y [n_pos, n_cols] (+)= a [n_pos, lda] times the rows of the part; keep: also where they are the first. */
static void sums_f32(mzm_state *s, const mzm_matrix *m, const mzm_part *part, float *y, bool keep, const float *a,
		     size_t lda, int32_t n_pos, int rank, int32_t begin, int32_t end)
{
	float *wide = s->gemm.wide + (size_t)rank * s->gemm.wide_len; /* [WIDE_DEPTH, MZM_COL_GRAIN] */
	for (int32_t c = begin; c < end; c += MZM_COL_GRAIN) {
		int32_t n = end - c < MZM_COL_GRAIN ? end - c : MZM_COL_GRAIN;
		for (int32_t j = part->row0; j < part->row1; j += WIDE_DEPTH) {
			int32_t k = part->row1 - j < WIDE_DEPTH ? part->row1 - j : WIDE_DEPTH;
			for (int32_t i = 0; i < k; i++)
				widen_part(s, wide + (size_t)i * MZM_COL_GRAIN, m, j + i, c, n);
			note_failure(s, mzm_gemm_nn(y + c, (size_t)m->n_cols, a + j, lda, wide, MZM_COL_GRAIN, n_pos, n,
						    k, keep || j > 0, NULL));
		}
	}
}

/* ---- bf16 ---- */

static const mzm_gemm_input *input_of_down(const mzm_state *s)
{
	return &s->gemm.input[s->gemm.n_inputs - 1];
}

static const mzm_gemm_input *input_of(const mzm_state *s, int32_t k, bool sections)
{
	const mzm_gemm_input *in = s->gemm.input;
	while (in->k != k || in->sections != sections)
		in++;
	return in;
}

static int32_t part_len(const mzm_gemm_input *in, int32_t part)
{
	int32_t left = in->k - part * in->depth;
	return left < in->depth ? left : in->depth;
}

/* acts [n_parts, n_pos, depth] = x [n_pos, ldx], zeros behind its end, parts [first, last): this rank's positions, then
 * a barrier. */
static void round_acts(mzm_state *s, const mzm_gemm_input *in, int32_t first, int32_t last, const float *x, size_t ldx,
		       int32_t n_pos, mzm_team *team, int rank)
{
	int32_t begin, end;
	mzm_team_range(n_pos, 1, rank, mzm_team_size(team), &begin, &end);
	for (int32_t p = begin; p < end; p++) {
		for (int32_t i = first; i < last; i++) {
			int32_t n = part_len(in, i);
			uint16_t *to = s->gemm.acts + ((size_t)i * (size_t)n_pos + (size_t)p) * (size_t)in->depth;
			const float *from = x + (size_t)p * ldx + (size_t)i * (size_t)in->depth;
			s->kern->narrow(to, from, MZM_BF16, n);
			memset(to + n, 0, (size_t)(in->depth - n) * sizeof *to);
		}
	}
	mzm_team_barrier(team, rank);
}

/* y[n_pos, n] (+)= part of the activations times a panel. */
static void multiply(mzm_state *s, const mzm_gemm_input *in, int32_t part, const uint16_t *panel, float *y, size_t ldy,
		     size_t n_pos, int32_t n, bool accumulate, int rank)
{
	float *block = s->gemm.block + (size_t)rank * s->gemm.block_len; /* [n_pos, MZM_GEMM_COLS] */
	const uint16_t *acts = s->gemm.acts + (size_t)part * n_pos * (size_t)in->depth;
	note_failure(s, mzm_gemm_run(in->of[n_pos == MZM_CHUNK_BIG], rank, block, acts, panel, NULL));
	for (size_t p = 0; p < n_pos; p++, block += MZM_GEMM_COLS, y += ldy) {
		if (accumulate)
			s->kern->add(y, block, n);
		else
			memcpy(y, block, (size_t)n * sizeof *y);
	}
}

/* Weights of n rows as panels, one a part. */
static void pack_rows(mzm_state *s, const mzm_matrix *m, const mzm_gemm_input *in, int32_t row, int32_t n, int rank)
{
	uint16_t *panel = s->gemm.panel + (size_t)rank * s->gemm.panel_len;
	uint16_t *narrow = s->gemm.rows + (size_t)rank * s->gemm.rows_len; /* [n, n_cols] */
	float *wide = s->gemm.wide + (size_t)rank * s->gemm.wide_len;
	size_t stride = m->stride, row_len = (size_t)m->n_cols;
	const char *from = row_at(m, row);
	if (m->dtype != MZM_BF16) {
		for (int32_t i = 0; i < n; i++) {
			s->kern->to_f32(wide, row_at(m, row + i), m->dtype, m->n_cols);
			s->kern->narrow(narrow + (size_t)i * row_len, wide, MZM_BF16, m->n_cols);
		}
		from = (const char *)narrow;
		stride = row_len * sizeof *narrow;
	}
	for (int32_t i = 0; i < in->n_parts; i++, from += (size_t)in->depth * sizeof *panel) {
		mzm_gemm_pack_nt(panel, from, stride, n, part_len(in, i), in->depth);
		panel += mzm_gemm_panel_len(in->depth);
	}
}

static void rows_bf16(mzm_state *s, const mzm_matrix *m, const mzm_product *p, int rank, int32_t begin, int32_t end)
{
	const mzm_gemm_input *in = input_of(s, m->n_cols, false);
	const uint16_t *panel = s->gemm.panel + (size_t)rank * s->gemm.panel_len;
	for (int32_t r = begin; r < end; r += MZM_GEMM_COLS) {
		int32_t n = end - r < MZM_GEMM_COLS ? end - r : MZM_GEMM_COLS;
		pack_rows(s, m, in, r, n, rank);
		for (int32_t i = 0; i < in->n_parts; i++)
			multiply(s, in, i, panel + (size_t)i * mzm_gemm_panel_len(in->depth), p->y + r, p->ldy,
				 (size_t)p->n_pos, n, i > 0, rank);
	}
}

/* Columns c .. c+n-1 of a part of the neurons as panels of MZM_GEMM_COLS columns. */
static void pack_cols(mzm_state *s, const mzm_matrix *m, const mzm_gemm_input *in, int32_t part, int32_t c, int32_t n,
		      int rank)
{
	uint16_t *panel = s->gemm.panel + (size_t)rank * s->gemm.panel_len;
	uint16_t *narrow = s->gemm.rows + (size_t)rank * s->gemm.rows_len; /* [MZM_GEMM_STEP, PART_COLS] */
	float wide[PART_COLS];
	int32_t first = part * in->depth, k = part_len(in, part);
	if (m->dtype == MZM_BF16) { /* n <= MZM_GEMM_COLS */
		mzm_gemm_pack_nn(panel, row_at(m, first) + (size_t)c * sizeof *panel, m->stride, n, k, in->depth);
		return;
	}
	for (int32_t j = 0; j < in->depth; j += MZM_GEMM_STEP) {
		int32_t len = k - j < MZM_GEMM_STEP ? k - j : MZM_GEMM_STEP;
		for (int32_t i = 0; i < len; i++) {
			widen_part(s, wide, m, first + j + i, c, n);
			s->kern->narrow(narrow + (size_t)i * PART_COLS, wide, MZM_BF16, n);
		}
		for (int32_t i = 0; i * MZM_GEMM_COLS < n; i++) {
			int32_t n_cols = n - i * MZM_GEMM_COLS < MZM_GEMM_COLS ? n - i * MZM_GEMM_COLS : MZM_GEMM_COLS;
			mzm_gemm_pack_nn(panel + (size_t)i * mzm_gemm_panel_len(in->depth) + mzm_gemm_panel_len(j),
					 narrow + (size_t)i * MZM_GEMM_COLS, PART_COLS * sizeof *narrow, n_cols, len,
					 MZM_GEMM_STEP);
		}
	}
}

/* y [n_pos, n_cols] += parts first .. last-1 of the activations times their rows. */
static void sums_bf16(mzm_state *s, const mzm_matrix *m, const mzm_gemm_input *in, int32_t first, int32_t last,
		      float *y, int32_t n_pos, int rank, int32_t grain, int32_t begin, int32_t end)
{
	const uint16_t *panel = s->gemm.panel + (size_t)rank * s->gemm.panel_len;
	for (int32_t c = begin; c < end; c += grain) {
		int32_t n = end - c < grain ? end - c : grain;
		for (int32_t part = first; part < last; part++) {
			pack_cols(s, m, in, part, c, n, rank);
			for (int32_t i = 0; i < n; i += MZM_GEMM_COLS)
				multiply(s, in, part, panel + (size_t)i * (size_t)in->depth, y + c + i,
					 (size_t)m->n_cols, (size_t)n_pos,
					 n - i < MZM_GEMM_COLS ? n - i : MZM_GEMM_COLS, true, rank);
		}
	}
}

/* ---- both ---- */

void mzm_gemm_rows(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank, int32_t *begin,
		   int32_t *end)
{
	mzm_matrix m = at_hand(p->m, part);
	mzm_team_range(part->row1 - part->row0, MZM_GEMM_COLS, rank, mzm_team_size(team), begin, end);
	*begin += part->row0;
	*end += part->row0;
	if (!s->gemm.bf16 || !takes_bf16(&m)) {
		rows_f32(s, &m, p, rank, *begin, *end);
		return;
	}
	if (!p->x->is_packed) { /* by nobody: every rank has an x of its own, and they take turns alike */
		const mzm_gemm_input *in = input_of(s, m.n_cols, false);
		round_acts(s, in, 0, in->n_parts, p->x->x, (size_t)m.n_cols, p->n_pos, team, rank);
		p->x->is_packed = true;
		p->x->form = MZM_BF16;
	}
	rows_bf16(s, &m, p, rank, *begin, *end);
}

void mzm_gemm_down(mzm_state *s, const mzm_matrix *of, const mzm_part *part, mzm_group g, const float *a,
		   mzm_team *team, int rank)
{
	mzm_matrix m = at_hand(of, part);
	bool bf16 = s->gemm.bf16 && takes_bf16(&m);
	int32_t grain = bf16 && m.dtype != MZM_BF16 ? PART_COLS : MZM_COL_GRAIN, begin, end;
	mzm_team_range(m.n_cols, grain, rank, mzm_team_size(team), &begin, &end);
	if (bf16) {
		int32_t first = part->row0 / MZM_SECTION, last = (part->row1 + MZM_SECTION - 1) / MZM_SECTION;
		round_acts(s, input_of_down(s), first, last, a, (size_t)s->w->cfg.n_ffn, g.n, team, rank);
		float *y = mzm_ffn_sink(s) + (size_t)g.first * (size_t)m.n_cols;
		sums_bf16(s, &m, input_of_down(s), first, last, y, g.n, rank, grain, begin, end);
		return;
	}
	sums_f32(s, &m, part, s->proj + (size_t)g.first * (size_t)m.n_cols, false, a, (size_t)s->w->cfg.n_ffn, g.n,
		 rank, begin, end);
	if (part->row1 == m.n_rows && begin < end) {
		mzm_product sum = {.n_pos = g.n, .pos = g.first};
		mzm_add_to_sink(s, &sum, begin, end);
	}
}

void mzm_gemm_sums(mzm_state *s, const mzm_product *p, const mzm_part *part, mzm_team *team, int rank)
{
	mzm_matrix m = at_hand(p->m, part);
	bool bf16 = s->gemm.bf16 && takes_bf16(&m);
	int32_t grain = bf16 && m.dtype != MZM_BF16 ? PART_COLS : MZM_COL_GRAIN, begin, end;
	mzm_team_range(m.n_cols, grain, rank, mzm_team_size(team), &begin, &end);
	if (!bf16) {
		sums_f32(s, &m, part, p->y, true, p->x->x, (size_t)m.n_rows, p->n_pos, rank, begin, end);
		return;
	}
	const mzm_gemm_input *in = input_of(s, m.n_rows, true);
	if (!p->x->is_packed) { /* whole, for the products and parts that follow */
		round_acts(s, in, 0, in->n_parts, p->x->x, (size_t)m.n_rows, p->n_pos, team, rank);
		p->x->is_packed = true;
		p->x->form = MZM_BF16;
	}
	sums_bf16(s, &m, in, part->row0 / MZM_SECTION, (part->row1 + MZM_SECTION - 1) / MZM_SECTION, p->y, p->n_pos,
		  rank, grain, begin, end);
}
