/* `selfcheck [MIB [DIRTY_KIB]]`: counts, and checks its own PID, count and memory all the time.
 *
 * MIB of memory (default 16) hold numbers that follow from their place and from a generation; each step rewrites the next
 * DIRTY_KIB of it (default 64) with the next generation. Every 10 ms it prints `N PID`, and at every tenth, after all of the
 * memory was compared, `N PID whole`, or `N PID CORRUPT what`, and then ends with status 1. N goes up by one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t expected(size_t place, uint64_t generation)
{
	uint64_t x = place * 0x9e3779b97f4a7c15u + generation * 0xbf58476d1ce4e5b9u;
	x ^= x >> 31;
	return x * 0x94d049bb133111ebu;
}

int main(int argc, char **argv)
{
	size_t words = (argc > 1 ? strtoul(argv[1], NULL, 10) : 16) << 17;
	size_t dirty = (argc > 2 ? strtoul(argv[2], NULL, 10) : 64) << 7;
	const struct timespec step = { .tv_nsec = 10000000 };
	uint64_t *memory = malloc(words * sizeof(*memory));
	uint64_t sweeps = 0; /* of whole memory: the words before `at` are one generation ahead */
	size_t at = 0;
	pid_t pid = getpid();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!memory || !words || dirty > words) {
		fprintf(stderr, "selfcheck: no such memory\n");
		return 2;
	}
	for (size_t i = 0; i < words; i++)
		memory[i] = expected(i, 0);
	for (unsigned long n = 0;; n++) {
		for (size_t i = 0; i < dirty; i++) {
			memory[at] = expected(at, sweeps + 1);
			if (++at == words) {
				at = 0;
				sweeps++;
			}
		}
		const char *wrong = getpid() == pid ? NULL : "pid";
		if (n % 10 == 0)
			for (size_t i = 0; i < words && !wrong; i++)
				if (memory[i] != expected(i, sweeps + (i < at)))
					wrong = "memory";
		if (wrong) {
			printf("%lu %d CORRUPT %s\n", n, (int)getpid(), wrong);
			return 1;
		}
		printf("%lu %d%s\n", n, (int)pid, n % 10 ? "" : " whole");
		nanosleep(&step, NULL);
	}
}
