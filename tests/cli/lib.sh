# lib.sh - what shell tests share: the program, the tree, a folder for their files, TAP. To be sourced.
#
# environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Sets mirzam, root and work; the folder goes at exit.
# shellcheck shell=bash

# shellcheck disable=SC2034
mirzam=${MIRZAM:?path of the program}
root=${MIRZAM_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export MIRZAM_DATA=$root/data LC_ALL=C
n=0 failed=0 code=0

# report NAME CONDITION... : one line of TAP; of a failure also $code and what is in $work/err
report() {
	local name=$1
	shift
	n=$((n + 1))
	if "$@"; then
		echo "ok $n - $name"
	else
		failed=$((failed + 1))
		echo "not ok $n - $name"
		echo "#   exit code $code; stderr: $(head -c 600 "$work/err" 2> /dev/null | tr '\n' '|' | tr -cd '[:print:]')"
	fi
}

# skip NAME REASON
skip() {
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# end : the plan; false when something failed
end() {
	echo "1..$n"
	[[ $failed -eq 0 ]]
}

# skip_all NAME REASON : all of this test
skip_all() {
	skip "$@"
	end
	exit 0
}

# need_model NAME : the demo model, else all is skipped
need_model() {
	[[ -f $root/data/gsmini-6m.mzm ]] || skip_all "$1" "data/gsmini-6m.mzm is absent"
}

# field PATH FILE : of JSON
field() {
	awk -f "$root/tests/cli/json.awk" "$2" | awk -F '\t' -v path="$1" '$1 == path { print $2 }'
}
