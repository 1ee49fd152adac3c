/*
 * Small situations a checkpoint may meet: `situation NAME [ARGUMENT]` makes one, prints `ready`, and waits. SIGUSR1 makes it
 * look at its own state and print `ok` or `BAD what`. A situation this kernel cannot give prints `skip REASON` and ends.
 */
#ifndef SITUATION_H
#define SITUATION_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct situation {
	const char *name;
	void (*make)(void);
};

/* Defines the situation NAME and puts it on the list main() looks in. */
#define SITUATION(NAME)                                                                                                \
	static void make_##NAME(void);                                                                                 \
	static const struct situation situation_##NAME = { #NAME, make_##NAME };                                       \
	__attribute__((used, section("situations"))) static const struct situation *const entry_##NAME =             \
		&situation_##NAME;                                                                                     \
	static void make_##NAME(void)

/* The second word of the command line, or NULL. */
extern const char *argument;

/* What SIGUSR1 runs: NULL when the state is as it was, else what is wrong with it. */
extern const char *(*check)(void);

/* The value of a system call that must not fail; when it does, the situation is reported as skipped. */
long must(long value, const char *what);

/* Ends with `skip REASON`. */
void skip(const char *reason) __attribute__((noreturn));

/*
 * Splits into a parent that stays outside of the tree with all descriptors open, and a child that goes on as the victim.
 * `split_off` gives the victim a session of its own; `split_inside_session` leaves it in the outside's.
 */
void split_off(void);
void split_inside_session(void);

/* Runs `body` in the part that stays outside, before it settles to wait. */
void split_off_with(void (*body)(void));

/* A child that waits until it is killed. */
pid_t waiting_child(void);

/* Says `ready` and waits for SIGUSR1 for ever. */
void settle(void) __attribute__((noreturn));

/* Writes `size` bytes of a pattern to a new file. */
int file_with(const char *path, size_t size, int flags);

/* Waits (two seconds at most) until the state letter of a task is one of `states`. */
void await_state(pid_t pid, const char *states);

#endif
