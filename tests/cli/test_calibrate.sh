#!/usr/bin/env bash
# mirzam calibrate: the side-car beside a model, the table, what is refused, and that it is found.
#
# usage: test_calibrate.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_model "calibration"
texts=$root/data/gsmini-calib.jsonl
ln -s "$root/data/gsmini-6m.mzm" "$work/a.mzm"
ln -s "$root/data/gsmini-6m-relu.mzm" "$work/b.mzm"

# calibrate OPTION... : standard output in $work/out, messages in $work/err, exit code in $code
calibrate() {
	"$mirzam" calibrate --threads 1 --tokens 400 "$@" > "$work/out" 2> "$work/err"
	code=$?
}

calibrate -m "$work/a.mzm" --data "$texts" --fit cats,static --keep 0.2,0.5
report "calibrates" test $code -eq 0
report "the side-car is beside the model" test -s "$work/a.mzc"
report "the table has predictors and keeps" grep -qE '^topk +0\.2 .* [01]\.[0-9]{3}' "$work/out"
report "fitted ones, too" grep -qE '^cats +0\.5 ' "$work/out"
report "and says what was learned from" grep -q 'a.mzc: learned from 320 tokens, measured on 80' "$work/err"

"$mirzam" run -q -m "$work/a.mzm" --threads 1 --question "Tom has 3 pens. He buys 4 more. How many pens has Tom?" \
	--mode sparse --predictor cats --keep 0.3 -n 12 > "$work/out" 2> "$work/err"
code=$?
report "a model finds its side-car" test $code -eq 0
"$mirzam" run -q -m "$work/a.mzm" -p x --mode sparse --predictor cats -n 2 --calib off > "$work/out" 2> "$work/err"
code=$?
report "--calib off does without" test $code -eq 2
report "and the predictor says what it needs" grep -q 'needs a calibration.*mirzam calibrate -m' "$work/err"
"$mirzam" run -q -m "$work/b.mzm" -p x -n 2 --calib "$work/a.mzc" > "$work/out" 2> "$work/err"
code=$?
report "another model's side-car is a bad file" test $code -eq 3
report "and says so" grep -q 'a.mzc: it was made for another model.*--calib off' "$work/err"
head -c 2000 "$work/a.mzc" > "$work/b.mzc"
"$mirzam" eval -q -m "$work/b.mzm" --limit 1 --mode dense > "$work/out" 2> "$work/err"
code=$?
report "a truncated one beside the model is a bad file" test $code -eq 3
"$mirzam" eval -q -m "$work/b.mzm" --limit 1 --mode dense --calib off > "$work/out" 2> "$work/err"
code=$?
report "unless it is not wanted" test $code -eq 0
calibrate -m "$work/b.mzm" --data "$texts" --fit cats
report "which does not keep it from being made anew" test $code -eq 0
report "a table of a ReLU model counts active neurons" grep -q 'active' "$work/out"

calibrate -m "$work/a.mzm" --data "$texts" --fit static --json - -o "$work/c.mzc" --limit 5
report "--json -" test $code -eq 0
cp "$work/out" "$work/report.json"
report "has the figures" test "$(field .n_train "$work/report.json")" -eq 320
calibrate -m "$work/a.mzm" --data "$texts" --fit static --layers -o "$work/c.mzc" --limit 5
report "--layers" grep -qE '^  layer 5 ' "$work/out"

# texts of other kinds
printf '{"text": "%s"}\n\n{"text": "%s", "more": 1}\n' "$(head -c 3000 "$root/LICENSE" | tr -d '\n"\\')" \
	"$(tail -c 3000 "$root/LICENSE" | tr -d '\n"\\')" > "$work/t.jsonl"
calibrate -m "$work/a.mzm" --data "$work/t.jsonl" --data "$root/LICENSE" --fit static -o "$work/c.mzc"
report "plain text and lines of text" test $code -eq 0

# what is refused
calibrate -m "$work/a.mzm"
report "no text" test $code -eq 2
calibrate -m "$work/a.mzm" --data "$work/absent.txt"
report "an absent text" test $code -eq 1
printf 'not JSON\n' > "$work/bad.jsonl"
calibrate -m "$work/a.mzm" --data "$work/bad.jsonl"
report "a broken line" test $code -eq 3
report "is named" grep -q 'bad.jsonl:1:' "$work/err"
printf 'Too short.' > "$work/short.txt"
calibrate -m "$work/a.mzm" --data "$work/short.txt"
report "too little text" test $code -eq 2
calibrate -m "$work/a.mzm" --data "$texts" --fit cats,statics
report "an unknown fit" test $code -eq 2
report "is corrected" grep -q 'did you mean static' "$work/err"
calibrate -m "$work/a.mzm" --data "$texts" --keep 0.5,2
report "a keep above 1" test $code -eq 2
cp "$texts" "$work/texts.jsonl"
calibrate -m "$work/a.mzm" --data "$work/texts.jsonl" -o "$work/texts.jsonl" --fit static
report "an output that is an input" test $code -eq 2
report "which is still there" cmp -s "$texts" "$work/texts.jsonl"
"$mirzam" calibrate --fit list > "$work/out" 2> "$work/err"
report "--fit list" grep -q '^cats ' "$work/out"

# interruption
"$mirzam" calibrate -q -m "$work/a.mzm" --data "$texts" -o "$work/gone.mzc" --threads 1 > "$work/out" 2> "$work/err" &
pid=$!
sleep 0.7
kill -INT "$pid"
wait "$pid"
code=$?
report "Ctrl-C ends it with 130" test $code -eq 130
report "and leaves nothing" test ! -e "$work/gone.mzc" -a ! -e "$work/gone.mzc.partial"

end
