/* results.h - the results file: a header line with all settings, then one line an answer.
 *
 * Lines are appended whole, in one write each, synced every 16 lines and at the end. Whatever kills the
 * process, the file is a header, whole lines, and at most one torn last line, which resuming cuts off.
 * A lock keeps a second run away. Not thread-safe: the caller takes turns. */
#ifndef MZE_RESULTS_H
#define MZE_RESULTS_H

#include <jansson.h>

#include "mirzam.h"

#define MZE_RESULTS_KEY "mirzam_eval" /* first member of the header; its value is the version of the form */
#define MZE_RESULTS_VERSION 1
#define MZE_SYNC_LINES 16
#define MZE_MAX_RESULT_BYTES ((size_t)64 << 20)

typedef struct mze_results mze_results;

/* Opens path. A file that holds anything is refused unless resume. *stored is the header found in it,
 * NULL when the file is new. -> mze_results_close, json_decref */
mzm_status mze_results_open(mze_results **out, json_t **stored, const char *path, bool resume, mzm_err *err);

/* Where two headers differ, as "rows[1].keep: 0.5 in the file, 0.75 now"; MZM_EFORMAT then. The member
 * named `ignored` is left out. */
mzm_status mze_results_compare(const json_t *stored, const json_t *now, const char *ignored, mzm_err *err);

/* Of a new file, first. */
mzm_status mze_results_write_header(mze_results *r, const json_t *header, mzm_err *err);

/* Hands every line after the header to on_line, which returns EFORMAT for one it cannot use: an error, but
 * for the last line, which then is torn, too. Cuts off what is torn. */
typedef mzm_status (*mze_line_fn)(void *user, const char *line, size_t len, mzm_err *err);
mzm_status mze_results_replay(mze_results *r, mze_line_fn on_line, void *user, mzm_err *err);

mzm_status mze_results_append(mze_results *r, const char *line, mzm_err *err);
mzm_status mze_results_sync(mze_results *r, mzm_err *err);
void       mze_results_close(mze_results *r); /* without a sync; NULL: nothing */

#endif
