#!/usr/bin/env bash
# The tree checks can fail: each planted fault must be found, and a clean tree must pass.
set -euo pipefail

tree=$(mktemp -d "${TMPDIR:-/tmp}/mirzam checks.XXXXXX")
trap 'rm -rf "$tree"' EXIT
failed=0

# A small tree that breaks no rule.
clean_tree() {
	rm -rf "${tree:?}"/*
	mkdir -p "$tree"/{include,predictors,eval,scripts} "$tree"/src/{base,kern,format,model,decode,engine,cli}
	printf '/* mirzam.h - api. */\n#ifndef MIRZAM_H\n#define MIRZAM_H\n#endif\n' > "$tree/include/mirzam.h"
	printf '/* err.h - errors. */\n#ifndef MZM_ERR_H\n#define MZM_ERR_H\n#endif\n' > "$tree/src/base/err.h"
	printf '/* a.c - a part. */\n#include "base/err.h"\n\nint a(void)\n{\n\treturn 1;\n}\n' > "$tree/src/model/a.c"
	printf '/* e.c - evaluation. */\n#include "mirzam.h"\n' > "$tree/eval/e.c"
}

# expect STATUS CHECK WHAT: runs the check on the tree
expect() {
	local got=0
	"$MIRZAM_ROOT/scripts/$2" "$tree" > "$tree/output" 2>&1 || got=1
	if [[ $got != "$1" ]]; then
		echo "$2: $3: expected status $1, got $got"
		cat "$tree/output"
		failed=1
	fi
	rm -f "$tree/output"
}

# planted FILE TEXT CHECK WHAT: appends the text to a file of a clean tree; the check must object
planted() {
	clean_tree
	printf '%b' "$2" >> "$tree/$1"
	expect 1 "$3" "$4"
}

clean_tree
expect 0 check-layers "clean tree"
expect 0 check-style "clean tree"
planted src/base/err.h '#include "model/kv.h"\n' check-layers "base includes model"
planted src/model/a.c '#include "predictors/registry.h"\n' check-layers "model includes predictors"
planted eval/e.c '#include "base/err.h"\n' check-layers "eval includes base"
planted src/cli/main.c '/* m */\n#include "engine/session.h"\n' check-layers "cli includes engine"
planted src/model/a.c '#include <omp.h>\n' check-layers "OpenMP outside kern/threads"
planted src/model/a.c '#include "../base/err.h"\n' check-layers "relative include"
planted src/model/a.c "/* $(printf 'x%.0s' {1..120}) */\n" check-style "long line"
planted src/model/a.c "$(printf '/* a */\\n%.0s' {1..800})" check-style "long file"
planted src/model/a.c '\nint b(void)\n{\n\treturn 2; \n}\n' check-style "blank at the end of a line"
planted src/model/a.c '\nint b(void)\n{\n        return 2;\n}\n' check-style "indented by blanks"
planted src/model/a.c '\nvoid b(void)\n{\n\texit(1);\n}\n' check-style "library exits"
planted src/model/b.c 'int b;\n' check-style "no opening comment"
planted src/base/b.h '/* b.h - b. */\nint b;\n' check-style "header without a guard"
if command -v ctags > /dev/null; then
	planted src/model/a.c "\nvoid b(void)\n{\n$(printf '\\t;\\n%.0s' {1..80})}\n" check-style "long function"
fi
exit $failed
