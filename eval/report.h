/* report.h - parts of the HTML report that have files of their own. */
#ifndef MZE_REPORT_H
#define MZE_REPORT_H

#include "eval/run.h"

/* Text into HTML, safe in elements and quoted attributes: markup escaped, broken UTF-8 and control
 * characters (but newline and tab) replaced. */
void mze_escape(FILE *out, const char *text, size_t n);

void mze_report_chart(const mze_eval *e, FILE *out);
void mze_report_diagrams(const mze_eval *e, FILE *out); /* of the monitor; nothing when no row has checks */
/* What stands under the text table. */
void mze_table_notes(const mze_eval *e, FILE *out);
/* Whether any row has something in column c. */
bool mze_table_is_shown(const mze_eval *e, int c);

/* The tokens of one answer with their marks. scratch [mzm_text_decoder_max] */
void mze_report_tokens(const mze_eval *e, const mze_item *item, char *scratch, size_t cap, FILE *out);

#endif
