/* cli_progress.c - a progress bar on stderr, and how the program writes amounts; see cli.h.
 *
 * Reports may come thousands of times a second: everything but a clock reading waits until a drawing is
 * due (100 ms on a terminal, 10 s elsewhere). */
#include "cli.h"

#include <string.h>
#include <time.h>

enum { BAR_MAX = 30, BAR_MIN = 8, LINE_BYTES = 256 };

static const int64_t SECOND = 1000000000;

int64_t mzm_cli_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

/* ---- amounts ---- */

const char *mzm_cli_format_bytes(char buf[32], uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double x = (double)bytes;
	int u = 0;
	for (; x >= 1023.95 && u + 1 < MZM_CLI_COUNT(units); u++)
		x /= 1024;
	snprintf(buf, 32, u && x < 99.95 ? "%.1f %s" : "%.0f %s", x, units[u]);
	return buf;
}

const char *mzm_cli_format_count(char buf[32], double count)
{
	static const char *const units[] = {"", "k", "M", "B", "T"};
	int u = 0;
	for (; count >= 9999.5 && u + 1 < MZM_CLI_COUNT(units); u++)
		count /= 1000;
	snprintf(buf, 32, u && count < 999.95 ? "%.1f%s" : "%.0f%s", count, units[u]);
	return buf;
}

const char *mzm_cli_format_seconds(char buf[32], double seconds)
{
	long s = seconds < 1e9 ? (long)(seconds + .5) : 1000000000L;
	if (seconds < .9995)
		snprintf(buf, 32, "%.0f ms", seconds * 1e3);
	else if (seconds < 59.95)
		snprintf(buf, 32, seconds < 9.95 ? "%.1fs" : "%.0fs", seconds);
	else if (s < 3600)
		snprintf(buf, 32, "%ldm%02lds", s / 60, s % 60);
	else
		snprintf(buf, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
	return buf;
}

static const char *format_amount(char buf[32], const mzm_cli_progress *p, double amount)
{
	return p->unit ? mzm_cli_format_count(buf, amount) : mzm_cli_format_bytes(buf, (uint64_t)amount);
}

/* ---- drawing ---- */

/* "42% 1.2 of 3.0 GiB, 300 MiB/s, 5s left" */
static void describe(char *line, size_t cap, const mzm_cli_progress *p, uint64_t done, uint64_t total, int64_t now)
{
	char a[32], b[32], rate_text[32], left[32];
	const char *unit = p->unit ? p->unit : "";
	const char *gap = p->unit ? " " : "";
	double seconds = (double)(now - p->stage_ns) * 1e-9;
	double rate = seconds > 0 && done >= p->stage_from ? (double)(done - p->stage_from) / seconds : 0;
	size_t n = 0;
	if (total)
		n = (size_t)snprintf(line, cap, "%3d%%  %s of %s%s%s", (int)(100. * (double)done / (double)total),
				     format_amount(a, p, (double)done), format_amount(b, p, (double)total), gap, unit);
	else
		n = (size_t)snprintf(line, cap, "%s%s%s", format_amount(a, p, (double)done), gap, unit);
	if (rate > 0 && rate < 10 && p->unit)
		n += (size_t)snprintf(line + n, cap - n, ", %.2g/s", rate);
	else if (rate > 0)
		n += (size_t)snprintf(line + n, cap - n, ", %s/s", format_amount(rate_text, p, rate));
	if (rate > 0 && total > done)
		n += (size_t)snprintf(line + n, cap - n, ", %s left",
				      mzm_cli_format_seconds(left, (double)(total - done) / rate));
	if (p->note)
		snprintf(line + n, cap - n, "  %s", p->note);
}

static void draw_bar(const mzm_cli_progress *p, const char *line, uint64_t done, uint64_t total)
{
	int width = mzm_cli_width(stderr) - 1;
	int room = width - mzm_cli_text_width(line, strlen(line)) - mzm_cli_text_width(p->stage, strlen(p->stage)) - 5;
	int bar = total == 0 || room < BAR_MIN ? 0 : room > BAR_MAX ? BAR_MAX : room;
	int full = bar ? (int)((double)bar * (double)done / (double)total) : 0;
	fprintf(stderr, "\r\033[K");
	if (bar)
		fprintf(stderr, "%s [%.*s%.*s] %s", p->stage, full, "##############################", bar - full,
			"..............................", line);
	else
		fprintf(stderr, "%.*s", width, line);
	fflush(stderr);
}

mzm_cli_progress mzm_cli_progress_init(const char *unit)
{
	return (mzm_cli_progress){.unit = unit, .begin_ns = mzm_cli_now_ns()};
}

void mzm_cli_progress_clear(mzm_cli_progress *p)
{
	if (!p->drawn)
		return;
	fprintf(stderr, "\r\033[K");
	fflush(stderr);
	p->drawn = false;
	p->drawn_ns = 0;
}

static void enter_stage(mzm_cli_progress *p, const char *stage, uint64_t done, int64_t now)
{
	if (p->stage_ns && strncmp(p->stage, stage, sizeof p->stage - 1) == 0)
		return;
	snprintf(p->stage, sizeof p->stage, "%s", stage);
	p->stage_ns = now;
	p->stage_from = done;
}

int mzm_cli_progress_report(void *user, const char *stage, uint64_t done, uint64_t total)
{
	mzm_cli_progress *p = user;
	char line[LINE_BYTES];
	int64_t now = mzm_cli_now_ns();
	bool tty = mzm_cli_is_tty(stderr);
	if (mzm_cli_interrupted() || mzm_cli_quiet())
		return mzm_cli_interrupted();
	enter_stage(p, stage ? stage : "working", done, now);
	done = total && done > total ? total : done;
	int64_t due = tty ? (p->drawn_ns ? p->drawn_ns + SECOND / 10 : p->begin_ns + SECOND)
			  : (p->drawn_ns ? p->drawn_ns : p->begin_ns) + 10 * SECOND;
	if (now < due)
		return 0;
	describe(line, sizeof line, p, done, total, now);
	if (tty)
		draw_bar(p, line, done, total);
	else
		fprintf(stderr, "mirzam: %s: %s\n", p->stage, line + strspn(line, " "));
	p->drawn = tty;
	p->drawn_ns = now;
	return 0;
}
