/* Sockets: unix ones with peers inside and outside, the inet kinds, and the odd families. */
#include "situation.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>

static int one = -1, two = -1;

/* What is sent into one end comes out of the other. */
static const char *talks(void)
{
	char byte = 0;
	if (send(one, "a", 1, MSG_NOSIGNAL) != 1)
		return "sending failed";
	if (recv(two, &byte, 1, 0) != 1 || byte != 'a')
		return "the other end got something else";
	return NULL;
}

static int queued = -1;
static const char *queue_kept(void)
{
	char text[6] = "";
	if (recv(queued, text, 5, MSG_DONTWAIT) != 5 || strcmp(text, "queue"))
		return "queued data is lost";
	return NULL;
}

/* The descriptor given has hung up: its outside peer was cut off. */
static const char *connected_outside(void)
{
	char byte;
	ssize_t n = recv(one, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
	if (n == 0)
		return "the connection to the outside is cut off";
	if (n < 0 && errno != EAGAIN)
		return strerror(errno);
	return NULL;
}

static void pair_of(int type)
{
	int pair[2];
	must(socketpair(AF_UNIX, type, 0, pair), "socketpair");
	one = pair[0];
	two = pair[1];
	check = talks;
}

static struct sockaddr_un address(const char *name, socklen_t *length)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	if (name[0] == '@') {
		memcpy(un.sun_path + 1, name + 1, strlen(name) - 1);
		*length = offsetof(struct sockaddr_un, sun_path) + strlen(name);
	} else if (strncmp(name, "./", 2) == 0) {
		strncpy(un.sun_path, name + 2, sizeof(un.sun_path) - 1);
		*length = sizeof(un);
	} else {
		/* Absolute, in the directory the situation runs in. */
		char *cwd = getcwd(NULL, 0);
		snprintf(un.sun_path, sizeof(un.sun_path), "%.80s/%.20s", cwd, name);
		free(cwd);
		*length = sizeof(un);
	}
	return un;
}

static const char *abstract_name(void)
{
	static char name[32];
	if (!name[0])
		snprintf(name, sizeof(name), "@situation-%d", getpid());
	return name;
}

static int unix_bound(int type, const char *name)
{
	socklen_t length;
	struct sockaddr_un un = address(name, &length);
	int fd = must(socket(AF_UNIX, type, 0), "socket");
	must(bind(fd, (void *)&un, length), "bind");
	if (type != SOCK_DGRAM)
		must(listen(fd, 8), "listen");
	return fd;
}

static int unix_connected(int type, const char *name)
{
	socklen_t length;
	struct sockaddr_un un = address(name, &length);
	int fd = must(socket(AF_UNIX, type, 0), "socket");
	must(connect(fd, (void *)&un, length), "connect");
	return fd;
}

SITUATION(unix_pair_stream)
{
	pair_of(SOCK_STREAM);
}

SITUATION(unix_pair_dgram)
{
	pair_of(SOCK_DGRAM);
}

SITUATION(unix_pair_seqpacket)
{
	pair_of(SOCK_SEQPACKET);
}

SITUATION(unix_unbound)
{
	must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
}

SITUATION(unix_pair_half_closed)
{
	pair_of(SOCK_STREAM);
	close(two);
	check = NULL;
}

SITUATION(unix_pair_shut)
{
	pair_of(SOCK_STREAM);
	must(shutdown(one, SHUT_WR), "shutdown");
	check = NULL;
}

SITUATION(unix_queued)
{
	pair_of(SOCK_STREAM);
	must(send(one, "queue", 5, 0), "send");
	queued = two;
	check = queue_kept;
}

SITUATION(unix_descriptor_in_flight)
{
	pair_of(SOCK_STREAM);
	check = NULL;
	int fd = file_with("passed", 10, 0);
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { "x", 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	must(sendmsg(one, &message, 0), "sendmsg");
	close(fd);
}

SITUATION(unix_passcred)
{
	pair_of(SOCK_DGRAM);
	must(setsockopt(two, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)), "SO_PASSCRED");
}

SITUATION(unix_listen)
{
	unix_bound(SOCK_STREAM, "socket");
}

SITUATION(unix_listen_abstract)
{
	unix_bound(SOCK_STREAM, abstract_name());
}

SITUATION(unix_listen_deleted)
{
	unix_bound(SOCK_STREAM, "socket");
	must(unlink("socket"), "unlink");
}

SITUATION(unix_listen_relative)
{
	unix_bound(SOCK_STREAM, "./socket");
}

SITUATION(unix_listen_relative_moved)
{
	unix_bound(SOCK_STREAM, "./socket");
	must(chdir("/"), "chdir");
}

SITUATION(unix_listen_pending)
{
	unix_bound(SOCK_STREAM, "socket");
	unix_connected(SOCK_STREAM, "socket");
}

SITUATION(unix_accepted)
{
	int listening = unix_bound(SOCK_STREAM, "socket");
	one = unix_connected(SOCK_STREAM, "socket");
	two = must(accept(listening, NULL, NULL), "accept");
	check = talks;
}

SITUATION(unix_seqpacket_accepted)
{
	int listening = unix_bound(SOCK_SEQPACKET, "socket");
	one = unix_connected(SOCK_SEQPACKET, "socket");
	two = must(accept(listening, NULL, NULL), "accept");
	check = talks;
}

SITUATION(unix_accepted_deleted)
{
	make_unix_accepted();
	must(unlink("socket"), "unlink");
}

SITUATION(unix_dgram_bound)
{
	two = unix_bound(SOCK_DGRAM, "socket");
	one = unix_connected(SOCK_DGRAM, "socket");
	check = talks;
}

SITUATION(unix_dgram_deleted)
{
	make_unix_dgram_bound();
	must(unlink("socket"), "unlink");
}

/* --- unix peers outside ------------------------------------------------------------------------------------ */

static void connect_outside(int type, const char *name)
{
	int listening = unix_bound(type, name);
	split_off();
	close(listening);
	one = unix_connected(type, name);
	check = connected_outside;
}

/* As syslog: a datagram socket connected to a name. */
SITUATION(unix_dgram_outside)
{
	connect_outside(SOCK_DGRAM, "log");
}

SITUATION(unix_dgram_outside_abstract)
{
	connect_outside(SOCK_DGRAM, abstract_name());
}

SITUATION(unix_dgram_outside_deleted)
{
	connect_outside(SOCK_DGRAM, "log");
	must(unlink("log"), "unlink");
}

/* A datagram socket that only ever uses sendto(). */
SITUATION(unix_dgram_sendto_outside)
{
	int listening = unix_bound(SOCK_DGRAM, "log");
	split_off();
	close(listening);
	int fd = must(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
	socklen_t length;
	struct sockaddr_un un = address("log", &length);
	must(sendto(fd, "x", 1, 0, (void *)&un, length), "sendto");
}

/* The victim's own bound datagram socket, to which the outside is connected. */
SITUATION(unix_dgram_outside_client)
{
	int bound = unix_bound(SOCK_DGRAM, "socket");
	int client = unix_connected(SOCK_DGRAM, "socket");
	split_off();
	close(client);
	(void)bound;
}

/* The queue holds a connection not yet accepted: unix_diag shows the connector's end without a peer process. */
SITUATION(unix_stream_outside_unaccepted)
{
	connect_outside(SOCK_STREAM, "server");
}

static int accept_from = -1;
static void accept_one(void)
{
	must(accept(accept_from, NULL, NULL), "accept");
}

static void connect_accepted(int type, const char *name)
{
	accept_from = unix_bound(type, name);
	split_off_with(accept_one);
	close(accept_from);
	one = unix_connected(type, name);
	check = connected_outside;
}

SITUATION(unix_stream_outside)
{
	connect_accepted(SOCK_STREAM, "server");
}

SITUATION(unix_stream_outside_abstract)
{
	connect_accepted(SOCK_STREAM, abstract_name());
}

SITUATION(unix_seqpacket_outside)
{
	connect_accepted(SOCK_SEQPACKET, "server");
}

/* As an X11 client: a stream to a name under .X11-unix. */
SITUATION(x11_like)
{
	must(mkdir(".X11-unix", 0700), "mkdir");
	connect_accepted(SOCK_STREAM, ".X11-unix/X99");
}

static void connect_inward(void)
{
	one = unix_connected(SOCK_STREAM, "server");
}

/* The victim listens and has accepted a client that lives outside. */
SITUATION(unix_server_outside_client)
{
	int listening = unix_bound(SOCK_STREAM, "server");
	split_off_with(connect_inward);
	one = must(accept(listening, NULL, NULL), "accept");
	check = connected_outside;
}

SITUATION(unix_server_outside_pending)
{
	unix_bound(SOCK_STREAM, "server");
	int client = unix_connected(SOCK_STREAM, "server");
	split_off();
	close(client);
}

static void pair_outside(int type)
{
	int pair[2];
	must(socketpair(AF_UNIX, type, 0, pair), "socketpair");
	split_off();
	close(pair[1]);
	one = pair[0];
	check = connected_outside;
}

SITUATION(unix_pair_outside)
{
	pair_outside(SOCK_STREAM);
}

SITUATION(unix_pair_dgram_outside)
{
	pair_outside(SOCK_DGRAM);
}

SITUATION(unix_pair_shared_outside)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	split_off();
}

/* --- inet -------------------------------------------------------------------------------------------------- */

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in in;
	socklen_t length = sizeof(in);
	must(getsockname(fd, (void *)&in, &length), "getsockname");
	return in;
}

static int bound4(int type, int protocol)
{
	struct sockaddr_in in = loopback(0);
	int fd = must(socket(AF_INET, type, protocol), "socket");
	must(bind(fd, (void *)&in, sizeof(in)), "bind");
	return fd;
}

static int connected4(int type, int protocol, int to)
{
	struct sockaddr_in in = name_of(to);
	int fd = must(socket(AF_INET, type, protocol), "socket");
	must(connect(fd, (void *)&in, sizeof(in)), "connect");
	return fd;
}

static int listening4(int protocol)
{
	int fd = bound4(SOCK_STREAM, protocol);
	must(listen(fd, 8), "listen");
	return fd;
}

SITUATION(udp_bound)
{
	bound4(SOCK_DGRAM, 0);
}

SITUATION(udp_unbound)
{
	must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
}

SITUATION(udp_connected)
{
	two = bound4(SOCK_DGRAM, 0);
	one = connected4(SOCK_DGRAM, 0, two);
	check = talks;
}

SITUATION(udp_queued)
{
	queued = bound4(SOCK_DGRAM, 0);
	one = connected4(SOCK_DGRAM, 0, queued);
	must(send(one, "queue", 5, 0), "send");
	check = queue_kept;
}

SITUATION(udp6)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = must(socket(AF_INET6, SOCK_DGRAM, 0), "socket");
	must(bind(fd, (void *)&in6, sizeof(in6)), "bind");
}

SITUATION(udp_multicast)
{
	int fd = bound4(SOCK_DGRAM, 0);
	struct ip_mreq group = { .imr_interface.s_addr = htonl(INADDR_LOOPBACK) };
	inet_pton(AF_INET, "239.1.2.3", &group.imr_multiaddr);
	must(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)), "membership");
}

SITUATION(udplite)
{
	bound4(SOCK_DGRAM, 136);
}

SITUATION(ping)
{
	must(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), "socket");
}

SITUATION(raw)
{
	must(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "socket");
}

SITUATION(raw6)
{
	must(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), "socket");
}

SITUATION(sctp)
{
	must(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP), "socket");
}

SITUATION(mptcp)
{
	listening4(262);
}

SITUATION(tcp_unconnected)
{
	must(socket(AF_INET, SOCK_STREAM, 0), "socket");
}

SITUATION(tcp_bound)
{
	bound4(SOCK_STREAM, 0);
}

SITUATION(tcp_listen)
{
	listening4(0);
}

SITUATION(tcp_listen6)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	int fd = must(socket(AF_INET6, SOCK_STREAM, 0), "socket");
	must(bind(fd, (void *)&in6, sizeof(in6)), "bind");
	must(listen(fd, 8), "listen");
}

SITUATION(tcp_inside)
{
	int listening = listening4(0);
	one = connected4(SOCK_STREAM, 0, listening);
	two = must(accept(listening, NULL, NULL), "accept");
	check = talks;
}

SITUATION(tcp_inside_no_listener)
{
	int listening = listening4(0);
	one = connected4(SOCK_STREAM, 0, listening);
	two = must(accept(listening, NULL, NULL), "accept");
	close(listening);
	check = talks;
}

SITUATION(tcp_queued)
{
	make_tcp_inside();
	must(send(one, "queue", 5, 0), "send");
	queued = two;
	check = queue_kept;
}

SITUATION(tcp_outside)
{
	accept_from = listening4(0);
	split_off_with(accept_one);
	one = connected4(SOCK_STREAM, 0, accept_from);
	close(accept_from);
	check = connected_outside;
}

SITUATION(tcp_outside_v6)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof(in6);
	accept_from = must(socket(AF_INET6, SOCK_STREAM, 0), "socket");
	must(bind(accept_from, (void *)&in6, sizeof(in6)), "bind");
	must(listen(accept_from, 8), "listen");
	must(getsockname(accept_from, (void *)&in6, &length), "getsockname");
	split_off_with(accept_one);
	close(accept_from);
	one = must(socket(AF_INET6, SOCK_STREAM, 0), "socket");
	must(connect(one, (void *)&in6, sizeof(in6)), "connect");
	check = connected_outside;
}

SITUATION(tcp_half_closed)
{
	make_tcp_inside();
	must(shutdown(one, SHUT_WR), "shutdown");
	check = NULL;
}

SITUATION(tcp_close_wait)
{
	make_tcp_inside();
	close(one);
	check = NULL;
}

SITUATION(tcp_both_shut)
{
	make_tcp_inside();
	must(shutdown(one, SHUT_RDWR), "shutdown");
	must(shutdown(two, SHUT_RDWR), "shutdown");
	check = NULL;
}

SITUATION(tcp_pending)
{
	int listening = listening4(0);
	connected4(SOCK_STREAM, 0, listening);
}

static void connect_to_pending(void)
{
	connected4(SOCK_STREAM, 0, accept_from);
}

SITUATION(tcp_pending_outside)
{
	accept_from = listening4(0);
	split_off_with(connect_to_pending);
	/* Readable once the connection waits to be accepted. */
	fd_set set;
	FD_ZERO(&set);
	FD_SET(accept_from, &set);
	must(select(accept_from + 1, &set, NULL, NULL, NULL), "select");
}

SITUATION(tcp_reset)
{
	make_tcp_inside();
	must(setsockopt(one, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)), "linger");
	close(one);
	check = NULL;
}

SITUATION(tcp_syn_sent)
{
	/* The backlog of the listener is full: the connector stays in SYN-SENT. */
	int listening = bound4(SOCK_STREAM, 0);
	must(listen(listening, 0), "listen");
	struct sockaddr_in in = name_of(listening);
	for (int i = 0; i < 3; i++) {
		int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
		if (connect(fd, (void *)&in, sizeof(in)) && errno != EINPROGRESS)
			must(-1, "connect");
	}
}

SITUATION(tcp_nodelay_keepalive)
{
	make_tcp_inside();
	must(setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)), "nodelay");
	must(setsockopt(one, SOL_SOCKET, SO_KEEPALIVE, &(int){ 1 }, sizeof(int)), "keepalive");
}

SITUATION(tcp_ktls_ulp)
{
	make_tcp_inside();
	must(setsockopt(one, IPPROTO_TCP, TCP_ULP, "tls", 3), "tls");
	check = NULL;
}

SITUATION(so_bindtodevice)
{
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	must(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3), "SO_BINDTODEVICE");
}

/* --- other families ---------------------------------------------------------------------------------------- */

SITUATION(netlink)
{
	must(socket(AF_NETLINK, SOCK_RAW, atoi(argument ? argument : "0")), "netlink");
}

SITUATION(netlink_bound)
{
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), "netlink");
	must(bind(fd, (void *)&nl, sizeof(nl)), "bind");
}

SITUATION(netlink_queued)
{
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK };
	struct {
		struct nlmsghdr header;
		char body[20];
	} request = { { .nlmsg_len = 17, .nlmsg_type = 18 /* RTM_GETLINK */, .nlmsg_flags = 0x301 }, { 0 } };
	int fd = must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), "netlink");
	must(sendto(fd, &request, sizeof(request), 0, (void *)&nl, sizeof(nl)), "send");
}

SITUATION(packet)
{
	must(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), "packet");
}

SITUATION(packet_ring)
{
	int fd = must(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), "packet");
	struct tpacket_req ring = { .tp_block_size = 4096, .tp_block_nr = 2, .tp_frame_size = 2048, .tp_frame_nr = 4 };
	must(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)), "ring");
	must((long)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), "mmap");
}

/* Any family, by number, when the kernel has it. */
SITUATION(family)
{
	int family = 0, type = SOCK_DGRAM, protocol = 0;
	sscanf(argument, "%d,%d,%d", &family, &type, &protocol);
	must(socket(family, type, protocol), "socket");
}

SITUATION(tun)
{
	int fd = must(open("/dev/net/tun", O_RDWR), "/dev/net/tun");
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	must(ioctl(fd, TUNSETIFF, &request), "TUNSETIFF");
}

SITUATION(tun_unattached)
{
	must(open("/dev/net/tun", O_RDWR), "/dev/net/tun");
}

/* --- pipes ------------------------------------------------------------------------------------------------- */

SITUATION(pipe_inside)
{
	int fds[2];
	must(pipe(fds), "pipe");
	waiting_child();
}

static const char *pipe_kept(void)
{
	char text[6] = "";
	if (read(queued, text, 5) != 5 || strcmp(text, "queue"))
		return "data in the pipe is lost";
	return NULL;
}

SITUATION(pipe_queued)
{
	int fds[2];
	must(pipe(fds), "pipe");
	must(write(fds[1], "queue", 5), "write");
	queued = fds[0];
	check = pipe_kept;
}

SITUATION(pipe_packets)
{
	int fds[2];
	must(pipe2(fds, O_DIRECT), "pipe2");
	must(write(fds[1], "queue", 5), "write");
	must(write(fds[1], "queue", 5), "write");
	queued = fds[0];
	check = pipe_kept;
}

SITUATION(pipe_half)
{
	int fds[2];
	must(pipe(fds), "pipe");
	close(fds[1]);
}

SITUATION(pipe_big)
{
	int fds[2];
	must(pipe(fds), "pipe");
	must(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20), "F_SETPIPE_SZ");
	static char block[900000];
	must(write(fds[1], block, sizeof(block)), "write");
}

static const char *pipe_outside_reads(void)
{
	/* A read end outside keeps the pipe writable without SIGPIPE. */
	signal(SIGPIPE, SIG_IGN);
	if (write(one, "x", 1) != 1)
		return "the outside end of the pipe is cut off";
	return NULL;
}

SITUATION(pipe_outside)
{
	int fds[2];
	must(pipe(fds), "pipe");
	split_off();
	close(fds[0]);
	one = fds[1];
	check = pipe_outside_reads;
}

static const char *pipe_outside_open(void)
{
	char byte;
	must(fcntl(one, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	return read(one, &byte, 1) == 0 ? "the outside end of the pipe is cut off" : NULL;
}

SITUATION(pipe_from_outside)
{
	int fds[2];
	must(pipe(fds), "pipe");
	split_off();
	close(fds[1]);
	one = fds[0];
	check = pipe_outside_open;
}

SITUATION(fifo)
{
	must(mkfifo("fifo", 0600), "mkfifo");
	queued = must(open("fifo", O_RDWR), "open");
	must(write(queued, "queue", 5), "write");
	check = pipe_kept;
}

SITUATION(fifo_outside)
{
	must(mkfifo("fifo", 0600), "mkfifo");
	int keep = must(open("fifo", O_RDWR), "open");
	split_off();
	close(keep);
	one = must(open("fifo", O_WRONLY), "open");
	check = pipe_outside_reads;
}

SITUATION(pipe_spliced)
{
	int fds[2];
	must(pipe(fds), "pipe");
	int fd = file_with("file", 8192, 0);
	loff_t from = 0;
	must(splice(fd, &from, fds[1], NULL, 8192, 0), "splice");
	static char page[4096] __attribute__((aligned(4096)));
	must(vmsplice(fds[1], &(struct iovec){ page, 4096 }, 1, 0), "vmsplice");
}

SITUATION(pipe_watch_queue)
{
	int fds[2];
	must(pipe2(fds, O_EXCL), "O_NOTIFICATION_PIPE");
}
