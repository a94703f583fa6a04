#!/usr/bin/env bash
# Drafts that skip layers, and those of a second model: the search from the command line, the options, what is refused.
#
# usage: test_skip.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_model "skipping"
ln -s "$root/data/gsmini-6m.mzm" "$work/a.mzm"
ln -s "$root/data/gsmini-6m-relu.mzm" "$work/b.mzm"
question="Tom has 3 pens. He buys 4 more. How many pens has Tom?"

# answer OPTION... : standard output in $work/out, messages in $work/err, exit code in $code
answer() {
	"$mirzam" run -q -m "$work/a.mzm" --threads 1 --question "$question" -n 30 "$@" > "$work/out" 2> "$work/err"
	code=$?
}

answer --mode dense
cp "$work/out" "$work/dense"
answer --mode exact --draft skip
report "no set, no drafts" test $code -eq 2
report "which says where sets come from" grep -q 'mirzam calibrate --skip' "$work/err"

"$mirzam" calibrate --threads 1 -m "$work/a.mzm" --data "$root/data/gsmini-calib.jsonl" --tokens 600 --fit cats --skip \
	--tries 24 > "$work/out" 2> "$work/err"
code=$?
report "calibrate --skip" test $code -eq 0
report "says what it found" grep -qE '^Layers that drafts of --draft skip leave out, of 24 sets tried: (attn|mlp):' "$work/out"
report "beside the fits that were named" grep -qE '^cats ' "$work/out"
set=$(sed -n 's/.*sets tried: //p' "$work/out")
answer --mode exact --draft skip --json
report "its set is used" test $code -eq 0 -a "$(field .settings.skip "$work/out")" = '"auto"'
cp "$work/out" "$work/auto.json"
answer --mode exact --draft skip --skip "$set" --json
report "as if it were given" test "$(field .density "$work/out")" = "$(field .density "$work/auto.json")"
answer --mode exact --draft skip
report "the text is the dense one's" cmp -s "$work/out" "$work/dense"
answer --mode exact --draft skip --skip "mlp:1-4" --skip-keep 0.5 --exit off --period 5
report "sparse FFNs, no exit" cmp -s "$work/out" "$work/dense"
answer --mode exact --draft skip --skip "mlp:6"
report "a layer that is not there" test $code -eq 2
answer --mode exact --draft skip --exit often
report "an exit that is none" test $code -eq 2
report "and what there is" grep -q 'adaptive nor off' "$work/err"

answer --mode exact --draft model --draft-model "$work/b.mzm"
report "a draft model" cmp -s "$work/out" "$work/dense"
answer --mode exact --draft model --draft-model "$work/b.mzm" --exit 0.5 --ram 100M --ctx 256
report "under a budget" cmp -s "$work/out" "$work/dense"
answer --mode exact --draft model --draft-model "$work/b.mzm" --ram 24M --ctx 256
report "one that is too small" test $code -eq 2
answer --mode exact --draft model
report "none was named" test $code -eq 2
report "which says how" grep -q 'draft-model' "$work/err"
answer --mode exact --draft model --draft-model "$work/absent.mzm"
report "it is not there" test $code -eq 1
answer --mode exact --draft model --draft-model "$root/tests/golden/qwen2"
report "other tokens" test $code -eq 2
"$mirzam" eval -q -m "$work/a.mzm" --threads 1 --limit 2 --mode dense,exact --draft model,skip,skip+model \
	--draft-model "$work/b.mzm" > "$work/out" 2> "$work/err"
code=$?
report "eval compares them" test $code -eq 0
report "all exact" test "$(grep -cE '^exact .* 100\.0 ' "$work/out")" -eq 3

end
