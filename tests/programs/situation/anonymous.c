/* Descriptors without a path: the anonymous inodes and their relatives. */
#include "situation.h"

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <poll.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

static int held = -1;

static const char *counts_seven(void)
{
	uint64_t value = 0;
	if (read(held, &value, sizeof(value)) != sizeof(value) || value != 7)
		return "the counter changed";
	must(write(held, &value, sizeof(value)), "write");
	return NULL;
}

SITUATION(eventfd)
{
	held = must(eventfd(7, EFD_NONBLOCK), "eventfd");
	check = counts_seven;
}

SITUATION(eventfd_semaphore)
{
	must(eventfd(7, EFD_SEMAPHORE), "eventfd");
}

static int watched = -1;
static const char *epoll_fires(void)
{
	struct epoll_event event;
	uint64_t value = 1;
	must(write(watched, &value, sizeof(value)), "write");
	if (epoll_wait(held, &event, 1, 1000) != 1 || event.data.u64 != 42)
		return "epoll does not fire";
	return NULL;
}

SITUATION(epoll)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 42 };
	watched = must(eventfd(0, 0), "eventfd");
	held = must(epoll_create1(0), "epoll");
	must(epoll_ctl(held, EPOLL_CTL_ADD, watched, &event), "epoll_ctl");
	check = epoll_fires;
}

SITUATION(epoll_of_epoll)
{
	struct epoll_event event = { .events = EPOLLIN };
	int inner = must(epoll_create1(0), "epoll");
	int outer = must(epoll_create1(0), "epoll");
	must(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event), "epoll_ctl");
}

/* The watched file was closed, but a duplicate keeps it watched under a number that is gone. */
SITUATION(epoll_closed_target)
{
	struct epoll_event event = { .events = EPOLLIN };
	int target = must(eventfd(0, 0), "eventfd");
	int epoll = must(epoll_create1(0), "epoll");
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, target, &event), "epoll_ctl");
	must(dup(target), "dup");
	close(target);
}

static const char *signalfd_reads(void)
{
	struct signalfd_siginfo info;
	kill(getpid(), SIGUSR2);
	if (read(held, &info, sizeof(info)) != sizeof(info) || info.ssi_signo != SIGUSR2)
		return "the signalfd does not give the signal";
	return NULL;
}

SITUATION(signalfd)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	must(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
	held = must(signalfd(-1, &set, SFD_NONBLOCK), "signalfd");
	check = signalfd_reads;
}

static const char *armed(void)
{
	struct itimerspec now;
	if (timerfd_gettime(held, &now) || now.it_value.tv_sec < 600)
		return "the timer is not armed as it was";
	return NULL;
}

static void timer_on(int clock, int flags)
{
	struct itimerspec in_an_hour = { .it_value.tv_sec = 3600 };
	held = must(timerfd_create(clock, 0), "timerfd");
	if (flags & TFD_TIMER_ABSTIME) {
		struct timespec now;
		clock_gettime(clock, &now);
		in_an_hour.it_value.tv_sec += now.tv_sec;
	}
	must(timerfd_settime(held, flags, &in_an_hour, NULL), "settime");
	check = armed;
}

SITUATION(timerfd)
{
	timer_on(CLOCK_MONOTONIC, 0);
}

SITUATION(timerfd_absolute)
{
	timer_on(CLOCK_REALTIME, TFD_TIMER_ABSTIME);
}

SITUATION(timerfd_cancel_on_set)
{
	timer_on(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
}

static const char *fires_again(void)
{
	uint64_t times;
	for (int i = 0; i < 2; i++)
		if (read(held, &times, sizeof(times)) != sizeof(times))
			return "the periodic timer does not fire any more";
	return NULL;
}

/* Expired before anybody looks, and nobody reads. */
SITUATION(timerfd_periodic_expired)
{
	struct itimerspec often = { { 0, 1000000 }, { 0, 1000000 } };
	uint64_t times;
	held = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), "timerfd");
	must(timerfd_settime(held, 0, &often, NULL), "settime");
	while (read(held, &times, sizeof(times)) < 0)
		;
	must(poll(&(struct pollfd){ .fd = held, .events = POLLIN }, 1, 1000), "poll");
	must(fcntl(held, F_SETFL, 0), "F_SETFL");
	check = fires_again;
}

SITUATION(timerfd_alarm)
{
	timer_on(CLOCK_BOOTTIME_ALARM, 0);
}

/* --- tasks as descriptors ---------------------------------------------------------------------------------- */

static int pidfd_open(pid_t pid)
{
	return must(syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
}

SITUATION(pidfd_self)
{
	pidfd_open(getpid());
}

SITUATION(pidfd_child)
{
	pidfd_open(waiting_child());
}

SITUATION(pidfd_dead)
{
	pid_t child = waiting_child();
	pidfd_open(child);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

SITUATION(pidfd_zombie)
{
	pid_t child = waiting_child();
	pidfd_open(child);
	kill(child, SIGKILL);
	await_state(child, "Z");
}

SITUATION(pidfd_outside)
{
	pid_t outside = getpid();
	split_off();
	pidfd_open(outside);
}

/* --- memory as descriptors --------------------------------------------------------------------------------- */

static const char *memfd_kept(void)
{
	char text[6] = "";
	return pread(held, text, 5, 0) == 5 && !strcmp(text, "memfd") ? NULL : "the content changed";
}

SITUATION(memfd)
{
	held = must(memfd_create("name", 0), "memfd");
	must(write(held, "memfd", 5), "write");
	check = memfd_kept;
}

SITUATION(memfd_sealed)
{
	held = must(memfd_create("name", MFD_ALLOW_SEALING), "memfd");
	must(write(held, "memfd", 5), "write");
	must(fcntl(held, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "seal");
	check = memfd_kept;
}

SITUATION(memfd_mapped)
{
	make_memfd();
	must(ftruncate(held, 4096), "ftruncate");
	must((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0), "mmap");
}

SITUATION(memfd_big)
{
	held = must(memfd_create("name", 0), "memfd");
	must(write(held, "memfd", 5), "write");
	must(ftruncate(held, 32 << 20), "ftruncate");
	char *at = mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0);
	must((long)at, "mmap");
	memset(at + 4096, 'x', (32 << 20) - 4096);
	check = memfd_kept;
}

SITUATION(memfd_executable)
{
	if (argument) {
		return;
	}
	int from = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open");
	int to = must(memfd_create("program", MFD_CLOEXEC), "memfd");
	char block[65536];
	for (ssize_t n; (n = read(from, block, sizeof(block))) > 0;)
		must(write(to, block, n), "write");
	char *argv[] = { "program", "memfd_executable", "again", NULL };
	must(fexecve(to, argv, environ), "fexecve");
}

SITUATION(memfd_noexec)
{
	must(memfd_create("name", 8 /* MFD_NOEXEC_SEAL */), "memfd");
}

SITUATION(memfd_hugetlb)
{
	held = must(memfd_create("name", MFD_HUGETLB), "memfd");
	must(ftruncate(held, 2 << 20), "ftruncate");
	char *at = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0);
	must((long)at, "no huge pages");
	memset(at, 'x', 2 << 20);
}

SITUATION(memfd_secret)
{
	held = must(syscall(447, 0), "memfd_secret");
}

SITUATION(memfd_secret_mapped)
{
	make_memfd_secret();
	must(ftruncate(held, 4096), "ftruncate");
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0);
	must((long)at, "mmap");
	*at = 'x';
}

/* --- kernel machinery -------------------------------------------------------------------------------------- */

static int io_uring(void)
{
	struct io_uring_params params = { 0 };
	return must(syscall(SYS_io_uring_setup, 8, &params), "io_uring_setup");
}

SITUATION(io_uring)
{
	io_uring();
}

SITUATION(io_uring_mapped)
{
	int fd = io_uring();
	must((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING), "mmap");
}

/* The ring's descriptor is closed; its mapping stays. */
SITUATION(io_uring_mapping_only)
{
	int fd = io_uring();
	must((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING), "mmap");
	close(fd);
}

static int perf_event(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK };
	return must(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0), "perf_event_open");
}

SITUATION(perf_event)
{
	perf_event();
}

SITUATION(perf_event_mapped)
{
	int fd = perf_event();
	void *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must((long)at, "mmap");
	close(fd);
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int bpf_map(int type, int key, int value)
{
	union bpf_attr attr = { .map_type = type, .key_size = key, .value_size = value, .max_entries = 4 };
	return must(bpf(BPF_MAP_CREATE, &attr), "bpf map");
}

SITUATION(bpf_map_hash)
{
	bpf_map(BPF_MAP_TYPE_HASH, 4, 8);
}

SITUATION(bpf_map_array)
{
	bpf_map(BPF_MAP_TYPE_ARRAY, 4, 8);
}

SITUATION(bpf_map_ringbuf)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = 4096 };
	must(bpf(BPF_MAP_CREATE, &attr), "bpf ring buffer");
}

SITUATION(bpf_program)
{
	struct bpf_insn code[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 0 }, { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)code, .insn_cnt = 2,
				.license = (uintptr_t) "GPL" };
	must(bpf(BPF_PROG_LOAD, &attr), "bpf program");
}

SITUATION(socket_filter)
{
	struct {
		unsigned short length;
		struct {
			uint16_t code;
			uint8_t jt, jf;
			uint32_t k;
		} *code;
	} program;
	__typeof__(*program.code) accept_all = { 6, 0, 0, 0xffff };
	program.length = 1;
	program.code = &accept_all;
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	must(setsockopt(fd, SOL_SOCKET, 26 /* SO_ATTACH_FILTER */, &program, sizeof(program)), "SO_ATTACH_FILTER");
}

static int uffd(void)
{
	int fd = must(syscall(SYS_userfaultfd, O_NONBLOCK), "userfaultfd");
	struct uffdio_api api = { .api = UFFD_API };
	must(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

SITUATION(userfaultfd)
{
	uffd();
}

SITUATION(userfaultfd_registered)
{
	int fd = uffd();
	char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register area = { .range = { (uintptr_t)at, 8192 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	must(ioctl(fd, UFFDIO_REGISTER, &area), "UFFDIO_REGISTER");
}

SITUATION(landlock_ruleset)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE };
	must(syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0), "landlock");
}

SITUATION(posix_mq)
{
	char name[32];
	snprintf(name, sizeof(name), "/situation-%d", getpid());
	must(mq_open(name, O_RDWR | O_CREAT, 0600, NULL), "mq_open");
	mq_unlink(name);
}

SITUATION(namespace_descriptor)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/ns/%s", argument);
	must(open(path, O_RDONLY), path);
}

SITUATION(namespace_descriptor_other)
{
	pid_t child = must(fork(), "fork");
	if (child == 0) {
		must(unshare(CLONE_NEWUTS), "unshare");
		for (;;)
			pause();
	}
	char path[64], mine[64], theirs[64];
	snprintf(path, sizeof(path), "/proc/%d/ns/uts", child);
	ssize_t n = readlink("/proc/self/ns/uts", mine, sizeof(mine));
	do {
		if (readlink(path, theirs, sizeof(theirs)) != n)
			skip("no namespace links");
	} while (memcmp(mine, theirs, n) == 0);
	must(open(path, O_RDONLY), "open");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

SITUATION(memory_of_epoll_in_child)
{
	make_epoll();
	check = NULL;
	waiting_child();
}
