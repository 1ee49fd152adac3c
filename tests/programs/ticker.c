/* `ticker`: sleeps for a millisecond over and over, and knows the longest time between two wake-ups.
 *
 * At SIGUSR1 it prints "gap US" and forgets: the longest time since the one before, in microseconds by CLOCK_REALTIME, which
 * goes on while the program stands still. SIGTERM ends it.
 *
 * Build: cc -O2 -Wall -o ticker ticker.c */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <time.h>

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

int main(void)
{
	const struct timespec tick = { .tv_nsec = 1000000 };
	sigset_t awaited;
	long long before, longest = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGUSR1);
	sigaddset(&awaited, SIGTERM);
	sigprocmask(SIG_BLOCK, &awaited, NULL);
	puts("ready");
	before = now_us();
	for (;;) {
		int received = sigtimedwait(&awaited, NULL, &tick);
		long long now = now_us();

		if (now - before > longest)
			longest = now - before;
		if (received == SIGTERM)
			return 0;
		if (received == SIGUSR1) {
			printf("gap %lld\n", longest);
			longest = 0;
		}
		before = now_us();
	}
}
