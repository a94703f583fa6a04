/* kern_avx512_bf16.c - the table "avx512-bf16": AVX-512 with products of bf16 and of bytes. Activations that meet bf16
 * weights are rounded to bf16, so it alone differs from the other tables. */
#include "kern/int_avx512.h"

#include "kern/body_dot.h"
#include "kern/body_table.h"
#include "kern/kern_tables.h"

const mzm_kern mzm_kern_avx512_bf16 = KERN_TABLE("avx512-bf16", mzm_cpu_has_avx512_bf16);
