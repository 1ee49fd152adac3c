/*
 * The frame of a test program: `ready`, then `tick N` every 20 ms; SIGUSR1 makes it look at its own state and print `ok` or
 * `BAD what`; SIGTERM makes it print `end` and exit with status 7.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct timespec every_tick = { .tv_nsec = 20000000 };

static inline long must(long value, const char *what)
{
	if (value < 0) {
		printf("BAD %s: %s\n", what, strerror(errno));
		fflush(stdout);
		_exit(1);
	}
	return value;
}

/* Blocks what run() waits for; to be called before any thread or child is made. */
static inline void begin(sigset_t *awaited)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(awaited);
	sigaddset(awaited, SIGUSR1);
	sigaddset(awaited, SIGTERM);
	must(sigprocmask(SIG_BLOCK, awaited, NULL), "sigprocmask");
}

/* `tick` runs at every tick and `check` at SIGUSR1; each gives NULL, or what is wrong. */
static inline int run(const sigset_t *awaited, const char *(*tick)(void), const char *(*check)(void))
{
	puts("ready");
	for (unsigned long n = 1;; n++) {
		int received = sigtimedwait(awaited, NULL, &every_tick);
		const char *wrong = NULL;
		if (received == SIGTERM) {
			puts("end");
			return 7;
		}
		if (received == SIGUSR1) {
			wrong = check ? check() : NULL;
			if (!wrong)
				puts("ok");
		}
		if (!wrong && tick)
			wrong = tick();
		if (wrong)
			printf("BAD %s\n", wrong);
		printf("tick %lu\n", n);
	}
}

#endif
