/* `echo`: listens on a loopback TCP port, prints `port N`, and sends back to each client what it sends. */
#include "program.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define CLIENTS 64

static int listening;

static void *serve(void *unused)
{
	struct pollfd polled[CLIENTS + 1] = { { .fd = listening, .events = POLLIN } };
	int clients = 0;
	static char block[65536];
	(void)unused;
	for (;;) {
		if (poll(polled, clients + 1, -1) < 0)
			continue;
		for (int i = clients; i > 0; i--) {
			if (!polled[i].revents)
				continue;
			ssize_t n = read(polled[i].fd, block, sizeof(block));
			for (ssize_t sent = 0; n > 0 && sent < n;) {
				ssize_t part = write(polled[i].fd, block + sent, n - sent);
				if (part <= 0)
					n = -1;
				else
					sent += part;
			}
			if (n <= 0) {
				close(polled[i].fd);
				polled[i] = polled[clients--];
			}
		}
		if (polled[0].revents && clients < CLIENTS)
			polled[++clients] = (struct pollfd){ .fd = must(accept(listening, NULL, NULL), "accept"),
							     .events = POLLIN };
	}
	return NULL;
}

int main(void)
{
	sigset_t awaited;
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(in);
	pthread_t thread;
	begin(&awaited);
	signal(SIGPIPE, SIG_IGN);
	listening = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
	must(setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)), "SO_REUSEADDR");
	must(bind(listening, (struct sockaddr *)&in, sizeof(in)), "bind");
	must(listen(listening, 16), "listen");
	must(getsockname(listening, (struct sockaddr *)&in, &length), "getsockname");
	printf("port %d\n", ntohs(in.sin_port));
	must(-pthread_create(&thread, NULL, serve, NULL), "pthread_create");
	return run(&awaited, NULL, NULL);
}
