/* test_tokenizer_hostile.c - tokenizers and texts from strangers: what is refused and with which words, every
 * truncation and many mutations of a file, long inputs in linear time, patterns that would run for ever,
 * every allocation failing once. */
#include "testing.h"

#include "base/clock.h"
#include "tiny_tokenizer.h"

/* JSON is easier to read here with ' for ". */
static char *quoted(char *s)
{
	for (char *c = s; (c = strchr(c, '\'')); c++)
		*c = '"';
	return s;
}

/* The file is refused with this status, and the message holds these words. */
static void check_refused(const char *json, size_t len, const char *config, mzm_status want, const char *plain)
{
	char words[128];
	mzm_err err = {0};
	snprintf(words, sizeof words, "%s", plain);
	quoted(words);
	mzm_tokenizer *tok;
	mzm_status st = mzm_tokenizer_parse(&tok, json, len, config, config ? strlen(config) : 0, "place", &err);
	if (st != want || !strstr(err.message, words) || strncmp(err.message, "place", 5) != 0)
		fail_msg("status %d, message \"%s\"; wanted %d, \"%s\"", (int)st, err.message, (int)want, words);
	assert_null(tok);
	assert_int_equal(err.code, st);
	assert_int_equal(mzm_tokenizer_parse(&tok, json, len, config, config ? strlen(config) : 0, "place", NULL), st);
}

static void refuse_text(const char *json, mzm_status want, const char *words)
{
	char *copy = quoted(strdup(json));
	check_refused(copy, strlen(copy), NULL, want, words);
	free(copy);
}

static void refuse_tiny(const tiny *t, mzm_status want, const char *words)
{
	mzm_str json = tiny_json(t, true); /* has no ' of its own */
	check_refused(quoted(json.data), json.len, NULL, want, words);
	mzm_str_free(&json);
}

#define MODEL(vocab, merges) "{'model':{'type':'BPE','vocab':" vocab ",'merges':" merges "}}"

static void test_refused_model(void **state)
{
	static const struct {
		const char *json;
		mzm_status status;
		const char *words;
	} cases[] = {
		{"", MZM_EFORMAT, "line 1"},
		{"[]", MZM_EFORMAT, "not an object"},
		{"{}", MZM_EFORMAT, "'model' is not an object"},
		{"{'model':{'type':'WordLevel','vocab':{}}}", MZM_EUNSUPPORTED, "type 'WordLevel' is not supported"},
		{"{'model':{'type':'WordPiece'}}", MZM_EFORMAT, "'vocab' is not an object"},
		{"{'model':{'type':'WordPiece','vocab':['a']}}", MZM_EFORMAT, "'vocab' is not an object"},
		{"{'model':{'type':'WordPiece','vocab':{'a':0}}}", MZM_EFORMAT, "unk_token '[UNK]' is not in"},
		{"{'model':{'type':'Unigram','vocab':[]}}", MZM_EFORMAT, "no token at all"},
		{"{'model':{'type':'Unigram','vocab':{}}}", MZM_EFORMAT, "'vocab' is not an array"},
		{"{'model':{'type':'Unigram','vocab':[7]}}", MZM_EFORMAT, "vocab[0] has no string"},
		{"{'model':{'type':'Unigram','vocab':['a']}}", MZM_EFORMAT, "vocab[0] is not a token and its score"},
		{"{'model':{'type':'Unigram','vocab':[['a','x']]}}", MZM_EFORMAT, "vocab[0] is not a token"},
		{"{'model':{'type':'Unigram','vocab':[['a',0],['b',NaN]]}}", MZM_EFORMAT, "line 1"},
		{"{'model':{'type':'Unigram','vocab':[['a',0],['b',1e999]]}}", MZM_EFORMAT, "line 1"},
		{"{'model':{'type':'Unigram','vocab':[['a',0],['a',-1]]}}", MZM_EFORMAT, "'a' has the ids 0 and 1"},
		{"{'model':{'type':'Unigram','vocab':[['a',0]],'unk_id':1}}", MZM_EFORMAT, "unk_id"},
		{"{'model':{'type':'Unigram','vocab':[['a',0]],'unk_id':-1}}", MZM_EFORMAT, "unk_id"},
		{"{'model':{'vocab':{'a':0}}}", MZM_EUNSUPPORTED, "type ''"},
		{MODEL("[]", "[]"), MZM_EFORMAT, "'vocab' is not an object"},
		{MODEL("{}", "[]"), MZM_EFORMAT, "no token at all"},
		{MODEL("{'a':-1}", "[]"), MZM_EFORMAT, "token 'a': id -1"},
		{MODEL("{'a':0.5}", "[]"), MZM_EFORMAT, "token 'a': id 0.5"},
		{MODEL("{'a':16777216}", "[]"), MZM_EFORMAT, "id 16777216"},
		{MODEL("{'a':1e300}", "[]"), MZM_EFORMAT, "token 'a'"},
		{MODEL("{'a':16777215}", "[]"), MZM_EFORMAT, "id 16777215, but only 1 tokens"},
		{MODEL("{'a':'0'}", "[]"), MZM_EFORMAT, "token 'a': the id is not a number"},
		{MODEL("{'a':0,'b':0}", "[]"), MZM_EFORMAT, "id 0 is given to 'a' and to 'b'"},
		{MODEL("{'a':0,'a':1}", "[]"), MZM_EFORMAT, "duplicate"},
		{MODEL("{'a':0,'b\\u001b[2J':0}", "[]"), MZM_EFORMAT, "'b?[2J'"}, /* no escapes into terminals */
		{MODEL("{'a':0}", "{}"), MZM_EFORMAT, "'merges' is not an array"},
		{MODEL("{'a':0,'aa':1}", "['a a','a']"), MZM_EFORMAT, "merges[1]: 'a' is not two tokens"},
		{MODEL("{'a':0,'aa':1}", "['a a a']"), MZM_EFORMAT, "merges[0]"},
		{MODEL("{'a':0,'aa':1}", "['a a','aa x']"), MZM_EFORMAT, "merges[1]: 'x' is not in the vocabulary"},
		{MODEL("{'a':0,'aa':1}", "['aa a']"), MZM_EFORMAT, "merges[0]: 'aaa' is not in the vocabulary"},
		{MODEL("{'a':0,'':1}", "[['a','']]"), MZM_EFORMAT, "merges[0]: an empty half"}, /* a cycle */
		{MODEL("{'a':0}", "[['a']]"), MZM_EFORMAT, "merges[0]: neither"},
		{MODEL("{'a':0}", "[5]"), MZM_EFORMAT, "merges[0]: neither"},
		{"{'model':{'vocab':{'a':0},'merges':[],'unk_token':'u'}}", MZM_EFORMAT, "unk_token 'u'"},
		{"{'model':{'vocab':{'a':0},'merges':[],'dropout':0.1}}", MZM_EUNSUPPORTED, "dropout"},
		{"{'model':{'vocab':{'a':0},'merges':[],'end_of_word_suffix':'</w>'}}", MZM_EUNSUPPORTED,
		 "end_of_word_suffix"},
		{"{'model':{'vocab':{'a':0},'merges':[],'byte_fallback':1}}", MZM_EFORMAT, "byte_fallback"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refuse_text(cases[i].json, cases[i].status, cases[i].words);
}

static void test_refused_steps(void **state)
{
	enum { NORM, PRE, POST, DEC, ADDED };
	static const struct {
		int member;
		const char *json;
		mzm_status status;
		const char *words;
	} cases[] = {
		{NORM, "{'type':'Precompiled'}", MZM_EFORMAT, "Precompiled: 'precompiled_charsmap' is missing"},
		{NORM, "{'type':'Precompiled','precompiled_charsmap':'AAAA'}", MZM_EFORMAT, "charsmap: a trie of"},
		{NORM, "{'type':'Strip','content':'ab'}", MZM_EFORMAT, "not one character"},
		{NORM, "{'type':'BertNormalizer','clean_text':'yes'}", MZM_EFORMAT, "clean_text"},
		{NORM, "{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Nmt'}]}", MZM_EUNSUPPORTED,
		 "normalizer: normalizers[1]: type 'Nmt'"},
		{NORM, "{'type':'Sequence'}", MZM_EFORMAT, "'normalizers' is not an array"},
		{NORM, "{'type':7}", MZM_EFORMAT, "'type' is not a string"},
		{NORM, "{}", MZM_EFORMAT, "'type' is missing"},
		{NORM, "7", MZM_EFORMAT, "normalizer: not an object"},
		{NORM, "{'type':'Prepend'}", MZM_EFORMAT, "Prepend: 'prepend' is missing"},
		{NORM, "{'type':'Replace','content':''}", MZM_EFORMAT, "Replace: 'pattern'"},
		{NORM, "{'type':'Replace','content':'','pattern':{'Glob':'*'}}", MZM_EFORMAT, "neither"},
		{PRE, "{'type':'UnicodeScripts'}", MZM_EUNSUPPORTED, "pre_tokenizer: type 'UnicodeScripts'"},
		{PRE, "{'type':'Split','pattern':{'Regex':'a(b'}}", MZM_EFORMAT, "pattern 'a(b' does not compile"},
		{PRE, "{'type':'Split','pattern':{'Regex':'[a[b]]'}}", MZM_EUNSUPPORTED, "a class in a class"},
		{PRE, "{'type':'Split','pattern':{'Regex':'[a&&b]'}}", MZM_EUNSUPPORTED, "intersection"},
		{PRE, "{'type':'Split','pattern':{'Regex':'(*ACCEPT)'}}", MZM_EUNSUPPORTED, "(*"},
		{PRE, "{'type':'Split','pattern':{'Regex':'\\\\Qa'}}", MZM_EUNSUPPORTED, "escape"},
		{PRE, "{'type':'Split','pattern':{'Regex':'a\\\\C'}}", MZM_EFORMAT, "does not compile"},
		{PRE, "{'type':'Split','pattern':{'Regex':'a{2,3}+'}}", MZM_EUNSUPPORTED, "repeated repetition"},
		{PRE, "{'type':'Split','pattern':{'Regex':'((((a{1000}){1000}){1000}){1000})'}}", MZM_EFORMAT,
		 "does not compile"},
		{PRE, "{'type':'Split','pattern':{'Regex':'a'},'behavior':'Odd'}", MZM_EUNSUPPORTED, "'Odd'"},
		{PRE, "{'type':'Metaspace','replacement':'ab'}", MZM_EFORMAT, "not one character"},
		{PRE, "{'type':'Metaspace','prepend_scheme':'odd'}", MZM_EUNSUPPORTED, "prepend_scheme 'odd'"},
		{POST, "{'type':'Odd'}", MZM_EUNSUPPORTED, "post_processor: type 'Odd'"},
		{POST, "{'type':'TemplateProcessing','single':[]}", MZM_EUNSUPPORTED, "leaves the text out"},
		{POST, "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'x'}}]}", MZM_EFORMAT,
		 "no ids for the special token 'x'"},
		{POST, "{'type':'BertProcessing','cls':['a',9999],'sep':['a',1]}", MZM_EFORMAT, "id 9999 is no token"},
		{POST, "{'type':'BertProcessing','cls':['a',-1],'sep':['a',1]}", MZM_EFORMAT, "whole number"},
		{DEC, "{'type':'CTC'}", MZM_EUNSUPPORTED, "decoder: type 'CTC'"},
		{DEC, "{'type':'WordPiece','cleanup':3}", MZM_EFORMAT, "cleanup"},
		{DEC, "{'type':'Strip','content':'ab'}", MZM_EFORMAT, "not one character"},
		{DEC, "{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'ByteFallback'}]}", MZM_EUNSUPPORTED,
		 "may follow Fuse"},
		{DEC, "{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Strip','content':' ','start':2}]}",
		 MZM_EUNSUPPORTED, "Strip of more"},
		{ADDED, "{'id':400}", MZM_EFORMAT, "added_tokens[0]: no string 'content'"},
		{ADDED, "{'id':-4,'content':'x'}", MZM_EFORMAT, "added_tokens[0]: token 'x'"},
		{ADDED, "{'id':1,'content':'zz'}", MZM_EFORMAT, "id 1 is given to '<s>' and to 'zz'"},
		{ADDED, "{'id':400,'content':'<s>'}", MZM_EFORMAT, "token '<s>' has the ids 1 and 400"},
		{ADDED, "{'id':400,'content':'x<'},{'id':400,'content':'x<'}", MZM_EFORMAT, "there twice"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		tiny t = tiny_spm;
		const char **members[] = {&t.normalizer, &t.pre_tokenizer, &t.post_processor, &t.decoder, &t.added};
		*members[cases[i].member] = cases[i].json;
		refuse_tiny(&t, cases[i].status, cases[i].words);
	}
}

static void test_refused_config(void **state)
{
	static const char *const cases[][2] = {{"{'add_bos_token':true}", "'bos_token' names no token"},
					       {"{'add_bos_token':true,'bos_token':'zz'}", "names no token"},
					       {"{'add_bos_token':1}", "neither true nor false"},
					       {"[]", "tokenizer_config.json: not an object"},
					       {"{", "tokenizer_config.json"}};
	mzm_str json = tiny_json(&tiny_bytes, false);
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char config[128];
		snprintf(config, sizeof config, "%s", cases[i][0]);
		check_refused(json.data, json.len, quoted(config), MZM_EFORMAT, cases[i][1]);
	}
	mzm_str_free(&json);
}

/* Sequences nested n deep around what is inside. */
static char *nest(const char *parts, int n)
{
	mzm_str s = {0};
	for (int i = 0; i < n; i++)
		mzm_str_printf(&s, "{\"type\":\"Sequence\",\"%s\":[", parts);
	mzm_str_puts(&s, "{\"type\":\"ByteLevel\"}");
	for (int i = 0; i < n; i++)
		mzm_str_puts(&s, "]}");
	return s.data;
}

static void test_depth(void **state)
{
	mzm_err err = {0};
	tiny t = tiny_bytes;
	(void)state;
	char *fits = nest("decoders", MZM_TOK_MAX_DEPTH), *deep = nest("decoders", MZM_TOK_MAX_DEPTH + 1);
	char *post = nest("processors", MZM_TOK_MAX_DEPTH + 1), *bottomless = nest("pretokenizers", 100000);
	t.decoder = fits;
	mzm_tokenizer *tok = tiny_open(&t, false, &err);
	assert_non_null(tok);
	mzm_tokenizer_close(tok);
	t = tiny_spm;
	t.decoder = deep;
	refuse_tiny(&t, MZM_EUNSUPPORTED, "nested more than");
	t = tiny_spm;
	t.post_processor = post;
	refuse_tiny(&t, MZM_EUNSUPPORTED, "nested more than");
	t = tiny_spm;
	t.pre_tokenizer = bottomless;
	refuse_tiny(&t, MZM_EFORMAT, "depth");
	mzm_free(fits);
	mzm_free(deep);
	mzm_free(post);
	mzm_free(bottomless);
}

/* Tokens of a megabyte are taken, longer ones refused, as are long added tokens and patterns. */
static void test_sizes(void **state)
{
	const size_t mb = MZM_TOK_MAX_CONTENT;
	char *a = malloc(mb + 2);
	mzm_err err = {0};
	mzm_tokenizer *tok;
	(void)state;
	memset(a, 'a', mb + 1);
	a[mb + 1] = 0;
	for (size_t len = mb; len <= mb + 1; len++) {
		mzm_str json = {0};
		mzm_str_printf(&json, MODEL("{'a':0,'%.*s':60000}", "[]"), (int)len, a);
		mzm_status st = mzm_tokenizer_parse(&tok, quoted(json.data), json.len, NULL, 0, "place", &err);
		assert_int_equal(st, len == mb ? MZM_OK : MZM_EFORMAT);
		if (tok)
			assert_int_equal(strlen(mzm_token_content(tok, 60000)), len == mb ? mb : 0);
		mzm_tokenizer_close(tok);
		mzm_str_free(&json);
	}
	assert_non_null(strstr(err.message, "1048577 bytes, more than"));
	tiny t = tiny_spm;
	mzm_str added = {0}, split = {0};
	mzm_str_printf(&added, "{\"id\":400,\"content\":\"%.*s\"}", (int)MZM_TOK_MAX_ADDED + 1, a);
	t.added = added.data;
	refuse_tiny(&t, MZM_EUNSUPPORTED, "added_tokens[0]: 1025 bytes");
	t = tiny_spm;
	mzm_str_printf(&split, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%.*s\"}}", 20000, a);
	t.pre_tokenizer = split.data;
	refuse_tiny(&t, MZM_EUNSUPPORTED, "a pattern of 20000 bytes");
	mzm_str_free(&added);
	mzm_str_free(&split);
	mzm_str piece = {0}; /* of unigram models, whose time grows with the longest piece */
	mzm_str_printf(&piece, "{'model':{'type':'Unigram','vocab':[['%.*s',0]]}}", (int)MZM_TOK_MAX_PIECE + 1, a);
	refuse_text(piece.data, MZM_EUNSUPPORTED, "has 1025 bytes, more than 1024");
	mzm_str_free(&piece);
	free(a);
}

/* ---- damaged files ---- */

/* Whatever is made of the file, it is an error with words, or a tokenizer that works. */
static void survive(const char *bytes, size_t len)
{
	static const char text[] = " the\xff <|end|>aaaa \xe2\x82";
	mzm_err err = {0};
	mzm_tokenizer *tok;
	size_t live = mzm_mem_live();
	char *exact = malloc(len ? len : 1); /* a sanitizer sees one byte too far */
	memcpy(exact, bytes, len);
	if (mzm_tokenizer_parse(&tok, exact, len, NULL, 0, "place", &err) != MZM_OK) {
		assert_null(tok);
		assert_int_not_equal(err.message[0], 0);
	} else {
		int32_t *ids;
		size_t n, n_text;
		char *back = NULL;
		if (mzm_tokenize(tok, text, sizeof text - 1, 3, &ids, &n, NULL) == MZM_OK)
			assert_int_equal(mzm_detokenize(tok, ids, n, &back, &n_text, NULL), MZM_OK);
		mzm_string_free(back);
		mzm_ids_free(ids);
		mzm_tokenizer_close(tok);
	}
	free(exact);
	assert_int_equal(mzm_mem_live(), live);
}

static void test_truncations(void **state)
{
	(void)state;
	for (int spm = 0; spm < 2; spm++) {
		mzm_str json = tiny_json(spm ? &tiny_spm : &tiny_bytes, spm);
		for (size_t len = 0; len < json.len; len++)
			survive(json.data, len);
		mzm_str_free(&json);
	}
}

static size_t mutate(char *s, size_t len, uint64_t *rng)
{
	static const char *const words[] = {"-1", "1e9",     "null", "\"\"",     "{}",
					    "[]", "\\u0000", "0.5",  "16777215", "\xff"};
	size_t at = testing_random(rng) % len, n = 1 + testing_random(rng) % 8;
	const char *word = words[testing_random(rng) % 10];
	switch (testing_random(rng) % 4) {
	case 0:
		s[at] = (char)testing_random(rng);
		return len;
	case 1: /* something missing */
		n = n < len - at ? n : len - at;
		memmove(s + at, s + at + n, len - at - n);
		return len - n;
	case 2: /* another value in place of what is there */
		n = strlen(word) < len - at ? strlen(word) : len - at;
		memcpy(s + at, word, n);
		return len;
	default: /* two neighbours exchanged */
		if (at) {
			char c = s[at];
			s[at] = s[at - 1];
			s[at - 1] = c;
		}
		return len;
	}
}

static void test_mutations(void **state)
{
	uint64_t rng = 20;
	int64_t end = mzm_now_ns() + 60 * (int64_t)1000000000;
	long i = 0, n = testing_count(10000, 200000);
	(void)state;
	mzm_str json[2] = {tiny_json(&tiny_bytes, false), tiny_json(&tiny_spm, true)};
	char *copy = malloc((json[0].len > json[1].len ? json[0].len : json[1].len) + 1);
	for (; i < n && mzm_now_ns() < end; i++) {
		const mzm_str *from = &json[i & 1];
		size_t len = from->len;
		memcpy(copy, from->data, len);
		for (uint64_t k = testing_random(&rng) % 3; k < 3 && len; k++)
			len = mutate(copy, len, &rng);
		survive(copy, len);
	}
	print_message("%ld mutations\n", i);
	free(copy);
	mzm_str_free(&json[0]);
	mzm_str_free(&json[1]);
}

/* ---- time ---- */

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds_of(const mzm_tokenizer *tok, const char *unit, size_t len)
{
	size_t k = strlen(unit), n;
	char *text = malloc(len);
	int32_t *ids;
	for (size_t i = 0; i < len; i++)
		text[i] = unit[i % k];
	double start = cpu_seconds();
	assert_int_equal(mzm_tokenize(tok, text, len, MZM_TOK_PARSE_SPECIAL, &ids, &n, NULL), MZM_OK);
	start = cpu_seconds() - start;
	mzm_ids_free(ids);
	free(text);
	return start;
}

static void test_long_runs(void **state)
{
	static const char *const units[] = {"a", " ", "\n", "\x80", "\xe2\x82\xac", "\xcc\x87\xcc\xa3",
					    "<", "<tool", "a ", "\xff ", "a\n "};
	tiny nfc = tiny_bytes;
	(void)state;
	nfc.normalizer = "{\"type\":\"NFC\"}";
	const tiny *kinds[] = {&tiny_bytes, &tiny_spm, &nfc};
	const size_t len = (size_t)1 << (getenv("MIRZAM_SHORT") ? 14 : 16);
	for (int kind = 0; kind < 3; kind++) {
		mzm_tokenizer *tok = tiny_open(kinds[kind], kind == 1, NULL);
		for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
			double small = seconds_of(tok, units[u], len);
			double large = seconds_of(tok, units[u], 16 * len);
			if (large > 80 * (small + 0.01)) /* linear: 16, quadratic: 256 */
				fail_msg("%s: %zu bytes of unit %zu take %.3f s, 16 times as many %.3f s",
					 kind == 1 ? "spm" : "bytes", len, u, small, large);
		}
		mzm_tokenizer_close(tok);
	}
}

/* Exponential, quadratic, and deep patterns on 256 KiB: an answer or an error, soon. */
static void test_slow_patterns(void **state)
{
	static const char *const patterns[] = {"(a+)+$", "(a|aa)+$", "a*x|a", "(?:a|b)*c", "(a*)*b", "(?=(a+))\\\\1b"};
	const size_t len = (size_t)1 << 18;
	char *text = malloc(len);
	(void)state;
	memset(text, 'a', len);
	text[len - 1] = '!';
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		tiny t = tiny_bytes;
		mzm_str pre = {0};
		mzm_err err = {0};
		int32_t *ids;
		size_t n;
		mzm_str_printf(&pre, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"}}", patterns[i]);
		t.pre_tokenizer = pre.data;
		mzm_tokenizer *tok = tiny_open(&t, false, &err);
		assert_non_null(tok);
		double start = cpu_seconds();
		mzm_status st = mzm_tokenize(tok, text, len, 0, &ids, &n, &err);
		double seconds = cpu_seconds() - start;
		print_message("%s: %s after %.2f s\n", patterns[i], mzm_status_text(st), seconds);
		assert_true(seconds < 20);
		assert_true(st == MZM_OK || (st == MZM_EUNSUPPORTED && strstr(err.message, "too long")));
		mzm_ids_free(ids);
		mzm_tokenizer_close(tok);
		mzm_str_free(&pre);
	}
	free(text);
}

/* Steps that multiply: refused at the text they would blow up, harmless before. */
static void test_growth(void **state)
{
	static const char doubling[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}";
	mzm_str steps = {0};
	tiny t = tiny_bytes;
	mzm_err err = {0};
	int32_t *ids;
	size_t n;
	(void)state;
	mzm_str_puts(&steps, "{\"type\":\"Sequence\",\"normalizers\":[");
	for (int i = 0; i < MZM_TOK_MAX_STEPS; i++)
		mzm_str_printf(&steps, "%s%s", i ? "," : "", doubling);
	mzm_str_puts(&steps, "]}");
	t.normalizer = steps.data;
	t.added = "";
	mzm_tokenizer *tok = tiny_open(&t, false, &err);
	assert_non_null(tok);
	assert_int_equal(mzm_tokenize(tok, "b", 1, 0, &ids, &n, &err), MZM_OK);
	assert_int_equal(n, 1);
	mzm_ids_free(ids);
	assert_int_equal(mzm_tokenize(tok, "a", 1, 0, &ids, &n, &err), MZM_EUNSUPPORTED);
	assert_non_null(strstr(err.message, "grows this text too much"));
	assert_null(ids);
	mzm_tokenizer_close(tok);
	mzm_str_free(&steps);
	t = tiny_spm; /* and decoders that do the same to every token */
	mzm_str_puts(&steps, "{\"type\":\"Sequence\",\"decoders\":[");
	for (int i = 0; i < MZM_TOK_MAX_STEPS; i++)
		mzm_str_printf(&steps, "%s%s", i ? "," : "", doubling);
	mzm_str_puts(&steps, "]}");
	t.decoder = steps.data;
	refuse_tiny(&t, MZM_EUNSUPPORTED, "too much");
	mzm_str_free(&steps);
}

static void test_arguments(void **state)
{
	mzm_err err = {0};
	int32_t *ids;
	size_t n;
	(void)state;
	mzm_tokenizer *tok = tiny_open(&tiny_bytes, false, &err);
	assert_int_equal(mzm_tokenize(tok, "a", 1, 4, &ids, &n, &err), MZM_EARG);
	assert_int_equal(mzm_tokenize(tok, "a", SIZE_MAX, 0, &ids, &n, NULL), MZM_EARG);
	assert_int_equal(mzm_tokenize(tok, NULL, 0, 0, &ids, &n, NULL), MZM_OK);
	assert_int_equal(n, 0);
	assert_non_null(ids);
	mzm_ids_free(ids);
	mzm_ids_free(NULL);
	mzm_string_free(NULL);
	mzm_tokenizer_close(tok);
}

/* ---- memory that runs out ---- */

static mzm_status read_and_use(const mzm_str *json, const char *config, bool *same, mzm_err *err)
{
	static const char text[] = "The inn e\xcc\x81 <|end|> \xff  \xe4\xbd\xa0 "
				   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	mzm_tokenizer *tok = NULL;
	int32_t *ids = NULL;
	char *back = NULL;
	size_t n, len;
	mzm_status st;
	MZM_TRY_OUT(
		mzm_tokenizer_parse(&tok, json->data, json->len, config, config ? strlen(config) : 0, "place", err));
	MZM_TRY_OUT(mzm_tokenize(tok, text, sizeof text - 1, 3, &ids, &n, err));
	MZM_TRY_OUT(mzm_detokenize(tok, ids, n, &back, &len, err));
	*same = strstr(back, "inn \xc3\xa9") != NULL;
out:
	mzm_string_free(back);
	mzm_ids_free(ids);
	mzm_tokenizer_close(tok);
	return st;
}

static void test_failing_memory(void **state)
{
	static const char config[] = "{\"add_bos_token\":true,\"bos_token\":\"<|end|>\"}";
	tiny t = tiny_bytes;
	size_t live = mzm_mem_live();
	long n_calls = 0, n_failed = 0;
	(void)state;
	t.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"},"
		       "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"y\"}]}";
	t.pre_tokenizer =
		"{\"type\":\"Sequence\",\"pretokenizers\":["
		"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|b)+|\\\\s+\"},\"behavior\":\"MergedWithNext\"},"
		"{\"type\":\"ByteLevel\",\"use_regex\":false}]}";
	for (long k = 1;; k++) {
		mzm_str json = tiny_json(&t, false);
		mzm_err err = {0};
		bool same = false;
		mzm_mem_fail_nth(k);
		mzm_status st = read_and_use(&json, config, &same, &err);
		n_calls = mzm_mem_fail_nth(0);
		mzm_str_free(&json);
		assert_int_equal(mzm_mem_live(), live);
		if (k > n_calls) {
			assert_int_equal(st, MZM_OK);
			break;
		}
		n_failed += st != MZM_OK;
		assert_true(st == MZM_ENOMEM ||
			    (st == MZM_OK && same)); /* compiling a pattern to machine code may fail */
		assert_true(st == MZM_OK || strstr(err.message, "out of memory"));
	}
	print_message("%ld allocations, %ld failures passed on\n", n_calls, n_failed);
	assert_true(n_failed > 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused_model),  cmocka_unit_test(test_refused_steps),
		cmocka_unit_test(test_refused_config), cmocka_unit_test(test_depth),
		cmocka_unit_test(test_sizes),          cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_mutations),      cmocka_unit_test(test_long_runs),
		cmocka_unit_test(test_slow_patterns),  cmocka_unit_test(test_growth),
		cmocka_unit_test(test_arguments),      cmocka_unit_test(test_failing_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
