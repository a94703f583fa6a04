/* fit.c - every fit of this build by name; see fit.h. A new one is a new file and one line here. */
#include "predictors/fit.h"

#include <string.h>

static const mzm_fit *const fits[] = {
	&mzm_fit_cats,
	&mzm_fit_teal,
	&mzm_fit_static,
	&mzm_fit_svd,
	&mzm_fit_aware,
	&mzm_fit_lowrank,
	&mzm_fit_countdown_d,
};

const mzm_fit *mzm_fit_at(int i)
{
	return i >= 0 && i < (int)(sizeof fits / sizeof *fits) ? fits[i] : NULL;
}

const mzm_fit *mzm_fit_find(const char *name)
{
	for (int i = 0; mzm_fit_at(i); i++) {
		if (strcmp(fits[i]->name, name) == 0)
			return fits[i];
	}
	return NULL;
}
