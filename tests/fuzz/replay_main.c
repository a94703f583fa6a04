/* replay_main.c - runs a fuzz target over its corpus without libFuzzer.
 *
 * Every file of the given directories goes through the target as it is, then mutated: bytes changed,
 * removed, repeated, numbers replaced by borderline ones, two files spliced. Mutation i depends on
 * the seed and on i alone, so a failure is repeated by the command line it prints. A target that
 * does not return within ten seconds fails. Counts stop at -n mutations or -t seconds, whichever
 * comes first. It does not look for coverage: that is libFuzzer's work (MIRZAM_FUZZ).
 *
 * usage: fuzz_X [-n MUTATIONS] [-t SECONDS] [-s SEED] [-i MUTATION] DIR_OR_FILE... */
#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_SEEDS 4096
#define MAX_BYTES (1u << 20)
#define HANG_SECONDS 10

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Set where a sanitizer is linked in; called when it has found something. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

typedef struct seed_file {
	char    *path;
	uint8_t *data; /* [size] */
	size_t   size;
} seed_file;

static seed_file seeds[MAX_SEEDS];
static int n_seeds;
static char where[4352]; /* what is running, for the report of a failure */

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t n)
{
	return n == 0 ? 0 : (size_t)(next_random(state) % n);
}

/* ---- Failures ------------------------------------------------------------------------------- */

static void say_where(void)
{
	ssize_t written = write(STDERR_FILENO, where, strlen(where));
	(void)written;
}

static void on_signal(int sig)
{
	static const char hang[] = "not done after 10 seconds: ";
	if (sig == SIGALRM) {
		ssize_t written = write(STDERR_FILENO, hang, sizeof(hang) - 1);
		(void)written;
	}
	say_where();
	if (sig == SIGALRM)
		_exit(1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void watch_failures(void)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	signal(SIGALRM, on_signal);
	if (__sanitizer_set_death_callback != NULL) {
		__sanitizer_set_death_callback(say_where);
		return; /* the sanitizer's own report comes first */
	}
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		signal(crashes[i], on_signal);
}

/* The input lives in a block of exactly its size, so that a sanitizer sees one byte too far. */
static void run_one(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	if (exact == NULL)
		return;
	if (size != 0)
		memcpy(exact, data, size);
	alarm(HANG_SECONDS);
	LLVMFuzzerTestOneInput(exact, size);
	alarm(0);
	free(exact);
}

/* ---- Seeds ---------------------------------------------------------------------------------- */

static void read_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(MAX_BYTES);
	if (f == NULL || data == NULL || n_seeds == MAX_SEEDS) {
		fprintf(stderr, "%s: not read\n", path);
		exit(2);
	}
	seed_file *seed = &seeds[n_seeds++];
	seed->path = strdup(path);
	seed->size = fread(data, 1, MAX_BYTES, f);
	seed->data = realloc(data, seed->size ? seed->size : 1);
	fclose(f);
}

static void read_seeds(const char *path)
{
	struct stat st;
	struct dirent **entries;
	if (stat(path, &st) != 0) {
		fprintf(stderr, "%s: no such file or folder\n", path);
		exit(2);
	}
	if (!S_ISDIR(st.st_mode)) {
		read_file(path);
		return;
	}
	int n = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char *full = NULL;
		if (entries[i]->d_name[0] != '.' && asprintf(&full, "%s/%s", path, entries[i]->d_name) > 0)
			read_seeds(full);
		free(full);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

/* ---- Mutations ------------------------------------------------------------------------------ */

static const uint64_t borderline[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
				      0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};

static void put_number(uint8_t *buf, size_t size, uint64_t *rng)
{
	uint64_t value = borderline[below(rng, sizeof(borderline) / sizeof(borderline[0]))];
	size_t width = (size_t)1 << below(rng, 4);
	if (width <= size)
		memcpy(buf + below(rng, size - width + 1), &value, width);
}

/* Text formats hold numbers as digits: one run of them becomes another number. */
static void put_digits(uint8_t *buf, size_t size, uint64_t *rng)
{
	static const char *const numbers[] = {"0", "-1", "1e9", "9999999999999999999", "0.5", "2147483648", "1e400"};
	const char *number = numbers[below(rng, sizeof(numbers) / sizeof(numbers[0]))];
	size_t at = below(rng, size);
	while (at < size && (buf[at] < '0' || buf[at] > '9'))
		at++;
	for (; at < size && *number != '\0'; at++)
		buf[at] = (uint8_t)*number++;
}

static size_t cut(uint8_t *buf, size_t size, uint64_t *rng)
{
	size_t at = below(rng, size), n = 1 + below(rng, size - at);
	memmove(buf + at, buf + at + n, size - at - n);
	return size - n;
}

static size_t repeat(uint8_t *buf, size_t size, uint64_t *rng)
{
	size_t at = below(rng, size), n = 1 + below(rng, size - at);
	if (n > MAX_BYTES - size)
		return size;
	memmove(buf + at + n, buf + at, size - at);
	return size + n;
}

static size_t splice(uint8_t *buf, size_t size, uint64_t *rng)
{
	const seed_file *other = &seeds[below(rng, (size_t)n_seeds)];
	size_t from = below(rng, other->size), n = other->size - from, at = below(rng, size);
	if (n > MAX_BYTES - at)
		n = MAX_BYTES - at;
	memcpy(buf + at, other->data + from, n);
	return at + n > size ? at + n : size;
}

static size_t mutate_once(uint8_t *buf, size_t size, uint64_t *rng)
{
	switch (below(rng, 8)) {
	case 0:
		buf[below(rng, size)] = (uint8_t)next_random(rng);
		return size;
	case 1:
		buf[below(rng, size)] ^= (uint8_t)(1u << below(rng, 8));
		return size;
	case 2:
		put_number(buf, size, rng);
		return size;
	case 3:
		put_digits(buf, size, rng);
		return size;
	case 4:
		return below(rng, size); /* truncated */
	case 5:
		return cut(buf, size, rng);
	case 6:
		return repeat(buf, size, rng);
	default:
		return splice(buf, size, rng);
	}
}

static void run_mutation(uint64_t seed, uint64_t i, const char *program)
{
	static uint8_t buf[MAX_BYTES];
	uint64_t rng = seed * 0xd1342543de82ef95u + i;
	const seed_file *from = &seeds[below(&rng, (size_t)n_seeds)];
	size_t size = from->size, n_changes = 1 + below(&rng, 4);
	memcpy(buf, from->data, size);
	for (size_t c = 0; c < n_changes && size != 0; c++)
		size = mutate_once(buf, size, &rng);
	snprintf(where, sizeof(where), "failed on mutation %llu of seed %llu (%s); again: %s -s %llu -i %llu DIR...\n",
		 (unsigned long long)i, (unsigned long long)seed, from->path, program, (unsigned long long)seed,
		 (unsigned long long)i);
	run_one(buf, size);
}

/* ---- Main ----------------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static uint64_t run_mutations(uint64_t seed, uint64_t n, double limit, const char *program)
{
	double end = seconds() + limit;
	uint64_t i = 0;
	while (i < n && seconds() < end)
		run_mutation(seed, i++, program);
	return i;
}

static void free_seeds(void)
{
	for (int i = 0; i < n_seeds; i++) {
		free(seeds[i].path);
		free(seeds[i].data);
	}
}

int main(int argc, char **argv)
{
	bool long_form = getenv("MIRZAM_LONG") != NULL && getenv("MIRZAM_SHORT") == NULL;
	uint64_t n = long_form ? 1000000 : 5000, seed = 1, only = UINT64_MAX;
	double limit = long_form ? 60 : 5;
	int opt;
	atexit(free_seeds);
	while ((opt = getopt(argc, argv, "n:t:s:i:")) != -1) {
		if (opt == 'n')
			n = strtoull(optarg, NULL, 10);
		else if (opt == 't')
			limit = strtod(optarg, NULL);
		else if (opt == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (opt == 'i')
			only = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	for (int i = optind; i < argc; i++)
		read_seeds(argv[i]);
	if (n_seeds == 0) {
		fprintf(stderr, "usage: %s [-n MUTATIONS] [-t SECONDS] [-s SEED] [-i MUTATION] DIR_OR_FILE...\n",
			argv[0]);
		return 2;
	}
	watch_failures();
	if (only != UINT64_MAX) {
		run_mutation(seed, only, argv[0]);
		return 0;
	}
	for (int i = 0; i < n_seeds; i++) {
		snprintf(where, sizeof(where), "failed on %s\n", seeds[i].path);
		run_one(seeds[i].data, seeds[i].size);
	}
	uint64_t mutations = run_mutations(seed, n, limit, argv[0]);
	printf("ok 1 - %d files\nok 2 - %llu mutations (seed %llu)\n", n_seeds, (unsigned long long)mutations,
	       (unsigned long long)seed);
	return 0;
}
