/* gguf_rig.h - what tests of GGUF files share: a folder with one model in it. */
#ifndef GGUF_RIG_H
#define GGUF_RIG_H

#include "gguf_build.h"

#include "format/source.h"

static char dir[256], path[300];

static inline int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/model.gguf", dir);
	return 0;
}

static inline int remove_dir(void **state)
{
	(void)state;
	testing_remove(dir);
	return 0;
}

/* The file that g describes; g stays. */
static inline mzm_source *open_model(gb *g)
{
	mzm_source *src;
	mzm_err err = {0};
	gb_bytes b = gb_file(g);
	testing_write(path, b.p, b.n);
	free(b.p);
	if (mzm_source_open(&src, path, &err) != MZM_OK)
		fail_msg("%s: %s", g->arch, err.message);
	return src;
}

#endif
