/* tokenizer_open.c - a tokenizer from a path: tokenizer.json, a directory that holds one or what can be read instead of
 * it (tokenizer_dir.c), or a container.
 *
 * A file of its own, because only this needs the container's reader. */
#include "base/io.h"
#include "base/str.h"
#include "format/source.h"
#include "format/tokenizer.h"

#define MAX_JSON ((size_t)256 << 20)

static mzm_status open_json(mzm_tokenizer **out, const char *json_path, const char *config_path, mzm_err *err)
{
	char *json = NULL, *config = NULL;
	size_t len = 0, config_len = 0;
	mzm_status st;
	MZM_TRY_OUT(mzm_read_all(json_path, MAX_JSON, &json, &len, err));
	if (config_path && mzm_path_exists(config_path))
		MZM_TRY_OUT(mzm_read_all(config_path, MAX_JSON, &config, &config_len, err));
	MZM_TRY_OUT(mzm_tokenizer_parse(out, json, len, config, config_len, json_path, err));
out:
	mzm_free(json);
	mzm_free(config);
	return st;
}

static mzm_status open_other(mzm_tokenizer **out, const char *dir, const char *config_path, mzm_err *err)
{
	char *json = NULL, *config = NULL;
	size_t len = 0, config_len = 0;
	mzm_status st;
	if (mzm_path_exists(config_path))
		MZM_TRY_OUT(mzm_read_all(config_path, MAX_JSON, &config, &config_len, err));
	MZM_TRY_OUT(mzm_tokenizer_dir_json(&json, &len, dir, config, config_len, err));
	if (!json)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT,
				     "%s: there is no tokenizer.json, tokenizer.model, or vocab.json with merges.txt",
				     dir));
	MZM_TRY_OUT(mzm_tokenizer_parse(out, json, len, config, config_len, dir, err));
out:
	mzm_free(json);
	mzm_free(config);
	return st;
}

static mzm_status open_dir(mzm_tokenizer **out, const char *dir, mzm_err *err)
{
	mzm_str json = {0}, config = {0};
	mzm_str_path(&json, dir, "tokenizer.json");
	mzm_str_path(&config, dir, "tokenizer_config.json");
	mzm_status st;
	if (json.failed || config.failed)
		st = mzm_fail(err, MZM_ENOMEM, "%s: out of memory", dir);
	else if (!mzm_path_exists(json.data))
		st = open_other(out, dir, config.data, err);
	else
		st = open_json(out, json.data, config.data, err);
	mzm_str_free(&json);
	mzm_str_free(&config);
	return st;
}

static mzm_status open_container(mzm_tokenizer **out, const char *path, mzm_err *err)
{
	mzm_source *src = NULL;
	size_t len = 0, config_len = 0;
	mzm_status st;
	MZM_TRY_OUT(mzm_source_open(&src, path, err));
	const char *json = mzm_source_side_file(src, MZM_TOKENIZER_JSON, &len);
	const char *config = mzm_source_side_file(src, MZM_TOKENIZER_CONFIG, &config_len);
	if (!json)
		MZM_TRY_OUT(mzm_fail(err, MZM_EFORMAT, "%s: holds no tokenizer.json", path));
	MZM_TRY_OUT(mzm_tokenizer_parse(out, json, len, config, config_len, path, err));
out:
	mzm_source_close(src);
	return st;
}

/* True when the first character that is no blank opens a JSON object. */
static mzm_status starts_as_json(const char *path, bool *json, mzm_err *err)
{
	char head[256] = {0};
	mzm_file *f;
	MZM_TRY(mzm_file_open(&f, path, err));
	size_t n = mzm_file_size(f) < sizeof head ? (size_t)mzm_file_size(f) : sizeof head, i = 0;
	mzm_status st = mzm_file_read_at(f, head, n, 0, err);
	mzm_file_close(f);
	while (i < n && (head[i] == ' ' || head[i] == '\t' || head[i] == '\r' || head[i] == '\n'))
		i++;
	*json = i < n && head[i] == '{';
	return st;
}

mzm_status mzm_tokenizer_open(mzm_tokenizer **out, const char *path, mzm_err *err)
{
	bool json;
	*out = NULL;
	if (mzm_path_is_dir(path))
		return open_dir(out, path, err);
	MZM_TRY(starts_as_json(path, &json, err));
	return json ? open_json(out, path, NULL, err) : open_container(out, path, err);
}
