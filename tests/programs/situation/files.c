/* Files: deleted, linked elsewhere, locked, watched, and odd kinds of descriptors that have a path. */
#include "situation.h"

#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/syscall.h>

static int held = -1;
static off_t held_size;

/* The held descriptor still has its size and reads back its pattern. */
static const char *held_intact(void)
{
	struct stat now;
	if (fstat(held, &now))
		return "the descriptor is gone";
	if (now.st_size != held_size)
		return "the size changed";
	char byte = 0;
	if (held_size && (pread(held, &byte, 1, held_size - 1) != 1 || byte != 'x'))
		return "the content changed";
	return NULL;
}

static void hold(int fd)
{
	struct stat now;
	held = fd;
	must(fstat(fd, &now), "fstat");
	held_size = now.st_size;
	check = held_intact;
}

SITUATION(plain)
{
}

SITUATION(file_read)
{
	close(file_with("file", 4096, 0));
	hold(must(open("file", O_RDONLY), "open"));
}

SITUATION(file_write)
{
	hold(file_with("file", 4096, 0));
}

SITUATION(file_append)
{
	hold(file_with("file", 4096, O_APPEND));
}

static void deleted(size_t size)
{
	hold(file_with("deleted", size, 0));
	must(unlink("deleted"), "unlink");
}

SITUATION(deleted_small)
{
	deleted(10000);
}

SITUATION(deleted_exactly_1m)
{
	deleted(1 << 20);
}

SITUATION(deleted_2m)
{
	deleted(2 << 20);
}

SITUATION(deleted_60m)
{
	deleted(60 << 20);
}

SITUATION(deleted_70m)
{
	deleted(70 << 20);
}

SITUATION(deleted_sparse)
{
	int fd = file_with("deleted", 4096, 0);
	must(ftruncate(fd, 200 << 20), "ftruncate");
	must(pwrite(fd, "x", 1, (200 << 20) - 1), "pwrite");
	hold(fd);
	must(unlink("deleted"), "unlink");
}

SITUATION(deleted_twice_opened)
{
	hold(file_with("deleted", 10000, 0));
	must(open("deleted", O_RDONLY), "open");
	must(unlink("deleted"), "unlink");
}

SITUATION(deleted_and_remade)
{
	hold(file_with("deleted", 10000, 0));
	must(unlink("deleted"), "unlink");
	close(file_with("deleted", 5000, 0));
}

SITUATION(unlinked_linked)
{
	hold(file_with("name", 10000, 0));
	must(link("name", "other-name"), "link");
	must(unlink("name"), "unlink");
}

SITUATION(unlinked_linked_deleted_directory)
{
	must(mkdir("gone", 0700), "mkdir");
	hold(file_with("gone/name", 10000, 0));
	must(link("gone/name", "other-name"), "link");
	must(unlink("gone/name"), "unlink");
	must(rmdir("gone"), "rmdir");
}

SITUATION(deleted_in_deleted_directory)
{
	must(mkdir("gone", 0700), "mkdir");
	hold(file_with("gone/name", 10000, 0));
	must(unlink("gone/name"), "unlink");
	must(rmdir("gone"), "rmdir");
}

SITUATION(o_tmpfile)
{
	int fd = must(open(".", O_TMPFILE | O_RDWR, 0600), "O_TMPFILE");
	must(write(fd, "x", 1), "write");
	hold(fd);
}

SITUATION(o_path)
{
	close(file_with("file", 10, 0));
	must(open("file", O_PATH), "O_PATH");
}

SITUATION(o_path_symlink)
{
	must(symlink("nowhere", "symlink"), "symlink");
	must(open("symlink", O_PATH | O_NOFOLLOW), "O_PATH");
}

SITUATION(o_direct)
{
	close(file_with("file", 4096, 0));
	must(open("file", O_RDONLY | O_DIRECT), "O_DIRECT");
}

SITUATION(directory)
{
	must(open(".", O_RDONLY | O_DIRECTORY), "open");
}

SITUATION(deleted_directory)
{
	must(mkdir("gone", 0700), "mkdir");
	must(open("gone", O_RDONLY | O_DIRECTORY), "open");
	must(rmdir("gone"), "rmdir");
}

SITUATION(deleted_cwd)
{
	must(mkdir("gone", 0700), "mkdir");
	must(chdir("gone"), "chdir");
	must(rmdir("../gone"), "rmdir");
}

SITUATION(deleted_fifo)
{
	must(mkfifo("fifo", 0600), "mkfifo");
	must(open("fifo", O_RDWR), "open");
	must(unlink("fifo"), "unlink");
}

SITUATION(deleted_executable)
{
	if (!argument) {
		int from = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open");
		int to = must(open("copy", O_WRONLY | O_CREAT | O_CLOEXEC, 0700), "copy");
		char block[65536];
		for (ssize_t n; (n = read(from, block, sizeof(block))) > 0;)
			must(write(to, block, n), "write");
		close(from);
		close(to);
		must(execl("copy", "copy", "deleted_executable", "again", NULL), "exec");
	}
	must(unlink("copy"), "unlink");
}

SITUATION(renamed_file)
{
	hold(file_with("before", 4096, 0));
	must(rename("before", "after"), "rename");
}

SITUATION(replaced_file)
{
	hold(file_with("name", 4096, 0));
	close(file_with("new", 10, 0));
	must(rename("new", "name"), "rename");
}

/* --- mounts ------------------------------------------------------------------------------------------------ */

SITUATION(fd_overmounted)
{
	must(mkdir("point", 0700), "mkdir");
	hold(file_with("point/file", 100, 0));
	must(mount("over", "point", "tmpfs", 0, NULL), "mount");
}

SITUATION(fd_unmounted)
{
	must(mkdir("point", 0700), "mkdir");
	must(mount("under", "point", "tmpfs", 0, NULL), "mount");
	hold(file_with("point/file", 100, 0));
	must(umount2("point", MNT_DETACH), "umount");
}

SITUATION(file_on_tmpfs)
{
	must(mkdir("point", 0700), "mkdir");
	must(mount("under", "point", "tmpfs", 0, NULL), "mount");
	hold(file_with("point/file", 100, 0));
}

SITUATION(file_on_overlay)
{
	must(mkdir("base", 0700), "mkdir");
	must(mount("base", "base", "tmpfs", 0, NULL), "mount");
	must(mkdir("base/lower", 0700), "mkdir");
	must(mkdir("base/upper", 0700), "mkdir");
	must(mkdir("base/work", 0700), "mkdir");
	must(mkdir("merged", 0700), "mkdir");
	must(mount("over", "merged", "overlay", 0, "lowerdir=base/lower,upperdir=base/upper,workdir=base/work"),
	     "overlay");
	hold(file_with("merged/file", 100, 0));
}

SITUATION(deleted_on_overlay)
{
	make_file_on_overlay();
	must(unlink("merged/file"), "unlink");
}

SITUATION(fd_other_mntns)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	pid_t child = must(fork(), "fork");
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	if (child == 0) {
		must(unshare(CLONE_NEWNS), "unshare");
		must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
		must(mkdir("point", 0700), "mkdir");
		must(mount("there", "point", "tmpfs", 0, NULL), "mount");
		int fd = file_with("point/file", 100, 0);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
		must(sendmsg(pair[1], &message, 0), "sendmsg");
		_exit(0);
	}
	must(recvmsg(pair[0], &message, 0), "recvmsg");
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header)
		skip("no descriptor came");
	int fd;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	waitpid(child, NULL, 0);
	close(pair[0]);
	close(pair[1]);
	hold(fd);
}

#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif

SITUATION(detached_mount)
{
	must(syscall(SYS_open_tree, AT_FDCWD, "/tmp", 1 /* OPEN_TREE_CLONE */), "open_tree");
}

SITUATION(fsopen)
{
	must(syscall(SYS_fsopen, "tmpfs", 0), "fsopen");
}

/* --- locks ------------------------------------------------------------------------------------------------- */

static void record_lock(int command, short type)
{
	hold(file_with("locked", 100, 0));
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };
	must(fcntl(held, command, &lock), "lock");
}

SITUATION(posix_lock)
{
	record_lock(F_SETLK, F_WRLCK);
}

SITUATION(posix_read_lock)
{
	record_lock(F_SETLK, F_RDLCK);
}

SITUATION(ofd_lock)
{
	record_lock(F_OFD_SETLK, F_WRLCK);
}

SITUATION(flock_exclusive)
{
	hold(file_with("locked", 100, 0));
	must(flock(held, LOCK_EX), "flock");
}

SITUATION(flock_shared)
{
	hold(file_with("locked", 100, 0));
	must(flock(held, LOCK_SH), "flock");
}

SITUATION(flock_inherited)
{
	hold(file_with("locked", 100, 0));
	must(flock(held, LOCK_EX), "flock");
	waiting_child();
}

/* The lock belongs to an open file that the outside shares. */
SITUATION(flock_outside_shares)
{
	hold(file_with("locked", 100, 0));
	must(flock(held, LOCK_EX), "flock");
	split_off();
}

/* Somebody else holds the lock on a file that the victim has open. */
SITUATION(lock_held_outside)
{
	int fd = file_with("locked", 100, 0);
	must(flock(fd, LOCK_EX), "flock");
	split_off();
	close(fd);
	hold(must(open("locked", O_RDWR), "open"));
}

SITUATION(lock_on_deleted)
{
	hold(file_with("locked", 100, 0));
	must(flock(held, LOCK_EX), "flock");
	must(unlink("locked"), "unlink");
}

SITUATION(lease)
{
	close(file_with("leased", 100, 0));
	hold(must(open("leased", O_RDONLY), "open"));
	must(fcntl(held, F_SETLEASE, F_RDLCK), "lease");
}

SITUATION(write_lease)
{
	hold(file_with("leased", 100, 0));
	must(fcntl(held, F_SETLEASE, F_WRLCK), "lease");
}

/* --- watches ----------------------------------------------------------------------------------------------- */

SITUATION(inotify)
{
	int fd = must(inotify_init1(0), "inotify");
	must(inotify_add_watch(fd, ".", IN_CREATE), "watch");
}

SITUATION(inotify_empty)
{
	must(inotify_init1(0), "inotify");
}

SITUATION(inotify_queued)
{
	int fd = must(inotify_init1(IN_NONBLOCK), "inotify");
	must(inotify_add_watch(fd, ".", IN_CREATE), "watch");
	close(file_with("made", 1, 0));
}

SITUATION(inotify_deleted)
{
	close(file_with("watched", 1, 0));
	int keep = must(open("watched", O_RDONLY), "open");
	int fd = must(inotify_init1(0), "inotify");
	must(inotify_add_watch(fd, "watched", IN_MODIFY), "watch");
	must(unlink("watched"), "unlink");
	(void)keep;
}

SITUATION(inotify_on_tmpfs)
{
	must(mkdir("point", 0700), "mkdir");
	must(mount("under", "point", "tmpfs", 0, NULL), "mount");
	int fd = must(inotify_init1(0), "inotify");
	must(inotify_add_watch(fd, "point", IN_CREATE), "watch");
}

SITUATION(inotify_on_proc)
{
	int fd = must(inotify_init1(0), "inotify");
	must(inotify_add_watch(fd, "/proc/sys", IN_MODIFY), "watch");
}

SITUATION(fanotify)
{
	int fd = must(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), "fanotify");
	close(file_with("watched", 1, 0));
	must(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "watched"), "mark");
}

SITUATION(fanotify_mount)
{
	int fd = must(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), "fanotify");
	must(mkdir("point", 0700), "mkdir");
	must(mount("under", "point", "tmpfs", 0, NULL), "mount");
	must(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, "point"), "mark");
}

SITUATION(fanotify_fid)
{
	int fd = must(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY), "fanotify");
	must(fanotify_mark(fd, FAN_MARK_ADD, FAN_CREATE | FAN_ONDIR, AT_FDCWD, "."), "mark");
}

SITUATION(dnotify)
{
	signal(SIGIO, SIG_IGN);
	int fd = must(open(".", O_RDONLY | O_DIRECTORY), "open");
	must(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT), "F_NOTIFY");
}

SITUATION(signal_owner)
{
	int fds[2];
	must(pipe(fds), "pipe");
	must(fcntl(fds[0], F_SETOWN, getpid()), "F_SETOWN");
	must(fcntl(fds[0], F_SETSIG, SIGRTMIN + 3), "F_SETSIG");
}

/* --- paths the kernel makes up ----------------------------------------------------------------------------- */

SITUATION(open_path)
{
	must(open(argument, O_RDONLY | O_NONBLOCK | O_NOCTTY), argument);
}

SITUATION(open_path_rw)
{
	must(open(argument, O_RDWR | O_NONBLOCK | O_NOCTTY), argument);
}

static void open_proc(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	must(open(path, O_RDONLY), path);
}

SITUATION(proc_of_self)
{
	open_proc(getpid(), "status");
}

SITUATION(proc_of_child)
{
	open_proc(waiting_child(), "status");
}

SITUATION(proc_of_outside)
{
	pid_t outside = getpid();
	split_off();
	open_proc(outside, "status");
}

SITUATION(proc_of_dead)
{
	pid_t child = waiting_child();
	open_proc(child, "status");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

SITUATION(proc_directory_of_dead)
{
	pid_t child = waiting_child();
	open_proc(child, "");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

SITUATION(proc_mem_of_self)
{
	open_proc(getpid(), "mem");
}

SITUATION(high_descriptor)
{
	int fd = must(open("/dev/null", O_RDONLY), "open");
	must(dup2(fd, 900), "dup2");
}

SITUATION(many_descriptors)
{
	for (int i = 0; i < 500; i++)
		must(open("/dev/null", O_RDONLY), "open");
}
