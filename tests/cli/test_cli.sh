#!/usr/bin/env bash
# The program as its users meet it: usage errors, exit codes, outputs, colour, interruption.
#
# usage: test_cli.sh [MIRZAM [SOURCE_DIR]]      or by the environment: MIRZAM, MIRZAM_ROOT
# Uses the shipped demo model; without it, the one in MIRZAM_SHARED; without that, skips what needs a model.
# Prints TAP; needs no root and no network.
set -u

mirzam=${1:-${MIRZAM:?path of the program}}
root=${2:-${MIRZAM_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}}
here=$root/tests/cli
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
unset NO_COLOR MIRZAM_DATA
export TERM=xterm LC_ALL=C

n=0 failed=0 skipped=0
code=0 out=$work/out err=$work/err
question='Ben has 12 apples. He buys 7 more. He gives Olga 5 apples. How many apples does Ben have in the end?'

ok() {
	n=$((n + 1))
	echo "ok $n - $1"
}

not_ok() {
	n=$((n + 1))
	failed=$((failed + 1))
	echo "not ok $n - $1"
	echo "#   exit code $code; stderr: $(head -c 400 "$err" | tr '\n' '|' | tr -cd '[:print:]')"
	echo "#   stdout: $(head -c 200 "$out" | tr '\n' '|' | tr -cd '[:print:]')"
}

skip() {
	n=$((n + 1))
	skipped=$((skipped + 1))
	echo "ok $n - $1 # SKIP $2"
}

# check NAME COMMAND... : ok when the command succeeds
check() {
	local name=$1
	shift
	if "$@"; then ok "$name"; else not_ok "$name"; fi
}

# call ARGUMENT... : runs the program; code, $out and $err hold what came of it
call() {
	"$mirzam" "$@" > "$out" 2> "$err" < /dev/null
	code=$?
}

# expect NAME CODE TEXT ARGUMENT... : exit code, and a text on stderr ("" = stderr is empty)
expect() {
	local name=$1 want=$2 text=$3
	shift 3
	call "$@"
	if [[ $code == "$want" ]] && { if [[ -n $text ]]; then grep -qF -- "$text" "$err"; else [[ ! -s $err ]]; fi; }; then
		ok "$name"
	else
		not_ok "$name (wanted $want and \"$text\")"
	fi
}

# usage NAME TEXT ARGUMENT... : exit code 2, the text, a hint, nothing on stdout
usage() {
	local name=$1
	expect "$1" 2 "$2" "${@:3}"
	[[ ! -s $out ]] || not_ok "$name: nothing on stdout"
	grep -q '^try: mirzam .*--help$' "$err" || not_ok "$name: says where help is"
}

json() {
	awk -f "$here/json.awk" "${1:-$out}"
}

# field PATH [FILE] : the value at a path
field() {
	json "${2:-$out}" | awk -F '\t' -v path="$1" '$1 == path { print $2 }'
}

# ---- no command, help, version ----

call
check "no command: exit 2, help on stderr" test "$code" = 2 -a ! -s "$out" -a -s "$err"
expect "--help" 0 "" --help
expect "help" 0 "" help
for command in run chat eval import inspect synth tokenize; do
	grep -q "^  $command " "$out" || not_ok "help lists $command"
done
expect "--version" 0 "" --version
check "--version: version, kernels, predictors" \
	eval 'grep -q "^mirzam [0-9]*\.[0-9]*\.[0-9]*$" "$out" && grep -q "^kernels: .*scalar" "$out" && grep -q "griffin" "$out"'
usage "unknown command" "unknown command rnu; did you mean run?" rnu
usage "unknown option for command" "unknown option --frobnicate" --frobnicate
usage "help on an unknown command" "unknown command nothing" help nothing

model_options="--model --isa --threads --ctx --no-onednn"
decoding="--mode --draft --predictor --keep --period --check-below --threshold --check-temp --accept --tree --tree-path
	--ablate --temp --top-k --top-p --min-p
	--repeat-penalty --repeat-last --seed --max-tokens --stop --ignore-eos"
declare -A contract=(
	[run]="$model_options $decoding --prompt --file --question --json --trace --stats --compare --show-drafts"
	[chat]="$model_options $decoding --system --system-file --template --load --save --no-history --show-drafts --json
		--stats"
	[eval]="--model $decoding --task --data --limit --json --report --results --resume"
	[import]="--output --quant --draft-quant --quant-method --zstd"
	[synth]="--arch --layers --inflate --model --seed --output --quant --draft-quant --zstd"
	[inspect]="--verify --json --tensors --quality --against --text --limit"
	[tokenize]="--model --ids --special --parse-special --decode"
)
for command in run chat eval import inspect synth tokenize; do
	call "$command" --help
	missing=""
	for option in ${contract[$command]} --help --color; do
		grep -q -- " $option\b" "$out" || missing+=" $option"
	done
	check "$command --help: exit 0, every option of the contract$missing" test "$code" = 0 -a -z "$missing" -a ! -s "$err"
	check "$command --help fits 80 columns" eval '! grep -q ".\{81\}" "$out"'
	cp "$out" "$work/help"
	call help "$command"
	check "help $command is $command --help" cmp -s "$out" "$work/help"
done
if [[ -f $root/docs/mirzam.1 ]]; then
	missing=""
	for command in run chat eval import inspect synth tokenize; do
		for option in $("$mirzam" "$command" --help | sed -n 's/^  \(-.,\|   \) --\([a-z-]*\).*/\2/p'); do
			grep -q "^\.It Fl \(. , \)\?-$option\( \|$\)" "$root/docs/mirzam.1" || missing+=" $command:$option"
		done
	done
	for predictor in $("$mirzam" --version | sed -n 's/^predictors: //p'); do
		grep -q "^\.Cm $predictor\b" "$root/docs/mirzam.1" || missing+=" $predictor"
	done
	check "the manual page has every option and predictor$missing" test -z "$missing"
else
	skip "manual page" "$root/docs/mirzam.1 is not there"
fi
call run --help
for predictor in $("$mirzam" --version | sed -n 's/^predictors: //p'); do
	grep -qw "$predictor" "$out" || not_ok "run --help lists predictor $predictor"
done

# ---- wrong usage: exit 2 and what is wrong ----

usage "run: no prompt" "no prompt: give -p TEXT" run
usage "run: two prompts" "more than one prompt" run -p a --question b
usage "run: stray argument" 'unexpected argument "stray"' run -p a stray
usage "run: unknown option" "unknown option --keeep; did you mean --keep?" run -p a --keeep 0.5
usage "run: unknown letter" "unknown option -Z" run -p a -Z
usage "run: missing value" "--keep needs a value: a number above 0 and at most 1" run -p a --keep
usage "run: flag with value" "--json takes no value" run -p a --json=1
usage "run: keep 0" '--keep wants a number above 0 and at most 1, not "0"' run -p a --keep 0
usage "run: keep above 1" 'not "1.5"' run -p a --keep 1.5
usage "run: keep nan" 'not "nan"' run -p a --keep nan
usage "run: period 0" '--period wants a whole number from 1 to 32 or auto, not "0"' run -p a --period 0
usage "run: period 33" 'not "33"' run -p a --period 33
usage "run: check-below" "--check-below wants a number from 0 to 1" run -p a --check-below 1.1
usage "run: threshold" "--threshold wants a number from 0 to 1" run -p a --threshold 1.1
usage "run: check-temp" "--check-temp wants a number from 0.01" run -p a --check-temp 0
usage "run: tree" '--tree wants a whole number from 1 to 10, not "11"' run -p a --mode exact --tree 11
usage "run: tree path" "--tree-path wants one of longest, likeliest, jump" run -p a --tree-path short
usage "run: sampling with a tree" "not defined for trees" run -p a --mode exact --tree 2 --temp 0.5
usage "run: ablate" 'unknown part "roll"; there are kv-rewrite, rollback and bonus' run -p a --mode sirius --ablate bonus,roll
usage "run: ablate exact" "exact mode leaves no part" run -p a --mode exact --ablate bonus
usage "run: ablate lossless" "lossless mode leaves no part" run -p a --mode lossless --ablate bonus
usage "run: threads" "--threads wants a whole number from 0" run -p a --threads -1
usage "run: max tokens" "--max-tokens wants a whole number of 0 or more" run -p a -n -5
usage "run: number with a tail" 'not "5x"' run -p a -n 5x
usage "run: seed" "--seed wants a whole number of 0 or more" run -p a --seed 18446744073709551616
usage "run: mode" "did you mean sirius?" run -p a --mode sirus
usage "run: accept" "--accept wants one of sirius, reference, relative, typical" run -p a --accept all
usage "run: unknown predictor" "--predictor wants one of" run -p a --predictor nosuch
usage "run: unknown isa" "--isa wants one of auto" run -p a --isa quantum
usage "run: draft" "unknown drafter" run -p a --draft tree
usage "run: empty stop string" "stop" run -p a --stop ""
usage "run: sampling in sirius mode" "sirius" run -p a --mode sirius --temp 0.7
usage "run: sampling in --compare" "sirius" run -p a --compare --temp 0.7
usage "run: --compare and --mode" "it takes no --mode" run -p a --compare --mode exact
usage "run: --compare and --trace" "does not go with --compare" run -p a --compare --trace "$work/t"
usage "colour" "--color wants one of auto, always, never" run -p a --color blue
usage "import: no source" "no source" import -o "$work/x.mzm"
usage "import: no output" "no output: give -o FILE" import somewhere
usage "import: quant" "--quant wants one of source, bf16, f16, f32, q8, q4" import a -o b --quant q5
usage "import: draft" "--draft-quant wants one of source, q8, q4, off" import a -o b --draft-quant bf16
usage "inspect: text" "--against, --text and --limit go with --quality" inspect a --against b
usage "inspect: quality" "--quality goes with none of --verify, --tensors and --speed" inspect a --quality --verify
usage "import: zstd" "--zstd wants a whole number from 1 to 19, off or auto" import a -o b --zstd 20
usage "synth: nothing to make" "give --arch NAME or --inflate N" synth -o x
usage "synth: no output" "no output: give -o FILE" synth --arch gsmini-6m
usage "synth: both kinds" "exclude each other" synth --arch gsmini-6m --inflate 2 -o x
usage "synth: a model for random weights" "-m belongs to --inflate" synth --arch gsmini-6m -m a -o x
usage "synth: layers of an inflated model" "--layers belongs to --arch" synth --inflate 2 --layers 1 -o x
usage "synth: shape" "--arch wants one of gsmini-6m" synth --arch gpt -o x
usage "synth: too many layers" "gsmini-6m has 6 layers" synth --arch gsmini-6m --layers 7 -o x
usage "synth: factor" "--inflate wants a whole number from 1 to 1024" synth --inflate 0 -o x
usage "inspect: no model" "no model" inspect
usage "inspect: two models" 'unexpected argument "b"' inspect a b
usage "tokenize: no text" "no text" tokenize
usage "tokenize: two texts" "more than one text" tokenize a b
usage "tokenize: decode with --ids" "--decode goes with none" tokenize --decode --ids 1

# ---- files that are not there, or not models ----

expect "missing model: exit 1, named" 1 "$work/none.mzm: " run -m "$work/none.mzm" -p a
expect "missing prompt file" 1 "$work/none.txt: No such file" run -f "$work/none.txt"
echo hi > "$work/prompt.txt"
expect "an output must not replace an input" 2 "reads it" run -f "$work/prompt.txt" -n 2 --trace "$work/prompt.txt"
expect "the prompt is still there" 0 "" tokenize "$(cat "$work/prompt.txt")"
expect "a trace needs a file" 2 "needs a file" run -p hi -n 2 --trace -
expect "prompt file is a directory" 1 "$work: " run -f "$work"
mkdir "$work/empty"
call run -m "$work/empty" -p a
check "empty directory as model: exit 1 or 3, named" eval '[[ $code == [13] ]] && grep -qF "$work/empty" "$err"'
echo "this is no model, whatever its name says" > "$work/bad.mzm"
expect "no container: exit 3" 3 "$work/bad.mzm: " run -m "$work/bad.mzm" -p a
expect "inspect no container: exit 3" 3 "$work/bad.mzm: " inspect "$work/bad.mzm"
: > "$work/zero.mzm"
expect "empty container: exit 3" 3 "$work/zero.mzm: " inspect "$work/zero.mzm"
expect "inspect missing" 1 "$work/none.mzm: " inspect "$work/none.mzm"
expect "import missing source" 1 "$work/none: " import "$work/none" -o "$work/x.mzm"
check "failed import leaves nothing" test ! -e "$work/x.mzm"
echo '{"model": 5}' > "$work/tokenizer.json"
expect "bad tokenizer: exit 3" 3 "tokenizer.json: " tokenize -m "$work/tokenizer.json" a
MIRZAM_DATA=$work/empty expect "demo model missing: says what to do" 1 "MIRZAM_DATA" run -p a

# ---- a model ----

shared=${MIRZAM_SHARED:-}
model=$root/data/gsmini-6m.mzm
if [[ ! -f $model && -d $shared/models/gsmini-6m ]]; then
	model=$work/gsmini.mzm
	"$mirzam" import -q "$shared/models/gsmini-6m" -o "$model" || exit 1
fi
if [[ ! -f $model ]]; then
	skip "everything that needs a model" "neither $model nor MIRZAM_SHARED/models/gsmini-6m is there"
	echo "1..$n"
	exit $((failed > 0))
fi
run=(run -m "$model" --question "$question")

call "${run[@]}"
cp "$out" "$work/dense"
check "run: text on stdout, nothing on stderr" eval '[[ $code == 0 && ! -s "$err" ]] && grep -q "12 + 7 = 19" "$out"'
call "${run[@]}" --mode exact
check "exact gives the dense text" cmp -s "$out" "$work/dense"
call "${run[@]}" --mode sirius --predictor topk --keep 1
check "keep 1 gives the dense text" cmp -s "$out" "$work/dense"
call "${run[@]}" --mode sirius --threshold 0.6 --keep 0.3
check "threshold above 0.5 gives the dense text" cmp -s "$out" "$work/dense"
printf 'Question: %s\nAnswer:\n' "$question" > "$work/prompt"
call run -m "$model" -f "$work/prompt"
check "-f: the same prompt from a file" cmp -s "$out" "$work/dense"
"$mirzam" run -m "$model" -p - < "$work/prompt" > "$out" 2> "$err"
check "-p -: the same prompt from standard input" cmp -s "$out" "$work/dense"
call "${run[@]}" -n 3 --json
check "-n 3 gives 3 tokens" test "$(field '.tokens[2]')" != "" -a "$(field '.tokens[3]')" = "" -a "$(field .finish)" = '"length"'
call "${run[@]}" --stop " = " --json
check "--stop: not part of the text" eval '[[ $(field .finish) == "\"stop\"" && $(field .text) != *" = "* ]]'
call "${run[@]}" --temp 0.8 --seed 3 && cp "$out" "$work/sampled"
call "${run[@]}" --temp 0.8 --seed 3 --mode exact
check "sampling: exact gives the dense text of the seed" cmp -s "$out" "$work/sampled"
call "${run[@]}" --mode lossless
check "lossless gives the dense text when greedy" cmp -s "$out" "$work/dense"
call "${run[@]}" --temp 2 --seed 3 --mode lossless --draft ngram+sparse && cp "$out" "$work/sampled"
call "${run[@]}" --temp 2 --seed 3 --mode lossless --draft ngram+sparse
check "lossless: a seed gives its text again" eval '[[ -s $out ]] && cmp -s "$out" "$work/sampled"'
call "${run[@]}" --temp 2 --seed 4 --mode lossless --draft ngram+sparse
check "lossless: another seed, another text" eval '! cmp -s "$out" "$work/sampled"'

call "${run[@]}" --stats --mode sirius
check "--stats: summary on stderr, text on stdout" eval 'grep -q "work per token" "$err" && [[ -s $out ]]'
expect "prompt beyond the context: exit 1" 1 "context" run -m "$model" --ctx 16 --question "$question"
expect "empty prompt: exit 2" 2 "prompt is empty" run -m "$model" -p ""

# ---- JSON and trace ----

call "${run[@]}" --mode sirius --keep 0.4 --period 8 --json --trace "$work/trace"
check "--json: one valid object" eval 'json > "$work/flat"'
for key in prompt_tokens tokens; do
	check "--json: $key are ids" grep -q "^\.$key\[0\]	[0-9]*$" "$work/flat"
done
for key in text finish checks aal aal_paper density effective_density work_per_token sparse_passes dense_passes \
	rollback_tokens accepted corrected prefill_tok_per_s tok_per_s bytes_read settings.mode settings.predictor; do
	grep -q "^\.$key	" "$work/flat" || not_ok "--json has $key"
done
cp "$out" "$work/json"
tokens=$(grep -c '^\.tokens\[' "$work/flat")
{ echo '['; sed '$!s/$/,/' "$work/trace"; echo ']'; } > "$work/array"
check "--trace: every line is a JSON object" \
	eval '[[ $(json "$work/array" | grep -c "^\[[0-9]*\]\.pos	") == $(wc -l < "$work/trace") && -s $work/trace ]]'
check "--trace: a line a token of the text" test "$(grep -cv '"rolled_back"' "$work/trace")" = "$tokens"
check "--trace: a line a rolled-back token" \
	test "$(grep -c '"rolled_back"' "$work/trace")" = "$(field .rollback_tokens "$work/json")"
check "--trace: corrected tokens" test "$(grep -c '"corrected"' "$work/trace")" = "$(field .corrected "$work/json")"
check "this run rolled tokens back" test "$(field .rollback_tokens "$work/json")" -gt 0
for key in pos id token kind draft_prob margin entropy confidence full_prob check block time_us; do
	[[ $(grep -c "\"$key\":" "$work/trace") == "$(wc -l < "$work/trace")" ]] || not_ok "--trace: $key in every line"
done
check "--trace: values that do not apply are null" eval 'head -n 1 "$work/trace" | grep -q "\"draft_prob\":null"'
call "${run[@]}" --mode sirius --period auto --json
check "--period auto: costs in JSON" eval '[[ $(field .settings.period) == "\"auto\"" && $(field .costs.sparse) != "" ]]'
call "${run[@]}" --compare --json
check "--compare --json: three rows" eval \
	'[[ $(field ".rows[0].mode") == "\"dense\"" && $(field ".rows[2].mode") == "\"sirius\"" && -z $(field ".rows[3].mode") ]]'
COLUMNS=100 call "${run[@]}" --compare
check "--compare: columns and table" eval 'grep -q "^dense  *sparse  *sirius$" "$out" && grep -q "^work per token" "$out"'
check "--compare keeps to the width" eval '! grep -q ".\{101\}" "$out"'
COLUMNS=40 call "${run[@]}" --compare
check "--compare: narrow terminal" test "$code" = 0

# ---- colour ----

plain() {
	sed -e $'s/\033\\[9;2;31m[^\033]*\033\\[0m//g' -e $'s/\033\\[[0-9;]*m//g' "$1"
}
marks=("${run[@]}" --mode sirius --keep 0.4 --period 8)
call "${marks[@]}"
cp "$out" "$work/text"
check "no colour in a pipe" eval '! grep -q $'"'\033'"' "$out"'
call "${marks[@]}" --color always
check "--color always marks corrected tokens" grep -qF $'\033[1;4;33m' "$out"
plain "$out" > "$work/plain"
check "without the marks it is the text" cmp -s "$work/plain" "$work/text"
call "${marks[@]}" --color always --show-drafts
check "--show-drafts strikes rolled-back tokens" grep -qF $'\033[9;2;31m' "$out"
plain "$out" > "$work/plain"
check "without marks and drafts it is the text" cmp -s "$work/plain" "$work/text"
if script -qec true /dev/null > /dev/null 2>&1; then
	printf -v line '%q ' "$mirzam" "${marks[@]}"
	script -qec "$line" /dev/null < /dev/null > "$out" 2> "$err"
	check "a terminal gets colour" grep -qF $'\033[1;4;33m' "$out"
	NO_COLOR=1 script -qec "$line" /dev/null < /dev/null > "$out" 2> "$err"
	check "NO_COLOR is heeded" eval '[[ -s "$out" ]] && ! grep -qF $'"'\033[1;4'"' "$out"'
	script -qec "$line --color never" /dev/null < /dev/null > "$out" 2> "$err"
	check "--color never is heeded" eval '[[ -s "$out" ]] && ! grep -qF $'"'\033[1;4'"' "$out"'
else
	skip "colour on a terminal" "no program script"
fi

# ---- output that fails, interruption ----

if [[ -w /dev/full ]]; then
	"$mirzam" "${run[@]}" > /dev/full 2> "$err"
	code=$?
	check "full disk, text: exit 1, said" eval '[[ $code == 1 ]] && grep -q "No space left" "$err"'
	"$mirzam" "${run[@]}" --json > /dev/full 2> "$err"
	code=$?
	check "full disk, JSON: exit 1, said" eval '[[ $code == 1 ]] && grep -q "No space left" "$err"'
	expect "full disk, trace: exit 1, said" 1 "/dev/full: No space left" "${run[@]}" --trace /dev/full
	"$mirzam" --help > /dev/full 2> "$err"
	code=$?
	check "full disk, help: exit 1, said" eval '[[ $code == 1 ]] && grep -q "No space left" "$err"'
else
	skip "full disk" "no /dev/full"
fi
expect "trace into a missing folder" 1 "No such file" "${run[@]}" --trace "$work/none/trace"
: > "$err"
"$mirzam" run -m "$model" -p "Question:" --ignore-eos -n 400 2> "$err" | head -c 1 > "$out"
code=${PIPESTATUS[0]}
check "closed pipe: a quiet end" test "$code" = 0 -a ! -s "$err"

"$mirzam" run -m "$model" -p "Question:" --ignore-eos --isa scalar --threads 1 --trace "$work/cut" > "$out" 2> "$err" &
pid=$!
for _ in $(seq 3000); do # a signal before the program listens would be lost: it comes from a script, so it is ignored
	[[ ! -s $out ]] || break
	sleep 0.02
done
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C: exit 130, no message" test "$code" = 130 -a ! -s "$err" -a -s "$out"
check "Ctrl-C: what was written is whole" eval 'tail -n 1 "$work/cut" | awk -f "$here/json.awk" /dev/stdin > /dev/null'

# ---- import, inspect, tokenize ----

expect "import" 0 "$work/again.mzm: " import "$model" -o "$work/again.mzm" --zstd off
call run -m "$work/again.mzm" --question "$question"
check "an imported copy gives the same text" cmp -s "$out" "$work/dense"
expect "import -q is quiet" 0 "" import -q "$model" -o "$work/again.mzm" --quant f32
check "import leaves no partial file" eval '[[ -z $(find "$work" -name "*.partial*") ]]'
expect "inspect" 0 "" inspect "$model"
check "inspect prints sections" test "$(wc -l < "$out")" -gt 5
call inspect "$model" --json
check "inspect --json is JSON" eval 'json > /dev/null'
expect "inspect --verify" 0 "every checksum fits" inspect "$model" --verify
expect "inspect --tensors" 0 "" inspect "$model" --tensors
call inspect "$model" --tensors
check "inspect --tensors lists them" grep -q "down" "$out"
expect "import --draft-quant" 0 "draft image: 37 matrices" import "$model" -o "$work/two.mzm" --draft-quant q4
call inspect "$work/two.mzm" --quality --text "$root/data/gsmini-test.jsonl" --limit 200 --json
check "inspect --quality --json is JSON" eval 'test $code = 0 && json > /dev/null && grep -q "\"kld_mean\"" "$out"'
expect "inspect --quality --against" 0 "" inspect "$work/two.mzm" --quality --against "$model" --text "$root/README.md" --limit 100
call inspect "$work/two.mzm" --quality --against "$model" --text "$root/README.md" --limit 100
check "inspect --quality compares both images" eval 'grep -q "^ *weights " "$out" && grep -q "^ *draft .*own weights" "$out"'
expect "inspect --quality without a reference" 2 "name a reference with --against" inspect "$model" --quality \
	--text "$root/README.md" --limit 10
echo '{"question": 1}' > "$work/bad.jsonl"
expect "inspect --quality: no problems" 3 "no JSON object with" inspect "$work/two.mzm" --quality --text "$work/bad.jsonl"
size=$(wc -c < "$work/again.mzm")
printf '\125' | dd of="$work/again.mzm" bs=1 seek=$((size * 2 / 3)) conv=notrunc 2> /dev/null
printf '\252' | dd of="$work/again.mzm" bs=1 seek=$((size * 2 / 3 + 1)) conv=notrunc 2> /dev/null
expect "inspect --verify finds a changed byte: exit 3" 3 "$work/again.mzm: " inspect "$work/again.mzm" --verify

expect "synth --inflate" 0 "$work/wide.mzm: " synth --inflate 2 -m "$model" -o "$work/wide.mzm"
call run -m "$work/wide.mzm" --question "$question"
check "an inflated model gives the same text" cmp -s "$out" "$work/dense"
call inspect "$work/wide.mzm"
check "inspect says that it is inflated" grep -q "^  kind *inflated" "$out"
expect "synth: inflated twice: exit 3" 3 "inflated already" synth --inflate 2 -m "$work/wide.mzm" -o "$work/x.mzm"
expect "synth --arch" 0 "" synth -q --arch gsmini-6m --layers 2 -o "$work/random.mzm"
expect "run without a tokenizer: exit 3" 3 "no tokenizer.json" run -m "$work/random.mzm" -p a
expect "eval without a tokenizer: exit 3" 3 "no tokenizer.json" eval -m "$work/random.mzm" --data "$root/data/gsmini-test.jsonl"
expect "inspect without a tokenizer" 0 "" inspect "$work/random.mzm" --verify -q
expect "synth: no such folder: exit 1" 1 "$work/none/x.mzm" synth --arch gsmini-6m -o "$work/none/x.mzm"
check "synth leaves no partial file" eval '[[ -z $(find "$work" -name "*.partial*" -o -name x.mzm) ]]'
# Large enough to be measured before it is packed, unless the disk cannot be read past the cache
expect "synth of a large model" 0 "$work/large.mzm: " synth --inflate 3 -m "$model" -o "$work/large.mzm"
said=$(grep '^compression: ' "$err")
call inspect "$work/large.mzm" --json
case $(field .provenance.packing.compression_pays) in
true) check "says that packing pays" eval '[[ $said == *"the disk reads "*" saves "*": packed" ]]' ;;
false) check "says that packing does not pay" eval '[[ $said == *"the disk reads "*"would save "*": stored raw" ]]' ;;
*) check "says nothing where nothing was measured" test -z "$said" ;;
esac
expect "synth --zstd off" 0 "large.mzm: " synth --inflate 3 -m "$model" -o "$work/large.mzm" --zstd off
check "off measures nothing" eval '! grep -q "^compression: " "$err"'
rm -f "$work/large.mzm"

expect "tokenize" 0 "" tokenize -m "$model" "17 + 5 = 22"
check "tokenize: a line a token" eval '[[ $(wc -l < "$out") -gt 3 ]] && grep -q "^ *[0-9]*  ." "$out"'
call tokenize -m "$model" --ids "17 + 5 = 22"
read -ra ids < "$out"
call tokenize -m "$model" --decode "${ids[@]}"
check "tokenize --decode gives the text back" test "$(cat "$out")" = "17 + 5 = 22"
printf 'a  b\n\tc' > "$work/odd"
"$mirzam" tokenize -m "$model" --ids - < "$work/odd" > "$out" 2> "$err"
"$mirzam" tokenize -m "$model" --decode - < "$out" > "$work/back" 2> "$err"
printf '\n' >> "$work/odd"
check "tokenize: standard input both ways" cmp -s "$work/odd" "$work/back"
expect "tokenize --decode: no id" 2 '"abc" is no token id' tokenize -m "$model" --decode abc
expect "tokenize --decode: beyond the vocabulary" 2 "they go from 0 to" tokenize -m "$model" --decode 99999999

# ---- drafters ----

call run -m "$model" -q --draft ngram+sparse --stats --question "Ben has 12 apples. He buys 7 more. How many apples does Ben have?"
check "--draft without --mode: exact" grep -q "^exact, period 16" "$err"
check "and who drafted what" grep -qE "^drafts: ngram [0-9]* of [0-9]* .*, sparse [0-9]* of [0-9]* tokens kept" "$err"
call run -m "$model" --draft ngram+none -p x
check "an unknown drafter: exit 2, and the names" eval '[[ $code == 2 ]] && grep -q "there are sparse.*ngram.*auto" "$err"'
drafters=(eval -m "$model" --data "$root/data/gsmini-test.jsonl" -q --limit 2)
call "${drafters[@]}" --draft ngram,sparse+ngram,auto --json -
check "eval --draft: dense, and a row for each list" \
	test "$(grep -o '"draft": "[a-z+]*"' "$out" | sort | uniq -c | tr -s ' ' | tr '\n' ',')" \
	= ' 2 "draft": "auto", 2 "draft": "ngram", 2 "draft": "sparse", 2 "draft": "sparse+ngram",' # settings and rows
check "all with the text of dense" test "$(grep -c '"same_as_dense": 1.0' "$out")" = 4
call eval -m "$root/data/gsmini-dijiang.mzm" --data "$root/data/gsmini-test.jsonl" -q --limit 3 --draft sparse,ngram,jacobi --json -
check "the demo model with linear attention: drafts of all kinds write its own text" \
	test "$(grep -c '"same_as_dense": 1.0' "$out")" = 4
call "${drafters[@]}" --draft ngram,
check "eval --draft: a name that is missing" eval '[[ $code == 2 ]] && grep -q "a name is missing" "$err"'

# ---- bench ----

quick=(bench -m "$model" --quick --repeats 3 --time 1 --peak-buffer 1M --threads 1 -n 8)
call "${quick[@]}"
check "bench: exit 0" test "$code" = 0
for row in "read memory" multiply "prefill 512" dense "check 8" "sparse griffin 0.5" "sparse topk 0.1" "exact 16"; do
	check "bench: a line for $row" grep -q "^  $row  *[0-9]" "$out"
done
check "bench: says what the numbers mean" grep -q "A dense token reads" "$out"
check "bench: nothing is forced unless asked" eval '! grep -qi forced "$out"'
call "${quick[@]}" --only generate --accept-rate 0.9 --period 8 --gen-predictor topk --json "$work/bench.json"
check "bench --accept-rate: every checked line says so" test "$(grep -c 'forced acceptance 0.9' "$out")" = 4
call "${quick[@]}" --only generate --draft sparse,ngram,sparse+ngram --period 8
check "bench --draft: every list of drafters has its lines" \
	test "$(grep -cE '^  exact (ngram |sparse\+ngram |)(8|auto) ' "$out")" = 6
call "${quick[@]}" --only generate --draft sparse,,ngram
check "bench --draft: a name that is missing" eval '[[ $code == 2 ]] && grep -q "a name is missing" "$err"'
check "bench --json: valid" eval 'json "$work/bench.json" > /dev/null'
check "bench --json: rows" eval '[[ $(field .rows[0].name "$work/bench.json") == "\"read memory\"" ]]'
check "bench --json: forced rate" eval '[[ $(field .settings.forced_accept_rate "$work/bench.json") == 0.9* ]]'
call "${quick[@]}" --only check,dense --json - --svg "$work/bench.svg"
check "bench --json -: JSON alone" eval 'json > /dev/null && [[ $(field .rows[3].name) == "\"check 1\"" ]]'
check "bench --svg: a picture" eval 'head -c 4 "$work/bench.svg" | grep -q "<svg" && tail -n 1 "$work/bench.svg" | grep -q "</svg>"'
call bench --arch gsmini-6m --layers 1 --quick --time 1 --peak-buffer 1M --threads 1 --only dense
check "bench --arch: random weights, and says so" eval '[[ $code == 0 ]] && grep -q "^gsmini-6m, 1 layers: bf16, 1 layer," "$out" && grep -q "random, in the shape of gsmini-6m" "$out"'
usage "bench: a shape and a file" "exclude each other" bench --arch gsmini-6m -m "$model"
usage "bench: layers of nothing" "--layers needs --arch" bench --layers 2
usage "bench: unknown measurement" "did you mean check" bench --only chek
usage "bench: unknown predictor" "did you mean griffin" bench --predictor grifin
usage "bench: keep out of range" "'1.5' is no share" bench --keep 0.5,1.5
usage "bench: too few repeats" "--repeats" bench --repeats 2
usage "bench: a context that is no number" "--ctx" bench -m "$model" --ctx abc
expect "bench: a context that does not fit" 1 "does not fit" bench -m "$model" --context 100000
expect "bench: not a model: exit 3" 3 "$here/json.awk" bench -m "$here/json.awk"
"$mirzam" bench -m "$model" --repeats 99 --time 300 --peak-buffer 1M --threads 1 > "$out" 2> "$err" < /dev/null &
pid=$!
sleep 1
kill -INT $pid
wait $pid
code=$?
check "bench, Ctrl-C: exit 130, what was measured or a message" eval '[[ $code == 130 ]] && { grep -q Interrupted "$out" || grep -q stopped "$err"; }'
expect "bench: output that cannot be made: known before measuring" 1 "No such file" bench -m "$model" --json "$work/none/a"

# ---- a model directory ----

if [[ -d $shared/models/gsmini-6m ]]; then
	call run -m "$shared/models/gsmini-6m" --question "$question"
	check "a Hugging Face directory gives the same text" cmp -s "$out" "$work/dense"
	mkdir "$work/silent"
	cp "$shared/models/gsmini-6m/config.json" "$shared/models/gsmini-6m/model.safetensors" "$work/silent"
	expect "directory without tokenizer: exit 3" 3 "tokenizer" run -m "$work/silent" -p a
	call tokenize -m "$work/silent" a
	check "tokenize without tokenizer: exit 1 or 3" eval '[[ $code == [13] ]] && grep -q tokenizer "$err"'
	rm "$work/silent/config.json"
	call run -m "$work/silent" -p a
	check "directory without config: exit 1 or 3" eval '[[ $code == [13] ]] && grep -q config.json "$err"'
else
	skip "model directories" "MIRZAM_SHARED/models/gsmini-6m is not there"
fi

echo "1..$n"
echo "# $((n - failed - skipped)) passed, $failed failed, $skipped skipped"
exit $((failed > 0))
