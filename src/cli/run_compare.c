/* run_compare.c - one prompt in dense, sparse and sirius mode, side by side; see run.h.
 *
 * The three texts are generated one after the other on one session, then laid out in columns that
 * fill the terminal, or below each other where it is narrow. Corrected tokens are marked by colour, or by
 * [brackets] without it. Each number in the table was measured in these three runs. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_SIDES = 3, GAP = 3, MIN_COLUMN = 22, LABEL = 22 };

typedef struct side {
	mzm_gen_params gen;
	mzm_gen_result result;
	int32_t *tokens;     /* [result.n_tokens] kept beyond the session's next call */
	mzm_cli_bytes text;  /* verified text, as it is */
	mzm_cli_bytes shown; /* the same with marks and without control characters */
	mzm_cli_bytes style; /* [shown.n] mzm_run_style of each byte */
	mzm_run_show show;
	mzm_cli_progress *progress;
	bool color;
} side;

typedef struct line { /* of one column */
	size_t begin, end; /* bytes of shown */
} line;

/* ---- generating ---- */

/* A control character other than a line end would break the columns: it becomes a blank. */
static void add_shown(side *s, mzm_run_style style, const char *bytes, size_t n)
{
	char one = (char)style;
	for (size_t i = 0; i < n; i++) {
		bool is_control = ((unsigned char)bytes[i] < 0x20 && bytes[i] != '\n') || bytes[i] == 0x7F;
		mzm_cli_bytes_add(&s->shown, is_control ? " " : bytes + i, 1);
		mzm_cli_bytes_add(&s->style, &one, 1);
	}
}

/* Without colour, a corrected token stands in brackets: "He has[ 3] pens"; a line end as "[\\n]" before it. */
static void add_bracketed(side *s, const char *bytes, size_t n)
{
	size_t blanks = 0;
	while (blanks < n && bytes[blanks] == ' ')
		blanks++;
	blanks = blanks < n ? blanks : 0; /* of a blank alone, the blank is what was corrected */
	add_shown(s, MZM_RUN_PLAIN, bytes, blanks);
	add_shown(s, MZM_RUN_CORRECTED, "[", 1);
	for (size_t i = blanks; i < n; i++)
		add_shown(s, MZM_RUN_CORRECTED, bytes[i] == '\n' ? "\\n" : bytes + i, bytes[i] == '\n' ? 2 : 1);
	add_shown(s, MZM_RUN_CORRECTED, "]", 1);
	for (size_t i = blanks; i < n; i++)
		add_shown(s, MZM_RUN_PLAIN, bytes + i, bytes[i] == '\n');
}

static void emit(void *user, mzm_run_style style, const char *bytes, size_t n)
{
	side *s = user;
	if (style == MZM_RUN_CORRECTED && !s->color)
		add_bracketed(s, bytes, n);
	else
		add_shown(s, style, bytes, n);
}

static int on_text(void *user, const char *bytes, size_t n)
{
	side *s = user;
	mzm_cli_bytes_add(&s->text, bytes, n);
	mzm_run_show_text(&s->show, bytes, n);
	return mzm_cli_interrupted();
}

static int on_token(void *user, const mzm_token_event *event)
{
	side *s = user;
	mzm_run_show_token(&s->show, event);
	return mzm_cli_progress_report(s->progress, mzm_mode_name(s->gen.mode), (uint64_t)event->pos, 0);
}

static int on_prefill(void *user, const char *stage, uint64_t done, uint64_t total)
{
	return mzm_cli_progress_report(((side *)user)->progress, stage, done, total);
}

static mzm_status keep_tokens(side *s, mzm_err *err)
{
	size_t bytes = (size_t)s->result.n_tokens * sizeof *s->tokens;
	s->tokens = malloc(bytes ? bytes : 1);
	if (!s->tokens || s->show.failed || s->text.failed || s->shown.failed || s->style.failed)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for the text");
	if (bytes)
		memcpy(s->tokens, s->result.tokens, bytes);
	s->result.tokens = s->tokens;
	return MZM_OK;
}

static mzm_status generate_side(const mzm_run *run, side *s, mzm_mode mode, mzm_cli_progress *progress, mzm_err *err)
{
	s->gen = run->decode.gen;
	s->gen.mode = mode;
	s->gen.on_text = on_text;
	s->gen.on_token = on_token;
	s->gen.on_prefill = on_prefill;
	s->gen.on_stream = on_prefill;
	s->gen.user = s;
	s->progress = progress;
	s->color = mzm_cli_has_color(stdout);
	mzm_status st = mzm_run_show_init(&s->show, mzm_model_tokenizer(run->model), false, emit, s, err);
	if (st == MZM_OK)
		st = mzm_generate(run->session, run->ids, (int32_t)run->n_ids, &s->gen, &s->result, err);
	mzm_run_show_end(&s->show);
	if (st == MZM_OK && s->result.finish == MZM_FINISH_CANCELLED)
		st = mzm_cli_set_err(err, MZM_ECANCELLED, "cancelled");
	if (st == MZM_OK)
		st = keep_tokens(s, err);
	mzm_run_show_free(&s->show);
	mzm_cli_progress_clear(progress);
	return st;
}

static void free_side(side *s)
{
	free(s->tokens);
	free(s->text.data);
	free(s->shown.data);
	free(s->style.data);
}

/* ---- layout ---- */

/* Where the text begins: the blank before its first word is of no use in a column. */
static size_t first_byte(const side *s)
{
	size_t at = 0;
	while (at < s->shown.n && s->shown.data[at] == ' ')
		at++;
	return at;
}

/* The next line of at most `width` columns from *at on, broken at the last blank if there is one. */
static line next_line(const side *s, size_t *at, int width)
{
	line l = {*at, *at};
	size_t i = *at, blank = 0;
	int used = 0, columns;
	while (i < s->shown.n && s->shown.data[i] != '\n') {
		size_t n = mzm_cli_char(s->shown.data + i, s->shown.n - i, &columns);
		if (used + columns > width && i > *at)
			break;
		if (s->shown.data[i] == ' ')
			blank = i;
		used += columns;
		i += n;
	}
	bool is_full = i < s->shown.n && s->shown.data[i] != '\n' && s->shown.data[i] != ' ';
	l.end = is_full && blank > *at ? blank : i;
	*at = l.end + (l.end < s->shown.n && (s->shown.data[l.end] == '\n' || s->shown.data[l.end] == ' '));
	return l;
}

/* Writes the line; returns its columns. */
static int put_line(const side *s, line l)
{
	char last = MZM_RUN_PLAIN;
	for (size_t i = l.begin; i < l.end; i++) {
		if (s->style.data[i] != last && s->color)
			fputs(s->style.data[i] == MZM_RUN_CORRECTED ? MZM_SGR_CORRECTED : MZM_SGR_RESET, stdout);
		last = s->style.data[i];
		fputc(s->shown.data[i], stdout);
	}
	if (last != MZM_RUN_PLAIN && s->color)
		fputs(MZM_SGR_RESET, stdout);
	return mzm_cli_text_width(s->shown.data + l.begin, l.end - l.begin);
}

static void put_title(const side *s, int width)
{
	const char *name = mzm_mode_name(s->gen.mode);
	printf("%s%s%s%*s", mzm_cli_sgr(stdout, MZM_SGR_BOLD), name, mzm_cli_sgr(stdout, MZM_SGR_RESET),
	       width > (int)strlen(name) ? width - (int)strlen(name) : 0, "");
}

static bool all_done(const side *sides, const size_t at[N_SIDES])
{
	for (int i = 0; i < N_SIDES; i++)
		if (at[i] < sides[i].shown.n)
			return false;
	return true;
}

static void put_columns(const side *sides, int total)
{
	int width = (total - (N_SIDES - 1) * GAP) / N_SIDES;
	size_t at[N_SIDES];
	for (int i = 0; i < N_SIDES; i++) {
		at[i] = first_byte(&sides[i]);
		put_title(&sides[i], i + 1 < N_SIDES ? width + GAP : 0);
	}
	putchar('\n');
	while (!all_done(sides, at)) {
		int owed = 0; /* blanks before the next text, so that no line ends in blanks */
		for (int i = 0; i < N_SIDES; i++) {
			line l = next_line(&sides[i], &at[i], width);
			if (l.end > l.begin)
				printf("%*s", owed, "");
			int used = l.end > l.begin ? put_line(&sides[i], l) : 0;
			owed = (l.end > l.begin ? 0 : owed) + width + GAP - used;
		}
		putchar('\n');
	}
}

static void put_stacked(const side *sides, int width)
{
	for (int i = 0; i < N_SIDES; i++) {
		put_title(&sides[i], 0);
		putchar('\n');
		for (size_t at = first_byte(&sides[i]); at < sides[i].shown.n; putchar('\n'))
			put_line(&sides[i], next_line(&sides[i], &at, width));
		putchar('\n');
	}
}

/* ---- table ---- */

typedef double (*value_fn)(const side *s, const mzm_cli_derived *d);

static double tokens_of(const side *s, const mzm_cli_derived *d)
{
	(void)d;
	return s->result.n_tokens;
}

static double corrected_of(const side *s, const mzm_cli_derived *d)
{
	(void)d;
	return s->result.n_checks ? s->result.n_corrected : (double)NAN;
}

static double aal_of(const side *s, const mzm_cli_derived *d)
{
	(void)s;
	return d->aal;
}

static double density_of(const side *s, const mzm_cli_derived *d)
{
	(void)d;
	return s->gen.mode == MZM_MODE_DENSE ? (double)NAN : s->result.density;
}

static double work_of(const side *s, const mzm_cli_derived *d)
{
	(void)s;
	return d->work_per_token;
}

static double speed_of(const side *s, const mzm_cli_derived *d)
{
	(void)s;
	return d->tok_per_s;
}

static void put_row(const side *sides, const char *label, int decimals, int width, value_fn value)
{
	printf("%-*s", LABEL, label);
	for (int i = 0; i < N_SIDES; i++) {
		mzm_cli_derived d = mzm_cli_derive(&sides[i].result, &sides[i].gen, 1);
		double x = value(&sides[i], &d);
		if (isfinite(x))
			printf("%*.*f", width, decimals, x);
		else
			printf("%*s", width, "-");
	}
	putchar('\n');
}

/* How far the tokens are those of the dense run. */
static void put_agreement(const side *sides, int width)
{
	const mzm_gen_result *dense = &sides[0].result;
	printf("%-*s%*s", LABEL, "same as dense", width, "-");
	for (int i = 1; i < N_SIDES; i++) {
		const mzm_gen_result *r = &sides[i].result;
		char text[32] = "all";
		int32_t n = 0;
		while (n < r->n_tokens && n < dense->n_tokens && r->tokens[n] == dense->tokens[n])
			n++;
		if (n < r->n_tokens || n < dense->n_tokens)
			snprintf(text, sizeof text, "first %d", n);
		printf("%*s", width, text);
	}
	putchar('\n');
}

static void put_table(const side *sides, int total)
{
	int width = (total - LABEL) / N_SIDES;
	width = width < 9 ? 9 : width > 14 ? 14 : width;
	printf("\n%*s", LABEL, "");
	for (int i = 0; i < N_SIDES; i++)
		printf("%*s", width, mzm_mode_name(sides[i].gen.mode));
	putchar('\n');
	put_row(sides, "tokens", 0, width, tokens_of);
	put_row(sides, "tokens a second", 1, width, speed_of);
	put_row(sides, "work per token", 3, width, work_of);
	put_row(sides, "density of a draft", 3, width, density_of);
	put_row(sides, "tokens a check", 2, width, aal_of);
	put_row(sides, "corrected tokens", 0, width, corrected_of);
	put_agreement(sides, width);
	printf("\nWork is in dense passes. %s: written by the full model in place of a rejected draft token.\n",
	       sides[0].color ? MZM_SGR_CORRECTED "Marked" MZM_SGR_RESET : "[Marked]");
}

static mzm_status print_json(const mzm_run *run, const side *sides, mzm_err *err)
{
	json_t *root = mzm_run_head_json(run, &sides[0].gen), *rows = json_array();
	bool bad = !root || !rows || json_object_set_new(root, "rows", json_incref(rows)) != 0;
	if (!bad)
		json_object_del(json_object_get(root, "settings"), "mode"); /* each row has its own */
	for (int i = 0; i < N_SIDES && !bad; i++) {
		const side *s = &sides[i];
		json_t *row = json_pack("{s:s}", "mode", mzm_mode_name(s->gen.mode));
		bad = !row || mzm_run_answer_json(row, &s->result, &s->gen, s->text.data, s->text.n) ||
		      json_array_append(rows, row) != 0;
		json_decref(row);
	}
	mzm_status st = bad ? mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for JSON output")
			    : mzm_cli_json_write(root, NULL, err);
	json_decref(rows);
	json_decref(root);
	return st;
}

static mzm_status print_sides(const side *sides, mzm_err *err)
{
	int width = mzm_cli_width(stdout);
	if ((width - (N_SIDES - 1) * GAP) / N_SIDES >= MIN_COLUMN)
		put_columns(sides, width);
	else
		put_stacked(sides, width);
	put_table(sides, width);
	return mzm_cli_flush(stdout, "standard output", err);
}

int mzm_run_compare(mzm_run *run)
{
	static const mzm_mode modes[N_SIDES] = {MZM_MODE_DENSE, MZM_MODE_SPARSE, MZM_MODE_SIRIUS};
	mzm_err err = {0};
	mzm_cli_progress progress = mzm_cli_progress_init("tokens");
	side sides[N_SIDES] = {0};
	mzm_status st = MZM_OK;
	for (int i = 0; i < N_SIDES && st == MZM_OK; i++)
		st = generate_side(run, &sides[i], modes[i], &progress, &err);
	if (st == MZM_OK)
		st = run->json ? print_json(run, sides, &err) : print_sides(sides, &err);
	for (int i = 0; i < N_SIDES && st == MZM_OK && run->stats; i++)
		mzm_run_print_stats(&sides[i].result, &sides[i].gen);
	for (int i = 0; i < N_SIDES; i++)
		free_side(&sides[i]);
	return st == MZM_OK ? mzm_cli_exit_code(MZM_OK) : mzm_cli_fail_usage(run->cmd, &err);
}
