#!/usr/bin/env bash
# A model larger than its memory budget: in a cgroup whose limit is the budget the program answers, is not killed and
# stays below the limit, with the tokens of the resident model; a budget that is too small is refused.
#
# usage: test_budget.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
# Where no cgroup can be made the same runs are made without a limit, and what is about memory is skipped.
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/cgroup.sh
source "$root/scripts/cgroup.sh"
trap 'cgroup_remove; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
factor=${MIRZAM_SHORT:+3}
factor=${factor:-4}
question='Ben has 12 apples. He buys 7 more. He gives Olga 5 apples. How many apples does Ben have in the end?'

need_model "memory budgets"
if grep -qE '__[at]san_init' "$mirzam"; then
	skip_all "memory budgets" "a sanitizer has memory of its own, which no budget counts"
fi
unlimited=''
if ! cgroup_make; then
	unlimited=$cgroup_why
fi
cgroup_remove

# tokens FILE : of an answer, on one line
tokens() {
	awk -f "$root/tests/cli/json.awk" "$1" | awk -F '\t' '$1 ~ /^\.tokens\[/ { printf "%s ", $2 }'
}

# launch ARGUMENT... : the program, in the group if there is one
launch() {
	if [[ -n $cgroup ]]; then
		cgroup_run "$mirzam" "$@"
	else
		"$mirzam" "$@"
	fi
}

# answer NAME OPTION... : runs the model; the answer is $work/NAME
answer() {
	local name=$1
	shift
	launch run "${common[@]}" -m "$model" --question "$question" -n 8 --period 4 --json "$@" \
		> "$work/$name" 2> "$work/err"
	code=$?
}

# confined BYTES COMMAND... : the command in a group with this limit; sets peak, hits, kills
confined() {
	local bytes=$1
	shift
	cgroup_make
	cgroup_limit "$bytes"
	"$@"
	peak=$(cgroup_peak) hits=$(cgroup_hits) kills=$(cgroup_kills)
	cgroup_remove
}

# under BYTES NAME COMMAND... : the same, with a report on its memory
under() {
	local bytes=$1 name=$2 peak='' hits=0 kills=0
	shift 2
	if [[ -n $unlimited ]]; then
		"$@"
		skip "$name: memory" "$unlimited"
		return
	fi
	confined "$bytes" "$@"
	if [[ $hits -gt 0 && $kills -eq 0 ]]; then # it may be the first to read its libraries: once more
		confined "$bytes" "$@"
	fi
	echo "# $name: limit $((bytes >> 10)) KiB, peak $((${peak:-0} >> 10)) KiB, limit met $hits times"
	report "$name: nothing was killed" test "$kills" -eq 0
	report "$name: the limit was never met" test "$hits" -eq 0
	if [[ -n $peak ]]; then
		report "$name: the peak is below the limit" test "$peak" -lt "$bytes"
	else
		skip "$name: peak" "this kernel does not say it"
	fi
}

# The smallest budget, in MiB, as the refusal just made names it. What the program itself takes differs by some pages
# from run to run, and the smallest budget with it: hence half a MiB more where it must do.
named_smallest() {
	sed -n 's/.* at least \([0-9.]*\) MiB are needed.*/\1/p' "$work/err"
}

# bytes MIB
bytes() {
	awk -v x="$1" 'BEGIN { printf "%d", x * 1048576 }'
}

# try_budget NAME BYTES : in all modes
try_budget() {
	local name=$1 bytes=$2 mode wanted held
	if [[ $bytes -lt $least ]]; then # of so small a model, in a program of this size
		bytes=$least
	fi
	for mode in dense exact sirius; do
		under "$bytes" "$name, $mode" answer got --mode $mode --ram "$bytes" --store stream
		report "$name, $mode: answers" test "$code" -eq 0
		wanted=$mode
		[[ $mode != exact ]] || wanted=dense
		if [[ $mode == sirius && $(field .memory.draft_on_disk "$work/got") == true ]]; then
			wanted=sirius_without_image # there was no room for it
		elif [[ $mode == sirius && $(field .memory.n_held "$work/got") -gt 0 ]]; then
			held=$(field .memory.n_held "$work/got") # there was room for so many neurons of a layer
			wanted=reduced
			answer reduced --mode sirius --keep "$(awk -v n="$held" -v all=$((1024 * factor)) 'BEGIN { printf "%.9f", n / all }')"
		fi
		report "$name, $mode: streams" test "$(field .memory.store "$work/got")" = '"stream"'
		report "$name, $mode: the tokens of the resident model" test "$(tokens "$work/got")" = "$(tokens "$work/$wanted")"
	done
}

# try_eval BYTES : whole evaluations, resident and streamed
try_eval() {
	evaluate --results "$work/resident.jsonl"
	under "$1" "zstd $zstd, eval" evaluate --ram "$1" --store stream --results "$work/streamed.jsonl"
	report "zstd $zstd, eval: ends well" test "$code" -eq 0
	report "zstd $zstd, eval: the answers of the resident model" test -s "$work/streamed.jsonl" -a \
		"$(answers "$work/resident.jsonl")" = "$(answers "$work/streamed.jsonl")"
}

evaluate() {
	rm -f "$work/streamed.jsonl"
	launch eval "${common[@]}" -m "$model" --limit 2 -n 8 --period 4 --mode "dense,exact" "$@" > /dev/null 2> "$work/err"
	code=$?
}

answers() {
	sed -n 's/.*"mode":\("[a-z]*"\).*"id":\([0-9]*\).*"tokens":\(\[[^]]*\]\).*/\1 \2 \3/p' "$1" | sort
}

for zstd in off 1; do
	model=$work/model-$zstd.mzm
	common=(-q --ctx 256 --threads "$([[ $zstd == off ]] && echo 2 || echo 1)")
	"$mirzam" synth -q --inflate "$factor" -m "$root/data/gsmini-6m.mzm" --draft-quant q4 --zstd $zstd -o "$model" \
		2> "$work/err"
	report "zstd $zstd: a model to try" test $? -eq 0
	answer dense --mode dense
	weights=$(field .memory.weight_bytes "$work/dense")
	answer sirius --mode sirius
	answer sirius_without_image --mode sirius --no-draft-image
	report "zstd $zstd: the resident model answers" test -n "$(tokens "$work/sirius_without_image")"

	answer refused --ram 1M
	smallest=$(named_smallest)
	report "zstd $zstd: a budget that is too small is refused" test $code -eq 2 -a -n "$smallest"
	least=$(($(bytes "$smallest") + (1 << 19)))
	answer refused --ram "$(($(bytes "$smallest") - (1 << 20)))"
	report "zstd $zstd: so is one a MiB below the smallest" test $code -eq 2
	report "zstd $zstd: and the smallest is named" test -n "$(named_smallest)"
	try_budget "zstd $zstd, smallest budget" "$least"
	try_budget "zstd $zstd, a third" $((weights / 3))
	try_budget "zstd $zstd, half" $((weights / 2))
	try_eval $((least + weights / 4))
	rm -f "$model" "$work"/*.jsonl
done

end
