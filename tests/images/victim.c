/* The process tree in tests/images/tree: what each image reader has to read, in as little memory as possible.
 *
 *   root ── thread
 *     ├── child (stopped; shares an anonymous mapping, a pipe and a socket pair with root)
 *     └── zombie (exited with status 7, never reaped)
 *
 * argv[1] is the directory for its files and its ready file. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void *second_thread(void *unused)
{
	prctl(PR_SET_NAME, "second");
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv)
{
	int pipe_ends[2], pair[2], deleted, regular, memfd, listener, held;
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char *shared;
	pthread_attr_t small;
	pthread_t thread;
	pid_t child, zombie;
	siginfo_t ended;

	close_range(3, ~0U, 0); /* what the caller's shell left open is none of ours */
	must(argc == 2 && chdir(argv[1]) == 0, "chdir");
	prctl(PR_SET_NAME, "victim");

	must((regular = open("regular", O_RDWR | O_CREAT | O_TRUNC, 0640)) >= 0, "open regular");
	must(write(regular, "0123456789", 10) == 10 && lseek(regular, 4, SEEK_SET) == 4, "write regular");
	must(flock(regular, LOCK_EX) == 0, "flock");
	must((deleted = open("deleted", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0, "open deleted");
	must(write(deleted, "gone but held", 13) == 13 && unlink("deleted") == 0, "unlink");
	must((memfd = memfd_create("sealed", 0)) >= 0 && ftruncate(memfd, 4096) == 0, "memfd");
	must((held = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0 && ftruncate(held, 4096) == 0, "open shared");
	must(mmap(NULL, 4096, PROT_READ, MAP_SHARED, held, 0) != MAP_FAILED, "mmap file");

	must(pipe(pipe_ends) == 0 && write(pipe_ends[1], "in the pipe", 11) == 11, "pipe");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	must(write(pair[0], "in the socket", 13) == 13, "write socket");
	must((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket");
	must(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 5) == 0, "listen");

	shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED, "mmap");
	shared[0] = 'x';

	must((zombie = fork()) >= 0, "fork");
	if (zombie == 0)
		_exit(7);
	must(waitid(P_PID, zombie, &ended, WEXITED | WNOWAIT) == 0, "waitid");
	must((child = fork()) >= 0, "fork");
	if (child == 0) {
		prctl(PR_SET_NAME, "child");
		for (;;)
			raise(SIGSTOP);
	}
	must(waitid(P_PID, child, &ended, WSTOPPED | WNOWAIT) == 0, "waitid");
	pthread_attr_init(&small);
	must(pthread_attr_setstacksize(&small, 16384) == 0, "stack size");
	must(pthread_create(&thread, &small, second_thread, NULL) == 0, "thread");

	must(close(open("ready", O_WRONLY | O_CREAT | O_TRUNC, 0600)) == 0, "ready");
	for (;;)
		pause();
}
