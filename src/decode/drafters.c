/* drafters.c - the drafters there are, and lists of them by name. */
#include <string.h>

#include "decode/drafter.h"

static const mzm_drafter_ops *const drafters[] = {
	&mzm_draft_sparse,
	&mzm_draft_ngram,
	&mzm_draft_jacobi,
	&mzm_draft_skip,
	&mzm_draft_model,
};

#define COUNT ((int)(sizeof drafters / sizeof *drafters))
_Static_assert(sizeof drafters / sizeof *drafters <= MZM_MAX_DRAFTERS, "a generation may have all drafters");

const mzm_drafter_ops *mzm_drafter_at(int i)
{
	return i >= 0 && i < COUNT ? drafters[i] : NULL;
}

int mzm_drafter_index(const char *name, size_t len)
{
	for (int i = 0; i < COUNT; i++) {
		if (strlen(drafters[i]->name) == len && memcmp(drafters[i]->name, name, len) == 0)
			return i;
	}
	return -1;
}

bool mzm_draft_is_auto(const char *names)
{
	return strcmp(names, MZM_DRAFT_AUTO) == 0;
}

int mzm_drafter_list(int list[MZM_MAX_DRAFTERS], const char *names)
{
	unsigned seen = 0;
	int n = 0;
	bool all = mzm_draft_is_auto(names);
	for (; all && n < COUNT; n++)
		list[n] = n;
	while (!all) {
		size_t len = strcspn(names, "+");
		int i = mzm_drafter_index(names, len);
		if (i < 0 || seen & 1u << i)
			return -1;
		seen |= 1u << i;
		list[n++] = i;
		if (!names[len])
			break;
		names += len + 1;
	}
	return n;
}
