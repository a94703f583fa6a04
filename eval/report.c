/* report.c - one self-contained HTML page: table, chart, settings, and every answer token by token.
 *
 * Everything that comes from a model, a data file or the machine goes through mze_escape. The page loads
 * nothing; its only script is the filter. */
#include "eval/report.h"

#include <stdlib.h>
#include <string.h>

#include "eval/page.h"
#include "eval/util.h"

void mze_escape(FILE *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = mze_utf8_len(text + i, n - i);
		unsigned char c = (unsigned char)text[i];
		if (c == '<')
			fputs("&lt;", out);
		else if (c == '>')
			fputs("&gt;", out);
		else if (c == '&')
			fputs("&amp;", out);
		else if (c == '"')
			fputs("&quot;", out);
		else if (c == '\'')
			fputs("&#39;", out);
		else if (len == 0 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			fputs("\xef\xbf\xbd", out);
		else
			fwrite(text + i, 1, len, out);
		i += len ? len : 1;
	}
}

static void put(FILE *out, const char *text)
{
	mze_escape(out, text, strlen(text));
}

/* ---- head: table, chart, settings ---- */

static void write_table(const mze_eval *e, FILE *out)
{
	char cell[96];
	fputs("<div class=\"wide\"><table>\n<tr>", out);
	for (int c = 0; mze_table_head(c); c++) {
		if (!mze_table_is_shown(e, c))
			continue;
		fputs("<th>", out);
		put(out, mze_table_head(c));
		fputs("</th>", out);
	}
	fputs("</tr>\n", out);
	for (int32_t i = 0; i < e->n_rows; i++) {
		fputs("<tr>", out);
		for (int c = 0; mze_table_head(c); c++) {
			if (!mze_table_is_shown(e, c))
				continue;
			fputs("<td>", out);
			put(out, mze_table_cell(cell, e, &e->row[i], c));
			fputs("</td>", out);
		}
		fputs("</tr>\n", out);
	}
	fputs("</table></div>\n", out);
}

static mzm_status write_notes(const mze_eval *e, FILE *out, mzm_err *err)
{
	char *text = NULL;
	size_t n = 0;
	FILE *memory = open_memstream(&text, &n);
	if (!memory)
		return mze_no_memory(err);
	mze_table_notes(e, memory);
	if (fclose(memory) != 0) {
		free(text);
		return mze_no_memory(err);
	}
	fputs("<pre>\n", out); /* the parser drops this line end, not the text's */
	mze_escape(out, text, n);
	fputs("</pre>\n", out);
	free(text);
	return MZM_OK;
}

/* Takes json over. */
static mzm_status write_json(const char *title, json_t *json, FILE *out, mzm_err *err)
{
	char *text = json ? json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
	json_decref(json);
	if (!text)
		return mze_no_memory(err);
	fputs("<details><summary>", out);
	put(out, title);
	fputs("</summary><pre>\n", out);
	put(out, text);
	fputs("</pre></details>\n", out);
	free(text);
	return MZM_OK;
}

static mzm_status write_head(const mze_eval *e, FILE *out, mzm_err *err)
{
	const mzm_model_info *info = mzm_model_get_info(e->model);
	char cpu[128];
	mze_machine_cpu(cpu, sizeof cpu);
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Mirzam: ", out);
	put(out, e->title);
	fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>Mirzam evaluation</h1>\n<p>", page_style);
	put(out, e->title);
	fputs("<br><span class=\"soft\">", out);
	put(out, info->path ? info->path : "model");
	fprintf(out, " (%.1f M parameters, ", (double)info->n_params / 1e6);
	put(out, info->dtype);
	fputs("), ", out);
	put(out, cpu);
	fprintf(out, ", threads %d, jobs %d, Mirzam ", e->n_threads, e->n_jobs);
	put(out, mzm_version());
	fputs("</span></p>\n<h2>Summary</h2>\n", out);
	write_table(e, out);
	MZE_TRY(write_notes(e, out, err));
	fputs("<h2>Accuracy against effective density</h2>\n", out);
	mze_report_chart(e, out);
	fputs("<p class=\"soft\">Whiskers: 95 % Wilson intervals.</p>\n", out);
	mze_report_diagrams(e, out);
	fputs("<h2>Settings and machine</h2>\n", out);
	MZE_TRY(write_json("Settings", json_incref(e->settings), out, err));
	return write_json("Machine", mze_machine_json(e), out, err);
}

/* ---- answers ---- */

static bool differs(const mze_item *a, const mze_item *b)
{
	return a->gen.n_tokens != b->gen.n_tokens ||
	       memcmp(a->gen.tokens, b->gen.tokens, (size_t)a->gen.n_tokens * sizeof *a->gen.tokens) != 0;
}

static int32_t dense_row(const mze_eval *e)
{
	for (int32_t i = 0; i < e->n_rows; i++) {
		if (e->gen[i].mode == MZM_MODE_DENSE)
			return i;
	}
	return -1;
}

static void put_span(FILE *out, mze_span span)
{
	if (span.data)
		mze_escape(out, span.data, span.len);
	else
		fputs("[invalid]", out);
}

static void write_filter(const mze_eval *e, FILE *out)
{
	fputs("<p class=\"filter\"><label>Mode <select id=\"mode\"><option value=\"all\">all</option>", out);
	for (int32_t i = 0; i < e->n_rows; i++) {
		fprintf(out, "<option value=\"%d\">", i);
		put(out, e->row[i].label);
		fputs("</option>", out);
	}
	fputs("</select></label> <label>Answers <select id=\"what\"><option value=\"all\">all</option>"
	      "<option value=\"right\">right</option><option value=\"wrong\">wrong</option>", out);
	if (dense_row(e) >= 0)
		fputs("<option value=\"differs\">differing from dense</option>", out);
	fputs("</select></label> <span id=\"shown\" class=\"soft\"></span></p>\n", out);
}

static void write_summary_line(const mze_eval *e, int32_t at, FILE *out)
{
	const mze_problem *problem = mze_eval_problem(e, at);
	size_t n = strlen(problem->question), head = 0;
	while (head < n && head < 90) { /* whole characters */
		size_t len = mze_utf8_len(problem->question + head, n - head);
		head += len ? len : 1;
	}
	fprintf(out, "<summary><span class=\"mark\">#%d</span>", e->pick[at]);
	for (int32_t i = 0; i < e->n_rows; i++) {
		bool right = mze_eval_item(e, at, i)->score.strict_right;
		fprintf(out, "<span class=\"mark %s\">%s ", right ? "ok" : "bad",
			right ? "\xe2\x9c\x93" : "\xe2\x9c\x97");
		put(out, e->row[i].label);
		fputs("</span>", out);
	}
	fputs("<span class=\"soft\">", out);
	mze_escape(out, problem->question, head);
	fputs(head < n ? "...</span></summary>\n" : "</span></summary>\n", out);
}

static void write_answer(const mze_eval *e, int32_t at, int32_t row, char *scratch, size_t cap, FILE *out)
{
	const mze_item *item = mze_eval_item(e, at, row);
	fprintf(out, "<section data-row=\"%d\"><h3>", row);
	put(out, e->row[row].label);
	fprintf(out, ": <span class=\"%s\">%s</span></h3><p class=\"soft\">strict ",
		item->score.strict_right ? "ok" : "bad", item->score.strict_right ? "right" : "wrong");
	put_span(out, item->score.strict);
	fputs(", flexible ", out);
	put_span(out, item->score.flexible);
	fprintf(out, "; %d tokens, ended by %s", item->gen.n_tokens, mzm_finish_name(item->gen.finish));
	if (item->gen.n_checks)
		fprintf(out, "; %d checks, %d corrections, %d tokens rolled back", item->gen.n_checks,
			item->gen.n_corrected, item->gen.n_rolled_back);
	fputs("</p><pre class=\"t\">\n", out);
	mze_report_tokens(e, item, scratch, cap, out);
	fputs("</pre></section>\n", out);
}

static void write_problem(const mze_eval *e, int32_t at, char *scratch, size_t cap, FILE *out)
{
	const mze_problem *problem = mze_eval_problem(e, at);
	int32_t dense = dense_row(e);
	fputs("<details class=\"q\" data-right=\"", out);
	for (int32_t i = 0; i < e->n_rows; i++)
		fputc(mze_eval_item(e, at, i)->score.strict_right ? '1' : '0', out);
	fputs("\" data-differs=\"", out);
	for (int32_t i = 0; i < e->n_rows; i++)
		fputc(dense >= 0 && differs(mze_eval_item(e, at, i), mze_eval_item(e, at, dense)) ? '1' : '0', out);
	fputs("\">", out);
	write_summary_line(e, at, out);
	fputs("<h3>Question</h3><pre>\n", out);
	put(out, problem->question);
	fputs("</pre><h3>Reference</h3><pre>\n", out);
	put(out, problem->answer);
	fputs("</pre>\n", out);
	for (int32_t i = 0; i < e->n_rows; i++)
		write_answer(e, at, i, scratch, cap, out);
	fputs("</details>\n", out);
}

mzm_status mze_eval_report(const mze_eval *e, FILE *out, mzm_err *err)
{
	size_t cap = mzm_text_decoder_max(e->tok);
	char *scratch = mze_calloc(cap, 1);
	if (!scratch)
		return mze_no_memory(err);
	mzm_status st = write_head(e, out, err);
	if (st == MZM_OK) {
		fputs("<h2>Answers</h2>\n", out);
		fputs(page_legend, out);
		write_filter(e, out);
		for (int32_t i = 0; i < e->n_items; i++)
			write_problem(e, i, scratch, cap, out);
		fprintf(out, "<script>\n%s</script>\n</body>\n</html>\n", page_script);
	}
	free(scratch);
	return st;
}
