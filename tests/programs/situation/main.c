/* The frame around the situations: choosing one, telling that it stands, and looking at it when asked. */
#include "situation.h"

#include <sys/prctl.h>
#include <time.h>

extern const struct situation *const __start_situations[];
extern const struct situation *const __stop_situations[];

const char *argument;
const char *(*check)(void);

static void say(const char *text)
{
	dprintf(STDOUT_FILENO, "%s\n", text);
}

void skip(const char *reason)
{
	dprintf(STDOUT_FILENO, "skip %s\n", reason);
	_exit(0);
}

long must(long value, const char *what)
{
	if (value < 0) {
		char reason[256];
		snprintf(reason, sizeof(reason), "%s: %s", what, strerror(errno));
		skip(reason);
	}
	return value;
}

static void wait_outside(void)
{
	for (;;)
		pause();
}

static void split(int own_session, void (*body)(void))
{
	/* The outside must not hold the victim's zombie: its PID is needed for the restore. */
	signal(SIGCHLD, SIG_IGN);
	pid_t outside = getpid();
	if (must(fork(), "fork") == 0) {
		signal(SIGCHLD, SIG_DFL);
		if (own_session)
			must(setsid(), "setsid");
		dprintf(STDOUT_FILENO, "outside %d\n", outside);
		dprintf(STDOUT_FILENO, "victim %d\n", getpid());
		return;
	}
	if (body)
		body();
	wait_outside();
}

void split_off(void)
{
	split(1, NULL);
}

void split_inside_session(void)
{
	split(0, NULL);
}

void split_off_with(void (*body)(void))
{
	split(1, body);
}

pid_t waiting_child(void)
{
	pid_t child = must(fork(), "fork");
	if (child == 0)
		wait_outside();
	return child;
}

void settle(void)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	say("ready");
	for (;;) {
		int received;
		if (sigwait(&usr1, &received))
			continue;
		const char *wrong = check ? check() : NULL;
		if (wrong)
			dprintf(STDOUT_FILENO, "BAD %s\n", wrong);
		else
			say("ok");
	}
}

int file_with(const char *path, size_t size, int flags)
{
	static char block[1 << 16];
	memset(block, 'x', sizeof(block));
	int fd = must(open(path, O_RDWR | O_CREAT | O_TRUNC | flags, 0600), path);
	while (size > 0) {
		size_t part = size < sizeof(block) ? size : sizeof(block);
		must(write(fd, block, part), "write");
		size -= part;
	}
	return fd;
}

void await_state(pid_t pid, const char *states)
{
	char path[64], stat[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (int i = 0; i < 2000; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
		close(fd);
		if (n > 0) {
			stat[n] = 0;
			char *end = strrchr(stat, ')');
			if (end && end[1] && strchr(states, end[2]))
				return;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	skip("a task did not reach its state");
}

int main(int argc, char **argv)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (const struct situation *const *s = __start_situations; s < __stop_situations; s++)
			say((*s)->name);
		return 0;
	}
	if (argc < 2) {
		fprintf(stderr, "usage: situation NAME [ARGUMENT]\n");
		return 64;
	}
	argument = argc > 2 ? argv[2] : NULL;
	for (const struct situation *const *s = __start_situations; s < __stop_situations; s++) {
		if (strcmp((*s)->name, argv[1]) == 0) {
			(*s)->make();
			settle();
		}
	}
	fprintf(stderr, "situation: no situation `%s`\n", argv[1]);
	return 64;
}
