/* `tree COUNT`: a parent and COUNT - 1 children, each of which counts in shared memory and knows its own PID. */
#include "program.h"

#include <sys/mman.h>
#include <sys/wait.h>

struct member {
	volatile unsigned long count;
	volatile int wrong;
	pid_t pid;
};

static struct member *members;
static int children;

static void child(struct member *self, pid_t parent)
{
	/* The parent writes the PID; a child that came first waits for it. */
	for (;;) {
		nanosleep(&every_tick, NULL);
		if (self->pid && (getpid() != self->pid || getppid() != parent))
			self->wrong = 1;
		self->count++;
	}
}

static const char *all_count(void)
{
	for (int i = 0; i < children; i++) {
		unsigned long before = members[i].count;
		for (int waited = 0; members[i].count == before; waited++) {
			if (waited == 500)
				return "a child does not count";
			nanosleep(&every_tick, NULL);
		}
		if (members[i].wrong)
			return "a child has another PID or parent";
		if (waitpid(members[i].pid, NULL, WNOHANG) != 0)
			return "a child has ended or is no child any more";
	}
	return NULL;
}

int main(int argc, char **argv)
{
	sigset_t awaited;
	begin(&awaited);
	children = argc > 1 ? atoi(argv[1]) - 1 : 1;
	if (children < 0 || children > 10000)
		return 64;
	members = mmap(NULL, (children + 1) * sizeof(*members), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must((long)members, "mmap");
	for (int i = 0; i < children; i++) {
		pid_t parent = getpid(), pid = must(fork(), "fork");
		if (pid == 0)
			child(&members[i], parent);
		members[i].pid = pid;
	}
	int status = run(&awaited, NULL, all_count);
	for (int i = 0; i < children; i++) {
		int ended;
		kill(members[i].pid, SIGKILL);
		if (waitpid(members[i].pid, &ended, 0) != members[i].pid || !WIFSIGNALED(ended))
			return 1;
	}
	return status;
}
