/* tiny_tokenizer.h - tokenizer.json texts small enough to know by heart, for tests and fuzz targets.
 *
 * Byte-level: token b is byte b in GPT-2's alphabet; merges follow from id 256. SentencePiece-style: <unk> <s>
 * </s>, 256 bytes from id 3, then U+2581 and a..z from id 259, merges from id 286. Any member can be replaced. */
#ifndef TINY_TOKENIZER_H
#define TINY_TOKENIZER_H

#include "base/str.h"
#include "format/tokenizer_impl.h"

#define TINY_MARK "\xe2\x96\x81" /* U+2581 */
#define TINY_G    "\xc4\xa0"     /* U+0120, a blank in GPT-2's alphabet */

typedef struct tiny {
	const char *normalizer, *pre_tokenizer, *post_processor, *decoder; /* JSON; NULL = null */
	const char *added;                                                 /* elements of added_tokens */
	const char *model;  /* members of the model, with a comma behind each */
	const char *vocab;  /* members of the vocabulary, with a comma in front of each */
	const char *merges; /* elements */
} tiny;

#define TINY_BYTES_FIRST_MERGE 256
#define TINY_SPM_FIRST_MERGE   286

static const tiny tiny_bytes = {
	.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}",
	.decoder = "{\"type\":\"ByteLevel\"}",
	.added = "{\"id\":300,\"content\":\"<|end|>\",\"special\":true,\"normalized\":false},"
		 "{\"id\":301,\"content\":\"<tool>\",\"special\":false,\"normalized\":false}",
	.model = "",
	.vocab = ",\"" TINY_G "t\":256,\"he\":257,\"" TINY_G
		 "the\":258,\"aa\":259,\"aaaa\":260,\"in\":261,\"" TINY_G TINY_G "\":262",
	.merges = "\"" TINY_G " t\",\"h e\",\"" TINY_G "t he\",\"a a\",\"aa aa\",\"i n\",\"" TINY_G " " TINY_G "\"",
};

static const tiny tiny_spm = {
	.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" TINY_MARK "\"},"
		      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" TINY_MARK "\"}]}",
	.post_processor =
		"{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
		"{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],"
		"\"tokens\":[\"<s>\"]}}}",
	.decoder =
		"{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" TINY_MARK "\"},"
		"\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
		"{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
	.added = "{\"id\":0,\"content\":\"<unk>\",\"special\":true,\"normalized\":false},"
		 "{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
		 "{\"id\":2,\"content\":\"</s>\",\"special\":true,\"normalized\":false}",
	.model = "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,",
	.vocab = ",\"" TINY_MARK "t\":286,\"he\":287,\"" TINY_MARK "the\":288,\"" TINY_MARK TINY_MARK
		 "\":289,\"aa\":290",
	.merges = "[\"" TINY_MARK "\",\"t\"],[\"h\",\"e\"],[\"" TINY_MARK "t\",\"he\"],[\"" TINY_MARK "\",\"" TINY_MARK
		  "\"],[\"a\",\"a\"]",
};

static inline void tiny_byte_vocab(mzm_str *out)
{
	for (unsigned b = 0; b < 256; b++) {
		char c[4];
		size_t n = mzm_utf8_put(mzm_byte_to_char((unsigned char)b), c);
		mzm_str_puts(out, b ? ",\"" : "\"");
		mzm_str_puts(out, *c == '"' || *c == '\\' ? "\\" : "");
		mzm_str_add(out, c, n);
		mzm_str_printf(out, "\":%u", b);
	}
}

static inline void tiny_spm_vocab(mzm_str *out)
{
	mzm_str_puts(out, "\"<unk>\":0,\"<s>\":1,\"</s>\":2");
	for (unsigned b = 0; b < 256; b++)
		mzm_str_printf(out, ",\"<0x%02X>\":%u", b, 3 + b);
	mzm_str_puts(out, ",\"" TINY_MARK "\":259");
	for (unsigned c = 0; c < 26; c++)
		mzm_str_printf(out, ",\"%c\":%u", 'a' + c, 260 + c);
}

/* The text of tokenizer.json; spm chooses the base vocabulary. -> mzm_str_free */
static inline mzm_str tiny_json(const tiny *t, bool spm)
{
	static const char null[] = "null";
	mzm_str s = {0};
	mzm_str_printf(&s, "{\"version\":\"1.0\",\"added_tokens\":[%s],", t->added ? t->added : "");
	mzm_str_printf(&s, "\"normalizer\":%s,", t->normalizer ? t->normalizer : null);
	mzm_str_printf(&s, "\"pre_tokenizer\":%s,", t->pre_tokenizer ? t->pre_tokenizer : null);
	mzm_str_printf(&s, "\"post_processor\":%s,", t->post_processor ? t->post_processor : null);
	mzm_str_printf(&s, "\"decoder\":%s,", t->decoder ? t->decoder : null);
	mzm_str_printf(&s, "\"model\":{\"type\":\"BPE\",%s\"vocab\":{", t->model);
	if (spm)
		tiny_spm_vocab(&s);
	else
		tiny_byte_vocab(&s);
	mzm_str_puts(&s, t->vocab);
	mzm_str_printf(&s, "},\"merges\":[%s]}}", t->merges);
	return s;
}

/* NULL where it is refused; err tells why. */
static inline mzm_tokenizer *tiny_open(const tiny *t, bool spm, mzm_err *err)
{
	mzm_tokenizer *tok = NULL;
	mzm_str json = tiny_json(t, spm);
	(void)mzm_tokenizer_parse(&tok, json.data, json.len, NULL, 0, "tiny", err);
	mzm_str_free(&json);
	return tok;
}

#endif
