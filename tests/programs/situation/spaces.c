/* Namespaces, roots, cgroups and terminals. */
#include "situation.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <termios.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static void write_file(const char *path, const char *text)
{
	int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static void child_in(int namespaces)
{
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	if (must(fork(), "fork") == 0) {
		must(unshare(namespaces), "unshare");
		close(told[0]);
		close(told[1]);
		for (;;)
			pause();
	}
	close(told[1]);
	if (read(told[0], &byte, 1) < 0)
		skip("pipe");
	close(told[0]);
}

SITUATION(own_mntns)
{
	must(unshare(CLONE_NEWNS), "unshare");
}

SITUATION(own_mntns_private)
{
	must(unshare(CLONE_NEWNS), "unshare");
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	must(mkdir("point", 0700), "mkdir");
	must(mount("own", "point", "tmpfs", 0, NULL), "mount");
}

/* Starts this program anew, so that its executable, libraries and streams are opened in the namespace it has now. */
static void start_again(const char *name)
{
	char path[4096], link[32];
	for (int fd = 0; fd < 3; fd++) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t n = must(readlink(link, path, sizeof(path) - 1), link);
		path[n] = 0;
		int again = must(open(path, (fd ? O_WRONLY | O_APPEND : O_RDONLY) | O_CLOEXEC), path);
		must(dup2(again, fd), "dup2");
	}
	char *cwd = getcwd(path, sizeof(path));
	if (!cwd || chdir(cwd))
		skip("the work directory is not there");
	ssize_t n = must(readlink("/proc/self/exe", path, sizeof(path) - 1), "readlink");
	path[n] = 0;
	must(execl(path, "situation", name, "again", NULL), "exec");
}

SITUATION(own_mntns_exec)
{
	if (argument)
		return;
	make_own_mntns_private();
	start_again("own_mntns_exec");
}

SITUATION(own_mntns_child)
{
	child_in(CLONE_NEWNS);
}

SITUATION(own_netns)
{
	must(unshare(CLONE_NEWNET), "unshare");
}

SITUATION(own_netns_child)
{
	child_in(CLONE_NEWNET);
}

SITUATION(own_ipcns)
{
	must(unshare(CLONE_NEWIPC), "unshare");
}

SITUATION(own_ipcns_child)
{
	child_in(CLONE_NEWIPC);
}

SITUATION(own_utsns)
{
	must(unshare(CLONE_NEWUTS), "unshare");
	must(sethostname("situation", 9), "sethostname");
}

SITUATION(own_utsns_child)
{
	child_in(CLONE_NEWUTS);
}

SITUATION(own_cgroupns)
{
	must(unshare(CLONE_NEWCGROUP), "unshare");
}

SITUATION(own_cgroupns_child)
{
	child_in(CLONE_NEWCGROUP);
}

SITUATION(own_userns)
{
	must(unshare(CLONE_NEWUSER), "unshare");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/gid_map", "0 0 1");
}

SITUATION(own_userns_child)
{
	child_in(CLONE_NEWUSER);
}

/* The root of the tree is PID 1 of a PID namespace of its own; the outside is its parent. */
static void pid_namespace(int with)
{
	signal(SIGCHLD, SIG_IGN);
	must(unshare(CLONE_NEWPID | with), "unshare");
	pid_t victim = must(fork(), "fork");
	if (victim != 0) {
		dprintf(STDOUT_FILENO, "outside %d\nvictim %d\n", getpid(), victim);
		for (;;)
			pause();
	}
	signal(SIGCHLD, SIG_DFL);
	must(setsid(), "setsid");
}

SITUATION(own_pidns)
{
	pid_namespace(0);
}

SITUATION(own_pidns_and_proc)
{
	pid_namespace(CLONE_NEWNS);
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	must(mount("proc", "/proc", "proc", 0, NULL), "proc");
}

SITUATION(container_like)
{
	pid_namespace(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET);
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	must(mount("proc", "/proc", "proc", 0, NULL), "proc");
}

SITUATION(container_like_exec)
{
	if (argument)
		return;
	make_container_like();
	start_again("container_like_exec");
}

SITUATION(own_pidns_and_proc_exec)
{
	if (argument)
		return;
	make_own_pidns_and_proc();
	start_again("own_pidns_and_proc_exec");
}

/* Unshared for children, but no child made yet. */
SITUATION(pidns_for_children)
{
	must(unshare(CLONE_NEWPID), "unshare");
}

SITUATION(pidns_child)
{
	must(unshare(CLONE_NEWPID), "unshare");
	waiting_child();
}

SITUATION(timens_for_children)
{
	must(unshare(CLONE_NEWTIME), "unshare");
}

SITUATION(own_timens)
{
	must(unshare(CLONE_NEWTIME), "unshare");
	write_file("/proc/self/timens_offsets", "monotonic 1000 0");
	int fd = must(open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC), "open");
	must(setns(fd, CLONE_NEWTIME), "setns");
	close(fd);
}

SITUATION(timens_child)
{
	must(unshare(CLONE_NEWTIME), "unshare");
	write_file("/proc/self/timens_offsets", "monotonic 1000 0");
	waiting_child();
}

SITUATION(chrooted)
{
	must(mkdir("root", 0700), "mkdir");
	must(chroot("root"), "chroot");
	must(chdir("/"), "chdir");
}

SITUATION(chrooted_child)
{
	must(mkdir("root", 0700), "mkdir");
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	if (must(fork(), "fork") == 0) {
		must(chroot("root"), "chroot");
		close(told[0]);
		close(told[1]);
		for (;;)
			pause();
	}
	close(told[1]);
	if (read(told[0], &byte, 1) < 0)
		skip("pipe");
	close(told[0]);
}

SITUATION(cwd_outside_root)
{
	must(mkdir("root", 0700), "mkdir");
	must(chroot("root"), "chroot");
}

/* A freezer cgroup of its own; `cgroup-directory PATH` tells the harness what to remove. */
static void in_cgroup(const char *base)
{
	char path[256], tasks[300], self[16];
	snprintf(path, sizeof(path), "%s/situation-%d", base, getpid());
	must(mkdir(path, 0755), path);
	dprintf(STDOUT_FILENO, "cgroup-directory %s\n", path);
	snprintf(tasks, sizeof(tasks), "%s/cgroup.procs", path);
	snprintf(self, sizeof(self), "%d", getpid());
	write_file(tasks, self);
}

SITUATION(own_cgroup)
{
	in_cgroup(argument);
}

SITUATION(cgroup_directory)
{
	must(open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY), "open");
}

SITUATION(cgroup_file)
{
	must(open("/sys/fs/cgroup/freezer/cgroup.procs", O_RDONLY), "open");
}

/* --- terminals --------------------------------------------------------------------------------------------- */

SITUATION(pty_pair)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
}

SITUATION(pty_master)
{
	must(posix_openpt(O_RDWR | O_NOCTTY), "openpt");
}

SITUATION(pty_master_only)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	split_off();
	close(slave);
}

SITUATION(pty_slave_only)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	split_off();
	close(master);
}

/* The session's controlling terminal; its other end is outside. */
SITUATION(controlling_terminal)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	split_off();
	close(master);
	must(ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
}

SITUATION(controlling_terminal_inside)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	must(ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
}

/* As a job of a shell: neither session leader nor without a terminal. */
SITUATION(shell_job)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	must(ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
	split_inside_session();
	must(setpgid(0, 0), "setpgid");
	close(master);
	dup2(slave, STDIN_FILENO);
	close(slave);
}

/* A shell's job whose terminal is held by nothing but the session. */
SITUATION(terminal_of_session_only)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	split_off();
	close(master);
	must(ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
	close(slave);
}

SITUATION(dev_tty)
{
	int master, slave;
	must(openpty(&master, &slave, NULL, NULL, NULL), "openpty");
	must(ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
	must(open("/dev/tty", O_RDWR), "/dev/tty");
}
