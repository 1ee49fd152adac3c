/* `linked`: a parent and a child; the parent holds a file open that lost the name it was opened by and has another one in the
 * same directory. */
#include "program.h"

#include <fcntl.h>
#include <sys/wait.h>

static const char content[] = "what the file holds";
static int file;
static pid_t child;

static const char *intact(void)
{
	char read[sizeof(content)];
	if (pread(file, read, sizeof(read), 0) != sizeof(read) || memcmp(read, content, sizeof(read)))
		return "the file changed";
	if (waitpid(child, NULL, WNOHANG) != 0)
		return "the child has ended or is no child any more";
	return NULL;
}

int main(void)
{
	sigset_t awaited;
	begin(&awaited);
	file = must(open("name", O_RDWR | O_CREAT | O_EXCL, 0600), "open");
	must(write(file, content, sizeof(content)), "write");
	must(link("name", "other-name"), "link");
	must(unlink("name"), "unlink");
	child = must(fork(), "fork");
	while (child == 0)
		pause();
	int status = run(&awaited, NULL, intact);
	must(kill(child, SIGKILL), "kill");
	must(waitpid(child, NULL, 0), "wait");
	return status;
}
