/* transcript.c - the tokens of an answer as HTML: runs of one kind in one element.
 *
 * i accepted, b corrected, u bonus, s rolled back; bare text for the rest. Dropped tokens are decoded with a
 * copy of the decoder, so that what follows continues from what was kept. */
#include <string.h>

#include "eval/report.h"

static const char *tag_of(char letter)
{
	switch (letter) {
	case 'A': return "i";
	case 'C': return "b";
	case 'B': return "u";
	case 'R': return "s";
	default: return NULL;
	}
}

/* A dropped line end must not end the line. */
static void write_dropped(FILE *out, const char *text, size_t n)
{
	size_t from = 0;
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n') {
			mze_escape(out, text + from, i - from);
			fputs("\xe2\x86\xb5", out);
			from = i + 1;
		}
	}
	mze_escape(out, text + from, n - from);
}

static void write_special(FILE *out, const char *content)
{
	fputs("<small>", out);
	if (content)
		mze_escape(out, content, strlen(content));
	fputs("</small>", out);
}

void mze_report_tokens(const mze_eval *e, const mze_item *item, char *scratch, size_t cap, FILE *out)
{
	mzm_text_decoder kept = mzm_text_decoder_init(e->tok), dropped = kept;
	const char *open = NULL;
	char last = 0;
	for (int32_t i = 0; i < item->n_events; i++) {
		char letter = item->kinds[i];
		bool is_dropped = letter == 'R';
		const char *tag = tag_of(letter);
		if (is_dropped && last != 'R')
			dropped = kept;
		if (open && letter != last)
			fprintf(out, "</%s>", open);
		if (tag && letter != last)
			fprintf(out, "<%s>", tag);
		open = tag;
		last = letter;
		if (mzm_token_is_special(e->tok, item->event_id[i])) {
			write_special(out, mzm_token_content(e->tok, item->event_id[i]));
			continue;
		}
		size_t n = mzm_text_decoder_push(is_dropped ? &dropped : &kept, item->event_id[i], scratch, cap);
		if (is_dropped)
			write_dropped(out, scratch, n);
		else
			mze_escape(out, scratch, n);
	}
	if (open)
		fprintf(out, "</%s>", open);
	mze_escape(out, scratch, mzm_text_decoder_flush(&kept, scratch, cap));
}
