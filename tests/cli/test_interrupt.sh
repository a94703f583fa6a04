#!/usr/bin/env bash
# Interruptions: an evaluation killed at random points resumes to the same results, Ctrl-C leaves a file to go on
# with, an import that is interrupted or killed leaves no half-written model, a full disk is named.
#
# usage: test_interrupt.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_model "interruptions"
problems=${MIRZAM_SHORT:+6}
problems=${problems:-15}

evaluate() { # RESULTS OPTION...
	local results=$1
	shift
	exec "$mirzam" eval -q --limit "$problems" --mode dense,exact,sirius --predictor topk --threads 1 --jobs 2 \
		--results "$results" "$@" > "$work/out" 2> "$work/err"
}

# The lines of a results file without the times, in one order.
lines() {
	sed -E 's/"(prefill_ns|decode_ns|wall_ns)":[0-9]+//g' "$1" | sort
}

# ---- evaluation ----
(evaluate "$work/whole.jsonl")
report "uninterrupted run" test $? -eq 0
kills=0 tries=0
while [[ $kills -lt 12 && $tries -lt 60 ]]; do
	tries=$((tries + 1))
	(evaluate "$work/killed.jsonl" --resume) &
	pid=$!
	sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
	if kill -9 "$pid" 2> /dev/null; then
		wait "$pid" 2> /dev/null
		kills=$((kills + 1))
	else
		wait "$pid"
		break # it had finished
	fi
done
(evaluate "$work/killed.jsonl" --resume)
report "resumes after $kills times kill -9" test $? -eq 0
report "the same answers, whatever was killed" \
	test "$(lines "$work/killed.jsonl" | md5sum)" = "$(lines "$work/whole.jsonl" | md5sum)"

(evaluate "$work/stopped.jsonl" --limit 500) &
pid=$!
sleep 1
kill -INT "$pid"
wait "$pid"
code=$?
report "Ctrl-C ends an evaluation with 130" test $code -eq 130
report "and says how to go on" grep -q -- --resume "$work/err"

head -c -20 "$work/whole.jsonl" > "$work/torn.jsonl" # as a crash leaves it
(evaluate "$work/torn.jsonl" --resume)
report "a torn last line is done again" test "$(lines "$work/torn.jsonl" | md5sum)" = "$(lines "$work/whole.jsonl" | md5sum)"
(evaluate "$work/whole.jsonl" --resume --keep 0.7)
code=$?
report "other settings are refused" test $code -eq 3
report "and the setting is named" grep -q keep "$work/err"

# ---- import ----
model=$root/data/gsmini-6m.mzm
cp "$model" "$work/target.mzm"
for signal in INT KILL; do
	"$mirzam" import -q "$model" -o "$work/target.mzm" --zstd 19 2> "$work/err" &
	pid=$!
	sleep 0.5
	kill -$signal "$pid"
	wait "$pid" 2> /dev/null
	code=$?
	report "import ended by $signal" test $code -eq "$([[ $signal == INT ]] && echo 130 || echo 137)"
	report "the old model is whole after $signal" cmp -s "$model" "$work/target.mzm"
done
"$mirzam" import -q "$model" -o "$work/target.mzm"
report "and the next import takes over what the killed one left" test $? -eq 0
report "nothing else is left" test "$(find "$work" -name '*.partial*' | wc -l)" -eq 0
"$mirzam" inspect "$work/target.mzm" --verify > /dev/null
report "what it wrote is whole" test $? -eq 0

"$mirzam" synth -q --arch llama-3.2-1b -o "$work/random.mzm" 2> "$work/err" &
pid=$!
sleep 0.3
kill -INT "$pid"
wait "$pid"
code=$?
report "synth ended by INT" test $code -eq 130
report "and leaves nothing" test ! -e "$work/random.mzm" -a ! -e "$work/random.mzm.partial"

(ulimit -f 2000 && trap '' XFSZ && exec "$mirzam" import -q "$model" -o "$work/full.mzm" --zstd off 2> "$work/err")
code=$?
report "a file that cannot grow fails the import" test $code -eq 1
report "with the system's reason" grep -qiE 'large|space' "$work/err"
report "and leaves nothing" test ! -e "$work/full.mzm" -a ! -e "$work/full.mzm.partial"

end
