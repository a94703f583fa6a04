/* mirzam.h - CPU inference with contextual sparsity and full-model correction.
 *
 * Usage (this example is compiled by the tests):
 *
 *     #include <mirzam.h>
 *     #include <stdio.h>
 *
 *     static int print_text(void *user, const char *bytes, size_t n)
 *     {
 *         fwrite(bytes, 1, n, user);
 *         return 0;                                  // non-zero stops the generation
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         mzm_err err = {0};
 *         mzm_model *model = NULL;
 *         mzm_session *session = NULL;
 *         mzm_gen_params gen = mzm_gen_params_default();
 *         mzm_gen_result result;
 *         gen.mode = MZM_MODE_EXACT;                 // sparse drafts, the dense model's text
 *         gen.on_text = print_text;
 *         gen.user = stdout;
 *         if (argc != 3 ||
 *             mzm_model_open(&model, argv[1], NULL, &err) != MZM_OK ||
 *             mzm_session_create(&session, model, NULL, &err) != MZM_OK ||
 *             mzm_generate_text(session, argv[2], &gen, &result, &err) != MZM_OK)
 *             fprintf(stderr, "%s\n", err.message);
 *         mzm_session_free(session);
 *         mzm_model_close(model);
 *         return err.code != MZM_OK;
 *     }
 *
 * Contents: errors - model - tokens - chat - session - generation - files - quality - calibration - bench -
 * synth. A model is immutable after it is opened and may be shared by any number of sessions and threads; a
 * session belongs to one thread at a time. Whatever a function hands out through **out belongs to the caller
 * and is given back to the function named beside it; free, close and destroy accept NULL. Pointers inside
 * results belong to the session and live until its next call.
 *
 * Every *_params struct comes from its *_params_default(); a NULL params pointer means the defaults. */
#ifndef MIRZAM_H
#define MIRZAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MZM_VERSION_MAJOR 0
#define MZM_VERSION_MINOR 1
#define MZM_VERSION_PATCH 0
#define MZM_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define MZM_API __attribute__((visibility("default")))
#else
#define MZM_API
#endif

MZM_API const char *mzm_version(void);    /* the library's, to compare with MZM_VERSION_STRING */
MZM_API const char *mzm_build_info(void); /* compiler, options, oneDNN or not: one line */

/* ---- Errors --------------------------------------------------------------------------------- */

#define MZM_STATUS_LIST(X)                                                        \
	X(OK, 0, "ok")                                                            \
	X(EARG, 1, "wrong argument")              /* the caller asked for nonsense */ \
	X(EUNDEFINED, 2, "not defined in this mode") /* e.g. sampling in sirius mode */ \
	X(ENOMEM, 3, "out of memory")                                             \
	X(EIO, 4, "input or output failed")       /* the system's reason is in the message */ \
	X(EFORMAT, 5, "malformed file")           /* the file contradicts itself or its format */ \
	X(EUNSUPPORTED, 6, "unsupported")         /* well-formed, but a feature we do not have */ \
	X(ECONTEXT, 7, "context is full")                                         \
	X(ECANCELLED, 8, "cancelled")             /* a callback returned non-zero */ \
	X(EINTERNAL, 9, "internal error")

typedef enum mzm_status {
#define X(name, code, text) MZM_##name = code,
	MZM_STATUS_LIST(X)
#undef X
} mzm_status;

typedef struct mzm_err {
	mzm_status code;         /* MZM_OK until something failed; the first failure wins */
	char       message[512]; /* place and reason, without a final newline */
} mzm_err;

MZM_API const char *mzm_status_text(mzm_status status);

/* Called now and then during long work; total 0 = unknown. Return non-zero to cancel. */
typedef int (*mzm_progress_fn)(void *user, const char *stage, uint64_t done, uint64_t total);

/* ---- Model ---------------------------------------------------------------------------------- */

typedef struct mzm_model mzm_model;

typedef struct mzm_model_params {
	const char     *isa;      /* NULL or "auto": best of this CPU; else a name of mzm_isa_name() */
	bool            no_onednn; /* prefill by the row kernels even where oneDNN was built in */
	mzm_progress_fn progress; /* may be NULL */
	void           *user;

	/* Where the weights are. "auto" (NULL): "resident", in memory, if there is room, else "stream": what fits stays
	 * in memory, the rest is read from the container for every pass. "mmap": the system pages them in. */
	const char     *store;
	uint64_t        ram_bytes; /* bound of all that the process takes, the model and its sessions too; 0: none */
	const struct mzm_session_params *session; /* that the bound leaves room for; NULL: the defaults */
	int32_t         n_sessions; /* of those; 0: one */
	uint64_t        reserve_bytes; /* more of the bound to leave free: what the caller itself will take */
	/* The drafts that are to come, for which neurons are held where not all have room. NULL: none. */
	const struct mzm_gen_params *drafts;
	const char     *io;        /* how "stream" reads: "auto" (NULL), "uring" or "threads" */
	/* The side-car that mzm_calibration_finish wrote. NULL: the model's path with the extension .mzc, or mirzam.mzc
	 * in a directory, if it is there; "off": none; else its path. One of another model, or damaged, is an error. */
	const char     *calib;
} mzm_model_params;

MZM_API mzm_model_params mzm_model_params_default(void);

/* How a model will be, or is, held in memory. All in bytes; the parts add up to needed_bytes. */
typedef struct mzm_plan {
	const char *store;          /* "resident", "mmap", "stream" */
	uint64_t ram_bytes;         /* the budget; 0: none */
	uint64_t needed_bytes;      /* of it */
	uint64_t smallest_bytes;    /* budget with which this model and these sessions work at all */
	uint64_t process_bytes;     /* the program, its libraries, the tokenizer: estimated from what it takes now */
	uint64_t session_bytes;     /* keys, values and scratch of the sessions */
	uint64_t weight_bytes;      /* of the model, that stay in memory */
	uint64_t draft_bytes;       /* of the draft image, that stay in memory */
	uint64_t held_bytes;        /* neurons that sessions hold for drafts */
	int32_t  n_held;            /* of those, a layer; 0: all are in memory, or there is no room for drafts */
	uint64_t window_bytes;      /* through which the rest streams */
	uint64_t reader_bytes;      /* buffers and threads that read and unpack */
	uint64_t model_bytes;       /* all weights of the model, unpacked */
	uint64_t streamed_bytes;    /* that a dense pass, however many positions, reads from the file */
	bool     draft_on_disk;     /* the file has a draft image, but no room for any of it: drafts read the model */
} mzm_plan;

/* The plan for a model file, without reading a weight. EARG: the budget is too small; the message says how much of it
 * each part would take. */
MZM_API mzm_status mzm_plan_make(mzm_plan *out, const char *path, const mzm_model_params *params, mzm_err *err);
MZM_API const mzm_plan *mzm_model_get_plan(const mzm_model *model);
/* Bytes that this process may use: the machine's memory, or the limit of its cgroup. */
MZM_API uint64_t mzm_machine_memory(void);
/* How fast a file is read past the cache, measured for so long; 0: it is smaller than a megabyte. */
MZM_API mzm_status mzm_disk_speed(double *bytes_per_s, const char *path, double seconds, mzm_err *err);

/* Whether the compression of a container pays when it streams from this disk into this machine. */
#define MZM_UNPACK_THREADS 2 /* that check and unpack what streams */
typedef struct mzm_file_speed {
	uint64_t raw_bytes, stored_bytes; /* of all weights; of those that were tried */
	double   disk_bytes_per_s;        /* read past the cache */
	double   unpack_bytes_per_s;      /* of what it unpacks to, checked, by one thread; 0: nothing is compressed */
	int32_t  unpack_threads;          /* that do it at once: MZM_UNPACK_THREADS, or fewer cores */
	bool     is_compressed;
	bool     pays;                    /* unpacked weights come faster than raw ones would be read */
} mzm_file_speed;

/* Each of the two is measured for so long. EUNSUPPORTED: not a container. */
MZM_API mzm_status mzm_file_measure(mzm_file_speed *out, const char *path, double seconds, mzm_err *err);

/* What streaming read so far, by all sessions of the model, and how long it took. */
typedef struct mzm_stream_stats {
	uint64_t bytes_read;
	int64_t  read_ns;           /* while at least one read was under way */
	int64_t  unpack_ns;         /* of the threads that check and unpack */
	int64_t  wait_ns;           /* passes waited for weights */
	const char *io;             /* "io_uring, direct"; "" when nothing streams */
} mzm_stream_stats;

MZM_API mzm_stream_stats mzm_model_stream_stats(const mzm_model *model);

/* Opens a .mzm container, a Hugging Face directory or a GGUF file. -> mzm_model_close */
MZM_API mzm_status mzm_model_open(mzm_model **out, const char *path, const mzm_model_params *params, mzm_err *err);
MZM_API void       mzm_model_close(mzm_model *model); /* after its last session */

#define MZM_MAX_EOS 16

typedef struct mzm_model_info {
	const char *path;
	char        arch[32];      /* "llama" */
	char        hash[33];      /* of configuration and weights, whatever file form they came in */
	char        dtype[8];      /* of the FFN matrices: "bf16", "f16", "f32", "q8", "q4" */
	char        act[16];       /* "silu", "relu", "gelu", "gelu_tanh", "fatrelu" */
	int32_t     n_layers, dim, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
	int32_t     bos_id;        /* -1: none */
	int32_t     eos_ids[MZM_MAX_EOS];
	int32_t     n_eos;
	uint64_t    n_params;      /* a tied embedding counts once */
	uint64_t    n_ffn_params;
	uint64_t    weight_bytes;  /* as held in memory, without the draft image */
	char        draft_dtype[8]; /* of the draft image: "q4"; "" = there is none */
	uint64_t    draft_bytes, draft_ffn_bytes; /* of the draft image, and of its FFN matrices */
	int32_t     inflated;      /* factor of mzm_synth, 0: an ordinary model. Say so beside every figure */
	uint64_t    bytes_per_token; /* weights one dense token reads: all but the embedding look-up */
	const char *isa;           /* kernel table in use */
} mzm_model_info;

MZM_API const mzm_model_info *mzm_model_get_info(const mzm_model *model);

/* Kernel tables in order of preference: name of the i-th this CPU can run; NULL past the last. All give equal
 * bits but "avx512-bf16", which rounds the activations that meet bf16 weights to bf16. */
MZM_API const char *mzm_isa_name(int i);
/* Drafters known to this build: name of the i-th and what it does, NULL past the last. */
MZM_API const char *mzm_drafter_name(int i);
MZM_API const char *mzm_drafter_about(int i);
/* Values of mzm_gen_params.jacobi and jacobi_seed: name of the i-th, the default first; NULL past the last. */
MZM_API const char *mzm_jacobi_name(int i);
MZM_API const char *mzm_jacobi_seed_name(int i);
/* Predictors known to this build: name of the i-th, NULL past the last. */
MZM_API const char *mzm_predictor_name(int i);

/* ---- Tokens --------------------------------------------------------------------------------- */

typedef struct mzm_tokenizer mzm_tokenizer;

/* Opens the tokenizer alone: a tokenizer.json, a directory that holds one, or a .mzm container.
 * -> mzm_tokenizer_close */
MZM_API mzm_status           mzm_tokenizer_open(mzm_tokenizer **out, const char *path, mzm_err *err);
MZM_API void                 mzm_tokenizer_close(mzm_tokenizer *tok);
MZM_API const mzm_tokenizer *mzm_model_tokenizer(const mzm_model *model); /* the model's own */

#define MZM_TOK_ADD_SPECIAL   1u /* what the post-processor adds, e.g. BOS */
#define MZM_TOK_PARSE_SPECIAL 2u /* special-token text in the input becomes that token; else it stays text */

/* Tokens of text[0..len), any bytes. *ids -> mzm_ids_free. */
MZM_API mzm_status mzm_tokenize(const mzm_tokenizer *tok, const char *text, size_t len, unsigned flags,
				int32_t **ids, size_t *n_ids, mzm_err *err);
MZM_API void       mzm_ids_free(int32_t *ids);

MZM_API int32_t mzm_token_count(const mzm_tokenizer *tok);
/* The id of a token by its exact content (special tokens too); -1: none. */
MZM_API int32_t mzm_token_find(const mzm_tokenizer *tok, const char *content);
MZM_API bool    mzm_token_is_special(const mzm_tokenizer *tok, int32_t id);
/* The vocabulary's own spelling of a token, NUL-terminated ("Ġthe", "<0x0A>"); NULL for a bad id. */
MZM_API const char *mzm_token_content(const mzm_tokenizer *tok, int32_t id);

/* Incremental decoder: turns tokens into bytes that are complete UTF-8 at every call. Lives on the
 * stack and never allocates. Special tokens give no text. Incomplete or broken sequences become
 * U+FFFD as soon as it is certain that they cannot be completed. A copy is a snapshot. */
typedef struct mzm_text_decoder {
	const mzm_tokenizer *tok;
	unsigned char        pending[4];
	uint8_t              n_pending;
	bool                 started; /* the first piece loses the blank that the tokenizer had added */
} mzm_text_decoder;

MZM_API mzm_text_decoder mzm_text_decoder_init(const mzm_tokenizer *tok);
/* Upper bound of the bytes one push can give, for any token of this tokenizer. */
MZM_API size_t mzm_text_decoder_max(const mzm_tokenizer *tok);
/* Appends the token's text to out[cap] (cap >= mzm_text_decoder_max()); returns the bytes written. */
MZM_API size_t mzm_text_decoder_push(mzm_text_decoder *dec, int32_t id, char *out, size_t cap);
MZM_API size_t mzm_text_decoder_flush(mzm_text_decoder *dec, char *out, size_t cap);

/* All at once. *text is NUL-terminated (it may hold NULs) -> mzm_string_free. */
MZM_API mzm_status mzm_detokenize(const mzm_tokenizer *tok, const int32_t *ids, size_t n_ids, char **text,
				  size_t *len, mzm_err *err);
MZM_API void       mzm_string_free(char *s);

/* ---- Chat ----------------------------------------------------------------------------------- */

/* Templates are a subset of Jinja that covers those of published models; what is beyond it is refused with the line.
 * They run in bounded time and memory, and can reach nothing but what is handed to them. */
typedef struct mzm_chat mzm_chat;

typedef struct mzm_chat_message {
	const char *role;    /* "system", "user", "assistant" */
	const char *content; /* UTF-8 */
} mzm_chat_message;

/* The template text, or NULL for that of the model (of its tokenizer_config.json, chat_template.jinja or GGUF metadata;
 * of several the one named "default"). EFORMAT: the text is no template; EUNSUPPORTED: the model has none, or it uses
 * what is beyond the subset. The model must stay open. -> mzm_chat_free */
MZM_API mzm_status mzm_chat_create(mzm_chat **out, const mzm_model *model, const char *text, mzm_err *err);
MZM_API void       mzm_chat_free(mzm_chat *chat);
/* The conversation as the prompt that the model was trained with, up to where its answer begins if `generate`. EARG:
 * the template itself refused the conversation (its raise_exception), e.g. for roles that do not alternate. The text
 * holds its special tokens: mzm_tokenize it with MZM_TOK_PARSE_SPECIAL and, since templates write BOS themselves,
 * without MZM_TOK_ADD_SPECIAL unless mzm_chat_adds_special; or rather use mzm_chat_tokenize, for in the text nobody can
 * tell the template's special tokens from those that a content spells. -> mzm_string_free */
MZM_API mzm_status mzm_chat_render(const mzm_chat *chat, const mzm_chat_message *messages, size_t n, bool generate,
				   char **text, mzm_err *err);
/* True when no rendering holds BOS, so that the post-processor has to add it. */
MZM_API bool       mzm_chat_adds_special(const mzm_chat *chat);
/* The rendering as tokens, for contents that are not trusted: the text of a special token inside a content stays text,
 * whatever the template does. EARG: a content that cannot be kept apart so. *ids -> mzm_ids_free. */
MZM_API mzm_status  mzm_chat_tokenize(const mzm_chat *chat, const mzm_chat_message *messages, size_t n, bool generate,
				      int32_t **ids, size_t *n_ids, mzm_err *err);
/* The special token that the template writes behind an answer, to be one of mzm_gen_params.stop; NULL: none. */
MZM_API const char *mzm_chat_end(const mzm_chat *chat);

/* ---- Session -------------------------------------------------------------------------------- */

typedef struct mzm_session mzm_session;

typedef struct mzm_session_params {
	int32_t n_ctx;     /* tokens the KV can hold; 0 = the model's own limit, 4096 at most */
	int32_t n_threads; /* 0 = the cores this process may use */
	const char *kv_type; /* of keys and values: "f16" (NULL), "bf16" or "f32" */
} mzm_session_params;

MZM_API mzm_session_params mzm_session_params_default(void);

MZM_API mzm_status mzm_session_create(mzm_session **out, const mzm_model *model, const mzm_session_params *params,
				      mzm_err *err);
MZM_API void       mzm_session_free(mzm_session *session);
MZM_API int32_t    mzm_session_n_ctx(const mzm_session *session);
MZM_API int32_t    mzm_session_n_threads(const mzm_session *session);
MZM_API int32_t    mzm_session_len(const mzm_session *session); /* tokens whose KV is present */
MZM_API void       mzm_session_truncate(mzm_session *session, int32_t len); /* O(1); never longer; DiJiang: or to 0 */
MZM_API size_t     mzm_session_bytes(const mzm_session *session); /* KV and scratch */

/* Dense pass over n tokens at positions len .. len+n-1. Rows of logits [n_rows, n_vocab] for the last
 * n_rows of them, 0 <= n_rows <= n. Row i is bit-equal to what n one-token calls give. */
MZM_API mzm_status mzm_session_forward(mzm_session *session, float *logits, const int32_t *ids, int32_t n,
				       int32_t n_rows, mzm_err *err);

/* ---- Generation ----------------------------------------------------------------------------- */

typedef enum mzm_mode {
	MZM_MODE_DENSE,  /* the model itself */
	MZM_MODE_SPARSE, /* predicted neurons only, never corrected */
	MZM_MODE_SIRIUS, /* sparse drafts, kept while the full model finds them likely enough (arXiv 2409.03856) */
	MZM_MODE_EXACT,  /* drafts, token-identical to MZM_MODE_DENSE with the same sampling and seed */
	/* Speculative sampling (arXiv 2211.17192, 2302.01318): every text as likely as in MZM_MODE_DENSE, though not
	 * the same one for a seed, and with several drafters as well (arXiv 2305.09781). Greedily it is
	 * MZM_MODE_EXACT. The text depends on the seed, the drafters and the lengths of drafts: with period 0, or
	 * draft "auto", on costs, which may be handed in. It keeps the distributions that drafts were drawn from, 4
	 * bytes for each token of the vocabulary, of the period, and each drafter that runs passes; under a budget
	 * mzm_model_params.drafts must say so beforehand */
	MZM_MODE_LOSSLESS,
} mzm_mode;

MZM_API const char *mzm_mode_name(mzm_mode mode);
MZM_API mzm_status  mzm_mode_parse(mzm_mode *out, const char *name, mzm_err *err);

/* When MZM_MODE_SIRIUS keeps a draft token t against full-model logits X (P = softmax(X / check_temp)). */
typedef enum mzm_accept {
	MZM_ACCEPT_SIRIUS,    /* P(t) >= threshold, or t is the full model's choice (default) */
	MZM_ACCEPT_REFERENCE, /* P(t) >= threshold, as published */
	MZM_ACCEPT_RELATIVE,  /* P(t) >= threshold * max P */
	MZM_ACCEPT_TYPICAL,   /* P(t) > min(threshold, 0.3 exp(-H(P))), Medusa's rule (arXiv 2401.10774) */
} mzm_accept;

MZM_API const char *mzm_accept_name(mzm_accept accept);
MZM_API mzm_status  mzm_accept_parse(mzm_accept *out, const char *name, mzm_err *err);

/* Which path of a tree of drafts a check keeps. Exact mode keeps what dense decoding would write, whatever this
 * says. */
typedef enum mzm_tree_path {
	MZM_TREE_LONGEST,   /* where most tokens stand; of several the one the draft found likeliest (default) */
	MZM_TREE_LIKELIEST, /* the line that the full model finds likeliest, as far as its tokens stand */
	MZM_TREE_JUMP,      /* the draft's best line; where a token does not stand, on with one that has the model's */
} mzm_tree_path;

#define MZM_MAX_TREE_WIDTH 10

MZM_API const char *mzm_tree_path_name(mzm_tree_path path);
MZM_API mzm_status  mzm_tree_path_parse(mzm_tree_path *out, const char *name, mzm_err *err);

/* Costs in dense single-token passes: period 0 and draft "auto" go by them. Those measured can be handed in again. */
#define MZM_MAX_PERIOD   32
#define MZM_MAX_DRAFTERS 8
typedef struct mzm_costs {
	float sparse;                    /* a pass of the first drafter that runs any; 0 = not measured */
	float check[MZM_MAX_PERIOD + 1]; /* [m]: one dense pass over m tokens */
	float dense_ms;                  /* the unit, for people */
	float draft[MZM_MAX_DRAFTERS];   /* [i]: a pass of mzm_drafter_name(i); 0 = as `sparse` or by what it reads */
} mzm_costs;

typedef enum mzm_token_kind {
	MZM_TOKEN_FIRST,      /* from the prefill */
	MZM_TOKEN_PLAIN,      /* single-pass modes (dense, sparse) */
	MZM_TOKEN_ACCEPTED,   /* drafted and kept by the check */
	MZM_TOKEN_CORRECTED,  /* written by the full model in place of a rejected draft token */
	MZM_TOKEN_BONUS,      /* written by the full model after a block that was kept whole */
	MZM_TOKEN_ROLLED_BACK /* drafted and dropped; never part of the text */
} mzm_token_kind;

MZM_API const char *mzm_token_kind_name(mzm_token_kind kind);

/* One per token in the order of decision: a check reports its accepted tokens, then its rolled-back
 * ones, then the token it wrote itself. Fields that do not apply are NaN (floats) or 0. */
typedef struct mzm_token_event {
	mzm_token_kind kind;
	int32_t        pos;         /* position in the whole sequence, prompt included */
	int32_t        id;
	float          draft_prob;  /* the sparse model's probability of it (temperature 1) */
	float          margin;      /* best minus second-best draft logit */
	float          entropy;     /* of the draft distribution, nats */
	float          confidence;  /* the monitor's estimate that it will be accepted */
	float          full_prob;   /* the full model's probability of it (temperature 1) */
	int32_t        check;       /* ordinal of the check that decided it, from 1 */
	int32_t        block;       /* tokens in that check: period reached */
	int64_t        time_ns;     /* since the start of the generation */
} mzm_token_event;

typedef int (*mzm_token_fn)(void *user, const mzm_token_event *event);           /* non-zero stops */
typedef int (*mzm_text_fn)(void *user, const char *bytes, size_t n_bytes);       /* non-zero stops */

/* Parts of Sirius' correction. */
typedef enum mzm_ablation {
	MZM_ABLATE_KV_REWRITE = 1, /* kept tokens keep the rows that sparse passes made */
	MZM_ABLATE_ROLLBACK = 2,   /* unlikely tokens stay; a check rewrites their rows and adds its own token */
	MZM_ABLATE_BONUS = 4,      /* a check that rejects nothing adds nothing */
} mzm_ablation;

/* "none", or names with commas between them: kv-rewrite, rollback, bonus. */
MZM_API mzm_status mzm_ablation_parse(uint32_t *out, const char *names, mzm_err *err);
/* The other way round; nothing left out is "none". */
MZM_API void mzm_ablation_print(char out[64], uint32_t ablate);

typedef struct mzm_gen_params {
	mzm_mode   mode;        /* MZM_MODE_DENSE */
	const char *draft;      /* "sparse": what writes the drafts, see mzm_drafter_name(). Names with + between: each
				 * proposes a line, one check judges all, the longest that stands is kept. "auto": all
				 * that this model allows, each round to the one that has paid best. In sirius mode the
				 * threshold is for sparse drafts; others are kept by the full model's choice */
	const char *jacobi;     /* "slide" (NULL): guesses of "jacobi" (arXiv 2305.10427) are a window that moves with
				 * the text; "block": a block that shrinks until it has converged, as published */
	const char *jacobi_seed; /* "prompt" (NULL): its first guesses are tokens of the prompt. "ngram": before them
				 * goes what followed in the text when it read so, as long as that is right more often;
				 * "pool": n-grams of earlier iterations do (arXiv 2402.02057). "sparse": they are a
				 * sparse draft, that of "sparse" before it in the list or its own, by predictor and
				 * keep; the next one comes when none is left, or (slide) when that pays more */
	const char *skip;       /* "auto" (NULL): "skip" (arXiv 2309.08168) leaves out what a calibration found; else
				 * attentions and FFNs by the numbers of their layers, "attn:3,4 mlp:1-5", or "none" */
	float      skip_keep;   /* 1 (0: as 1): the FFNs that it leaves run whole; below 1 on so many neurons */
	float      draft_exit;  /* drafts of "skip" and "model" end behind a token that they gave a probability below
				 * this; 0: none does. -1: it follows what checks keep, as published (period 0: as 0) */
	/* The model of "model" (arXiv 2302.01318): any with the same tokens, open as long as the session, which makes a
	 * state for it when it is first used, or another one (mzm_draft_model_bytes). NULL: there is none. */
	const mzm_model *draft_model;
	const char *predictor;  /* "griffin" (arXiv 2404.01365); see mzm_predictor_name() */
	float      keep;        /* 0.5: share of FFN neurons a sparse pass uses, 0 < keep <= 1 */
	float      attn_keep;   /* 1: share of the inputs of q, k, v and o that it uses, the largest (TEAL, arXiv
				 * 2408.14690); below 1 for models whose attention lies by input (attn_layout of an
				 * import) and which are calibrated ("teal"). 0: as 1 */
	bool       no_alloc;    /* every layer keeps that share, even where a calibration knows better ones for each */
	bool       no_draft_image; /* sparse passes read the model's own weights even if there is a draft image */
	int32_t    period;      /* 16: tokens a check, 1..MZM_MAX_PERIOD; 0 = auto (confidence monitor) */
	float      check_below; /* 0: a draft token that the monitor trusts less than this is checked at once */
	int32_t    tree_width;  /* 1: drafts are lines. Else trees of so many, up to MZM_MAX_TREE_WIDTH; greedy only.
				 * period 0 and check_below then go by the best line */
	mzm_tree_path tree_path;
	mzm_accept accept;
	float      threshold;   /* 0.1 */
	float      check_temp;  /* 0.6 */
	uint32_t   ablate;      /* 0: nothing; else bits of mzm_ablation: parts of the correction that sirius mode does
				 * without, for studies of what each is worth. Other modes: EUNDEFINED (exact and
				 * lossless), or nothing to leave out */

	float      temp;           /* 0 = greedy. Not defined in sirius mode */
	int32_t    top_k;          /* 0 = off */
	float      top_p;          /* 1 = off */
	float      min_p;          /* 0 = off */
	float      repeat_penalty; /* 1 = off (CTRL's rule, arXiv 1909.05858) */
	int32_t    repeat_last;    /* tokens it looks back on, prompt included; 64 */
	uint64_t   seed;           /* of sampling and of the random predictor */

	int32_t    max_tokens;  /* new tokens; 0 = until the context is full */
	const char *const *stop; /* [n_stop] byte strings that end the text and are not part of it */
	int32_t    n_stop;
	bool       ignore_eos;
	bool       no_special;  /* do not add what the post-processor adds (mzm_generate_text only) */
	bool       keep_prefix; /* keep the session's rows of the tokens that the prompt begins with, instead of reading
				 * them anew (a conversation goes on). Rows of an answer were made token by token, so
				 * bits may differ from those of a fresh prefill through oneDNN. Rows of sparse mode are
				 * not kept; a predictor that learns from prompts goes on from what it has seen, and
				 * makes a start from nothing where that is not part of this prompt */

	const mzm_costs *costs;       /* for period 0 and draft "auto"; NULL = measured once a session */
	bool             fresh_monitor; /* forget what earlier generations taught the monitor */

	mzm_text_fn     on_text;    /* verified text only, complete UTF-8; may be NULL */
	mzm_token_fn    on_token;   /* may be NULL */
	mzm_progress_fn on_prefill; /* may be NULL; "prompt", then, of a draft model, "draft prompt" */
	/* May be NULL; called many times a pass where weights stream, with the parts of the pass that were read, and
	 * all. Non-zero ends the generation as any callback does. */
	mzm_progress_fn on_stream;
	void           *user;
} mzm_gen_params;

MZM_API mzm_gen_params mzm_gen_params_default(void);
/* What a generation takes beside its session, for the distributions that lossless sampling draws from. */
MZM_API uint64_t   mzm_gen_lossless_bytes(const mzm_gen_params *params, int32_t n_vocab);
/* All checks that need no model: ranges, and options that the mode does not define (EUNDEFINED). */
MZM_API mzm_status mzm_gen_params_check(const mzm_gen_params *params, mzm_err *err);

typedef enum mzm_finish {
	MZM_FINISH_EOS,
	MZM_FINISH_STOP,      /* a stop string */
	MZM_FINISH_LENGTH,    /* max_tokens */
	MZM_FINISH_CONTEXT,   /* the context is full */
	MZM_FINISH_CANCELLED, /* a callback asked for it */
} mzm_finish;

MZM_API const char *mzm_finish_name(mzm_finish finish);

/* What a drafter of a generation proposed. */
typedef struct mzm_draft_stats {
	const char *name;
	int32_t n_rounds;              /* in which it proposed */
	int64_t n_drafted, n_accepted; /* tokens; of several lines in a check every one counts for itself */
} mzm_draft_stats;

typedef struct mzm_gen_result {
	const int32_t *tokens;   /* [n_tokens] new tokens, an EOS included; the session's */
	int32_t  n_prompt, n_tokens;
	int32_t  n_kept;         /* of the prompt: tokens whose rows were there already (keep_prefix) */
	mzm_finish finish;
	int32_t  n_checks, n_gained;           /* every check; gained = tokens a check brought */
	int32_t  n_checks_paper, n_gained_paper; /* without the answer's last check, as the authors count */
	int32_t  n_accepted, n_corrected, n_bonus, n_rolled_back;
	int32_t  n_sparse_passes, n_dense_passes; /* after the prefill; a check is one dense pass */
	int64_t  n_dense_positions;            /* positions those dense passes covered */
	int64_t  n_sparse_positions;           /* of sparse passes: as many as passes, but with trees */
	double   sparse_work;                  /* sum of densities over sparse passes */
	double   sparse_node_work;             /* the same, each weighted by its positions */
	/* With trees: drafted nodes, their roots counted too, and what became of them. Live ones were checked; dead
	 * ones belonged to no line that was alive in the end; those cut did, beyond the nodes that a check can hold. */
	int64_t  n_nodes, n_live, n_dead, n_cut;
	double   density;                      /* share of parameters a draft pass uses; none ran: 0 if guessed, or 1 */
	double   read_density;                 /* same, of the weights a dense pass reads */
	int64_t  prefill_ns, decode_ns;
	uint64_t bytes_read;                   /* from disk for its passes, the prefill's included */
	int64_t  read_ns, unpack_ns, wait_ns;  /* meanwhile, by all sessions of the model: see mzm_stream_stats */
	mzm_costs costs;                       /* used by --period auto and --draft auto, else zero */
	mzm_draft_stats drafts[MZM_MAX_DRAFTERS]; /* [n_drafters] of modes that check */
	int32_t n_drafters;
} mzm_gen_result;

/* Forgets the session's tokens, prefills the prompt and generates. */
MZM_API mzm_status mzm_generate(mzm_session *session, const int32_t *prompt, int32_t n_prompt,
				const mzm_gen_params *params, mzm_gen_result *result, mzm_err *err);
MZM_API mzm_status mzm_generate_text(mzm_session *session, const char *prompt, const mzm_gen_params *params,
				     mzm_gen_result *result, mzm_err *err);

/* What a session of these params takes for a draft model, beside its weights: for mzm_model_params.reserve_bytes. */
MZM_API mzm_status mzm_draft_model_bytes(uint64_t *bytes, const mzm_model *draft, const mzm_session_params *session,
					 mzm_err *err);
/* "adaptive", "off", or the number: mzm_gen_params.draft_exit. */
MZM_API mzm_status mzm_draft_exit_parse(float *out, const char *text, mzm_err *err);
MZM_API void       mzm_draft_exit_print(char out[32], float draft_exit);

/* Times a pass of every drafter and checks of several lengths on this session; leaves no token behind. */
MZM_API mzm_status mzm_session_measure_costs(mzm_session *session, const mzm_gen_params *params, mzm_costs *out,
					     mzm_err *err);
/* What these would cost on a machine bound by reading weights: a check 1, a sparse pass its density. */
MZM_API mzm_status mzm_session_nominal_costs(mzm_session *session, const mzm_gen_params *params, mzm_costs *out,
					     mzm_err *err);

/* ---- Files ---------------------------------------------------------------------------------- */

typedef struct mzm_import_report {
	char     dtype[48];       /* of the matrices: "bf16", "q4 (embedding and head q8)", "mixed" */
	int32_t  n_tensors;       /* of the model */
	int32_t  n_converted;     /* those whose type changed */
	int32_t  n_unchanged;     /* matrices that kept their type because their rows are no whole blocks of 32 */
	int32_t  n_draft;         /* tensors of the draft image */
	uint64_t weight_bytes, draft_bytes; /* unpacked */
	mzm_file_speed sample;    /* what zstd = -1 was decided by; all 0: nothing was measured */
	bool     is_raw;          /* stored as they are, because of that */
} mzm_import_report;

/* q8 and q4 are blocks of 32 weights with an f16 scale: 8.5 and 4.5 bits a weight. With q4, embedding and head are
 * q8. */
typedef struct mzm_import_params {
	const char     *quant;    /* type of the matrices; NULL = as the source; "bf16", "f16", "f32", "q8", "q4" */
	const char     *draft_quant; /* a second image of the matrices, for drafts: "q8", "q4"; "off" = none; NULL = the
				      * source's. Made from the source's weights, not from those of quant */
	const char     *quant_method; /* scales of q8 and q4: "best" = of least squared error (NULL), "nearest" = by
				       * the largest weight of each block */
	const char     *attn_layout; /* how the attention's matrices lie: "output" = a row an output, "input" = a row
				      * an input, for mzm_gen_params.attn_keep; NULL = as in the source */
	mzm_import_report *report;   /* filled by an import that succeeds; may be NULL */
	/* Level 1..19; 0 = off; -1 (default) = where it pays: a model of 64 MiB or more is stored as it is when a
	 * sample shows that the disk of out_path reads faster than this machine unpacks; else, and where the disk
	 * cannot be measured, what shrinks by a tenth is packed, quickly. */
	int             zstd;
	bool            allow_nonfinite; /* keep NaN and infinite weights; they are refused otherwise */
	mzm_progress_fn progress;
	void           *user;
} mzm_import_params;

MZM_API mzm_import_params mzm_import_params_default(void);

/* Writes the container out_path from what mzm_model_open opens. Atomic: out_path is the old file,
 * absent, or complete, whatever happens. */
MZM_API mzm_status mzm_import(const char *src_path, const char *out_path, const mzm_import_params *params,
			      mzm_err *err);

/* Describes a model file without loading its weights, as a JSON object. *json -> mzm_string_free. With
 * verify, reads every byte and checks every checksum first. */
MZM_API mzm_status mzm_inspect(const char *path, bool verify, mzm_progress_fn progress, void *user, char **json,
			       mzm_err *err);

/* ---- Quality -------------------------------------------------------------------------------- */

/* How far a model is from a reference: what both predict after every token of a text, by dense passes. */
typedef struct mzm_quality mzm_quality;

typedef struct mzm_quality_result {
	int64_t n_tokens;   /* predictions compared */
	double  kld_mean;   /* Kullback-Leibler divergence of the reference from the model, nats a token */
	double  kld_error;  /* standard error of that mean, tokens taken as independent */
	double  kld_median, kld_p99, kld_max;
	double  top1;       /* share of predictions whose most likely token is the same */
	double  perplexity, reference_perplexity; /* of the text */
} mzm_quality_result;

MZM_API bool mzm_model_has_draft(const mzm_model *model);

/* reference NULL, or the model itself: the model's draft image against its own weights. Both models stay open as long
 * as the comparison; their vocabularies are taken to be the same and must have one size. -> mzm_quality_free */
MZM_API mzm_status mzm_quality_create(mzm_quality **out, const mzm_model *model, const mzm_model *reference,
				      const mzm_session_params *params, mzm_err *err);
MZM_API void       mzm_quality_free(mzm_quality *q);
/* One text, in an empty context; a longer one than the context in windows of it. Its first token is only read. */
MZM_API mzm_status mzm_quality_add(mzm_quality *q, const int32_t *ids, size_t n, mzm_err *err);
/* Over all texts so far; EARG when they held no prediction. */
MZM_API mzm_status mzm_quality_result_get(const mzm_quality *q, mzm_quality_result *out, mzm_err *err);

/* ---- Calibration ---------------------------------------------------------------------------- */

/* What predictors can learn about a model beforehand, from any text that is like what it will be used for. It goes to a
 * side-car of the model, which mzm_model_open finds. */
typedef struct mzm_calibrate_params {
	const char *const *fits;  /* [n_fits] names of mzm_fit_name(); NULL = all but countdown-d and skip. Borrowed
				   * until the end, as others */
	int32_t     n_fits;
	bool        with_skip;    /* "skip" too, with fits NULL */
	int32_t     n_tries;      /* sets of layers that "skip" tries, 4096 at most; 0 = 64 and two a sub-layer */
	int32_t     n_train, n_test; /* positions to learn from, and held-out ones to measure on, as far as the texts
				   * have so many; 0 = 4096, 1024. Fewer where memory has no room for them */
	int32_t     rank, n_epochs; /* of fits that have such; 0 = their own choice */
	uint64_t    seed;
	const char *const *predictors; /* [n_predictors] to report on; NULL = all that can run */
	int32_t     n_predictors;
	const float *keep;        /* [n_keep] to report on; NULL = 0.1, 0.25, 0.5 */
	int32_t     n_keep;
	int32_t     n_report;     /* held-out positions to report on; 0 = 64 */
	int32_t     n_judged;     /* draft tokens of each of four settings that the monitor is fitted to; 0 = 1000 */
	int32_t     n_threads;    /* 0 = the cores this process may use */
	mzm_progress_fn progress; /* may be NULL */
	void       *user;
} mzm_calibrate_params;

MZM_API mzm_calibrate_params mzm_calibrate_params_default(void);
/* Name of the i-th fit and what it finds; NULL past the last. */
MZM_API const char *mzm_fit_name(int i);
MZM_API const char *mzm_fit_about(int i);

typedef struct mzm_calibration mzm_calibration;

/* The model must be in memory whole (EUNDEFINED otherwise) and stay open. -> mzm_calibration_free */
MZM_API mzm_status mzm_calibration_create(mzm_calibration **out, const mzm_model *model,
					  const mzm_calibrate_params *params, mzm_err *err);
MZM_API void       mzm_calibration_free(mzm_calibration *c);
/* One text. Positions are drawn evenly from all texts, in pieces of 256 tokens. */
MZM_API mzm_status mzm_calibration_add(mzm_calibration *c, const int32_t *ids, size_t n, mzm_err *err);
/* Samples, fits, measures, and writes the side-car (atomically; NULL: none is written). *report: a JSON object with,
 * for each predictor and keep, recall and precision of the neurons that contribute most, the error of the FFN's output,
 * and what the predictor costs; may be NULL; -> mzm_string_free. Once only. The file depends on the model, the texts
 * and the params, not on threads. */
MZM_API mzm_status mzm_calibration_finish(mzm_calibration *c, const char *out_path, char **report, mzm_err *err);
/* Where mzm_model_open looks for the side-car of the model at this path. *path -> mzm_string_free */
MZM_API mzm_status mzm_calibration_path(char **path, const char *model_path, mzm_err *err);

/* ---- Bench ---------------------------------------------------------------------------------- */

typedef enum mzm_bench_kind {
	MZM_BENCH_READ,     /* the machine: bytes read by the session's threads from a buffer beyond every cache */
	MZM_BENCH_MATMUL,   /* the machine: a square product per thread */
	MZM_BENCH_PREFILL,  /* a prompt */
	MZM_BENCH_DENSE,    /* a pass over one token: the unit of all costs */
	MZM_BENCH_SPARSE,   /* a sparse pass over one token */
	MZM_BENCH_CHECK,    /* a dense pass over n_pos tokens */
	MZM_BENCH_CONTEXT,  /* a dense pass over one token behind a long context */
	MZM_BENCH_GENERATE, /* a generation, its prefill left out */
} mzm_bench_kind;

MZM_API const char *mzm_bench_kind_name(mzm_bench_kind kind);
#define MZM_BENCH_PART(kind) (1u << (kind)) /* for mzm_bench_params.parts */

typedef struct mzm_bench_params {
	mzm_session_params session; /* n_ctx 0: as much as the measurements need */
	unsigned    parts;        /* what to measure: MZM_BENCH_PART() ored, 0 = all; the peaks and dense always */
	int32_t     n_prompt;     /* tokens of the prefill; 0 = 512, or what the context holds */
	int32_t     context;      /* tokens before those of a pass; 0 = 128, or less in a small context */
	int32_t     long_context; /* of MZM_BENCH_CONTEXT; 0 = 8192, or the model's limit, or what fits 4 GiB of KV */
	int32_t     n_gen;        /* tokens of a generation at most; 0 = 128 */
	const char *const *predictors; /* [n_predictors] of sparse passes; NULL = griffin and topk */
	int32_t     n_predictors;
	const float *keep;        /* [n_keep] of sparse passes; NULL = 0.1, 0.25, 0.5, 0.75 */
	int32_t     n_keep;
	mzm_gen_params gen;       /* of generations; the mode, sampling, stops and callbacks are not used */
	const char *const *drafts; /* [n_drafts] lists of drafters to compare, in exact mode from the second on; NULL =
				    * gen.draft */
	int32_t     n_drafts;
	double      accept_rate;  /* above 0: the check keeps each draft token with this probability, whatever it is */
	int32_t     n_repeats;    /* rounds, 3..99; 0 = 7. Fewer, but 3, when time runs out */
	double      seconds;      /* how long all may take, roughly; 0 = 60 */
	double      sample_seconds; /* how long a timed sample lasts at least; 0 = 0.05 */
	uint64_t    peak_bytes;   /* buffer of MZM_BENCH_READ; 0 = 512 MiB or four times the last-level cache */
	mzm_progress_fn progress; /* non-zero from it ends after the measurement under way */
	void       *user;
} mzm_bench_params;

MZM_API mzm_bench_params mzm_bench_params_default(void);

/* One measurement over all rounds. What does not apply is NaN (floats), 0 or "". */
typedef struct mzm_bench_row {
	mzm_bench_kind kind;
	char    name[64];         /* "sparse griffin 0.25" */
	char    predictor[16];
	char    drafter[48];      /* MZM_BENCH_GENERATE of modes that check: what writes the drafts */
	float   keep;
	bool    draft_image;      /* the passes, or the drafts, read the draft image of the model */
	int32_t n_pos;            /* of a pass; tokens of a prefill; of a generation the mean, without the first */
	int32_t context;          /* tokens before them */
	mzm_mode mode;            /* MZM_BENCH_GENERATE */
	int32_t period;           /* same; 0 = auto */
	int32_t n_samples;        /* one a round */
	int32_t n_calls;          /* passes or generations timed together in a sample */
	double  ms_median, ms_min, ms_max; /* of one pass, one prefill, one generated token */
	double  spread_percent;   /* (max - min) / median */
	double  tok_per_s;
	double  bytes_per_pass;   /* weights and KV that it reads; of a generated token the mean */
	double  bytes_per_token;
	double  gb_per_s;         /* those bytes, each counted once */
	double  gflop_per_s;      /* MZM_BENCH_MATMUL, MZM_BENCH_PREFILL (of the matrices, without attention) */
	double  percent_of_peak;  /* of the read peak; of a prefill: of the matmul peak */
	double  ratio_to_dense;   /* time against a dense token's; of a generation: a token's against dense mode's */
	double  bound_ratio;      /* what the peaks allow that ratio to be */
	double  speedup;          /* MZM_BENCH_GENERATE: 1 / ratio_to_dense */
	double  density;          /* MZM_BENCH_SPARSE: bytes it reads, in those of a dense token */
	double  aal;              /* MZM_BENCH_GENERATE: tokens gained a check */
	double  accept_rate;      /* the share of drafted tokens that was kept */
	char    note[160];        /* what a reader must know: "forced acceptance 0.95" */
} mzm_bench_row;

typedef struct mzm_bench_result {
	mzm_bench_row *rows;      /* [n_rows] */
	int32_t n_rows;
	int32_t n_rounds;         /* whole rounds measured */
	bool    stopped;          /* by the progress callback */
	bool    shortened;        /* fewer rounds or tokens than asked for, for the time */
	double  seconds;          /* all of it took */
	double  peak_gb_per_s, best_gb_per_s;           /* median and best of the rounds */
	double  peak_gflop_per_s, best_gflop_per_s;
	const char *matmul_name;  /* what the matmul peak multiplies, and by which code */
	uint64_t peak_bytes, cache_bytes; /* buffer; one last-level cache, 0 = unknown */
	double  peak_spread_percent;
	bool    disturbed;        /* that spread is above MZM_BENCH_CALM_PERCENT: the machine did other work */
	int32_t n_threads, n_ctx, n_prompt, context, long_context, n_gen;
	double  forced_accept;    /* accept_rate of the params */
} mzm_bench_result;

#define MZM_BENCH_CALM_PERCENT 15.0

/* Measures the machine and this model on it, in rounds that measure everything once, so that what disturbs the machine
 * for a while disturbs all alike. *out -> mzm_bench_free; there is one also with MZM_ECANCELLED, if a whole round was
 * measured. */
MZM_API mzm_status mzm_bench(mzm_bench_result **out, const mzm_model *model, const mzm_bench_params *params,
			     mzm_err *err);
MZM_API void       mzm_bench_free(mzm_bench_result *result);

/* A model of random bf16 weights in the shape of a known one (mzm_synth_arch_name), made in memory: without a file and
 * without a tokenizer. n_layers: only the first; 0 = all. -> mzm_model_close */
MZM_API mzm_status mzm_model_open_synth(mzm_model **out, const char *arch, int32_t n_layers, uint64_t seed,
					const mzm_model_params *params, mzm_err *err);

/* ---- Synth ---------------------------------------------------------------------------------- */

/* Shapes of known models: name of the i-th, NULL past the last; and its parameters, 0 past the last. */
MZM_API const char *mzm_synth_arch_name(int i);
MZM_API uint64_t    mzm_synth_arch_params(int i);

typedef struct mzm_synth_params {
	const char *arch;    /* random weights in this shape, without a tokenizer: it continues ids; or ... */
	const char *inflate; /* ... this model file, made wider without changing what it computes (arXiv 1511.05641) */
	int32_t     n_layers; /* of arch: only the first; 0 = all */
	int32_t     factor;  /* of inflate: how often width, heads and neurons are repeated, 1..1024 */
	uint64_t    seed;    /* of the weights; of what makes the copies of an inflated weight differ */
	mzm_import_params import; /* how the container is written */
} mzm_synth_params;

MZM_API mzm_synth_params mzm_synth_params_default(void);

/* Writes a container for measuring speed. It says what it is: mzm_inspect shows "origin". Atomic, as mzm_import. */
MZM_API mzm_status mzm_synth(const char *out_path, const mzm_synth_params *params, mzm_err *err);

#ifdef __cplusplus
}
#endif
#endif
