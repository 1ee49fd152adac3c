/* `served`: a tree that others can reach and that holds what a restore makes anew: a unix socket that listens, with a child as
 * its client, a named pipe with bytes in it, a deleted file, an unlinked file that has another name, and a large memory.
 *
 * Whoever connects to `socket` gets one line: `ok NUMBER ANSWER`, or `BAD what`. NUMBER is of this program's start; ANSWER counts
 * the answers. */
#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { MEMORY = 4 << 20 };

static const char content[] = "what the file holds";
static int listener, fifo, deleted, linked, inside;
static unsigned char *memory;
static unsigned seed, answers;
static pid_t child;

static int holds(int file)
{
	char read[sizeof(content)];
	return pread(file, read, sizeof(read), 0) == sizeof(read) && !memcmp(read, content, sizeof(read));
}

static const char *intact(void)
{
	char bytes[sizeof(content)], echo;
	struct stat stat;
	if (!holds(deleted) || fstat(deleted, &stat) || stat.st_nlink != 0)
		return "the deleted file changed";
	if (!holds(linked))
		return "the unlinked file changed";
	/* What was in the pipe, and nothing else; it goes in again. */
	if (read(fifo, bytes, sizeof(bytes)) != sizeof(bytes) || memcmp(bytes, content, sizeof(bytes)))
		return "the named pipe lost what was in it";
	if (write(fifo, content, sizeof(content)) != sizeof(content) || read(fifo, NULL, 0) != 0)
		return "the named pipe is full";
	for (unsigned i = 0; i < MEMORY; i += 997)
		if (memory[i] != (unsigned char)(i * seed >> 7))
			return "the memory changed";
	if (send(inside, "?", 1, 0) != 1 || recv(inside, &echo, 1, 0) != 1 || echo != '!')
		return "the client in the tree is cut off";
	if (waitpid(child, NULL, WNOHANG) != 0)
		return "the child has ended or is no child any more";
	return NULL;
}

static const char *serve(void)
{
	struct pollfd ready = { .fd = listener, .events = POLLIN };
	while (poll(&ready, 1, 0) == 1) {
		int client = accept(listener, NULL, NULL);
		const char *wrong = intact();
		if (client < 0)
			return "accept";
		answers++;
		if (wrong)
			dprintf(client, "BAD %s\n", wrong);
		else
			dprintf(client, "ok %u %u\n", seed, answers);
		close(client);
	}
	return NULL;
}

static void client(const struct sockaddr_un *address)
{
	char byte;
	int server = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	must(connect(server, (const struct sockaddr *)address, sizeof(*address)), "connect");
	while (recv(server, &byte, 1, 0) == 1)
		must(send(server, "!", 1, 0), "send");
	_exit(1);
}

int main(void)
{
	sigset_t awaited;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char directory[sizeof(address.sun_path) - 8];
	begin(&awaited);
	seed = getpid() * 7919u + 1;
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must((long)memory, "mmap");
	for (unsigned i = 0; i < MEMORY; i++)
		memory[i] = i * seed >> 7;
	must((long)getcwd(directory, sizeof(directory)) ? 0 : -1, "getcwd");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", directory);
	listener = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	must(bind(listener, (struct sockaddr *)&address, sizeof(address)), "bind");
	must(listen(listener, 8), "listen");
	must(mkfifo("fifo", 0600), "mkfifo");
	fifo = must(open("fifo", O_RDWR), "open the fifo");
	must(write(fifo, content, sizeof(content)), "write to the fifo");
	deleted = must(open("deleted", O_RDWR | O_CREAT | O_EXCL, 0600), "open");
	must(write(deleted, content, sizeof(content)), "write");
	must(unlink("deleted"), "unlink");
	linked = must(open("unlinked", O_RDWR | O_CREAT | O_EXCL, 0600), "open");
	must(write(linked, content, sizeof(content)), "write");
	must(link("unlinked", "other-name"), "link");
	must(unlink("unlinked"), "unlink");
	child = must(fork(), "fork");
	if (child == 0)
		client(&address);
	inside = must(accept(listener, NULL, NULL), "accept");
	int status = run(&awaited, serve, intact);
	must(kill(child, SIGKILL), "kill");
	must(waitpid(child, NULL, 0), "wait");
	return status;
}
