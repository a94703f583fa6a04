/* kern_scalar.c - the table "scalar": sixteen lanes in an array: runs on any CPU, where fmaf may be a library call: slow, and the reference. */
#include "kern/vec_scalar.h"

#include "kern/body_matrix.h"
#include "kern/body_vector.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_scalar = KERN_TABLE("scalar", mzm_cpu_has_scalar);
