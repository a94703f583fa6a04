/* reliability.h - how well the confidence monitor foretells what checks find: ranking, error, and calibration.
 *
 * Pure functions over judged draft tokens, in double precision. */
#ifndef MZE_RELIABILITY_H
#define MZE_RELIABILITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MZE_N_BINS 10 /* of equal width over 0..1; a confidence of 1 is in the last */

typedef struct mze_judged {
	double confidence; /* before the check, 0..1 */
	bool   accepted;   /* by it */
} mze_judged;

/* NaN: not defined, there being no token, or none of a kind. */
typedef struct mze_bin {
	double  confidence; /* mean */
	double  accepted;   /* share */
	int64_t n;
} mze_bin;

typedef struct mze_reliability {
	int64_t n;     /* judged tokens */
	double  auc;   /* chance that an accepted token had more confidence than a rejected one; equal counts half */
	double  brier; /* mean squared error of the confidence */
	mze_bin bin[MZE_N_BINS];
} mze_reliability;

/* Sorts judged[n] by confidence. */
void mze_reliability_of(mze_reliability *out, mze_judged *judged, size_t n);

/* Which draft tokens of an answer were judged, from the kinds of its events in order (one letter each, see item.h): all
 * accepted ones, and the first dropped one of a check that ends in a correction. confidence: one number for each draft
 * token, in millionths, -1 where it is not known. judged: room for as many; returns how many there are. */
size_t mze_judged_of(mze_judged *judged, const char *kinds, size_t n_kinds, const int32_t *confidence);

#endif
