# lib.sh - what quickstart and test have in common: messages, Debian packages, configuring a build.
# Sourced, not run. The caller has set `root` to the source tree.
# shellcheck shell=bash disable=SC2034,SC2154

# Tools are looked for as commands, libraries as packages: a compiler may come from elsewhere.
build_tools=(cc:gcc make:make cmake:cmake pkg-config:pkg-config)
build_libraries=(libc6-dev libzstd-dev libxxhash-dev libjansson-dev libpcre2-dev libutf8proc-dev)
# Without the first long prompts are read by the project's own kernels, without the second files by threads, without the
# third the lines of a chat are not edited.
optional_libraries=(libdnnl-dev liburing-dev libedit-dev)

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

n_jobs() {
	nproc 2> /dev/null || echo 2
}

is_debian() {
	command -v dpkg-query > /dev/null && command -v apt-get > /dev/null
}

has_package() {
	[[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2> /dev/null) == installed ]]
}

# missing_tools COMMAND:PACKAGE... : the packages of the commands that are not there
missing_tools() {
	local pair
	for pair in "$@"; do
		command -v "${pair%%:*}" > /dev/null || echo "${pair#*:}"
	done
}

# missing_packages PACKAGE... : those that are not installed; none where dpkg cannot tell
missing_packages() {
	local package
	is_debian || return 0
	for package in "$@"; do
		has_package "$package" || echo "$package"
	done
}

# as_root COMMAND... : runs it as root, through sudo if need be; fails if neither is possible
as_root() {
	if [[ $(id -u) == 0 ]]; then
		"$@"
	elif command -v sudo > /dev/null && [[ -t 0 ]]; then
		sudo "$@"
	elif command -v sudo > /dev/null; then
		sudo -n "$@"
	else
		return 1
	fi
}

# apt_install PACKAGE... : installs, with one refresh of the package lists if they are stale
apt_install() {
	local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
	is_debian || return 1
	say "Installing Debian packages: $*"
	as_root "${install[@]}" > /dev/null 2>&1 && return
	as_root apt-get update -qq && as_root "${install[@]}" > /dev/null
}

# need_packages REQUIRED... -- OPTIONAL... : installs what is missing; stops if a required one stays missing
need_packages() {
	local required=() optional=()
	while [[ $# -gt 0 && $1 != -- ]]; do
		required+=("$1")
		shift
	done
	[[ $# -eq 0 ]] || shift
	optional=("$@")
	[[ ${#required[@]} -gt 0 || ${#optional[@]} -gt 0 ]] || return 0
	if [[ ${#required[@]} -gt 0 ]] && ! apt_install "${required[@]}"; then
		say "These Debian packages are missing and could not be installed (that needs root and a network):"
		say "    apt-get install ${required[*]}"
		exit 1
	fi
	if [[ ${#optional[@]} -gt 0 ]] && ! apt_install "${optional[@]}"; then
		say "Going on without: ${optional[*]}"
	fi
}

# onednn_option : the CMake option that fits what is installed
onednn_option() {
	if [[ -f /usr/include/oneapi/dnnl/dnnl.h || -f /usr/local/include/oneapi/dnnl/dnnl.h ]]; then
		echo -DMIRZAM_ONEDNN=ON
	else
		echo -DMIRZAM_ONEDNN=OFF
	fi
}

# configure PRESET OPTION... : configures build/PRESET; starts afresh where the tree was moved or copied
configure() {
	local preset=$1 build="$root/build/$1" home=
	shift
	if [[ -f $build/CMakeCache.txt ]]; then
		home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt")
		[[ $home == "$root" ]] || rm -rf "$build"
	fi
	if [[ ! -f $build/CMakeCache.txt ]] && command -v ninja > /dev/null; then
		set -- -G Ninja "$@"
	fi
	(cd "$root" && cmake --preset "$preset" "$@")
}
