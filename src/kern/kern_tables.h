/* kern_tables.h - what the per-ISA files share with kern.c. */
#ifndef MZM_KERN_TABLES_H
#define MZM_KERN_TABLES_H

#include "kern/kern.h"

extern const mzm_kern mzm_kern_avx512_bf16, mzm_kern_avx512_vnni, mzm_kern_avx512;
extern const mzm_kern mzm_kern_avx2_vnni, mzm_kern_avx2, mzm_kern_scalar;

/* They live in kern.c, which is compiled for the oldest CPU: a file compiled for AVX-512 may not even
 * ask the question without using AVX-512. */
bool mzm_cpu_has_avx512_bf16(void); /* and VNNI */
bool mzm_cpu_has_avx512_vnni(void);
bool mzm_cpu_has_avx512(void);
bool mzm_cpu_has_avx2_vnni(void);
bool mzm_cpu_has_avx2(void);
bool mzm_cpu_has_scalar(void);

#endif
