/* gguf_pre.c - the pre-tokenizers that GGUF files name, as facts about the models that use them.
 *
 * The expressions are those of the models' own tokenizer.json, in the form in which llama.cpp applies them, since that
 * made the files. Names that need more than expressions (superbpe, kimi-k2, afmoe, chameleon) are not here: they are
 * refused rather than guessed. */
#include "format/gguf_pre.h"

#include <string.h>

#define GPT2   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SHORT  "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define ENDS   "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 SHORT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" ENDS
#define QWEN2  SHORT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" ENDS
#define SEED   SHORT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" ENDS
#define LING                                                                                     \
	"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" \
	" ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
	"\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
/* A letter that is no small one of ASCII, and one that is no capital. */
#define UPPER  "(?:(?=\\p{L})[^a-z])"
#define LOWER  "(?:(?=\\p{L})[^A-Z])"
#define TEKKEN                                                                                     \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*|\\p{N}|" \
	" ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" ENDS
#define GPT4O                                                                                                       \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" SHORT "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" SHORT "?|" \
	"\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" ENDS
#define BLOOM  " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
#define HAN    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* DeepSeek: letters that have case. */
#define CASED                                                                                                       \
	"A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}" \
	"\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}" \
	"\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}" \
	"\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}" \
	"\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}" \
	"\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}" \
	"\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}" \
	"\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
	"\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}" \
	"\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}" \
	"\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}" \
	"\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}" \
	"\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}" \
	"\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
	"\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define DEEPSEEK3                                                                                                     \
	"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" \
	" ?[\\p{P}\\p{S}]+[\\r\\n]*|" ENDS

typedef enum kind {
	DEFAULT,
	KIND_LLAMA3,
	KIND_DBRX,
	KIND_DEEPSEEK_LLM,
	KIND_DEEPSEEK_CODER,
	KIND_DEEPSEEK3,
	KIND_FALCON,
	KIND_DIGITS,
	KIND_GPT2,
	KIND_QWEN2,
	KIND_BLOOM,
	KIND_VIKING,
	KIND_TEKKEN,
	KIND_GPT4O,
	KIND_LING,
	KIND_SEED,
} kind;

static const mzm_gguf_pre kinds[] = {
	[DEFAULT] = {.patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
	[KIND_LLAMA3] = {.patterns = {LLAMA3}, .ignore_merges = true, .add_bos = true},
	[KIND_DBRX] = {.patterns = {LLAMA3}},
	[KIND_DEEPSEEK_LLM] = {.patterns = {"[\\r\\n]", "\\s?[" CASED "]+",
					    "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
					    "\\x{3000}-\\x{3002}]+",
					    "\\s+$", HAN, "\\p{N}+"}},
	[KIND_DEEPSEEK_CODER] = {.patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN, "\\p{N}"}},
	[KIND_DEEPSEEK3] = {.patterns = {"\\p{N}{1,3}",
					 "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+", DEEPSEEK3}},
	[KIND_FALCON] = {.patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
	[KIND_DIGITS] = {.patterns = {"\\p{N}", GPT2}},
	[KIND_GPT2] = {.patterns = {GPT2}},
	[KIND_QWEN2] = {.patterns = {QWEN2}},
	[KIND_BLOOM] = {.patterns = {BLOOM}},
	[KIND_VIKING] = {.patterns = {BLOOM, "\\p{N}"}},
	[KIND_TEKKEN] = {.patterns = {TEKKEN}, .ignore_merges = true, .add_bos = true},
	[KIND_GPT4O] = {.patterns = {GPT4O}},
	[KIND_LING] = {.patterns = {LING}},
	[KIND_SEED] = {.patterns = {SEED}},
};

static const struct named {
	const char *name;
	kind what;
} names[] = {
	{"default", DEFAULT}, {"llama3", KIND_LLAMA3}, {"llama-v3", KIND_LLAMA3}, {"llama-bpe", KIND_LLAMA3},
	{"falcon3", KIND_LLAMA3}, {"falcon-h1", KIND_LLAMA3}, {"pixtral", KIND_LLAMA3}, {"midm-2.0", KIND_LLAMA3},
	{"lfm2", KIND_LLAMA3}, {"dbrx", KIND_DBRX}, {"smaug-bpe", KIND_DBRX}, {"glm4", KIND_DBRX},
	{"chatglm-bpe", KIND_DBRX}, {"deepseek-llm", KIND_DEEPSEEK_LLM}, {"deepseek-coder", KIND_DEEPSEEK_CODER},
	{"deepseek-v3", KIND_DEEPSEEK3}, {"hunyuan-dense", KIND_DEEPSEEK3}, {"falcon", KIND_FALCON},
	{"starcoder", KIND_DIGITS}, {"refact", KIND_DIGITS}, {"command-r", KIND_DIGITS}, {"smollm", KIND_DIGITS},
	{"codeshell", KIND_DIGITS}, {"exaone", KIND_DIGITS}, {"minerva-7b", KIND_DIGITS}, {"gpt-2", KIND_GPT2},
	{"phi-2", KIND_GPT2}, {"mpt", KIND_GPT2}, {"olmo", KIND_GPT2}, {"gpt-neox", KIND_GPT2}, {"jais", KIND_GPT2},
	{"jina-es", KIND_GPT2}, {"jina-de", KIND_GPT2}, {"jina-v2-es", KIND_GPT2}, {"jina-v2-de", KIND_GPT2},
	{"gigachat", KIND_GPT2}, {"a.x-4.0", KIND_GPT2}, {"mellum", KIND_GPT2}, {"exaone4", KIND_GPT2},
	{"trillion", KIND_GPT2}, {"granite-docling", KIND_GPT2}, {"qwen2", KIND_QWEN2},
	{"deepseek-r1-qwen", KIND_QWEN2}, {"kormo", KIND_QWEN2}, {"megrez", KIND_QWEN2}, {"stablelm2", KIND_QWEN2},
	{"hunyuan", KIND_QWEN2}, {"grok-2", KIND_QWEN2}, {"poro-chat", KIND_BLOOM}, {"bloom", KIND_BLOOM},
	{"gpt3-finnish", KIND_BLOOM}, {"viking", KIND_VIKING}, {"tekken", KIND_TEKKEN}, {"gpt-4o", KIND_GPT4O},
	{"llama4", KIND_GPT4O}, {"minimax-m2", KIND_GPT4O}, {"bailingmoe", KIND_LING}, {"bailingmoe2", KIND_LING},
	{"llada-moe", KIND_LING}, {"seed-coder", KIND_SEED},
};

const mzm_gguf_pre *mzm_gguf_pre_find(const char *name, size_t n)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == n && memcmp(names[i].name, name, n) == 0)
			return &kinds[names[i].what];
	return NULL;
}
