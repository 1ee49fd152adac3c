/* `talk`: a parent and a child exchange numbers over every kind of pipe and local socket; none may get lost or come twice. */
#include "program.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define CHANNELS 8

static const char *names[CHANNELS] = { "pipe", "fifo", "stream pair", "datagram pair", "seqpacket pair",
				       "accepted stream", "abstract seqpacket", "UDP" };
/* The parent's and the child's ends for reading and writing. */
static struct ends {
	int in, out;
} parent_end[CHANNELS], child_end[CHANNELS];
static int listening = -1;
static unsigned next_number = 1;
static char wrong[128];

static void pair(int channel, int type)
{
	int fds[2];
	must(socketpair(AF_UNIX, type, 0, fds), "socketpair");
	parent_end[channel] = (struct ends){ fds[0], fds[0] };
	child_end[channel] = (struct ends){ fds[1], fds[1] };
}

static int listener(struct sockaddr_un *un, socklen_t length, int type)
{
	int fd = must(socket(AF_UNIX, type, 0), "socket");
	must(bind(fd, (struct sockaddr *)un, length), "bind");
	must(listen(fd, 4), "listen");
	return fd;
}

static void accepted(int channel, int fd, struct sockaddr_un *un, socklen_t length, int type)
{
	int client = must(socket(AF_UNIX, type, 0), "socket");
	must(connect(client, (struct sockaddr *)un, length), "connect");
	int server = must(accept(fd, NULL, NULL), "accept");
	parent_end[channel] = (struct ends){ client, client };
	child_end[channel] = (struct ends){ server, server };
}

static int udp(struct sockaddr_in *name)
{
	socklen_t length = sizeof(*name);
	*name = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	must(bind(fd, (struct sockaddr *)name, length), "bind");
	must(getsockname(fd, (struct sockaddr *)name, &length), "getsockname");
	return fd;
}

static void open_all(void)
{
	int there[2], back[2];
	must(pipe(there), "pipe");
	must(pipe(back), "pipe");
	parent_end[0] = (struct ends){ back[0], there[1] };
	child_end[0] = (struct ends){ there[0], back[1] };

	must(mkfifo("there", 0600), "mkfifo");
	must(mkfifo("back", 0600), "mkfifo");
	int fifo_there = must(open("there", O_RDWR), "open"), fifo_back = must(open("back", O_RDWR), "open");
	parent_end[1] = (struct ends){ fifo_back, fifo_there };
	child_end[1] = (struct ends){ fifo_there, fifo_back };

	pair(2, SOCK_STREAM);
	pair(3, SOCK_DGRAM);
	pair(4, SOCK_SEQPACKET);

	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char *directory = getcwd(NULL, 0);
	snprintf(un.sun_path, sizeof(un.sun_path), "%.90s/socket", directory);
	free(directory);
	listening = listener(&un, sizeof(un), SOCK_STREAM);
	accepted(5, listening, &un, sizeof(un), SOCK_STREAM);

	struct sockaddr_un hidden = { .sun_family = AF_UNIX };
	int length = snprintf(hidden.sun_path + 1, sizeof(hidden.sun_path) - 1, "talk-%d", getpid());
	socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + length;
	int abstract = listener(&hidden, size, SOCK_SEQPACKET);
	accepted(6, abstract, &hidden, size, SOCK_SEQPACKET);

	struct sockaddr_in mine, theirs;
	int here = udp(&mine), over = udp(&theirs);
	must(connect(here, (struct sockaddr *)&theirs, sizeof(theirs)), "connect");
	must(connect(over, (struct sockaddr *)&mine, sizeof(mine)), "connect");
	parent_end[7] = (struct ends){ here, here };
	child_end[7] = (struct ends){ over, over };
}

/* Answers each number with the number plus one million times the channel. */
static void answer(void)
{
	struct pollfd polled[CHANNELS];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < CHANNELS; i++)
		polled[i] = (struct pollfd){ .fd = child_end[i].in, .events = POLLIN };
	for (;;) {
		if (poll(polled, CHANNELS, -1) < 0)
			continue;
		for (int i = 0; i < CHANNELS; i++) {
			unsigned number;
			if (!(polled[i].revents & POLLIN))
				continue;
			must(read(child_end[i].in, &number, sizeof(number)), names[i]);
			number += 1000000u * i;
			must(write(child_end[i].out, &number, sizeof(number)), names[i]);
		}
	}
}

static const char *round_of_all(void)
{
	for (int i = 0; i < CHANNELS; i++) {
		unsigned got = 0, number = next_number++;
		must(write(parent_end[i].out, &number, sizeof(number)), names[i]);
		struct pollfd polled = { .fd = parent_end[i].in, .events = POLLIN };
		if (poll(&polled, 1, 10000) != 1) {
			snprintf(wrong, sizeof(wrong), "%s: no answer", names[i]);
			return wrong;
		}
		must(read(parent_end[i].in, &got, sizeof(got)), names[i]);
		if (got != number + 1000000u * i) {
			snprintf(wrong, sizeof(wrong), "%s: %u instead of %u", names[i], got, number + 1000000u * i);
			return wrong;
		}
	}
	return NULL;
}

/* The listening socket still takes connections under its name. */
static const char *still_listens(void)
{
	struct sockaddr_un un;
	socklen_t length = sizeof(un);
	must(getsockname(listening, (struct sockaddr *)&un, &length), "getsockname");
	int client = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	if (connect(client, (struct sockaddr *)&un, length))
		return "the listening socket takes no connection";
	int server = must(accept(listening, NULL, NULL), "accept");
	close(client);
	close(server);
	return NULL;
}

int main(void)
{
	sigset_t awaited;
	begin(&awaited);
	open_all();
	if (must(fork(), "fork") == 0)
		answer();
	return run(&awaited, round_of_all, still_listens);
}
