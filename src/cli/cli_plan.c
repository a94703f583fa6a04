/* cli_plan.c - what a model will take of memory and of the disk, before it is loaded; and what streaming did. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define PROBE_SECONDS 1.0

static void line(const char *what, uint64_t bytes, const char *more)
{
	char text[32];
	if (bytes)
		fprintf(stderr, "  %-30s %10s%s%s\n", what, mzm_cli_format_bytes(text, bytes), *more ? "  " : "", more);
}

/* Tokens a second when a check, whose time is that of reading, gains so many; drafts cost nothing beside it. */
static void print_rates(const mzm_plan *p, double bytes_per_s)
{
	static const int gains[] = {1, 4, 8, 16};
	double pass_s = (double)p->streamed_bytes / bytes_per_s;
	char rate[32];
	fprintf(stderr, "Weights come at %s a second as stored (measured): %.3g s a pass.\n",
		mzm_cli_format_bytes(rate, (uint64_t)bytes_per_s), pass_s);
	fprintf(stderr, "So at most (estimated, by reading alone):\n");
	for (size_t i = 0; i < MZM_CLI_COUNT(gains); i++)
		fprintf(stderr, "  %-30s %10.3g tokens a second\n",
			gains[i] == 1 ? "dense, a token a pass" : gains[i] == 4 ? "checked drafts, 4 a check"
							  : gains[i] == 8	? "checked drafts, 8 a check"
										: "checked drafts, 16 a check",
			gains[i] / pass_s);
}

/* Stored bytes a second that come in and are unpacked. */
static double slower(const mzm_file_speed *s)
{
	double unpacked = s->unpack_bytes_per_s * s->unpack_threads * (double)s->stored_bytes / (double)s->raw_bytes;
	return s->is_compressed && unpacked < s->disk_bytes_per_s ? unpacked : s->disk_bytes_per_s;
}

static void print_compression(const mzm_file_speed *s)
{
	char disk[32], unpack[32];
	if (!s->is_compressed)
		return;
	fprintf(stderr,
		"Compressed to %.0f %%: the disk reads %s a second, a thread unpacks %s: compression %s here%s.\n",
		100 * (double)s->stored_bytes / (double)s->raw_bytes,
		mzm_cli_format_bytes(disk, (uint64_t)s->disk_bytes_per_s),
		mzm_cli_format_bytes(unpack, (uint64_t)s->unpack_bytes_per_s), s->pays ? "pays" : "does not pay",
		s->pays ? "" : " (import again with --zstd off)");
}

static void print_advice(const mzm_plan *p)
{
	if (p->n_held > 0)
		fprintf(stderr, "Best: --mode exact --predictor topk --period auto; drafts use the neurons that are in "
				"memory.\n");
	else if (p->draft_on_disk)
		fprintf(stderr, "There is no room for drafts: they would read the model itself. Best: --mode dense.\n");
	else if (p->draft_bytes)
		fprintf(stderr,
			"Best: --mode exact or sirius with --period auto; drafts read their image in memory.\n");
	else
		fprintf(stderr, "The file has no draft image (import --draft-quant q4): drafts would read the model "
				"itself. Best: --mode dense.\n");
}

void mzm_cli_print_plan(const mzm_plan *p, const char *path)
{
	char all[32], budget[32], text[48];
	mzm_err err = {0};
	mzm_file_speed speed;
	fprintf(stderr, "Plan: %s\n", p->store);
	snprintf(text, sizeof text, "%d of each layer", (int)p->n_held);
	line("program and libraries", p->process_bytes, "(estimated)");
	line("sessions", p->session_bytes, "keys, values, scratch");
	line("weights in memory", p->weight_bytes, "");
	line("draft image in memory", p->draft_bytes, p->n_held ? "all but its neurons" : "");
	line("neurons for drafts", p->held_bytes, text);
	line("window for streamed weights", p->window_bytes, "");
	line("reading and unpacking", p->reader_bytes, "");
	fprintf(stderr, "  %-30s %10s", "together", mzm_cli_format_bytes(all, p->needed_bytes));
	if (p->ram_bytes)
		fprintf(stderr, "  of %s allowed", mzm_cli_format_bytes(budget, p->ram_bytes));
	fprintf(stderr, "\n");
	line("smallest budget possible", p->ram_bytes ? p->smallest_bytes : 0, "");
	line("a pass reads from disk", p->streamed_bytes, "whether over 1 token or 32");
	if (p->streamed_bytes == 0)
		return;
	if (mzm_file_measure(&speed, path, PROBE_SECONDS, &err) == MZM_OK && speed.disk_bytes_per_s > 0) {
		print_rates(p, slower(&speed));
		print_compression(&speed);
	}
	print_advice(p);
}

void mzm_cli_print_outcome(const mzm_plan *p, const mzm_gen_result *r)
{
	char peak[32], planned[32], bytes[32], rate[32];
	double seconds = (double)(r->prefill_ns + r->decode_ns) * 1e-9, read_s = (double)r->read_ns * 1e-9;
	fprintf(stderr, "As it was: peak memory %s, planned %s",
		mzm_cli_format_bytes(peak, (uint64_t)mzm_cli_peak_rss()),
		mzm_cli_format_bytes(planned, p->needed_bytes));
	if (r->bytes_read && r->n_tokens > 0)
		fprintf(stderr, "; %s read from disk a token, at %s a second, %.0f %% of the time",
			mzm_cli_format_bytes(bytes, r->bytes_read / (uint64_t)r->n_tokens),
			mzm_cli_format_bytes(rate, read_s > 0 ? (uint64_t)((double)r->bytes_read / read_s) : 0),
			seconds > 0 ? 100 * read_s / seconds : 0);
	fprintf(stderr, "; %.3g tokens a second\n",
		r->decode_ns > 0 ? (r->n_tokens - 1) / ((double)r->decode_ns * 1e-9) : 0);
}

static char mapped_path[1024];

/* Only what may be called in a handler. */
static void on_bus_error(int sig)
{
	static const char why[] = ": a page of the mapped model could not be read: the file was truncated, or the disk "
				  "failed (--store stream would say which)\n";
	(void)sig;
	ssize_t ignored = write(STDERR_FILENO, "mirzam: ", 8);
	ignored = write(STDERR_FILENO, mapped_path, strlen(mapped_path));
	ignored = write(STDERR_FILENO, why, sizeof why - 1);
	(void)ignored;
	_exit(MZM_CLI_FAILED);
}

void mzm_cli_catch_bus_error(const char *path)
{
	struct sigaction act = {.sa_handler = on_bus_error};
	snprintf(mapped_path, sizeof mapped_path, "%s", path);
	sigemptyset(&act.sa_mask);
	sigaction(SIGBUS, &act, NULL);
}

void mzm_cli_print_streaming(const mzm_gen_result *r)
{
	char bytes[32], rate[32];
	if (r->bytes_read == 0)
		return;
	double per_s = r->read_ns > 0 ? (double)r->bytes_read / ((double)r->read_ns * 1e-9) : 0;
	fprintf(stderr,
		"read %s at %s a second while reading (%.1f s); unpacking and checking %.1f s, waiting %.1f s of "
		"%.1f\n",
		mzm_cli_format_bytes(bytes, r->bytes_read), mzm_cli_format_bytes(rate, (uint64_t)per_s),
		(double)r->read_ns * 1e-9, (double)r->unpack_ns * 1e-9, (double)r->wait_ns * 1e-9,
		(double)(r->prefill_ns + r->decode_ns) * 1e-9);
}
