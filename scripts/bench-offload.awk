# bench-offload.awk - the table, or the JSON, of scripts/bench-offload.
#
# usage: awk -v as_json=0|1 -v model=NAME -v model_bytes=N -v budget=N -f bench-offload.awk PLAIN RUNS
# PLAIN: bytes a second, one a line. RUNS: a line a run, its fields as in BEGIN; one that failed ends before n_tokens.

function median(list,  part, n, i, j, v) {
	n = split(list, part, " ")
	for (i = 2; i <= n; i++) {
		v = part[i] + 0
		for (j = i - 1; j >= 1 && part[j] + 0 > v; j--)
			part[j + 1] = part[j]
		part[j + 1] = v
	}
	if (n == 0)
		return 0
	return n % 2 ? part[(n + 1) / 2] + 0 : (part[n / 2] + part[n / 2 + 1]) / 2
}

function over(a, b) {
	return b > 0 ? a / b : 0
}

# 1: one list of tokens begins with the other; sets `compared`, the tokens that both have
function same(a, b,  x, y, n, m, i) {
	n = split(a, x, ",")
	m = split(b, y, ",")
	compared = n < m ? n : m
	for (i = 1; i <= compared; i++)
		if (x[i] != y[i])
			return 0
	return 1
}

function show(x, format) {
	return x > 0 ? sprintf(format, x) : "-"
}

function run_json(  i, text) {
	text = "{\"variant\": \"" $1 "\""
	for (i = 2; i < n_names && i <= NF; i++)
		text = text ", \"" name[i] "\": " ($i == "-" ? "null" : $i)
	return text (NF == n_names ? ", \"tokens\": [" $NF "]" : "") "}"
}

function add_run(v,  passes) {
	passes = at["dense_passes"] + (at["draft_on_disk"] == "true" ? at["sparse_passes"] : 0)
	ended[v]++
	tokens[v] = $NF
	needed[v] = at["needed_bytes"]
	rates[v] = rates[v] " " at["tok_per_s"]
	speeds[v] = speeds[v] " " over(at["bytes_read"], at["read_ms"] / 1000)
	waits[v] = waits[v] " " over(at["wait_ms"], at["prefill_ms"] + at["decode_ms"])
	gains[v] = gains[v] " " over(at["n_tokens"] - 1, at["checks"])
	per_token[v] = per_token[v] " " over(passes * at["streamed_bytes"], at["n_tokens"] - 1)
	if (v == "mmap-dense") {
		disk = disk " " at["disk_bytes"]
		paged_tokens = at["n_tokens"] - 1
	} else if (v == "stream-dense") {
		prompt_passes = over(at["bytes_read"], at["streamed_bytes"]) - passes
	}
}

# The disk counts the bytes of a whole run; the prompt takes as many passes as where weights stream.
function decoded_from_disk() {
	return over(median(disk), paged_tokens + (prompt_passes >= 1 ? prompt_passes : 1))
}

function row_json(v) {
	printf "    {\"variant\": \"%s\", \"n_runs\": %d, \"ended_well\": %d, \"killed\": %d, ", v, runs[v], ended[v], kills[v]
	printf "\"tok_per_s\": %.6g, \"to_mmap\": %.6g, \"to_stream\": %.6g, ", rate, over(rate, paged), over(rate, streamed)
	printf "\"tokens_per_check\": %.4g, \"bytes_per_token\": %.0f, ", median(gains[v]), median(per_token[v])
	printf "\"bytes_per_s\": %.0f, \"to_plain\": %.4g, ", median(speeds[v]), over(median(speeds[v]), plain)
	printf "\"wait_share\": %.4g, \"peak_bytes\": %.0f, \"planned_bytes\": %.0f, ", median(waits[v]), peak[v], needed[v]
	printf "\"tokens_equal\": %s, \"tokens_compared\": %d}", equal && compared ? "true" : "false", compared
}

function row_text(v) {
	if (!ended[v]) {
		printf "%-13s %8s\n", v, kills[v] ? "killed" : "failed"
		return
	}
	printf "%-13s %8.3f %7s %8s %7s %9s", v, rate, show(over(rate, paged), "%.2f"), show(over(rate, streamed), "%.2f"),
		show(median(gains[v]), "%.2f"), show(median(per_token[v]) / 1e6, "%.1f")
	printf " %6s %6s %6s", show(median(speeds[v]) / 1e6, "%.0f"), show(over(median(speeds[v]), plain), "%.2f"),
		show(median(waits[v]), "%.2f")
	printf " %9s %8s  %s (%d)%s\n", show(peak[v] / 2^20, "%.1f"), show(100 * over(peak[v], budget), "%.1f%%"),
		equal ? "equal" : "differ", compared, ended[v] < runs[v] ? ", " runs[v] - ended[v] " failed" : ""
}

BEGIN {
	n_names = split("variant round exit_code peak_bytes killed limit_hits disk_bytes n_tokens tok_per_s prefill_ms " \
		"decode_ms bytes_read read_ms unpack_ms wait_ms dense_passes sparse_passes checks streamed_bytes needed_bytes " \
		"draft_on_disk peak_rss_bytes measured tokens", name, " ")
}

NR == FNR {
	plain_all = plain_all " " $1
	next
}

$1 == "reference" {
	reference = NF == n_names ? $NF : ""
	next
}

{
	if (!runs[$1]++)
		order[++n_order] = $1
	kills[$1] += $5
	if ($4 > peak[$1])
		peak[$1] = $4
	all = all (all == "" ? "" : ",") "\n    " run_json()
	for (i = 1; i <= n_names; i++)
		at[name[i]] = $i
	if (NF == n_names)
		add_run($1)
}

END {
	plain = median(plain_all)
	paged = median(rates["mmap-dense"])
	streamed = median(rates["stream-dense"])
	per_token["mmap-dense"] = decoded_from_disk()
	if (reference == "")
		reference = "stream-dense" in tokens ? tokens["stream-dense"] : tokens["mmap-dense"]
	if (as_json) {
		printf "{\n  \"model\": \"%s\", \"model_bytes\": %.0f, \"budget_bytes\": %.0f,\n", model, model_bytes, budget
		printf "  \"plain_bytes_per_s\": %.0f,\n  \"variants\": [\n", plain
	} else {
		printf "%s: %.2f GiB, budget %.2f GiB; plain O_DIRECT reading %.0f MB/s\n\n", model, model_bytes / 2^30,
			budget / 2^30, plain / 1e6
		printf "%-13s %8s %7s %8s %7s %9s %6s %6s %6s %9s %8s  %s\n", "", "tok/s", "x mmap", "x stream", "tok/chk",
			"MB/token", "MB/s", "plain", "wait", "peak MiB", "of limit", "tokens"
	}
	for (i = 1; i <= n_order; i++) {
		rate = median(rates[order[i]])
		equal = same(tokens[order[i]], reference)
		if (as_json) {
			printf "%s", (i > 1 ? ",\n" : "")
			row_json(order[i])
		} else {
			row_text(order[i])
		}
	}
	if (as_json)
		printf "\n  ],\n  \"runs\": [%s\n  ]\n}\n", all
}
