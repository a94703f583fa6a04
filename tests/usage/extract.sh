#!/usr/bin/env bash
# Prints the usage example that stands in mirzam.h's opening comment as a C file.
set -euo pipefail

awk '
	/^ \* Usage/       { inside = 1; next }
	/^ \* Contents/    { exit }
	inside && /^ \*     / { print substr($0, 8); next }
	inside            { print "" }
' "$1"
