#!/usr/bin/env bash
# Installs into an empty prefix and uses it as strangers do: the program finds its model, man page and
# completion are there, the example of mirzam.h builds by pkg-config (shared and static), by
# find_package, and as C++; and all of it still works after the tree was moved.
# usage: install.sh BUILD_DIR
# shellcheck disable=SC2317 # functions are called through try
set -euo pipefail

build=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/mirzam-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
case_number=0
failed=0

# try NAME COMMAND...
try() {
	local name=$1
	shift
	case_number=$((case_number + 1))
	if "$@" > "$work/output" 2>&1; then
		echo "ok $case_number - $name"
	else
		cat "$work/output"
		echo "not ok $case_number - $name"
		failed=1
	fi
}

prompt=$'Question: Mia has 12 apples. She buys 5 more. How many apples does Mia have now?\nAnswer:'
answers() { # COMMAND... : prints an answer
	"$@" | tee "$work/answer"
	grep -q '####' "$work/answer"
}

by_pkg_config() { # OPTION...
	local flags
	read -ra flags < <(PKG_CONFIG_PATH="$libdir/pkgconfig" pkg-config "$@" mirzam)
	cc "$work/usage.c" -o "$work/usage" "${flags[@]}"
}

static() {
	local flags
	read -ra flags < <(PKG_CONFIG_PATH="$libdir/pkgconfig" pkg-config --static --cflags --libs mirzam)
	cc "$work/usage.c" -o "$work/usage_static" "${flags[@]/-lmirzam/-l:libmirzam.a}"
}

by_find_package() {
	cmake -S "$MIRZAM_ROOT/tests/usage/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" -DUSAGE="$work/usage.c" &&
		cmake --build "$work/consumer"
}

as_cxx() {
	printf '#include <mirzam.h>\nint main() { return mzm_version() == nullptr; }\n' > "$work/usage.cc"
	c++ -Wall -Wextra -Werror -I"$prefix/include" "$work/usage.cc" -o "$work/usage_cxx" -L"$libdir" -lmirzam &&
		LD_LIBRARY_PATH=$libdir "$work/usage_cxx"
}

prefix="$work/first"
try "cmake --install" cmake --install "$build" --prefix "$prefix"
mv "$prefix" "$work/moved"
prefix="$work/moved"
libdir=$(dirname "$(find "$prefix" -name libmirzam.so | head -n 1)")
model="$prefix/share/mirzam/gsmini-6m.mzm"
bash "$MIRZAM_ROOT/tests/usage/extract.sh" "$prefix/include/mirzam.h" > "$work/usage.c"
cd "$work"

try "program" "$prefix/bin/mirzam" --version
try "program finds the demo model" answers "$prefix/bin/mirzam" run -p "$prompt"
try "man page" test -s "$prefix/share/man/man1/mirzam.1"
try "completion" bash -n "$prefix/share/bash-completion/completions/mirzam"
try "pkg-config" by_pkg_config --cflags --libs
try "pkg-config: example answers" answers env LD_LIBRARY_PATH="$libdir" "$work/usage" "$model" "$prompt"
try "pkg-config --static" static
try "pkg-config --static: example answers" answers "$work/usage_static" "$model" "$prompt"
try "find_package" by_find_package
try "find_package: example answers" answers "$work/consumer/consumer" "$model" "$prompt"
if command -v c++ > /dev/null; then
	try "C++" as_cxx
fi
exit $failed
