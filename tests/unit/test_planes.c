/* test_planes.c - planes and codecs: what is packed comes back; a frame that says too much or too little is refused. */
#include "testing.h"

#include <zstd.h>

#include "base/half.h"
#include "base/mem.h"
#include "format/planes.h"

static void test_planes(void **state)
{
	(void)state;
	uint16_t two[3] = {0x8001, 0x7f80, 0x0102};
	uint8_t split[12], back[12];
	/* rotated left by one: 0003, ff00, 0204 */
	mzm_planes_split(split, two, 6, 2);
	assert_memory_equal(split, "\x03\x00\x04\x00\xff\x02", 6);
	mzm_planes_join(back, split, 6, 2);
	assert_memory_equal(back, two, 6);
	uint32_t four[2] = {0x80000001u, 0x7f800000u}; /* 00000003, ff000000 */
	mzm_planes_split(split, four, 8, 4);
	assert_memory_equal(split, "\x03\x00\x00\x00\x00\x00\x00\xff", 8);
	mzm_planes_join(back, split, 8, 4);
	assert_memory_equal(back, four, 8);
	uint64_t seed = 1;
	for (size_t n = 0; n < 300; n += 4) {
		uint8_t in[300], mid[300], out[300];
		for (size_t i = 0; i < n; i++)
			in[i] = (uint8_t)testing_random(&seed);
		for (size_t e = 1; e <= 4; e *= 2) {
			mzm_planes_split(mid, in, n, e);
			mzm_planes_join(out, mid, n, e);
			assert_memory_equal(in, out, n);
		}
	}
}

/* Data of several natures at every level come back; each codec is used by some. */
static void test_pack(void **state)
{
	(void)state;
	static const int levels[] = {-1, 0, 1, 3, 19};
	size_t live = mzm_mem_live(), n = 40000, n_used[MZM_N_CODECS] = {0};
	uint8_t *in = malloc(n), *out = malloc(n);
	mzm_packer *p;
	uint64_t seed = 5;
	assert_int_equal(mzm_packer_create(&p, NULL), MZM_OK);
	for (int nature = 0; nature < 5; nature++)
		for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++)
			for (size_t e = 1; e <= 4; e *= 2) {
				for (size_t i = 0; i < n; i += 2) {
					uint64_t r = testing_random(&seed);
					float f = (float)((double)(r >> 40) * 0x1p-24 - 0.5);
					uint16_t v = nature == 0 ? (uint16_t)r : nature == 1 ? mzm_f32_to_bf16(f) :
						     nature == 2 ? (uint16_t)(i / 2 % 50 * 1237) : nature == 3 ? 0 :
						     (uint16_t)(r % 29 == 0 ? r >> 16 : 7);
					memcpy(in + i, &v, 2);
				}
				mzm_codec codec;
				const void *packed;
				size_t n_packed;
				assert_int_equal(mzm_pack(p, &codec, &packed, &n_packed, in, n, e, levels[l], NULL),
						 MZM_OK);
				assert_true(n_packed <= n && n / MZM_MAX_RATIO <= n_packed);
				assert_true(levels[l] != 0 || codec == MZM_CODEC_RAW);
				assert_true(levels[l] != -1 || codec == MZM_CODEC_RAW || n_packed < n - n / 10);
				assert_true(nature != 0 || codec == MZM_CODEC_RAW); /* noise */
				n_used[codec]++;
				uint8_t *copy =
					malloc(n_packed); /* exact size: a read past it shows under a sanitizer */
				memcpy(copy, packed, n_packed);
				memset(out, 0xaa, n);
				assert_int_equal(mzm_unpack(p, out, n, e, codec, copy, n_packed, NULL), MZM_OK);
				assert_memory_equal(in, out, n);
				free(copy);
			}
	assert_true(n_used[MZM_CODEC_RAW] && n_used[MZM_CODEC_ZSTD] && n_used[MZM_CODEC_PLANES]);
	mzm_packer_free(p);
	free(in);
	free(out);
	assert_int_equal(mzm_mem_live(), live);
	assert_string_equal(mzm_codec_name(MZM_CODEC_PLANES), "planes");
	assert_string_equal(mzm_codec_name((mzm_codec)9), "unknown");
}

static void unpack_fails(const void *src, size_t n_src, size_t n_bytes, const char *word)
{
	uint8_t out[4096];
	mzm_err err = {0};
	mzm_packer *p;
	assert_true(n_bytes <= sizeof out);
	assert_int_equal(mzm_packer_create(&p, NULL), MZM_OK);
	for (mzm_codec c = MZM_CODEC_ZSTD; c <= MZM_CODEC_PLANES; c = (mzm_codec)(c + 1)) {
		err = (mzm_err){0};
		if (mzm_unpack(p, out, n_bytes, 2, c, src, n_src, &err) != MZM_EFORMAT || !strstr(err.message, word))
			fail_msg("wanted \"%s\": %s", word, err.message);
	}
	mzm_packer_free(p);
}

/* Frames that zstd itself would accept, or that claim too much. */
static void test_bad_frames(void **state)
{
	(void)state;
	uint8_t in[4096], frame[8192];
	for (size_t i = 0; i < sizeof in; i++)
		in[i] = (uint8_t)(i % 97);
	size_t n = ZSTD_compress(frame, sizeof frame, in, sizeof in, 3);
	unpack_fails(frame, n, 4095, "4096 bytes instead of 4095");
	unpack_fails(frame, n - 1, 4096, "cut short");
	unpack_fails(frame, n, 100, "instead of 100"); /* a bomb: more than declared */
	unpack_fails("\x28\xb5", 2, 4096, "not a zstd frame");
	unpack_fails(in, sizeof in, 4096, "not a zstd frame");
	unpack_fails(frame, 0, 4096, "zstd frame");
	size_t m = ZSTD_compress(frame + n, sizeof frame - n, in, 10, 3);
	unpack_fails(frame, n + m, 4096, "follows");
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
	n = ZSTD_compress2(c, frame, sizeof frame, in, sizeof in);
	unpack_fails(frame, n, 4096, "states no size");
	ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters);
	n = ZSTD_compress(frame, sizeof frame, in, sizeof in, 3);
	/* Give the frame header a dictionary id: descriptor bits 0..1 = 1 adds one byte. */
	uint8_t with_id[8192];
	memcpy(with_id, frame, 5);
	with_id[4] |= 1;
	size_t at = 5;
	if (!(frame[4] & 0x20))
		with_id[at] = frame[at], at++; /* window descriptor */
	with_id[at] = 9;
	memcpy(with_id + at + 1, frame + at, n - at);
	unpack_fails(with_id, n + 1, 4096, "dictionary");
	ZSTD_freeCCtx(c);
	/* every bit of a frame: an error or, never, other bytes of the right size without one */
	for (size_t bit = 0; bit < n * 8; bit++) {
		uint8_t out[4096];
		mzm_packer *p;
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(mzm_packer_create(&p, NULL), MZM_OK);
		(void)mzm_unpack(p, out, sizeof out, 2, MZM_CODEC_PLANES, frame, n, NULL);
		mzm_packer_free(p);
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_planes),
		cmocka_unit_test(test_pack),
		cmocka_unit_test(test_bad_frames),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
