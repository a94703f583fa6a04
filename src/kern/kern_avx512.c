/* kern_avx512.c - the table "avx512": one 512-bit register; compiled with -mavx512f, bw, vl and dq. */
#include "kern/int_avx512.h"

#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_avx512 = KERN_TABLE("avx512", mzm_cpu_has_avx512);
