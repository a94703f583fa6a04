#!/usr/bin/env bash
# The shared library exports what mirzam.h declares MZM_API, all of it and nothing else.
# usage: symbols.sh LIBMIRZAM.SO
set -euo pipefail

declared=$(grep -o 'MZM_API [^;]*' "$MIRZAM_ROOT/include/mirzam.h" | grep -o 'mzm_[a-z0-9_]*(' | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$1" | awk '$2 ~ /[A-Z]/ && $3 !~ /^(_init|_fini|__|_edata|_end)/ { print $3 }' | sort -u)
diff <(echo "$declared") <(echo "$exported") || {
	echo "left: declared in mirzam.h only; right: exported only"
	exit 1
}
