/* isa.h - kernel tables by what tests may expect of them: all give equal bits but the one that rounds activations. */
#ifndef ISA_H
#define ISA_H

#include <stdbool.h>
#include <string.h>

#include "mirzam.h"

/* Does this table round the activations that meet bf16 weights? NULL: the one a model takes by itself. */
static inline bool isa_rounds(const char *isa)
{
	return strcmp(isa ? isa : mzm_isa_name(0), "avx512-bf16") == 0;
}

/* The best table that does not. */
static inline const char *isa_exact(void)
{
	int i = 0;
	while (isa_rounds(mzm_isa_name(i)))
		i++;
	return mzm_isa_name(i);
}

#endif
