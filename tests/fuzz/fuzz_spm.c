/* fuzz_spm.c - a hostile tokenizer.model of SentencePiece. Whatever is accepted becomes a tokenizer.json; where that is
 * accepted too it must encode and decode without harm, and give ids that exist. */
#include <stdlib.h>

#include "format/tokenizer_impl.h"
#include "format/tokenizer_spm.h"
#include "format/tokenizer_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char probe[] = "  Uma  has\t12 stickers, \xef\xac\x81 e\xcc\x81 \xe1\x84\x80\xe1\x85\xa1 <s> "
			    "\xe2\x96\x81\xff\xf0\x9f\x98\x80 aaaaa ";

static void demand(bool ok)
{
	if (!ok)
		abort();
}

static void use(const mzm_tokenizer *tok)
{
	int32_t *ids;
	char *text;
	size_t n, len;
	for (unsigned flags = 0; flags < 4; flags++) {
		if (mzm_tokenize(tok, probe, sizeof probe - 1, flags, &ids, &n, NULL) != MZM_OK)
			continue;
		for (size_t i = 0; i < n; i++)
			demand(ids[i] >= 0 && ids[i] < mzm_token_count(tok) && mzm_token_content(tok, ids[i]));
		demand(mzm_detokenize(tok, ids, n, &text, &len, NULL) == MZM_OK);
		demand(mzm_utf8_valid(text, len) == len);
		mzm_string_free(text);
		mzm_ids_free(ids);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *root;
	char *json = NULL;
	mzm_tokenizer *tok = NULL;
	mzm_err err = {0};
	mzm_status st = mzm_spm_tree(&root, (const char *)data, size, &err);
	demand((st == MZM_OK) == (root != NULL));
	if (root) {
		demand(mzm_tokenizer_text(&json, root, NULL) == MZM_OK);
		st = mzm_tokenizer_parse(&tok, json, strlen(json), NULL, 0, "input", &err);
	}
	demand(st == MZM_OK || err.message[0]);
	if (tok)
		use(tok);
	mzm_tokenizer_close(tok);
	mzm_free(json);
	json_decref(root);
	return 0;
}
