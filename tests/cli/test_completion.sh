#!/usr/bin/env bash
# Bash completion: commands, options, choices, predictors, files. TAP; no model needed.
#
# usage: test_completion.sh [MIRZAM [SOURCE_DIR]]      or by the environment: MIRZAM, MIRZAM_ROOT
set -u

mirzam=${1:-${MIRZAM:?path of the program}}
root=${2:-${MIRZAM_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}}
# shellcheck source=scripts/completion/mirzam.bash
source "$root/scripts/completion/mirzam.bash"
n=0 failed=0

# offers NAME WORD... :: WANTED... : the last WORD is being typed; every WANTED is offered, and nothing else ("..." =
# others may be)
offers() {
	local name=$1 words=("$mirzam") wanted more=0 word
	shift
	while [[ $1 != :: ]]; do
		words+=("$1")
		shift
	done
	shift
	COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
	_mirzam
	wanted=$#
	for word in "$@"; do
		if [[ $word == ... ]]; then
			more=1 wanted=$((wanted - 1))
		elif ! printf '%s\n' "${COMPREPLY[@]}" | grep -qxF -- "$word"; then
			wanted=-1
			break
		fi
	done
	n=$((n + 1))
	if [[ $wanted -lt 0 || ($more == 0 && $wanted != "${#COMPREPLY[@]}") ]]; then
		failed=$((failed + 1))
		echo "not ok $n - $name (offered: ${COMPREPLY[*]})"
	else
		echo "ok $n - $name"
	fi
}

offers "commands" "" :: run chat eval bench calibrate import inspect synth tokenize help --help --version
offers "a command begun" "to" :: tokenize
offers "help on a command" help "i" :: import inspect
offers "options" run "--t" :: --threads --threshold --temp --top-k --top-p --trace --tree --tree-path
offers "options of another command" import "--" :: --output --quant --zstd ...
offers "choices" run --mode "" :: dense sparse sirius exact lossless
offers "choices that are names with points" synth --arch "smollm2-1" :: smollm2-135m smollm2-1.7b
offers "choices after =" run --mode = "" :: dense sparse sirius exact lossless
offers "a choice begun after =" run --accept = "r" :: reference relative
offers "predictors" run --predictor "g" :: griffin griffin-live
offers "kernels" run --isa "a" :: auto ...
offers "types" import a --quant "f" :: f16 f32
offers "period" run --period "a" :: auto
offers "words of no help take nothing" run --seed "" ::
offers "a flag takes no value" run --json "--st" :: --stats --stop --store
cd "$root" || exit 1
offers "files for -m" run -m "include/mir" :: include/mirzam.h
offers "files for a template" chat --template "include/mir" :: include/mirzam.h
offers "files as arguments" inspect "include/mir" :: include/mirzam.h
echo "1..$n"
exit $((failed > 0))
