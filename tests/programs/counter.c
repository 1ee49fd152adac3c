/* counter [COUNT [INTERVAL_MS [EXIT]]]: a parent and a child that count side by side.
 *
 * Each prints "parent PID N" or "child PID N" for N from 1 to COUNT (default 10), one line every INTERVAL_MS (default
 * 1000), then "parent PID end" or "child PID end". The child exits with CHILD_EXIT; the parent reaps it, prints
 * "parent PID reaped CHILD STATUS", and exits with EXIT (default 0) only if the child was its own and exited with
 * CHILD_EXIT, else with 1. Each line is one write, so that the lines of both may share a file or a terminal.
 *
 * Build: cc -O2 -Wall -o counter counter.c */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHILD_EXIT = 7, BAD_USAGE = 2 };

static void say(const char *format, ...)
{
	char line[128];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	/* A terminal that went away must not end the count unseen: that is what EXIT 1 is for. */
	if (write(STDOUT_FILENO, line, size) != size)
		_exit(1);
}

static void count(const char *who, long to, long interval_ms)
{
	for (long n = 1; n <= to; n++) {
		struct timespec left = { interval_ms / 1000, interval_ms % 1000 * 1000000 };

		/* The PID is asked for anew each time: it must be the same after a restore. */
		say("%s %d %ld\n", who, (int)getpid(), n);
		while (nanosleep(&left, &left) == -1 && errno == EINTR)
			;
	}
	say("%s %d end\n", who, (int)getpid());
}

static long number(const char *text, long most)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 0 || value > most) {
		fprintf(stderr, "counter: '%s' is not a number from 0 to %ld\n", text, most);
		exit(BAD_USAGE);
	}
	return value;
}

int main(int argc, char **argv)
{
	long to = argc > 1 ? number(argv[1], 1000000) : 10;
	long interval_ms = argc > 2 ? number(argv[2], 1000000) : 1000;
	long status_wanted = argc > 3 ? number(argv[3], 255) : 0;
	pid_t child, reaped;
	int status;

	child = fork();
	if (child == -1) {
		perror("counter: fork");
		return 1;
	}
	if (child == 0) {
		count("child", to, interval_ms);
		return CHILD_EXIT;
	}
	count("parent", to, interval_ms);
	do
		reaped = wait(&status);
	while (reaped == -1 && errno == EINTR);
	if (reaped != child || !WIFEXITED(status)) {
		fprintf(stderr, "counter: reaped %d, status 0x%x; the child was %d\n", (int)reaped, status, (int)child);
		return 1;
	}
	say("parent %d reaped %d %d\n", (int)getpid(), (int)reaped, WEXITSTATUS(status));
	return WEXITSTATUS(status) == CHILD_EXIT ? (int)status_wanted : 1;
}
