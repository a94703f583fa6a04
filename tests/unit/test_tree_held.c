/* test_tree_held.c - trees of drafts where weights stream and drafts use the neurons that are in memory, or the draft
 * image: a tree of width 1 is the line, wider ones give the dense text in exact mode, for every number of threads the
 * same. */
#include "held_rig.h"

#include <string.h>

enum { N_PROMPT = 75, N_TEXT = 40 };

typedef struct text {
	mzm_gen_result r;
	int32_t        ids[N_TEXT];
} text;

static text write_text(mzm_session *s, way w, int32_t width, bool always_tree)
{
	text t = {.ids = {0}};
	int32_t ids[N_PROMPT];
	mzm_err err = {0};
	mzm_gen_params p = params_of(w);
	p.tree_width = width;
	p.max_tokens = N_TEXT;
	s->always_tree = always_tree;
	for (int i = 0; i < N_PROMPT; i++)
		ids[i] = (int32_t)((uint32_t)(i + 3) * 2654435761u % 2039 % 300);
	if (mzm_generate(s, ids, N_PROMPT, &p, &t.r, &err) != MZM_OK)
		fail_msg("%s", err.message);
	assert_int_equal(t.r.n_tokens, N_TEXT);
	memcpy(t.ids, t.r.tokens, sizeof t.ids);
	return t;
}

static void expect_same(const text *a, const text *b)
{
	assert_memory_equal(a->ids, b->ids, sizeof a->ids);
	assert_int_equal(a->r.n_checks, b->r.n_checks);
	assert_int_equal(a->r.n_accepted, b->r.n_accepted);
	assert_true(a->r.n_sparse_positions == b->r.n_sparse_positions);
	assert_true(a->r.density == b->r.density && a->r.sparse_node_work == b->r.sparse_node_work);
}

static void test_held(void **state)
{
	static const char *const names[] = {"griffin", "topk"};
	int n_saved = 0;
	(void)state;
	for (int f = 0; f < 4; f += getenv("MIRZAM_SHORT") ? 3 : 1) {
		make_model(forms[f]);
		rig_how in_memory = {.store = "resident", .n_ctx = 160};
		rig resident = rig_open(path, &in_memory);
		way w = {MZM_MODE_DENSE, names[f % 2], 0.2f, false, 0};
		text dense = write_text(resident.session, w, 1, false), first[2];
		for (int k = 0; k < 2; k++) {
			rig_how how = {.n_threads = 1 + k};
			way drafts = {MZM_MODE_SIRIUS, names[f % 2], 0.2f, false, 0};
			rig r = open_held(path, how, drafts, forms[f].n_ffn / 8, true);
			text line = write_text(r.session, drafts, 1, false);
			text one = write_text(r.session, drafts, 1, true);
			expect_same(&one, &line);
			text four = write_text(r.session, drafts, 4, false);
			drafts.mode = MZM_MODE_EXACT;
			text exact = write_text(r.session, drafts, 5, false);
			assert_memory_equal(exact.ids, dense.ids, sizeof dense.ids);
			if (k > 0) {
				expect_same(&four, &first[0]);
				expect_same(&exact, &first[1]);
			}
			first[0] = four;
			first[1] = exact;
			n_saved += four.r.n_checks < line.r.n_checks;
			rig_close(&r);
		}
		rig_close(&resident);
	}
	assert_true(n_saved > 0);
}

/* All in memory, drafts by the image of few bits. */
static void test_image(void **state)
{
	(void)state;
	make_model(forms[0]);
	rig_how how = {.store = "resident", .n_ctx = 160};
	rig r = rig_open(path, &how);
	way w = {MZM_MODE_EXACT, "topk", 0.1f, false, 0};
	text line = write_text(r.session, w, 1, false), one = write_text(r.session, w, 1, true);
	text wide = write_text(r.session, w, 6, false);
	expect_same(&one, &line);
	assert_memory_equal(wide.ids, line.ids, sizeof line.ids);
	assert_true(wide.r.n_nodes > 0 && wide.r.density < 1);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {IN_DIR(test_held), IN_DIR(test_image)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
