/* temp_dir.h - the fixture of tests that write a model: a fresh folder for each test, and in it the place of the
 * model. */
#ifndef TEMP_DIR_H
#define TEMP_DIR_H

#include "testing.h"

#include "base/io.h"

static char dir[256], path[300];

static inline int make_dir(void **state)
{
	(void)state;
	testing_temp_dir(dir);
	snprintf(path, sizeof path, "%s/model.mzm", dir);
	return 0;
}

static inline int remove_dir(void **state)
{
	(void)state;
	mzm_io_fail_nth(0, 0); /* a planted fault ends with its test */
	testing_remove(dir);
	return 0;
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

#endif
