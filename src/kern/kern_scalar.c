/* kern_scalar.c - the table "scalar": sixteen lanes in an array. It runs on any CPU and is the reference for the
 * others; where fmaf is a library call it is slow. */
#include "kern/int_scalar.h"

#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_scalar = KERN_TABLE("scalar", mzm_cpu_has_scalar);
