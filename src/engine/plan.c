/* plan.c - how a model is held under a memory budget: what must be in memory, what may be, what streams.
 *
 * First what no model works without: the process, its sessions, norms and embedding, a window of two spans and the
 * reader's buffers. Then, while there is room: what drafts read at every token, that is the draft image whole, or of it
 * (of the model, if there is none) all but the FFN and as many neurons of that as fit (held.h); then the tensors of the
 * model in the order head, attention, FFN, for each that stays saves its bytes at every pass. What is left widens the
 * window. */
#include "engine/plan.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "engine/sidecar.h"
#include "kern/gemm.h"
#include "model/held.h"

#define GROWTH        ((uint64_t)8 << 20) /* of the process after now: stacks, small things */
#define GROWTH_ONEDNN ((uint64_t)4 << 20) /* its compiled code */
#define GOOD_SLOTS    4  /* of the window: less leaves the disk too little to do */
#define MAX_SLOTS     16
#define DEPTH_SMALL   4 /* reads under way where the budget is tight */
#define DEPTH_FULL    16
#define MIN_HELD      32 /* one of so many neurons at least, or drafts are not worth their time */

/* ---- what there is ---- */

/* Second number of /proc/self/statm: resident pages. */
static uint64_t resident_now(void)
{
	char text[128], *end;
	malloc_trim(0);
	if (!mzm_read_small_text("/proc/self/statm", text, sizeof text))
		return 0;
	(void)strtoull(text, &end, 10);
	return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- parts ---- */

bool mzm_plan_has_bf16(const mzm_source *src)
{
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (t.role == MZM_ROLE_MODEL && t.kind != MZM_T_EMBED && t.kind != MZM_T_POS && t.kind != MZM_T_HEAD &&
		    (t.dtype == MZM_BF16 || mzm_dtype_is_quant(t.dtype)))
			return true;
	}
	return false;
}

static mzm_status measure_sessions(mzm_plan *p, mzm_source *src, const mzm_model_params *params, const mzm_kern *kern,
				   mzm_err *err)
{
	mzm_session_params sp = params->session ? *params->session : mzm_session_params_default();
	MZM_TRY(mzm_session_measure(&p->session_bytes, mzm_source_config(src), mzm_plan_has_bf16(src), kern, &sp, err));
	if (params->drafts)
		p->session_bytes += mzm_gen_lossless_bytes(params->drafts, mzm_source_config(src)->n_vocab);
	p->session_bytes *= (uint64_t)(params->n_sessions > 0 ? params->n_sessions : 1);
	return MZM_OK;
}

static bool must_stay(const mzm_tensor *t)
{
	/* wg: drafts use the model's, as there is none in a draft image */
	return t->kind == MZM_T_EMBED || t->kind == MZM_T_POS || t->kind == MZM_T_WG || mzm_tensor_is_vector(t->kind);
}

static uint64_t held_bytes(const mzm_tensor *t)
{
	return (mzm_tensor_bytes(t) + MZM_AIO_ALIGN - 1) / MZM_AIO_ALIGN * MZM_AIO_ALIGN;
}

/* ---- choosing ---- */

typedef struct choice {
	mzm_source *src;
	mzm_plan   *p;
	bool       *streamed;
	uint64_t    room; /* of the budget that is not spent yet */
} choice;

static uint64_t draft_bytes(const mzm_source *src)
{
	uint64_t sum = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		if (t.role == MZM_ROLE_DRAFT)
			sum += held_bytes(&t);
	}
	return sum;
}

/* Keeps the tensors of a class, in order, while they fit. */
static void keep(choice *c, bool (*wanted)(const mzm_tensor *t))
{
	for (int32_t i = 0; i < mzm_source_n_tensors(c->src); i++) {
		mzm_tensor t = mzm_source_tensor(c->src, i);
		uint64_t bytes = held_bytes(&t);
		if (t.role != MZM_ROLE_MODEL || !c->streamed[i] || !wanted(&t) || bytes > c->room)
			continue;
		c->streamed[i] = false;
		c->room -= bytes;
		c->p->weight_bytes += bytes;
	}
}

static bool is_head(const mzm_tensor *t)
{
	return t->kind == MZM_T_HEAD;
}

static bool is_attention(const mzm_tensor *t)
{
	return mzm_tensor_is_attention(t->kind);
}

static bool is_ffn(const mzm_tensor *t)
{
	return mzm_tensor_is_ffn(t->kind);
}

/* Marks all for streaming but what must stay, and counts that. */
static void start_choice(choice *c)
{
	for (int32_t i = 0; i < mzm_source_n_tensors(c->src); i++) {
		mzm_tensor t = mzm_source_tensor(c->src, i);
		c->streamed[i] = t.role == MZM_ROLE_MODEL && !must_stay(&t);
		if (t.role == MZM_ROLE_MODEL && must_stay(&t))
			c->p->weight_bytes += held_bytes(&t);
	}
}

static uint64_t streamed_bytes(const mzm_source *src, const bool *streamed)
{
	uint64_t sum = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		uint32_t n;
		const mzm_extent *x = mzm_container_tensor(src, i, &n);
		for (uint32_t k = 0; streamed[i] && k < n; k++)
			sum += x[k].stored_bytes;
	}
	return sum;
}

/* ---- neurons for drafts ---- */

/* Neurons of a layer that drafts could make use of. */
static int32_t most_held(const mzm_config *cfg, const mzm_model_params *params)
{
	const mzm_gen_params *gen = params->drafts;
	bool sparse = gen && gen->mode != MZM_MODE_DENSE && mzm_gen_needs_predictor(gen);
	const mzm_predictor_ops *ops = sparse ? mzm_predictor_find(gen->predictor) : NULL;
	if (!ops || !ops->want)
		return 0;
	mzm_pred_env env = {.cfg = cfg, .keep = mzm_gen_keep(gen)};
	return ops->stage == MZM_PRED_INPUT && !ops->score ? mzm_pred_n_keep(&env) : cfg->n_ffn;
}

/* What sessions take to hold n neurons a layer, as the role has them. */
static uint64_t held_cost(const choice *c, mzm_role role, int32_t n, int32_t n_sessions)
{
	mzm_dtype gate = MZM_F32, updown = MZM_F32;
	uint64_t bytes;
	for (int32_t i = 0; i < mzm_source_n_tensors(c->src); i++) {
		mzm_tensor t = mzm_source_tensor(c->src, i);
		if (t.role == role && t.kind == MZM_T_GATE)
			gate = t.dtype;
		else if (t.role == role && (t.kind == MZM_T_UPDOWN || t.kind == MZM_T_DOWN))
			updown = t.dtype;
	}
	if (!mzm_held_measure(&bytes, mzm_source_config(c->src), gate, updown, n))
		return UINT64_MAX;
	return bytes > UINT64_MAX / (uint64_t)n_sessions ? UINT64_MAX : bytes * (uint64_t)n_sessions;
}

/* What else drafts read at every token; with the FFN: all that the role has. */
static uint64_t draft_reads(const choice *c, mzm_role role, bool with_ffn)
{
	uint64_t sum = 0;
	for (int32_t i = 0; i < mzm_source_n_tensors(c->src); i++) {
		mzm_tensor t = mzm_source_tensor(c->src, i);
		if (t.role == role && (with_ffn || !is_ffn(&t)) && (role == MZM_ROLE_DRAFT || c->streamed[i]))
			sum += held_bytes(&t);
	}
	return sum;
}

/* The largest number of neurons that have room beside the rest of what drafts read. */
static void choose_held(choice *c, mzm_residency *r, const mzm_model_params *params)
{
	const mzm_config *cfg = mzm_source_config(c->src);
	mzm_role role = mzm_source_has_draft(c->src) ? MZM_ROLE_DRAFT : MZM_ROLE_MODEL;
	int32_t n_sessions = params->n_sessions > 0 ? params->n_sessions : 1, n = 0;
	uint64_t fixed = draft_reads(c, role, false);
	if (draft_reads(c, role, true) <= c->room)
		return; /* all is in memory */
	for (int32_t step = 1 << 30; step > 0 && fixed <= c->room; step /= 2)
		if (step <= most_held(cfg, params) - n && held_cost(c, role, n + step, n_sessions) <= c->room - fixed)
			n += step;
	if (n < 1 || n < cfg->n_ffn / MIN_HELD)
		return;
	r->n_held = c->p->n_held = n;
	c->p->held_bytes = held_cost(c, role, n, n_sessions);
	c->room -= c->p->held_bytes;
	if (role == MZM_ROLE_MODEL)
		return; /* keep() has the rest next */
	c->p->draft_on_disk = r->no_draft = false;
	c->p->draft_bytes = fixed;
	c->room -= fixed;
}

static void set_reader(mzm_plan *p, mzm_residency *r, const mzm_source *src)
{
	uint64_t all = mzm_reader_bytes(&r->reader, src);
	p->window_bytes = (uint64_t)r->reader.n_slots * r->reader.slot_bytes;
	p->reader_bytes = all - p->window_bytes;
}

/* The parts as they are listed, without what they cost beside themselves. */
static uint64_t parts(const mzm_plan *p)
{
	return p->process_bytes + p->session_bytes + p->weight_bytes + p->draft_bytes + p->held_bytes +
	       p->window_bytes + p->reader_bytes;
}

/* What so much memory costs beside itself: 8 bytes of page tables for each 4 KiB, and, as measured, about as much again
 * that the kernel keeps for pages it reads into; twice that, for libraries that come from the disk at first use. */
static uint64_t overhead(uint64_t bytes)
{
	return bytes / 128;
}

static uint64_t total(const mzm_plan *p)
{
	return parts(p) + overhead(parts(p));
}

#define MIB(n) ((double)(n) / (1 << 20))

static mzm_status too_small(const mzm_plan *p, mzm_err *err)
{
	return mzm_fail(err, MZM_EARG,
			"a budget of %.1f MiB is too small: at least %.1f MiB are needed; %.1f for the program and its "
			"libraries, %.1f for sessions (a shorter context needs less), %.1f for weights that must stay "
			"in memory, %.1f for the window through which the others stream, %.1f to read and unpack them",
			MIB(p->ram_bytes), MIB(p->smallest_bytes) + 0.5,
			MIB(p->process_bytes + overhead(parts(p))), MIB(p->session_bytes),
			MIB(p->weight_bytes), MIB(p->window_bytes), MIB(p->reader_bytes));
}

/* As many reads under way as the reader likes, or as a share of the room allows. That share, or all that it wants, goes
 * from the room, so that more room never leaves less for weights; returns what was not used of it. */
static uint64_t deepen(const mzm_plan *p, mzm_residency *r, const mzm_source *src, uint64_t share, uint64_t *room)
{
	uint64_t base = p->window_bytes + p->reader_bytes, more;
	r->reader.depth = DEPTH_FULL;
	more = mzm_reader_bytes(&r->reader, src) - base;
	share = share < more ? share : more;
	*room -= share;
	for (; more > share; more = mzm_reader_bytes(&r->reader, src) - base)
		r->reader.depth--;
	return share - more;
}

/* A window of n slots, or as many as `room` allows; returns what is left of that. */
static uint64_t widen(mzm_residency *r, int n_slots, uint64_t room)
{
	while (r->reader.n_slots < n_slots && room >= r->reader.slot_bytes) {
		r->reader.n_slots++;
		room -= r->reader.slot_bytes;
	}
	return room;
}

/* The same for a good window; the share of the room that goes for it grows evenly, too. */
static uint64_t open_window(mzm_residency *r, uint64_t share, uint64_t *room)
{
	uint64_t more = (GOOD_SLOTS - 2) * (uint64_t)r->reader.slot_bytes;
	share = share < more ? share : more;
	*room -= share;
	return widen(r, GOOD_SLOTS, share);
}

static mzm_status choose_streamed(mzm_plan *p, mzm_residency *r, bool *streamed, mzm_source *src,
				  const mzm_model_params *params, mzm_err *err)
{
	choice c = {src, p, streamed, 0};
	uint64_t draft = draft_bytes(src);
	start_choice(&c);
	set_reader(p, r, src);
	p->smallest_bytes = total(p);
	if (p->smallest_bytes > p->ram_bytes)
		return too_small(p, err);
	c.room = p->ram_bytes - p->smallest_bytes;
	c.room -= c.room > 0 ? overhead(c.room) + 1 : 0; /* a byte that rounding may take */
	p->draft_on_disk = draft > 0 && draft > c.room;
	r->no_draft = p->draft_on_disk;
	if (draft > 0 && !p->draft_on_disk) {
		p->draft_bytes = draft;
		c.room -= draft;
	}
	uint64_t spare = deepen(p, r, src, c.room / 4, &c.room);
	spare += open_window(r, c.room / 4, &c.room);
	if (draft == 0 || p->draft_on_disk)
		choose_held(&c, r, params);
	keep(&c, is_head);
	keep(&c, is_attention);
	keep(&c, is_ffn);
	(void)widen(r, MAX_SLOTS, c.room + spare);
	set_reader(p, r, src);
	p->streamed_bytes = streamed_bytes(src, streamed);
	return MZM_OK;
}

/* ---- the plan ---- */

static void plan_resident(mzm_plan *p, const mzm_source *src)
{
	const mzm_config *cfg = mzm_source_config(src);
	p->store = mzm_store_name(MZM_STORE_RESIDENT);
	p->weight_bytes = p->model_bytes + 8 * (uint64_t)cfg->n_layers * (uint64_t)cfg->n_ffn; /* norms of rows */
	p->draft_bytes = draft_bytes(src);
	p->smallest_bytes = total(p);
}

static mzm_status parse_io(mzm_aio_kind *kind, const char *name, mzm_err *err)
{
	if (!name || strcmp(name, "auto") == 0)
		*kind = MZM_AIO_AUTO;
	else if (strcmp(name, "uring") == 0)
		*kind = MZM_AIO_URING;
	else if (strcmp(name, "threads") == 0)
		*kind = MZM_AIO_THREADS;
	else
		return mzm_fail(err, MZM_EARG, "no way of reading \"%.20s\"; there are auto, uring and threads", name);
	return MZM_OK;
}

static mzm_status parse_store(mzm_store_kind *kind, bool *automatic, const char *name, mzm_err *err)
{
	*automatic = !name || strcmp(name, "auto") == 0;
	*kind = MZM_STORE_RESIDENT;
	if (*automatic)
		return MZM_OK;
	for (int k = 0; k < MZM_N_STORES; k++) {
		*kind = (mzm_store_kind)k;
		if (strcmp(name, mzm_store_name(*kind)) == 0)
			return MZM_OK;
	}
	return mzm_fail(err, MZM_EARG, "no store \"%.20s\"; there are auto, resident, mmap and stream", name);
}

/* Without a budget: all that can be, and a wide window. */
static void stream_all(mzm_plan *p, mzm_residency *r, bool *streamed, mzm_source *src)
{
	choice c = {src, p, streamed, 0};
	start_choice(&c);
	set_reader(p, r, src);
	p->smallest_bytes = total(p);
	p->draft_bytes = draft_bytes(src);
	r->reader.depth = DEPTH_FULL;
	r->reader.n_slots = MAX_SLOTS;
	set_reader(p, r, src);
	p->streamed_bytes = streamed_bytes(src, streamed);
}

static mzm_status plan_stream(mzm_plan *p, mzm_residency *r, bool *streamed, mzm_source *src,
			      const mzm_model_params *params, mzm_aio_kind io, mzm_err *err)
{
	if (!mzm_container_is(src))
		return mzm_fail(err, MZM_EUNSUPPORTED,
				"%s: only a .mzm container can be streamed; import it first, or give more memory",
				src->path);
	p->store = mzm_store_name(MZM_STORE_STREAM);
	p->weight_bytes = p->draft_bytes = 0;
	r->kind = MZM_STORE_STREAM;
	r->reader = (mzm_reader_params){.depth = DEPTH_SMALL, .n_slots = 2, .slot_bytes = mzm_span_bytes(src)};
	r->reader.slot_bytes = (r->reader.slot_bytes + MZM_AIO_ALIGN - 1) / MZM_AIO_ALIGN * MZM_AIO_ALIGN;
	r->reader.kind = io;
	r->streamed = streamed;
	if (p->ram_bytes)
		return choose_streamed(p, r, streamed, src, params, err);
	stream_all(p, r, streamed, src);
	return MZM_OK;
}

mzm_status mzm_plan_residency(mzm_plan *p, mzm_residency *r, bool *streamed, mzm_source *src,
			      const mzm_model_params *params, const mzm_kern *kern, mzm_err *err)
{
	bool automatic;
	mzm_aio_kind io;
	*p = (mzm_plan){.ram_bytes = params->ram_bytes};
	*r = (mzm_residency){0};
	MZM_TRY(parse_store(&r->kind, &automatic, params->store, err));
	MZM_TRY(parse_io(&io, params->io, err));
	p->process_bytes = resident_now() + params->reserve_bytes + GROWTH;
	p->process_bytes += mzm_gemm_available() && !params->no_onednn ? GROWTH_ONEDNN : 0;
	MZM_TRY(measure_sessions(p, src, params, kern, err));
	for (int32_t i = 0; i < mzm_source_n_tensors(src); i++) {
		mzm_tensor t = mzm_source_tensor(src, i);
		p->model_bytes += t.role == MZM_ROLE_MODEL ? mzm_tensor_bytes(&t) : 0;
	}
	plan_resident(p, src);
	if (automatic && !p->ram_bytes && p->smallest_bytes > mzm_memory_available() && mzm_container_is(src))
		p->ram_bytes = mzm_memory_available() / 100 * 80;
	if (r->kind == MZM_STORE_MMAP) {
		if (p->ram_bytes)
			return mzm_fail(err, MZM_EARG,
					"a budget cannot be kept with the store mmap: the system decides what stays in "
					"memory; use stream");
		p->store = mzm_store_name(MZM_STORE_MMAP);
		p->weight_bytes = p->draft_bytes = 0;
	} else if (r->kind == MZM_STORE_STREAM || (automatic && p->ram_bytes && p->smallest_bytes > p->ram_bytes)) {
		MZM_TRY(plan_stream(p, r, streamed, src, params, io, err));
	} else if (p->ram_bytes && p->smallest_bytes > p->ram_bytes) {
		return too_small(p, err);
	}
	p->process_bytes += overhead(parts(p));
	p->needed_bytes = parts(p);
	return MZM_OK;
}

mzm_status mzm_plan_make(mzm_plan *out, const char *path, const mzm_model_params *params, mzm_err *err)
{
	mzm_status st;
	mzm_source *src = NULL;
	mzm_tokenizer *tok = NULL; /* there while the process is measured, as it will be */
	bool *streamed = NULL;
	mzm_residency r;
	mzm_model_params p = params ? *params : mzm_model_params_default();
	*out = (mzm_plan){0};
	p.reserve_bytes += mzm_sidecar_bytes(path, &p) + mzm_sidecar_factor_bytes(path, &p);
	const mzm_kern *kern = mzm_kern_find(p.isa);
	if (!kern)
		return mzm_fail(err, MZM_EARG, "no kernel table \"%s\" for this CPU", p.isa);
	MZM_TRY_OUT(mzm_source_open(&src, path, err));
	size_t len;
	if (mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len))
		MZM_TRY_OUT(mzm_source_tokenizer(&tok, src, err));
	MZM_TRY_OUT(mzm_alloc_for((void **)&streamed, (size_t)mzm_source_n_tensors(src), "the tensors", err));
	st = mzm_plan_residency(out, &r, streamed, src, &p, kern, err);
out:
	mzm_free(streamed);
	mzm_tokenizer_close(tok);
	mzm_source_close(src);
	return st;
}
