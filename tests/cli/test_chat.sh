#!/usr/bin/env bash
# `mirzam chat` as its users meet it: conversations from a pipe, commands, templates, JSON, a full context, Ctrl-C, a
# terminal with editing and history.
#
# usage: test_chat.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
# shellcheck disable=SC2016 # conditions are evaluated where they are reported
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_model "chat"
shopt -s lastpipe # so that a function at the end of a pipe can set variables
out=$work/out err=$work/err
export XDG_STATE_HOME=$work/state TERM=xterm
unset NO_COLOR
ben='Ben has 12 apples. He buys 7 more. How many apples does Ben have?'
tom='Tom has 3 pens. He gives 1 pen to Ann. How many pens does Tom have?'
ann='Ann has 5 cups. She breaks 2 cups. How many cups does Ann have?'

# chat OPTION... : standard input is the conversation
chat() {
	"$mirzam" chat --template plain --threads 1 "$@" > "$out" 2> "$err"
	code=$?
}

# run_text PROMPT OPTION... : what `run` answers, without the blank before it
run_text() {
	"$mirzam" run -q --threads 1 -p "$@" | sed '1s/^ //'
}

# line N FILE : of a file, alone in one
line() {
	sed -n "$1p" "$2" > "$work/line"
	echo "$work/line"
}

# ids NAME FILE : of an array of ids in a line of JSON, with commas; n_ids: how many
ids() {
	grep -o "\"$1\": *\[[^]]*\]" "$2" | grep -o '[0-9][0-9, ]*' | tr -d ' '
}

n_ids() {
	ids "$@" | tr , '\n' | wc -l
}

says() {
	grep -qF -- "$1" "$err"
}

# ---- usage, templates ----

"$mirzam" chat < /dev/null > "$out" 2> "$err"
code=$?
report "a model without a template: exit 3" test $code -eq 3
report "and --template is named, with what is built in" eval 'says "--template" && says "chatml" && says "plain"'
chat --template nowhere.jinja < /dev/null
report "neither a file nor a name: exit 2" test $code -eq 2
report "and the names" says "one of chatml, llama2, llama3, mistral, zephyr, plain"
printf '{%% for m in messages %%}\n{{ m.content }}\n' > "$work/open.jinja"
chat --template "$work/open.jinja" < /dev/null
report "a template that does not end: exit 3" test $code -eq 3
report "and file and line are named" eval 'says "open.jinja" && says "line "'
printf '%s' "{% for m in messages %}{{ 'Question: ' + m.content + '\nAnswer:' if m.role == 'user' else
	' ' + m.content + '\n\n' }}{% endfor %}" > "$work/own.jinja"
echo "$ben" | chat
cp "$out" "$work/plain"
echo "$ben" | chat --template "$work/own.jinja"
report "a template from a file" cmp -s "$out" "$work/plain"
printf "{{ raise_exception('no systems here') if messages[0].role == 'system' }}Q: {{ messages[-1].content }}" \
	> "$work/strict.jinja"
echo "$ben" | chat --template "$work/strict.jinja" --system "You are brief."
report "a template that refuses the system message: exit 2, before any question" \
	eval '[[ $code == 2 && ! -s $out ]] && says "no systems here"'
for name in chatml llama2 llama3 mistral zephyr; do
	printf '%s\n%s\n' "$ben" "$tom" | chat --template $name --system "You are brief." -n 8
	report "built-in template $name" eval '[[ $code == 0 && ! -s $err ]]'
done
chat --system a --system-file b < /dev/null
report "two system messages: exit 2" test $code -eq 2
chat --no-special < /dev/null
report "--no-special: exit 2" test $code -eq 2
chat --system-file "$work/absent" < /dev/null
report "a system file that is absent: exit 1" eval '[[ $code == 1 ]] && says absent'
chat --ctx 9999 < /dev/null
report "a wrong option of the model: exit 2" test $code -eq 2

# ---- a conversation from a pipe ----

chat < /dev/null
report "no question: exit 0, nothing is said" eval '[[ $code == 0 && ! -s $out && ! -s $err ]]'
printf '%s\n' "$ben" | chat
report "one question: its answer and nothing else" eval '[[ $code == 0 && ! -s $err ]]'
report "the answer of run --question" cmp -s "$out" <("$mirzam" run -q --threads 1 --question "$ben" | sed '1s/^ //')

first=$(run_text "Question: $ben"$'\n'"Answer:" --no-onednn)
prompt="Question: $ben"$'\n'"Answer: $first"$'\n\n'"Question: $tom"$'\n'"Answer:"
second=$(run_text "$prompt" --no-onednn)
third=$(run_text "$prompt $second"$'\n\n'"Question: $ann"$'\n'"Answer:" --no-onednn)
printf '%s\n%s\n%s' "$ben" "$tom" "$ann" > "$work/three" # the last line has no end
printf '%s\n' "$first" "$second" "$third" > "$work/want"
for mode in dense exact; do
	chat --no-onednn --mode $mode --predictor topk < "$work/three"
	report "three turns, $mode: as if each had been asked with all before it" cmp -s "$out" "$work/want"
done
for predictor in $("$mirzam" --version | sed -n 's/^predictors: //p'); do
	"$mirzam" run -q -n 1 -p a --mode exact --predictor "$predictor" > "$work/one" 2>&1 || continue # it needs a file
	chat --no-onednn --mode exact --predictor "$predictor" --period auto < "$work/three"
	report "the same, exact mode with $predictor" cmp -s "$out" "$work/want"
done
sed 's/$/\r/' "$work/three" | chat --no-onednn
report "lines that end as on other systems" cmp -s "$out" "$work/want"
{ echo && cat "$work/three" && printf '\n   \n\n'; } | chat --no-onednn
report "blank lines are no questions" cmp -s "$out" "$work/want"
chat --color always --mode sirius --threshold 0.6 --show-drafts < "$work/three"
report "corrections are marked in colour" grep -q $'\033\\[1;4;33m' "$out"
{ echo "/show off" && cat "$work/three"; } | chat --color always --mode sirius --threshold 0.6
report "and not after /show off" eval '[[ $code == 0 ]] && ! grep -q $'"'\033\\[1;4;33m'"' "$out"'

printf '%s \\\n%s\n' "Ben has 12 apples." "He buys 7 more. How many?" | chat --json
report "a line that ends in a backslash goes on" \
	test "$(field .question "$out")" = '"Ben has 12 apples. \nHe buys 7 more. How many?"'
printf '"""\n%s\n\n%s\n"""\n/tokens\n' "/mode is no command here" "two" | chat --json
report "a block is one message" test "$(field .question "$out")" = '"/mode is no command here\n\ntwo"'
printf '"""in one line"""\n' | chat --json
report "a block of one line" test "$(field .question "$out")" = '"in one line"'
printf '"""\nnever\nended' | chat --json
report "a block that ends with the input" test "$(field .question "$out")" = '"never\nended"'
printf '//mode what\n' | chat --json
report "two slashes begin a message" test "$(field .question "$out")" = '"/mode what"'
printf 'a\377b\0c\n' | chat --json
report "bytes that are not UTF-8 are replaced" \
	test "$(field .question "$out")" = $'"a\xEF\xBF\xBDb\xEF\xBF\xBDc"'

# ---- JSON ----

chat --json --stats < "$work/three"
report "--json: a line a turn" test "$(wc -l < "$out")" -eq 3
report "turns are counted" test "$(field .turn "$(line 3 "$out")")" = 3
report "the second keeps what the first left" \
	test "$(field .kept_tokens "$(line 1 "$out")"),$(field .kept_tokens "$(line 2 "$out")")" \
	= "0,$(($(n_ids prompt_tokens "$(line 1 "$out")") + $(n_ids tokens "$(line 1 "$out")") - 1))"
missing=""
for name in question text finish tokens tok_per_s prefill_tok_per_s aal density checks settings.mode left_out_turns; do
	awk -f "$root/tests/cli/json.awk" "$(line 1 "$out")" | grep -q "^\.$name\b" || missing+=" $name"
done
report "what a line holds$missing" test -z "$missing"
report "--stats goes to stderr" test "$(grep -c '^prompt ' "$err")" -eq 3

# ---- text that spells special tokens ----

special=$("$mirzam" tokenize --ids --parse-special '<|endoftext|>')
printf 'a<|endoftext|>b<|endoftext|>\n' | chat --json --template chatml -n 4
report "a special token in a question stays text" \
	eval '[[ $code == 0 ]] && ! field .prompt_tokens "$out" | grep -qw "$special"'
ids=$(ids prompt_tokens "$out")
report "and its text is all there" test "$("$mirzam" tokenize --decode "$ids" | sed -n 2p)" = \
	'a<|endoftext|>b<|endoftext|><|im_end|>'
report "without one, there would be none" eval '[[ -n $special && ",$ids," != *",$special,"* ]]'
printf '%s' "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}" > "$work/special.jinja"
printf 'a<|endoftext|>b\n' | chat --json --template "$work/special.jinja" -n 4
report "that of a template is one" test "$(ids prompt_tokens "$out" | tr , '\n' | grep -cx "$special")" -eq 1

# ---- commands ----

printf '%s\n' "/mode exact" "/predictor topk" "/keep 0.3" "/period 4" "/threshold 0.2" "/mode" "/keep" "/period" \
	"/predictor" "/period auto" "/period" "$ben" "/stats" | chat
report "settings: exit 0" test $code -eq 0
report "a setting without a value shows it" \
	test "$(grep -cxE 'mode exact|keep 0.3|period 4|predictor topk|period auto' "$err")" -eq 5
report "and the answer is made so" grep -q "^exact, topk keep 0.3, period auto" "$err"
printf '%s\n' "/keep 7" "/keep" "/mode turbo" "/mode" "/temp hot" "/temp" "/period 99" "/period" "/predictor crystal" \
	"/predictor" "/threshold -1" "/threshold" | chat
report "wrong values: exit 2" test $code -eq 2
report "each is named" test "$(grep -c ' wants .*, not "' "$err")" -eq 6
report "and changes nothing" \
	test "$(grep -cxE 'keep 0.5|mode dense|temp 0|period 16|predictor griffin|threshold 0.1' "$err")" -eq 6
printf '%s\n' "/temp 0.8" "/mode sirius" "/mode" | chat
report "what does not go together is refused" eval '[[ $code == 2 ]] && grep -qx "mode dense" "$err"'
printf '%s\n' "/keeep 0.5" "$ben" | chat
report "an unknown command: the nearest, the list, and the talk goes on" \
	eval '[[ $code == 2 && -s $out ]] && says "unknown command /keeep; did you mean /keep?" && says "/undo"'
printf '/help\n' | chat
report "/help has every command" \
	test "$(grep -c '^  /' "$err")" -eq "$(printf '/x\n' | "$mirzam" chat --template plain 2>&1 | tail -n +2 | grep -o / | wc -l)"
printf '%s\n' "$ben" "$tom" "/undo" "$tom" "/retry" | chat --no-onednn
printf '%s\n' "$first" "$second" "$second" "$second" > "$work/again"
report "/undo, /retry: the same once more" cmp -s "$out" "$work/again"
report "/undo says what is forgotten" says "forgotten: $tom"
printf '%s\n' "$ann" "/clear" "$ben" "/tokens" | chat --no-onednn
report "/clear: as if nothing had been said" test "$(tail -n "$(wc -l <<< "$first")" "$out")" = "$first"
report "/tokens" grep -q "^[0-9]* of 1024 tokens used, [0-9]* left; 1 turn$" "$err"
printf '%s\n' "/undo" "/retry" "/stats" | chat
report "nothing to undo, to retry, to tell of" eval '[[ $code == 2 ]] && test "$(grep -c "^mirzam: there is no" "$err")" -eq 3'
printf '%s\n' "/quit" "$ben" | chat
report "/quit" eval '[[ $code == 0 && ! -s $out ]]'
printf '%s\n' "/temp 1" "$ben" "/retry" "/retry" "/seed" | chat -n 40 --seed 5
report "/retry with sampling draws anew" eval '[[ $code == 0 ]] && grep -qx "seed 7" "$err"'

printf '%s\n' "/system You count apples." "/system" "$ben" "/save $work/talk.jsonl" "/system \"\"" "/system" | chat --no-onednn
report "/system" eval 'says "You count apples." && says "(none)"'
report "/save" test "$(wc -l < "$work/talk.jsonl")" -eq 3
report "the system message is the first" \
	test "$(field .role "$(line 1 "$work/talk.jsonl")"),$(field .content "$(line 1 "$work/talk.jsonl")")" = '"system","You count apples."'
printf '%s\n' "$tom" | chat --no-onednn --load "$work/talk.jsonl" --save "$work/longer.jsonl"
cp "$out" "$work/loaded"
printf '%s\n' "$ben" "$tom" | chat --no-onednn --system "You count apples."
report "--load goes on as if it had not ended" \
	test "$(tail -n "$(wc -l < "$work/loaded")" "$out")" = "$(< "$work/loaded")"
report "--save has all of it" test "$(wc -l < "$work/longer.jsonl")" -eq 5
cp "$work/longer.jsonl" "$work/same.jsonl"
printf '%s\n' "$ann" | chat --load "$work/same.jsonl" --save "$work/same.jsonl"
report "it may be the file that was loaded" eval '[[ $code == 0 && $(wc -l < "$work/same.jsonl") == 7 ]]'
for broken in '{"role": "user"}' '{"role": "assistant", "content": "x"}' '{"role": "user", "content": "x"}' 'x' \
	'{"role": "user", "content": 7}' '{"role": "tool", "content": "x"}'; do
	echo "$broken" > "$work/broken.jsonl"
	chat --load "$work/broken.jsonl" < /dev/null
	report "a broken conversation is refused: $broken" eval '[[ $code == 3 ]] && says broken.jsonl'
done
chat --save "$work/no/folder" < "$work/three"
report "a file that cannot be made is told first" eval '[[ $code == 1 && ! -s $out ]] && says "no/folder"'

# ---- a full context ----

for _ in {1..12}; do printf '%s\n' "$ben" "$tom"; done | chat --ctx 200 -n 40 --json
report "more turns than the context holds: exit 0" test $code -eq 0
report "all are answered" test "$(wc -l < "$out")" -eq 24
report "and it is said on stderr" says "left out"
report "the prompt stays within it" \
	test "$(grep -o '"prompt_tokens": *\[[^]]*\]' "$out" | tr -cd ',\n' | awk '{ if (length > n) n = length } END { print n + 1 }')" -lt 200
printf '%s\n' "$(printf 'word %.0s' {1..300})" "$ben" | chat --ctx 200 -n 40
report "a message that is too long alone: exit 1, and the next is answered" \
	eval '[[ $code == 1 && -s $out ]] && says "the context holds 200"'
printf '%s\n' "$ben" "$tom" | chat --ctx 60 --ignore-eos --json
report "an answer up to the end of the context" eval '[[ $code == 0 ]] && says "the answer was cut"'
head -c 1000000 /dev/zero | tr '\0' 'x' | chat --ctx 200
report "a line of a megabyte" test $code -eq 1

# ---- ends ----

"$mirzam" chat --template plain -q < <(yes "$ben") 2> "$err" | head -c 10 > "$out"
code=${PIPESTATUS[0]}
report "nobody reads: the end, without a word" eval '[[ $code == 0 && ! -s $err ]]'
if [[ -e /dev/full ]]; then
	echo "$ben" | "$mirzam" chat --template plain > /dev/full 2> "$err"
	code=$?
	report "a full disk: exit 1" eval '[[ $code == 1 ]] && says "space"'
fi
yes "$ben" | head -n 2000 > "$work/many"
: > "$out"
"$mirzam" chat --template plain --ignore-eos --threads 1 < "$work/many" > "$out" 2> "$err" &
pid=$!
for _ in {1..100}; do
	[[ ! -s $out ]] || break
	sleep 0.1
done
kill -INT "$pid"
wait "$pid"
code=$?
report "Ctrl-C ends a conversation of a pipe: 130" test $code -eq 130
report "what was said until then is there" test -s "$out"
report "nothing typed, no history" test ! -e "$work/state"

# ---- a terminal ----

# at_terminal OPTIONS SHOWN STEP SHOWN STEP... : types each step (as printf takes it) once the terminal has shown, since
# the step before it, what the expression before it asks for: however long the program takes, nothing comes too early.
# The step ctrl-c is typed where a terminal makes a signal of it, and sent where it does not. What the terminal shows is
# in $out.
at_terminal() {
	local options=$1 at=0
	shift
	: > "$out"
	touch "$work/talking"
	{
		while [[ $# -gt 0 ]]; do
			for _ in {1..1500}; do
				! tail -c "+$((at + 1))" "$out" | grep -aqE "$1" || break
				sleep 0.02
			done
			at=$(stat -c %s "$out")
			# shellcheck disable=SC2059
			case $2$signals in
			ctrl-c) kill -INT "$(< "$work/pid")" ;;
			ctrl-ctyped) printf '\003' ;;
			*) printf "$2" ;;
			esac
			shift 2
		done
		for _ in {1..300}; do # the end of this input would be typed as Ctrl-D
			[[ -e $work/talking ]] || break
			sleep 0.1
		done
	} | {
		script -qefc "echo \$\$ > '$work/pid'; exec '$mirzam' chat --template plain --threads 1 $options" /dev/null \
			> "$out" 2> "$err"
		code=$?
		rm "$work/talking"
	}
}

# Whether Ctrl-C typed at a pseudo-terminal becomes a signal: not everywhere, as some sandboxes bring terminals of their
# own that make none.
makes_signals() {
	local asked="trap 'exit 42' INT; stty -icanon -echo; echo ready; sleep 1 & wait" code
	: > "$work/probe"
	{
		for _ in {1..500}; do
			! grep -q ready "$work/probe" || break
			sleep 0.02
		done
		printf '\003'
		sleep 2
	} | {
		script -qefc "$asked" /dev/null > "$work/probe" 2>&1
		code=$?
	}
	[[ $code == 42 ]]
}

if ! command -v script > /dev/null || [[ ! -r /dev/ptmx ]]; then
	skip "terminal" "script(1) is not there"
else
	shown='^> ' on='^\.* ' # the prompts: for a message, for its next line
	signals=
	if makes_signals; then signals=typed; fi
	[[ -n $signals ]] || echo "# Ctrl-C at a terminal makes no signal here: it is sent instead"
	at_terminal "" "$shown" "$ben\r" "$shown" '/stats\r' "$shown" '\004'
	report "a terminal: exit 0 at Ctrl-D" test $code -eq 0
	report "prompt, greeting, answer, command" eval 'grep -q "^> " "$out" && grep -q "/help lists" "$out" &&
		grep -q "#### " "$out" && grep -q "^prompt [0-9]* tokens" "$out"'
	at_terminal "" "$shown" 'half' half ctrl-c "again.*leaves" ctrl-c
	report "Ctrl-C at the prompt: the line is gone; the second one leaves" \
		eval '[[ $code == 0 ]] && grep -q "Ctrl-C again" "$out"'
	at_terminal "" "$shown" 'half' half ctrl-c "again.*leaves" "$tom\r" "$shown" ctrl-c "again.*leaves" '/quit\r'
	report "a line between them: it stays" eval '[[ $code == 0 ]] && test "$(grep -c "Ctrl-C again" "$out")" -eq 2'
	at_terminal "--ignore-eos --mode exact --predictor topk --period 1" \
		"$shown" "$ben\r" '####' ctrl-c "$shown" '/tokens\r' "$shown" '/quit\r'
	report "Ctrl-C stops an answer, and the talk goes on with what was said" \
		eval '[[ $code == 0 ]] && grep -q "left; 1 turn" "$out"'
	history=$work/state/mirzam/history
	if [[ -e $history ]]; then
		report "history is written for the user alone" \
			eval '[[ $(stat -c %a "$history") == 600 ]] && grep -q "Ben.*apples" "$history"'
		at_terminal "" "$shown" '\033[A' . '\033[A' . '\r' "$shown" '/quit\r'
		report "and read again: the line before the last" grep -q "of 1024 tokens used" "$out"
		at_terminal "" "$shown" '/tok\t\r' "$shown" '/quit\r'
		report "a command is completed" grep -q "0 of 1024 tokens used" "$out"
		rm -r "$work/state"
		at_terminal "--no-history" "$shown" '/tokens\r' "$shown" '/quit\r'
		report "--no-history" test ! -e "$work/state"
	else
		skip "history" "built without libedit"
	fi
	at_terminal "" "$shown" '"""\r' "$on" 'one\r' "$on" 'two"""\r' "$shown" '/undo\r' "$shown" '/quit\r'
	report "a block at a terminal" grep -q 'forgotten: one.ntwo' "$out"
fi
end
