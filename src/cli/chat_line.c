/* chat_line.c - what is said to `mirzam chat`: lines of a terminal, edited by libedit where it was built in, or of a
 * pipe; see chat.h.
 *
 * Messages are UTF-8 whatever the bytes were. Ctrl-C at the prompt drops the line; libedit does not let a signal end a
 * read, so characters are read here, behind a poll() that a signal does end. Its own handlers are not used: they would
 * pass signals on to the whole process group. */
#include "chat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef MZM_LIBEDIT
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <wchar.h>
#define HISTORY_LINES 1000
#endif

enum { PROMPT_COLUMNS = 8 };

struct mzm_chat_line {
	bool  terminal;     /* somebody types */
	FILE *out;          /* shows prompts */
	char *history;      /* file; NULL: none */
	int   n_interrupts; /* without a line between them */
#ifdef MZM_LIBEDIT
	EditLine *el; /* NULL: plain lines */
	HistoryW *past;
	wchar_t   prompt[PROMPT_COLUMNS];
#endif
};

typedef enum line_end {
	LINE_GOT,
	LINE_LAST,    /* no line, and none will come */
	LINE_DROPPED, /* by Ctrl-C */
	LINE_BROKEN,
} line_end;

#define REPLACEMENT "\xEF\xBF\xBD"

/* ---- history file ---- */

char *mzm_chat_history_path(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *path;
	int n = state && *state == '/' ? asprintf(&path, "%s/mirzam/history", state)
		: home && *home == '/' ? asprintf(&path, "%s/.local/state/mirzam/history", home)
				       : -1;
	return n < 0 ? NULL : path;
}

/* ---- text ---- */

/* line[0..n) as UTF-8 without NULs, appended. */
static void add_clean(mzm_cli_bytes *to, const char *line, size_t n)
{
	int columns;
	for (size_t i = 0, len; i < n; i += len) {
		len = mzm_cli_char(line + i, n - i, &columns);
		bool broken = len == 1 && (line[i] == 0 || (unsigned char)line[i] >= 0x80);
		mzm_cli_bytes_add(to, broken ? REPLACEMENT : line + i, broken ? strlen(REPLACEMENT) : len);
	}
}

static bool ends_with(const mzm_cli_bytes *b, const char *end)
{
	size_t n = strlen(end);
	return b->n >= n && memcmp(b->data + b->n - n, end, n) == 0;
}

/* ---- a plain line ---- */

static void drop_line_end(mzm_cli_bytes *line)
{
	if (line->n && line->data[line->n - 1] == '\n')
		line->n--;
	if (line->n && line->data[line->n - 1] == '\r')
		line->n--;
}

static line_end read_plain(mzm_chat_line *in, mzm_cli_bytes *line, const char *prompt, mzm_err *err)
{
	int c = 0;
	if (in->terminal) {
		fputs(prompt, in->out);
		fflush(in->out);
	}
	errno = 0;
	while (c != '\n' && line->n <= MZM_CLI_MAX_TEXT && (c = getc(stdin)) != EOF)
		mzm_cli_bytes_add(line, &(char){(char)c}, 1);
	if (c == EOF && errno == EINTR && in->terminal) {
		clearerr(stdin);
		line->n = 0;
		return LINE_DROPPED;
	}
	if (c == EOF && ferror(stdin)) {
		mzm_cli_set_err(err, MZM_EIO, "standard input: %s", strerror(errno));
		return LINE_BROKEN;
	}
	if (c == EOF && line->n == 0)
		return LINE_LAST;
	drop_line_end(line);
	return LINE_GOT;
}

/* ---- a line with editing ---- */

#ifdef MZM_LIBEDIT

static volatile sig_atomic_t terminal_changed; /* its size, or what others did to it while this program was stopped */

static void on_change(int number)
{
	(void)number;
	terminal_changed = 1;
}

static void watch_terminal(void)
{
	struct sigaction action = {.sa_handler = on_change, .sa_flags = SA_RESTART};
	sigemptyset(&action.sa_mask);
	sigaction(SIGCONT, &action, NULL);
	sigaction(SIGWINCH, &action, NULL);
}

static void redraw(EditLine *el)
{
	terminal_changed = 0;
	el_resize(el);
	el_wset(el, EL_PREP_TERM, 0);
	el_wset(el, EL_PREP_TERM, 1);
	el_wset(el, EL_REFRESH);
}

static wchar_t *show_prompt(EditLine *el)
{
	mzm_chat_line *in = NULL;
	el_wget(el, EL_CLIENTDATA, &in);
	return in->prompt;
}

/* The character that a first byte begins; what is broken becomes U+FFFD. */
static wchar_t read_rest(unsigned char first)
{
	int more = first < 0x80 ? 0 : first < 0xC2 ? -1 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : first < 0xF5 ? 3 : -1;
	uint32_t code = more > 0 ? first & (0x3Fu >> more) : first;
	for (int i = 0; i < more; i++) {
		unsigned char next;
		if (read(STDIN_FILENO, &next, 1) != 1 || (next & 0xC0) != 0x80)
			return 0xFFFD;
		code = code << 6 | (next & 0x3Fu);
	}
	return more < 0 || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF ? 0xFFFD : (wchar_t)code;
}

/* libedit's reader: 1, 0 at the end, -1 to give up the line. */
static int read_char(EditLine *el, wchar_t *out)
{
	unsigned char byte;
	for (;;) {
		struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
		int ready = poll(&input, 1, 500); /* a signal that came just before it is seen half a second later */
		if (mzm_cli_interrupted() || (ready < 0 && errno != EINTR))
			return -1;
		if (terminal_changed)
			redraw(el);
		if (ready <= 0)
			continue;
		ssize_t n = read(STDIN_FILENO, &byte, 1);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -1;
		if (n == 1) {
			*out = read_rest(byte);
			return 1;
		}
	}
}

/* Completes a command at the beginning of the line. */
static unsigned char complete(EditLine *el, int key)
{
	const LineInfoW *line = el_wline(el);
	const char *name, *only = NULL;
	size_t n = (size_t)(line->cursor - line->buffer), len;
	wchar_t rest[32] = {0};
	(void)key;
	if (n == 0 || line->buffer[0] != L'/')
		return CC_ERROR;
	for (int i = 0; (name = mzm_chat_command_name(i)) != NULL; i++) {
		for (len = 0; len < n - 1 && name[len] && (wchar_t)name[len] == line->buffer[1 + len]; len++)
			;
		if (len == n - 1 && only)
			return CC_ERROR; /* more than one */
		only = len == n - 1 ? name : only;
	}
	if (!only || strlen(only) - (n - 1) > MZM_CLI_COUNT(rest) - 2)
		return CC_ERROR;
	for (len = 0; only[n - 1 + len]; len++)
		rest[len] = (wchar_t)only[n - 1 + len];
	rest[len] = L' ';
	return el_winsertstr(el, rest) == 0 ? CC_REFRESH : CC_ERROR;
}

static void add_wide(mzm_cli_bytes *to, const wchar_t *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t c = (uint32_t)text[i];
		char b[4];
		size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		for (size_t k = len; k-- > 1; c >>= 6)
			b[k] = (char)(0x80 | (c & 0x3F));
		b[0] = (char)(len == 1 ? c : (0xF00u >> len & 0xF0u) | c);
		mzm_cli_bytes_add(to, b, len);
	}
}

static line_end read_edited(mzm_chat_line *in, mzm_cli_bytes *line, const char *prompt, mzm_err *err)
{
	int n = 0;
	for (size_t i = 0; i <= strlen(prompt); i++)
		in->prompt[i] = (wchar_t)prompt[i];
	const wchar_t *text = el_wgets(in->el, &n);
	if (mzm_cli_interrupted())
		return LINE_DROPPED;
	if (!text || n <= 0) {
		if (n < 0)
			mzm_cli_set_err(err, MZM_EIO, "standard input: %s", strerror(errno));
		return n < 0 ? LINE_BROKEN : LINE_LAST;
	}
	add_wide(line, text, (size_t)n);
	drop_line_end(line);
	return LINE_GOT;
}

/* Characters are shown by the locale; one that has no UTF-8 would lose them. */
static void use_utf8(void)
{
	if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");
}

static void open_history(mzm_chat_line *in)
{
	HistEventW event;
	in->past = history_winit();
	if (!in->past)
		return;
	history_w(in->past, &event, H_SETSIZE, HISTORY_LINES);
	history_w(in->past, &event, H_SETUNIQUE, 1);
	if (in->history)
		history_w(in->past, &event, H_LOAD, in->history);
	el_wset(in->el, EL_HIST, history_w, in->past);
}

/* Without it, lines are read as they come. */
static void open_editor(mzm_chat_line *in)
{
	use_utf8();
	in->el = el_init("mirzam", stdin, in->out, stderr);
	if (!in->el)
		return;
	el_wset(in->el, EL_CLIENTDATA, in);
	el_wset(in->el, EL_PROMPT, show_prompt);
	el_wset(in->el, EL_EDITOR, L"emacs");
	el_wset(in->el, EL_GETCFN, read_char);
	el_wset(in->el, EL_ADDFN, L"mirzam-complete", L"complete a command", complete);
	el_wset(in->el, EL_BIND, L"^I", L"mirzam-complete", NULL);
	el_source(in->el, NULL);
	watch_terminal();
	open_history(in);
}

static void remember(mzm_chat_line *in, const char *text)
{
	HistEventW event;
	size_t n = mbstowcs(NULL, text, 0);
	wchar_t *wide = n != (size_t)-1 && in->past ? calloc(n + 1, sizeof *wide) : NULL;
	if (wide && mbstowcs(wide, text, n + 1) == n)
		history_w(in->past, &event, H_ENTER, wide);
	free(wide);
}

static void make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700); /* one that is there is as good; any other trouble shows when the file is made */
		*slash = '/';
	}
}

static void close_editor(mzm_chat_line *in)
{
	HistEventW event;
	if (in->past && in->history) {
		make_folders(in->history);
		int fd = open(in->history, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* before others could read it */
		if (fd >= 0)
			close(fd);
		history_w(in->past, &event, H_SAVE, in->history);
	}
	if (in->el)
		el_end(in->el);
	if (in->past)
		history_wend(in->past);
}

#endif

/* ---- messages ---- */

static line_end read_line(mzm_chat_line *in, mzm_cli_bytes *clean, const char *prompt, mzm_err *err)
{
	mzm_cli_bytes line = {0};
	line_end end;
#ifdef MZM_LIBEDIT
	end = in->el ? read_edited(in, &line, prompt, err) : read_plain(in, &line, prompt, err);
#else
	end = read_plain(in, &line, prompt, err);
#endif
	if (end == LINE_GOT)
		add_clean(clean, line.data, line.n);
	if (end == LINE_GOT && (line.failed || clean->failed || clean->n > MZM_CLI_MAX_TEXT)) {
		mzm_cli_set_err(err, line.failed || clean->failed ? MZM_ENOMEM : MZM_EARG,
				"a message is longer than %zu MiB", MZM_CLI_MAX_TEXT >> 20);
		end = LINE_BROKEN;
	}
	free(line.data);
	return end;
}

/* Lines up to the one that ends with three quotes, or the last one. b holds what follows the first three. */
static line_end read_block(mzm_chat_line *in, mzm_cli_bytes *b, mzm_err *err)
{
	line_end end = LINE_GOT;
	while (end == LINE_GOT && !ends_with(b, "\"\"\"")) {
		mzm_cli_bytes_add(b, "\n", 1);
		end = read_line(in, b, ". ", err);
	}
	if (ends_with(b, "\"\"\""))
		b->n -= 3;
	if (b->n && b->data[b->n - 1] == '\n')
		b->n--;
	if (b->n && b->data[0] == '\n')
		memmove(b->data, b->data + 1, --b->n);
	return end == LINE_LAST ? LINE_GOT : end;
}

/* Lines as long as they end with a backslash. */
static line_end read_on(mzm_chat_line *in, mzm_cli_bytes *b, mzm_err *err)
{
	line_end end = LINE_GOT;
	while (end == LINE_GOT && ends_with(b, "\\")) {
		b->data[b->n - 1] = '\n';
		end = read_line(in, b, ". ", err);
	}
	return end == LINE_LAST ? LINE_GOT : end;
}

static line_end read_message(mzm_chat_line *in, mzm_cli_bytes *b, bool *block, mzm_err *err)
{
	line_end end = read_line(in, b, "> ", err);
	*block = end == LINE_GOT && b->n >= 3 && memcmp(b->data, "\"\"\"", 3) == 0;
	if (end != LINE_GOT)
		return end;
	if (*block) {
		b->n -= 3;
		memmove(b->data, b->data + 3, b->n);
		return read_block(in, b, err);
	}
	return read_on(in, b, err);
}

/* Ctrl-C at the prompt. True: it was the second one. */
static bool interrupted_again(mzm_chat_line *in)
{
	fputs("\n", in->out);
	fflush(in->out);
	mzm_cli_forget_interrupt(true);
	if (++in->n_interrupts > 1)
		return true;
	if (!mzm_cli_quiet())
		fputs("(Ctrl-C again, or Ctrl-D, leaves)\n", stderr);
	return false;
}

mzm_line_kind mzm_chat_line_read(mzm_chat_line *in, char **text, mzm_err *err)
{
	for (;;) {
		mzm_cli_bytes b = {0};
		bool block;
		line_end end = read_message(in, &b, &block, err);
		mzm_cli_bytes_add(&b, "", 1);
		if (end == LINE_GOT && !b.failed) {
			in->n_interrupts = 0;
#ifdef MZM_LIBEDIT
			if (b.data[0])
				remember(in, b.data);
#endif
			*text = b.data;
			return block ? MZM_LINE_BLOCK : MZM_LINE_TEXT;
		}
		if (b.failed)
			mzm_cli_set_err(err, MZM_ENOMEM, "out of memory for a message");
		free(b.data);
		if (end == LINE_LAST && in->terminal)
			fputs("\n", in->out);
		if (end == LINE_LAST || (end == LINE_DROPPED && interrupted_again(in)))
			return MZM_LINE_END;
		if (end != LINE_DROPPED)
			return MZM_LINE_FAILED;
	}
}

mzm_status mzm_chat_line_open(mzm_chat_line **out, const char *history, mzm_err *err)
{
	mzm_chat_line *in = calloc(1, sizeof *in);
	*out = in;
	if (!in)
		return mzm_cli_set_err(err, MZM_ENOMEM, "out of memory");
	in->out = mzm_cli_is_tty(stdout) ? stdout : stderr;
	in->terminal = mzm_cli_is_tty(stdin) && mzm_cli_is_tty(in->out);
	in->history = history ? strdup(history) : NULL;
#ifdef MZM_LIBEDIT
	if (in->terminal)
		open_editor(in);
#endif
	return MZM_OK;
}

void mzm_chat_line_close(mzm_chat_line *in)
{
	if (!in)
		return;
#ifdef MZM_LIBEDIT
	close_editor(in);
#endif
	free(in->history);
	free(in);
}

bool mzm_chat_line_is_terminal(const mzm_chat_line *in)
{
	return in->terminal;
}
