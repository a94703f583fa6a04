/* import.h - the import of a source that is open already; shared by the files of this folder only. */
#ifndef MZM_IMPORT_H
#define MZM_IMPORT_H

#include "format/source.h"

/* As mzm_import. src stays the caller's. */
mzm_status mzm_import_source(mzm_source *src, const char *out_path, const mzm_import_params *params, mzm_err *err);

#endif
