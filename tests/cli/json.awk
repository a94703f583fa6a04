# json.awk - a strict JSON reader for tests, so that they need no other program.
#
# usage: awk -f json.awk FILE      one line a scalar, "path<TAB>value": .rows[0].mode	"dense"
# Exit status 1 and a message when the file is not one JSON value.

function fail(what) {
	printf "not JSON at character %d: %s\n", pos, what > "/dev/stderr"
	bad = 1
	exit 1
}

function blanks() {
	while (index(" \t\n\r", substr(text, pos, 1)) && pos <= length(text))
		pos++
}

function string(  start, c) {
	start = pos++
	while ((c = substr(text, pos, 1)) != "\"") {
		if (pos > length(text) || c == "\n" || c == "\t")
			fail("open string")
		if (c == "\\") {
			pos++
			c = substr(text, pos, 1)
			if (c == "u" && substr(text, pos + 1, 4) !~ /^[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]$/)
				fail("bad \\u")
			if (!index("\"\\/bfnrtu", c))
				fail("bad escape")
		}
		pos++
	}
	pos++
	return substr(text, start, pos - start)
}

function scalar(  rest) {
	if (substr(text, pos, 1) == "\"")
		return string()
	rest = substr(text, pos, 64)
	if (match(rest, /^(true|false|null)/) || match(rest, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/)) {
		pos += RLENGTH
		return substr(rest, 1, RLENGTH)
	}
	fail("no value: " substr(rest, 1, 20))
}

function members(path, close_with,  n, key) {
	pos++
	blanks()
	if (substr(text, pos, 1) == close_with) {
		pos++
		return
	}
	for (n = 0;; n++) {
		blanks()
		if (close_with == "}") {
			if (substr(text, pos, 1) != "\"")
				fail("no key")
			key = string()
			key = "." substr(key, 2, length(key) - 2)
			blanks()
			if (substr(text, pos++, 1) != ":")
				fail("no colon")
		} else
			key = "[" n "]"
		value(path key)
		blanks()
		c = substr(text, pos++, 1)
		if (c == close_with)
			return
		if (c != ",")
			fail("no comma")
	}
}

function value(path,  c) {
	blanks()
	c = substr(text, pos, 1)
	if (c == "{")
		members(path, "}")
	else if (c == "[")
		members(path, "]")
	else
		printf "%s\t%s\n", path, scalar()
}

{ text = text $0 "\n" }

END {
	if (bad)
		exit 1
	pos = 1
	value("")
	blanks()
	if (pos <= length(text))
		fail("something after the value")
}
