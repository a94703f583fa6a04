/* kern_avx2_vnni.c - the table "avx2-vnni": "avx2" with one instruction for products of bytes. */
#include "kern/int_avx2.h"

#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_avx2_vnni = KERN_TABLE("avx2-vnni", mzm_cpu_has_avx2_vnni);
