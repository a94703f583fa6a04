/* inspect.h - the parts of `mirzam inspect`: the description (cmd_inspect.c), and the comparison with a reference. */
#ifndef MZM_CLI_INSPECT_H
#define MZM_CLI_INSPECT_H

#include "cli.h"

typedef struct mzm_cli_quality {
	const char *model;   /* what is measured */
	const char *against; /* the reference; NULL: the model's draft image is measured against its own weights */
	const char *text;    /* file; NULL: the shipped problems */
	int32_t limit;       /* tokens; 0: the whole text */
} mzm_cli_quality;

/* Loads the models and compares them, with progress on stderr. *out: {"model", "against", "text", "texts", "tokens",
 * "window", "comparisons": [{"image", "reference", "tokens", "kld_mean", ...}]}, a new reference. */
mzm_status mzm_cli_quality_measure(json_t **out, const mzm_cli_quality *o, mzm_err *err);

#endif
