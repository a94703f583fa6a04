/* kern_avx512_vnni.c - the table "avx512-vnni": "avx512" with one instruction for products of bytes. */
#include "kern/int_avx512.h"

#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_avx512_vnni = KERN_TABLE("avx512-vnni", mzm_cpu_has_avx512_vnni);
