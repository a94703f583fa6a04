/* kern_avx2.c - the table "avx2": two 256-bit registers; compiled with -mavx2 -mfma -mf16c. */
#include "kern/int_avx2.h"

#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_avx2 = KERN_TABLE("avx2", mzm_cpu_has_avx2);
