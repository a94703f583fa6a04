/* tokenizer_spm.c - see tokenizer_spm.h.
 *
 * The file is a protocol-buffer message: pieces (text, score, type), then what the trainer and the normaliser were
 * told. Only the few fields that matter are read, all others are skipped by their wire type. Each length is checked
 * against the bytes that are left in its message before anything is taken; two passes, the first counts the pieces. */
#include "format/tokenizer_spm.h"

#include <string.h>

#include "format/tokenizer_write.h"

/* Numbers of fields: of the file, of a piece, of the trainer's and the normaliser's settings. */
enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3 };
enum { PIECE = 1, SCORE = 2, TYPE = 3 };
enum { MODEL_TYPE = 3, AS_SUFFIX = 24, UNK_ID = 40, BOS_ID = 41, EOS_ID = 42, PAD_ID = 43 };
enum { CHARSMAP = 2, DUMMY_PREFIX = 3, REMOVE_EXTRA = 4, ESCAPE = 5 };
enum { VARINT = 0, WIRE_64 = 1, BYTES = 2, WIRE_32 = 5 };

typedef struct message {
	const char *s;
	size_t len, at;
} message;

typedef struct field {
	uint64_t number;
	unsigned wire;
	uint64_t value; /* VARINT, WIRE_32, WIRE_64 */
	message inner;  /* BYTES */
} field;

typedef struct reading {
	mzm_vocab_list list;
	mzm_gguf_text *tokens; /* [list.n] borrowed from the file */
	int32_t *types;
	float *scores;
	uint64_t model_type;
	bool as_suffix, escape;
} reading;

/* ---- the wire ---- */

static bool get_varint(message *m, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 64 && m->at < m->len; shift += 7) {
		unsigned char byte = (unsigned char)m->s[m->at++];
		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

static bool get_fixed(message *m, uint64_t *out, size_t n)
{
	*out = 0;
	if (m->len - m->at < n)
		return false;
	for (size_t i = 0; i < n; i++)
		*out |= (uint64_t)(unsigned char)m->s[m->at + i] << (8 * i);
	m->at += n;
	return true;
}

static bool get_field(message *m, field *f)
{
	uint64_t key;
	*f = (field){0};
	if (!get_varint(m, &key))
		return false;
	f->number = key >> 3;
	f->wire = key & 7;
	switch (f->wire) {
	case VARINT:
		return get_varint(m, &f->value);
	case WIRE_64:
		return get_fixed(m, &f->value, 8);
	case WIRE_32:
		return get_fixed(m, &f->value, 4);
	case BYTES:
		if (!get_varint(m, &f->value) || f->value > m->len - m->at)
			return false;
		f->inner = (message){.s = m->s + m->at, .len = (size_t)f->value};
		m->at += f->inner.len;
		return true;
	default:
		return false;
	}
}

static mzm_status next_field(message *m, field *f, const char *what, mzm_err *err)
{
	size_t at = m->at;
	return get_field(m, f) ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "%s: byte %zu begins no whole field", what, at);
}

/* ---- what the messages say ---- */

static mzm_status read_piece(reading *r, uint64_t i, message m, mzm_err *err)
{
	field f;
	r->tokens[i] = (mzm_gguf_text){.s = "", .n = 0};
	r->types[i] = MZM_VOCAB_NORMAL;
	while (m.at < m.len) {
		MZM_TRY(next_field(&m, &f, "a piece", err));
		if (f.number == PIECE && f.wire == BYTES)
			r->tokens[i] = (mzm_gguf_text){.s = f.inner.s, .n = f.inner.len};
		else if (f.number == SCORE && f.wire == WIRE_32)
			memcpy(&r->scores[i], &(uint32_t){(uint32_t)f.value}, 4);
		else if (f.number == TYPE && f.wire == VARINT)
			r->types[i] = f.value <= MZM_VOCAB_BYTE ? (int32_t)f.value : MZM_VOCAB_UNUSED;
	}
	return MZM_OK;
}

/* An id of the trainer's; -1 and what is no token: none. */
static int32_t as_id(const field *f, uint64_t n)
{
	return f->value < n ? (int32_t)f->value : -1;
}

static mzm_status read_trainer(reading *r, message m, mzm_err *err)
{
	field f;
	mzm_vocab_list *l = &r->list;
	while (m.at < m.len) {
		MZM_TRY(next_field(&m, &f, "trainer_spec", err));
		if (f.wire != VARINT)
			continue;
		switch (f.number) {
		case MODEL_TYPE:
			r->model_type = f.value;
			break;
		case AS_SUFFIX:
			r->as_suffix = f.value != 0;
			break;
		case UNK_ID:
			l->unk = as_id(&f, l->n);
			break;
		case BOS_ID:
			l->bos = as_id(&f, l->n);
			break;
		case EOS_ID:
			l->eos = as_id(&f, l->n);
			break;
		case PAD_ID:
			l->pad = as_id(&f, l->n);
			break;
		default:
			break;
		}
	}
	return MZM_OK;
}

static mzm_status read_normalizer(reading *r, message m, mzm_err *err)
{
	field f;
	while (m.at < m.len) {
		MZM_TRY(next_field(&m, &f, "normalizer_spec", err));
		if (f.number == CHARSMAP && f.wire == BYTES) {
			r->list.charsmap = f.inner.s;
			r->list.n_charsmap = f.inner.len;
		} else if (f.number == DUMMY_PREFIX && f.wire == VARINT) {
			r->list.add_space = f.value != 0;
		} else if (f.number == REMOVE_EXTRA && f.wire == VARINT) {
			r->list.merge_spaces = f.value != 0;
		} else if (f.number == ESCAPE && f.wire == VARINT) {
			r->escape = f.value != 0;
		}
	}
	return MZM_OK;
}

static mzm_status count_pieces(uint64_t *n, message m, mzm_err *err)
{
	field f;
	for (*n = 0; m.at < m.len; *n += f.number == PIECES && f.wire == BYTES)
		MZM_TRY(next_field(&m, &f, "the file", err));
	return *n ? MZM_OK : mzm_fail(err, MZM_EFORMAT, "no piece at all");
}

static mzm_status read_all(reading *r, message m, mzm_err *err)
{
	field f;
	mzm_vocab_list *l = &r->list;
	MZM_TRY(count_pieces(&l->n, m, err)); /* each takes two bytes of the file or more */
	MZM_TRY(mzm_alloc_for((void **)&r->tokens, (size_t)l->n * sizeof *r->tokens, "pieces", err));
	MZM_TRY(mzm_alloc_for((void **)&r->types, (size_t)l->n * sizeof *r->types, "pieces", err));
	MZM_TRY(mzm_alloc_for((void **)&r->scores, (size_t)l->n * sizeof *r->scores, "pieces", err));
	l->bos = l->n > 1 ? 1 : -1;
	l->eos = l->n > 2 ? 2 : -1;
	l->unk = 0;
	for (uint64_t i = 0; m.at < m.len;) {
		MZM_TRY(next_field(&m, &f, "the file", err));
		if (f.wire != BYTES)
			continue;
		if (f.number == PIECES)
			MZM_TRY(read_piece(r, i++, f.inner, err));
		else if (f.number == TRAINER)
			MZM_TRY(read_trainer(r, f.inner, err));
		else if (f.number == NORMALIZER)
			MZM_TRY(read_normalizer(r, f.inner, err));
	}
	return MZM_OK;
}

/* ---- from settings to a list ---- */

static bool is_control(const reading *r, int32_t id)
{
	return id >= 0 && r->types[id] == MZM_VOCAB_CONTROL;
}

static mzm_status settle(reading *r, mzm_err *err)
{
	static const char *const names[] = {"?", "unigram", "BPE", "word", "character"};
	mzm_vocab_list *l = &r->list;
	if (r->model_type != 1 && r->model_type != 2)
		return mzm_fail(err, MZM_EUNSUPPORTED, "models of the type \"%s\" are not supported",
				names[r->model_type <= 4 ? r->model_type : 0]);
	if (r->as_suffix || !r->escape)
		return mzm_fail(err, MZM_EUNSUPPORTED, "%s is not supported",
				r->as_suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces = false");
	l->kind = r->model_type == 1 ? MZM_VOCAB_UNIGRAM : MZM_VOCAB_SPM;
	l->tokens_name = "pieces";
	l->tokens = r->tokens;
	l->types = r->types;
	l->scores = r->scores;
	for (uint64_t i = l->n; i-- > 0;)
		if (r->types[i] == MZM_VOCAB_UNKNOWN)
			l->unk = (int32_t)i;
	l->add_bos = l->kind == MZM_VOCAB_SPM && is_control(r, l->bos);
	l->add_eos = l->kind == MZM_VOCAB_UNIGRAM && is_control(r, l->eos);
	return MZM_OK;
}

bool mzm_spm_is(const char *bytes, size_t len)
{
	message m = {.s = bytes, .len = len};
	field f;
	return get_field(&m, &f) && f.number == PIECES && f.wire == BYTES;
}

mzm_status mzm_spm_tree(json_t **out, const char *bytes, size_t len, mzm_err *err)
{
	reading r = {.list = {.bos = -1, .eos = -1, .unk = -1, .pad = -1, .add_space = true, .merge_spaces = true},
		     .model_type = 1,
		     .escape = true};
	mzm_status st;
	*out = NULL;
	MZM_TRY_OUT(read_all(&r, (message){.s = bytes, .len = len}, err));
	MZM_TRY_OUT(settle(&r, err));
	MZM_TRY_OUT(mzm_tokenizer_tree(out, &r.list, err));
out:
	mzm_free(r.tokens);
	mzm_free(r.types);
	mzm_free(r.scores);
	return st;
}
