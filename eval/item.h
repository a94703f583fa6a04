/* item.h - one answer: what a row gave for a problem, and its line in a results file.
 *
 * The texts of single tokens are not kept: ids and kinds are, and the tokenizer is there when a report is
 * written. So an answer takes about 5 bytes a token beside its text. */
#ifndef MZE_ITEM_H
#define MZE_ITEM_H

#include <jansson.h>

#include "eval/task.h"

typedef struct mze_item {
	bool           is_done;
	mzm_gen_result gen;      /* tokens points to memory of this item; costs are unused */
	char          *text;     /* [text_len], verified text without the stop; NUL-terminated, may hold NULs */
	size_t         text_len;
	char          *kinds;    /* [n_events] one letter a token event, see mze_kind_letter */
	int32_t       *event_id; /* [n_events] */
	int32_t        n_events;
	int32_t       *confidence; /* [n_drafts] of the events that are draft tokens, in millionths, -1: not known;
				    * NULL: of a file that has none */
	int32_t        n_drafts;
	int64_t        wall_ns;
	char           prompt_hash[17];
	mze_score      score;    /* spans into text */
} mze_item;

void mze_item_free(mze_item *item);

static inline bool mze_kind_is_draft(char letter)
{
	return letter == 'A' || letter == 'R';
}

/* F P A C B R: first, plain, accepted, corrected, bonus, rolled back. '?' for none of them. */
char           mze_kind_letter(mzm_token_kind kind);
mzm_token_kind mze_kind_of(char letter); /* of one of the six */

/* Who proposed what. NULL: out of memory. */
json_t *mze_drafters_json(const mzm_draft_stats *drafts, int32_t n);

/* The line of an answer, without newline. NULL: out of memory. -> free */
char *mze_item_print(const mze_item *item, int32_t row, const char *mode, int32_t id);
/* Reads such a line; every number is checked. The score is left to the caller, who knows the problem. */
mzm_status mze_item_parse(mze_item *out, int32_t *row, int32_t *id, const char *line, size_t len, int32_t n_vocab,
			  mzm_err *err);

#endif
