/* bench.h - what the parts of `mirzam bench` share: the run's description, and its three outputs.
 *
 * A figure that is not defined is NaN: left out of tables, null in JSON. */
#ifndef MZM_CLI_BENCH_H
#define MZM_CLI_BENCH_H

#include "cli.h"

typedef struct mzm_cli_bench {
	const mzm_model          *model;
	const mzm_model_info     *info;
	const mzm_bench_params   *params;
	const mzm_bench_result   *result;
	char                      name[80];   /* of the model, for people */
	const char               *origin;     /* what must be said of its weights, or NULL */
} mzm_cli_bench;

void    mzm_cli_bench_table(const mzm_cli_bench *b, FILE *out);
void    mzm_cli_bench_words(const mzm_cli_bench *b, FILE *out); /* what the numbers mean */
json_t *mzm_cli_bench_json(const mzm_cli_bench *b);             /* NULL: out of memory */
void    mzm_cli_bench_svg(const mzm_cli_bench *b, FILE *out);   /* three charts; failed writes are the file's */

/* The row of that kind; of checks that of n_pos positions, of generations that of the mode. NULL: not measured. */
const mzm_bench_row *mzm_cli_bench_find(const mzm_bench_result *r, mzm_bench_kind kind, int32_t n_pos, mzm_mode mode);
/* True when a dense token reads less than one last-level cache holds: its figures are the cache's. */
bool mzm_cli_bench_in_cache(const mzm_cli_bench *b);

#endif
