/*
 * `shared MIB`: three processes and their threads over memory of every kind: private (a part of it touched and zero, a part
 * changed by the child that inherited it), shared between them, and a memfd. Each looks at its own when the first is asked to.
 */
#include "program.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { PROCESSES = 3, THREADS = 3, PAGE = 4096 };

/* What all three share. */
struct board {
	volatile unsigned long asked;
	volatile unsigned long answered[PROCESSES];
	const char *volatile wrong[PROCESSES];
	volatile unsigned long count[PROCESSES][THREADS];
	unsigned char rest[1 << 20];
};

static struct board *board;
static unsigned char *own, *from_memfd;
static size_t size;
static int number;

static unsigned char expected(size_t place, int of)
{
	/* Every fourth block of sixteen pages was touched and is zero. */
	if (place / PAGE / 16 % 4 == 3)
		return 0;
	uint64_t x = (place + 1) * 0x9e3779b97f4a7c15u + (uint64_t)of;
	return (unsigned char)((x ^ x >> 29) >> 24 | 1);
}

/* The second half of the private memory is the process's own, the first as the parent had it. */
static const char *look(void)
{
	for (size_t i = 0; i < size; i++)
		if (own[i] != expected(i, i < size / 2 ? 0 : number))
			return "private memory changed";
	for (size_t i = 0; i < sizeof(board->rest); i++)
		if (board->rest[i] != expected(i, 77))
			return "shared memory changed";
	for (size_t i = 0; i < size; i++)
		if (from_memfd[i] != expected(i, 99))
			return "the memfd changed";
	return NULL;
}

static void *count(void *which)
{
	for (;;) {
		nanosleep(&every_tick, NULL);
		board->count[number][(size_t)which]++;
	}
	return NULL;
}

static void live(void)
{
	for (size_t i = size / 2; i < size; i++)
		own[i] = expected(i, number);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, count, (void *)i))
			_exit(1);
	}
}

static void child(void)
{
	live();
	board->answered[number] = 1;
	for (unsigned long seen = 1;;) {
		nanosleep(&every_tick, NULL);
		if (board->asked == seen)
			continue;
		board->wrong[number] = look();
		board->answered[number] = ++seen;
	}
}

static const char *all_look(void)
{
	unsigned long asked = ++board->asked, before[PROCESSES][THREADS];
	for (int i = 0; i < PROCESSES; i++)
		for (int j = 0; j < THREADS; j++)
			before[i][j] = board->count[i][j];
	const char *wrong = look();
	for (int waited = 0; waited < 500 && !wrong; waited++) {
		int done = 1;
		for (int i = 0; i < PROCESSES; i++) {
			if (i && board->answered[i] != asked)
				done = 0;
			for (int j = 0; j < THREADS; j++)
				if (board->count[i][j] == before[i][j])
					done = 0;
		}
		for (int i = 1; i < PROCESSES && done; i++)
			if (board->wrong[i])
				wrong = board->wrong[i];
		if (done)
			return wrong;
		nanosleep(&every_tick, NULL);
	}
	return wrong ? wrong : "a process or a thread does not answer";
}

int main(int argc, char **argv)
{
	sigset_t awaited;
	begin(&awaited);
	size = (argc > 1 ? strtoul(argv[1], NULL, 10) : 4) << 20;
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must((long)board, "mmap");
	own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must((long)own, "mmap");
	int memfd = (int)must(memfd_create("shared", MFD_CLOEXEC), "memfd_create");
	must(ftruncate(memfd, (off_t)size), "ftruncate");
	from_memfd = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	must((long)from_memfd, "mmap");
	for (size_t i = 0; i < size; i++) {
		own[i] = expected(i, 0);
		from_memfd[i] = expected(i, 99);
	}
	for (size_t i = 0; i < sizeof(board->rest); i++)
		board->rest[i] = expected(i, 77);
	board->asked = 1;
	pid_t children[PROCESSES] = { 0 };
	for (number = 1; number < PROCESSES; number++) {
		children[number] = (pid_t)must(fork(), "fork");
		if (children[number] == 0)
			child();
	}
	number = 0;
	live();
	for (int i = 1; i < PROCESSES; i++)
		while (!board->answered[i])
			nanosleep(&every_tick, NULL);
	int status = run(&awaited, NULL, all_look);
	for (int i = 1; i < PROCESSES; i++) {
		kill(children[i], SIGKILL);
		if (waitpid(children[i], NULL, 0) != children[i])
			return 1;
	}
	return status;
}
