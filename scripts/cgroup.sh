# cgroup.sh - a memory cgroup of one's own: made, limited, run in, asked, removed. Both versions of cgroups.
#
# Sourced, not run. One group at a time, in $cgroup; a group is for one program, for its peak cannot be taken back.
# What is not possible here (no cgroups, no right to make one) makes cgroup_make fail and say why in $cgroup_why.
# shellcheck shell=bash disable=SC2034

cgroup='' cgroup_version='' cgroup_why=''

# "VERSION DIRECTORY" of each group in which one could be made: that of this process first, then those above it
cgroup_places() {
	local root mount rest version path
	while read -r _ _ _ root mount rest; do
		rest=${rest##* - } # type, source, options
		if [[ $rest == "cgroup "* && ",${rest##* }," == *,memory,* ]]; then
			version=1
			path=$(sed -n 's/^[0-9]*:\([^:]*,\)\{0,1\}memory\(,[^:]*\)\{0,1\}:\(.*\)/\3/p' /proc/self/cgroup)
		elif [[ $rest == "cgroup2 "* ]]; then
			version=2
			path=$(sed -n 's/^0::\(.*\)/\1/p' /proc/self/cgroup)
		else
			continue
		fi
		[[ $root == / ]] || path=${path#"$root"}
		path=${path%/}
		echo "$version $mount$path"
		while [[ -n $path ]]; do
			path=${path%/*}
			echo "$version $mount$path"
		done
	done < /proc/self/mountinfo
}

# Can be limited, and entered: a group of version 2 without the memory controller cannot.
cgroup_works() {
	local limit=memory.max
	[[ $cgroup_version == 2 ]] || limit=memory.limit_in_bytes
	[[ -w $cgroup/$limit ]] && (echo "$BASHPID" > "$cgroup/cgroup.procs") 2> /dev/null
}

# cgroup_make : makes a group, empty and without a limit
cgroup_make() {
	local place
	while read -r cgroup_version place; do
		cgroup=$place/mirzam-$$-$RANDOM
		mkdir "$cgroup" 2> /dev/null || continue
		cgroup_works && return
		cgroup_remove
	done < <(cgroup_places 2> /dev/null)
	cgroup=''
	cgroup_why="no memory cgroup can be made here (that needs root, or a delegated group)"
	return 1
}

# cgroup_limit BYTES : of memory, with no swap, or in version 1 a MiB of it: what meets the limit of the sum of both
# is not counted by all kernels
cgroup_limit() {
	if [[ $cgroup_version == 2 ]]; then
		[[ ! -w $cgroup/memory.swap.max ]] || echo 0 > "$cgroup/memory.swap.max"
		echo "$1" > "$cgroup/memory.max"
	else
		echo "$1" > "$cgroup/memory.limit_in_bytes"
		[[ ! -w $cgroup/memory.memsw.limit_in_bytes ]] ||
			echo $(($1 + (1 << 20))) > "$cgroup/memory.memsw.limit_in_bytes"
	fi
}

# cgroup_run COMMAND... : runs it in the group; its exit status
cgroup_run() {
	(echo "$BASHPID" > "$cgroup/cgroup.procs" && exec "$@")
}

# cgroup_peak : bytes; nothing where the kernel does not say (version 2 before 5.19)
cgroup_peak() {
	cat "$cgroup/memory.peak" 2> /dev/null || cat "$cgroup/memory.max_usage_in_bytes" 2> /dev/null || true
}

# cgroup_hits : how often an allocation met the limit, so that something had to be given up for it
cgroup_hits() {
	sed -n 's/^max //p' "$cgroup/memory.events" 2> /dev/null || cat "$cgroup/memory.failcnt"
}

# cgroup_kills : processes ended for want of memory
cgroup_kills() {
	sed -n 's/^oom_kill //p' "$cgroup/memory.events" 2> /dev/null || sed -n 's/^oom_kill //p' "$cgroup/memory.oom_control"
}

# cgroup_remove : once what ran in it has ended; waits a moment for that
cgroup_remove() {
	local i
	[[ -n $cgroup ]] || return 0
	for ((i = 0; i < 50; i++)); do
		rmdir "$cgroup" 2> /dev/null && break
		[[ -d $cgroup ]] || break
		sleep 0.1
	done
	cgroup=''
}
