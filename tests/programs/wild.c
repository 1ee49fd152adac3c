/* `wild COUNT [numbers]`: COUNT chains of processes, each of which makes the next one and ends, below one that ticks, or that
 * prints a number every 100 ms.
 *
 * The first process adopts them all, and has the kernel reap them: a machine whose PID 1 had to do it would run out of PIDs.
 * The chains end when it does. */
#include "program.h"

#include <sys/prctl.h>

static void go_wild(int chains)
{
	pid_t first = getpid();

	/* They are nobody's to wait for. */
	signal(SIGCHLD, SIG_IGN);
	must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER");
	for (int i = 0; i < chains; i++) {
		if (must(fork(), "fork"))
			continue;
		for (;;) {
			if (fork() != 0 || kill(first, 0) < 0)
				_exit(0);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	int chains = argc > 1 ? atoi(argv[1]) : 8;
	sigset_t awaited;
	begin(&awaited);
	if (chains < 1 || chains > 50)
		return 64;
	go_wild(chains);
	if (argc < 3)
		return run(&awaited, NULL, NULL);
	for (unsigned long n = 0;; n++) {
		printf("%lu\n", n);
		nanosleep(&pause, NULL);
	}
}
