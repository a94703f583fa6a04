/* cli_term.c - the terminal: colour, width, safe text, error lines, Ctrl-C, the options every command has.
 *
 * Holds the little state that belongs to the whole process: --color, --quiet, whether Ctrl-C came. Text of
 * models and files never reaches a terminal with control characters in it. */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MIN_WIDTH = 20, MAX_WIDTH = 1000, DEFAULT_WIDTH = 80, LINE_MAX_BYTES = 2048 };

static struct common {
	int32_t color; /* mzm_color */
	bool    quiet, help;
} common;

static volatile sig_atomic_t interrupted;

/* ---- options of every command ---- */

static const char *color_name(int i)
{
	static const char *const names[] = {"auto", "always", "never"};
	return i < MZM_CLI_COUNT(names) ? names[i] : NULL;
}

static const mzm_opt common_options[] = {
	{.name = "color", .type = MZM_OPT_ENUM, .at = offsetof(struct common, color), .choice = color_name,
	 .group = "General", .arg = "WHEN", .help = "Colour; auto: on a terminal, unless NO_COLOR is set."},
	{.name = "quiet", .letter = 'q', .type = MZM_OPT_FLAG, .at = offsetof(struct common, quiet), .group = "General",
	 .help = "No progress and no notes on stderr."},
	{.name = "help", .letter = 'h', .type = MZM_OPT_FLAG, .at = offsetof(struct common, help), .group = "General",
	 .help = "Print this help."},
};

mzm_opt_table mzm_cli_common_table(void)
{
	return (mzm_opt_table){common_options, MZM_CLI_COUNT(common_options), &common};
}

bool mzm_cli_quiet(void)
{
	return common.quiet;
}

/* ---- colour and width ---- */

bool mzm_cli_is_tty(FILE *f)
{
	return isatty(fileno(f)) == 1;
}

bool mzm_cli_has_color(FILE *f)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
	if (common.color != MZM_COLOR_AUTO)
		return common.color == MZM_COLOR_ALWAYS;
	return mzm_cli_is_tty(f) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

const char *mzm_cli_sgr(FILE *f, const char *sequence)
{
	return mzm_cli_has_color(f) ? sequence : "";
}

int mzm_cli_width(FILE *f)
{
	struct winsize ws;
	const char *columns = getenv("COLUMNS");
	long width = 0;
	if (ioctl(fileno(f), TIOCGWINSZ, &ws) == 0)
		width = ws.ws_col;
	if (width <= 0 && columns)
		width = strtol(columns, NULL, 10);
	if (width <= 0)
		width = DEFAULT_WIDTH;
	return width < MIN_WIDTH ? MIN_WIDTH : width > MAX_WIDTH ? MAX_WIDTH : (int)width;
}

/* ---- characters ---- */

/* Decodes the UTF-8 character at s[0..n); returns its bytes, or 0 when it is broken (RFC 3629). */
static size_t decode(const unsigned char *s, size_t n, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
	if (len == 0 || len > n)
		return 0;
	*code = len == 1 ? s[0] : s[0] & (0xFFu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3Fu);
	}
	if (*code < least[len] || *code > 0x10FFFF || (*code >= 0xD800 && *code < 0xE000))
		return 0;
	return len;
}

/* Columns of a code point: combining marks none, East Asian wide and emoji two. */
static int columns_of(uint32_t c)
{
	static const struct {
		uint32_t first, last;
		int      columns;
	} ranges[] = {
		{0x0300, 0x036F, 0},  {0x200B, 0x200F, 0},  {0x20D0, 0x20FF, 0},   {0xFE00, 0xFE0F, 0},
		{0x1100, 0x115F, 2},  {0x2E80, 0x303E, 2},  {0x3041, 0xA4CF, 2},   {0xAC00, 0xD7A3, 2},
		{0xF900, 0xFAFF, 2},  {0xFE30, 0xFE6F, 2},  {0xFF00, 0xFF60, 2},   {0xFFE0, 0xFFE6, 2},
		{0x1F300, 0x1F64F, 2}, {0x1F900, 0x1F9FF, 2}, {0x20000, 0x3FFFD, 2},
	};
	for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return ranges[i].columns;
	return 1;
}

size_t mzm_cli_char(const char *text, size_t n, int *columns)
{
	uint32_t code;
	size_t len = decode((const unsigned char *)text, n, &code);
	*columns = len ? columns_of(code) : 1;
	return len ? len : 1;
}

int mzm_cli_text_width(const char *text, size_t n)
{
	int total = 0, columns;
	for (size_t i = 0; i < n; total += columns)
		i += mzm_cli_char(text + i, n - i, &columns);
	return total;
}

/* Writes the character at text[0..n) so that no terminal obeys it; returns its bytes. */
static size_t put_safe_char(FILE *f, const char *text, size_t n)
{
	uint32_t code = 0;
	size_t len = decode((const unsigned char *)text, n, &code);
	if (len == 0 || (code >= 0x80 && code < 0xA0))
		fputs("\xEF\xBF\xBD", f);
	else if ((code < 0x20 && code != '\n' && code != '\t') || code == 0x7F)
		fprintf(f, "^%c", (int)(code ^ 0x40));
	else
		fwrite(text, 1, len, f);
	return len ? len : 1;
}

void mzm_cli_put(FILE *f, const char *text, size_t n)
{
	if (!mzm_cli_is_tty(f)) {
		fwrite(text, 1, n, f);
		return;
	}
	for (size_t i = 0; i < n;)
		i += put_safe_char(f, text + i, n - i);
}

/* The visible form of the character at text[0..n) in buf, NUL-terminated; *taken: its bytes. Returns the columns. */
static int visible(char buf[8], const char *text, size_t n, size_t *taken)
{
	uint32_t code = 0;
	size_t len = decode((const unsigned char *)text, n, &code);
	*taken = len ? len : 1;
	if (code == '\n' || code == '\t')
		snprintf(buf, 8, "\\%c", code == '\n' ? 'n' : 't');
	else if (len == 0 || (code >= 0x80 && code < 0xA0))
		snprintf(buf, 8, "\xEF\xBF\xBD");
	else if (code < 0x20 || code == 0x7F)
		snprintf(buf, 8, "^%c", (int)(code ^ 0x40));
	else
		snprintf(buf, 8, "%.*s", (int)len, text);
	return len == 0 || code >= 0x7F ? (len ? columns_of(code) + (code == 0x7F) : 1) : code < 0x20 ? 2 : 1;
}

int mzm_cli_put_inline(FILE *f, const char *text, size_t n, int max_columns)
{
	char buf[8];
	int used = 0;
	size_t taken, room = 0; /* bytes that fit when ".." must follow */
	int total = 0;
	for (size_t i = 0; max_columns > 0 && i < n && total <= max_columns; i += taken) {
		total += visible(buf, text + i, n - i, &taken);
		if (total <= max_columns - 2)
			room = i + taken;
	}
	bool cut = max_columns > 0 && total > max_columns;
	for (size_t i = 0; i < (cut ? room : n); i += taken) {
		used += visible(buf, text + i, n - i, &taken);
		fputs(buf, f);
	}
	if (cut)
		fputs("..", f);
	return used + 2 * cut;
}

/* ---- errors ---- */

void mzm_cli_error(const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	fflush(stdout); /* so that the two streams stay in order on a terminal */
	fprintf(stderr, "%smirzam:%s ", mzm_cli_sgr(stderr, MZM_SGR_RED), mzm_cli_sgr(stderr, MZM_SGR_RESET));
	for (size_t i = 0, n = strlen(text); i < n;)
		i += put_safe_char(stderr, text + i, n - i);
	fputc('\n', stderr);
}

mzm_status mzm_cli_set_err(mzm_err *err, mzm_status code, const char *fmt, ...)
{
	va_list ap;
	if (!err || err->code != MZM_OK)
		return code;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof err->message, fmt, ap);
	va_end(ap);
	err->code = code;
	return code;
}

int mzm_cli_exit_code(mzm_status status)
{
	if (interrupted)
		return MZM_CLI_INTERRUPTED;
	if (status == MZM_OK || mzm_cli_pipe_closed())
		return MZM_CLI_DONE;
	switch (status) {
	case MZM_EARG:
	case MZM_EUNDEFINED:
		return MZM_CLI_USAGE;
	case MZM_EFORMAT:
	case MZM_EUNSUPPORTED:
		return MZM_CLI_BAD_FILE;
	case MZM_ECANCELLED:
		return MZM_CLI_INTERRUPTED;
	default:
		return MZM_CLI_FAILED;
	}
}

int mzm_cli_fail(const mzm_err *err)
{
	int code = mzm_cli_exit_code(err->code);
	if (code != MZM_CLI_INTERRUPTED && code != MZM_CLI_DONE)
		mzm_cli_error("%s", err->message[0] ? err->message : mzm_status_text(err->code));
	return code;
}

/* ---- Ctrl-C ---- */

static void on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

void mzm_cli_catch_interrupt(void)
{
	struct sigaction action = {.sa_handler = on_interrupt};
	sigemptyset(&action.sa_mask);
	action.sa_flags = SA_RESTART | (int)SA_RESETHAND; /* the second one kills */
	sigaction(SIGINT, &action, NULL);
}

void mzm_cli_forget_interrupt(bool noted)
{
	struct sigaction action = {.sa_handler = noted ? on_interrupt : SIG_DFL};
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	interrupted = 0;
}

bool mzm_cli_interrupted(void)
{
	return interrupted != 0;
}
