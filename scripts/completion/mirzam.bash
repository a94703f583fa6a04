# mirzam.bash - completion of the program's commands, options and values for bash.
#
# Install as /usr/share/bash-completion/completions/mirzam, or: source mirzam.bash
# Everything offered is read from `mirzam COMMAND --help`, so that it is what this program knows:
# options, the choices behind "One of:", and files where the placeholder asks for one.
# shellcheck shell=bash

# _mirzam_option PROGRAM COMMAND OPTION : the placeholder, then the choices, one a line; nothing for flags
_mirzam_option() {
	"$1" "$2" --help 2> /dev/null | awk -v option="$3" '
		function choices(text,  list, n, i) {
			if (!match(text, /One of: ([^.]|[.][^ ])*[.]/)) # names may hold points
				return
			n = split(substr(text, RSTART + 8, RLENGTH - 9), list, /, */)
			for (i = 1; i <= n; i++)
				print list[i]
		}
		on && (/^$/ || /^  (-.,|   ) --/) { exit }
		/^  (-.,|   ) --/ { # "  -m, --model MODEL         A container ...": the text starts in column 29
			header = substr($0, 28, 1) == " " ? substr($0, 1, 27) : $0
			n = split(header, word, /[ ,]+/) # word[1] is empty
			short = word[2] ~ /^--/ ? "" : word[2]
			long = short == "" ? word[2] : word[3]
			placeholder = word[short == "" ? 3 : 4]
			on = (option == long || option == short) && placeholder != ""
			if (on)
				print placeholder
		}
		on { text = text " " substr($0, 29) }
		END { gsub(/ +/, " ", text); choices(text) }'
}

_mirzam_options() {
	"$1" "$2" --help 2> /dev/null | awk '/^  (-.,|   ) --/ { sub(/^  (-.,|   ) /, ""); print $1 }'
}

# Completes a value; known is what _mirzam_option said. Lists may be comma-separated (--mode dense,sirius).
_mirzam_value() {
	local program=$1 option=$2 known=$3 cur=$4 words before=""
	words=${known#*$'\n'}
	[[ $known == *$'\n'* ]] || words=""
	if [[ -z $words && $option == --mode ]]; then
		words=$(_mirzam_option "$program" run --mode | tail -n +2)
	elif [[ -z $words && $option == --predictor ]]; then
		words=$(_mirzam_option "$program" run --predictor | tail -n +2)
	elif [[ -z $words && $option == --fit ]]; then
		words="list $("$program" calibrate --fit list 2> /dev/null | awk '{ print $1 }')"
	elif [[ $option == --only ]]; then
		words="prefill dense context check sparse generate"
	elif [[ $option == --period ]]; then
		words="auto 4 8 16 32"
	elif [[ $option == --zstd ]]; then
		words="auto off 1 3 9 19"
	fi
	if [[ -n $words ]]; then
		[[ $cur != *,* ]] || before=${cur%,*},
		mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur##*,}")
	elif [[ ${known%%$'\n'*} == @(FILE|MODEL)* ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2> /dev/null
	fi
}

_mirzam() {
	local program=${COMP_WORDS[0]} command=${COMP_WORDS[1]:-}
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} known=""
	COMPREPLY=()
	if [[ $cur == = ]]; then # bash splits --option=value in three words
		cur=""
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	if [[ $COMP_CWORD == 1 || ($COMP_CWORD == 2 && $command == help) ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2> /dev/null |
			sed -n '/^Commands/,/^$/s/^  \([a-z]*\)  .*/\1/p') $([[ $command == help ]] || echo help --help --version)" -- "$cur")
		return
	fi
	[[ $prev != -* ]] || known=$(_mirzam_option "$program" "$command" "$prev")
	if [[ -n $known ]]; then
		_mirzam_value "$program" "$prev" "$known" "$cur"
		return
	fi
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_mirzam_options "$program" "$command")" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2> /dev/null
	fi
}

complete -F _mirzam mirzam
