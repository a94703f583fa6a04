#!/usr/bin/env bash
# The example of mirzam.h: it answers with the shipped model, and names the reason when it cannot.
# usage: run.sh EXAMPLE
set -euo pipefail

example=$1
model="$MIRZAM_ROOT/data/gsmini-6m.mzm"

if message=$("$example" "$MIRZAM_ROOT/data/absent.mzm" hello 2>&1); then
	echo "a model that is not there: the example succeeded"
	exit 1
fi
if [[ $message != *absent.mzm* ]]; then
	echo "a model that is not there: the message does not name it: $message"
	exit 1
fi

prompt=$'Question: Mia has 12 apples. She buys 5 more. How many apples does Mia have now?\nAnswer:'
text=$("$example" "$model" "$prompt")
if [[ $text != *"####"* ]]; then
	echo "no answer in the text: $text"
	exit 1
fi
