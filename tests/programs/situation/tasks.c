/* Tasks: their relations, states, credentials, scheduling, signals and timers. */
#include "situation.h"

#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/capability.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

/* --- threads ----------------------------------------------------------------------------------------------- */

static pthread_barrier_t standing;

static void *wait_in_thread(void *change)
{
	if (change)
		((void (*)(void))change)();
	pthread_barrier_wait(&standing);
	for (;;)
		pause();
	return NULL;
}

static void thread_that(void (*change)(void))
{
	pthread_t thread;
	pthread_barrier_init(&standing, NULL, 2);
	if (pthread_create(&thread, NULL, wait_in_thread, (void *)change))
		skip("no thread");
	pthread_barrier_wait(&standing);
}

SITUATION(threads)
{
	for (int i = 0; i < 16; i++)
		thread_that(NULL);
}

static void own_uid(void)
{
	must(syscall(SYS_setresuid, 1000, 1000, 1000), "setresuid");
}

SITUATION(thread_own_uid)
{
	thread_that(own_uid);
}

static void own_netns(void)
{
	must(unshare(CLONE_NEWNET), "unshare");
}

SITUATION(thread_other_netns)
{
	thread_that(own_netns);
}

static void own_descriptors(void)
{
	must(unshare(CLONE_FILES), "unshare");
	must(open("/dev/null", O_RDONLY), "open");
}

SITUATION(thread_own_descriptors)
{
	thread_that(own_descriptors);
}

static void own_cwd(void)
{
	must(unshare(CLONE_FS), "unshare");
	must(chdir("/"), "chdir");
}

SITUATION(thread_own_cwd)
{
	thread_that(own_cwd);
}

static void own_utsns(void)
{
	must(unshare(CLONE_NEWUTS), "unshare");
}

SITUATION(thread_own_utsns)
{
	thread_that(own_utsns);
}

static void own_name(void)
{
	must(prctl(PR_SET_NAME, "renamed"), "PR_SET_NAME");
}

SITUATION(thread_name)
{
	thread_that(own_name);
}

/* The main thread ends; another goes on. */
static void *outlive(void *unused)
{
	(void)unused;
	await_state(getpid(), "Z");
	settle();
	return NULL;
}

SITUATION(zombie_leader)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, outlive, NULL))
		skip("no thread");
	pthread_exit(NULL);
}

/* --- relations --------------------------------------------------------------------------------------------- */

SITUATION(child)
{
	waiting_child();
}

SITUATION(children_100)
{
	for (int i = 0; i < 99; i++)
		waiting_child();
}

/* A chain, each the parent of the next; all but the last wait. */
SITUATION(deep_tree)
{
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	for (int depth = 0; depth < 40; depth++) {
		if (must(fork(), "fork") == 0)
			continue;
		if (depth > 0)
			for (;;)
				pause();
		close(told[1]);
		must(read(told[0], &byte, 1), "read");
		close(told[0]);
		return;
	}
	close(told[0]);
	must(write(told[1], "x", 1), "write");
	close(told[1]);
	for (;;)
		pause();
}

SITUATION(child_own_group)
{
	pid_t child = waiting_child();
	must(setpgid(child, child), "setpgid");
}

SITUATION(child_own_session)
{
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	if (must(fork(), "fork") == 0) {
		must(setsid(), "setsid");
		close(told[0]);
		close(told[1]);
		for (;;)
			pause();
	}
	close(told[1]);
	must(read(told[0], &byte, 1), "read");
	close(told[0]);
}

/* The victim moved to a session of its own after it had a child: the child stays in the session of somebody outside. */
SITUATION(child_other_session)
{
	signal(SIGCHLD, SIG_IGN);
	pid_t outside = getpid();
	if (must(fork(), "fork") != 0)
		for (;;)
			pause();
	signal(SIGCHLD, SIG_DFL);
	waiting_child();
	must(setsid(), "setsid");
	dprintf(STDOUT_FILENO, "outside %d\nvictim %d\n", outside, getpid());
}

SITUATION(no_session_leader)
{
	split_inside_session();
}

SITUATION(no_session_leader_own_group)
{
	split_inside_session();
	must(setpgid(0, 0), "setpgid");
}

SITUATION(child_in_dead_group)
{
	/* The group's leader is gone, a member lives. */
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	pid_t leader = must(fork(), "fork");
	if (leader == 0) {
		must(setpgid(0, 0), "setpgid");
		must(prctl(PR_SET_CHILD_SUBREAPER, 0), "prctl");
		if (must(fork(), "fork") == 0) {
			close(told[0]);
			close(told[1]);
			for (;;)
				pause();
		}
		_exit(0);
	}
	must(prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl");
	close(told[1]);
	must(read(told[0], &byte, 1), "read");
	close(told[0]);
	waitpid(leader, NULL, 0);
}

SITUATION(subreaper)
{
	must(prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl");
}

SITUATION(parent_death_signal)
{
	must(prctl(PR_SET_PDEATHSIG, SIGTERM), "prctl");
}

static long raw_clone(unsigned long flags)
{
	return must(syscall(SYS_clone, flags, 0, 0, 0, 0), "clone");
}

static void clone_child(unsigned long flags)
{
	if (raw_clone(flags) == 0)
		for (;;)
			pause();
}

SITUATION(clone_files_child)
{
	clone_child(CLONE_FILES | SIGCHLD);
}

SITUATION(clone_fs_child)
{
	clone_child(CLONE_FS | SIGCHLD);
}

SITUATION(clone_io_child)
{
	clone_child(CLONE_IO | SIGCHLD);
}

SITUATION(clone_other_exit_signal)
{
	clone_child(SIGUSR2);
}

static char other_stack[65536] __attribute__((aligned(16)));
static int wait_on_other_stack(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return 0;
}

SITUATION(clone_vm_child)
{
	must(clone(wait_on_other_stack, other_stack + sizeof(other_stack), CLONE_VM | SIGCHLD, NULL), "clone");
}

SITUATION(clone_sighand_child)
{
	must(clone(wait_on_other_stack, other_stack + sizeof(other_stack), CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL),
	     "clone");
}

SITUATION(vfork_parent)
{
	/* The parent stays in vfork() for as long as the child neither execs nor ends. */
	if (vfork() == 0) {
		dprintf(STDOUT_FILENO, "ready\n");
		for (;;)
			pause();
	}
}

/* --- states ------------------------------------------------------------------------------------------------ */

SITUATION(stopped_child)
{
	pid_t child = waiting_child();
	must(kill(child, SIGSTOP), "kill");
	await_state(child, "T");
}

SITUATION(stopped_root)
{
	dprintf(STDOUT_FILENO, "ready\n");
	raise(SIGSTOP);
	dprintf(STDOUT_FILENO, "continued\n");
}

SITUATION(zombie_child)
{
	pid_t child = waiting_child();
	must(kill(child, SIGKILL), "kill");
	await_state(child, "Z");
}

SITUATION(zombie_exited)
{
	pid_t child = must(fork(), "fork");
	if (child == 0)
		_exit(7);
	await_state(child, "Z");
}

SITUATION(zombie_root)
{
	split_off();
	/* The outside ignores SIGCHLD, so that a zombie needs a parent that does not: this one. */
	pid_t child = waiting_child();
	must(kill(child, SIGKILL), "kill");
	await_state(child, "Z");
	dprintf(STDOUT_FILENO, "victim %d\n", child);
}

SITUATION(traced_by_outside)
{
	pid_t tracer = getpid();
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	signal(SIGCHLD, SIG_IGN);
	pid_t victim = must(fork(), "fork");
	if (victim != 0) {
		must(ptrace(PTRACE_SEIZE, victim, 0, 0), "PTRACE_SEIZE");
		must(write(told[1], "x", 1), "write");
		for (;;)
			if (waitpid(victim, NULL, __WALL) < 0)
				pause();
	}
	signal(SIGCHLD, SIG_DFL);
	must(setsid(), "setsid");
	close(told[1]);
	must(read(told[0], &byte, 1), "read");
	close(told[0]);
	dprintf(STDOUT_FILENO, "outside %d\nvictim %d\n", tracer, getpid());
}

SITUATION(traced_inside)
{
	pid_t child = waiting_child();
	must(ptrace(PTRACE_SEIZE, child, 0, 0), "PTRACE_SEIZE");
}

SITUATION(busy)
{
	if (fork() == 0)
		for (volatile long i = 0;; i++)
			;
}

/* --- credentials ------------------------------------------------------------------------------------------- */

SITUATION(other_uid)
{
	must(setgroups(0, NULL), "setgroups");
	must(setresgid(1000, 1000, 1000), "setresgid");
	must(setresuid(1000, 1000, 1000), "setresuid");
}

SITUATION(other_uid_child)
{
	/* Ready when the child is another user's: its end of the pipe closes. */
	int told[2];
	char byte;
	must(pipe(told), "pipe");
	if (must(fork(), "fork") == 0) {
		make_other_uid();
		close(told[0]);
		close(told[1]);
		for (;;)
			pause();
	}
	close(told[1]);
	must(read(told[0], &byte, 1), "read");
	close(told[0]);
}

SITUATION(effective_uid)
{
	must(setresuid(0, 1000, 0), "setresuid");
}

SITUATION(extra_groups)
{
	must(setgroups(3, (gid_t[]){ 10, 20, 30 }), "setgroups");
}

SITUATION(no_capabilities)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { 0 };
	must(syscall(SYS_capset, &header, none), "capset");
}

SITUATION(bounding_set_smaller)
{
	must(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME), "PR_CAPBSET_DROP");
}

SITUATION(ambient_capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	must(syscall(SYS_capget, &header, data), "capget");
	data[0].inheritable |= 1 << CAP_NET_RAW;
	must(syscall(SYS_capset, &header, data), "capset");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0), "PR_CAP_AMBIENT");
}

SITUATION(no_new_privs)
{
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
}

SITUATION(securebits)
{
	must(prctl(PR_SET_SECUREBITS, 1 << 0 /* NOROOT */), "prctl");
}

SITUATION(keep_capabilities)
{
	must(prctl(PR_SET_KEEPCAPS, 1), "prctl");
}

SITUATION(not_dumpable)
{
	must(prctl(PR_SET_DUMPABLE, 0), "prctl");
}

SITUATION(not_dumpable_other_uid)
{
	make_other_uid();
	must(prctl(PR_SET_DUMPABLE, 0), "prctl");
}

SITUATION(keyring)
{
	must(syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, "situation"), "keyctl");
}

/* --- seccomp and landlock ---------------------------------------------------------------------------------- */

static struct sock_filter allow_all[] = { { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW } };
static struct sock_fprog allow_program = { 1, allow_all };

static const char *filter_kept(void)
{
	return prctl(PR_GET_SECCOMP) == 2 ? NULL : "the seccomp filter is gone";
}

SITUATION(seccomp_filter)
{
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &allow_program), "seccomp");
	check = filter_kept;
}

SITUATION(seccomp_filter_threads)
{
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	thread_that(NULL);
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &allow_program), "seccomp");
	check = filter_kept;
}

SITUATION(seccomp_filter_denies)
{
	/* Denies what CRIU's parasite needs, if the filter is not suspended. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
	check = filter_kept;
}

SITUATION(seccomp_strict)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int fds[2];
	char byte;
	must(pipe(fds), "pipe");
	dprintf(STDOUT_FILENO, "ready\n");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), "seccomp");
	for (;;)
		syscall(SYS_read, fds[0], &byte, 1);
}

SITUATION(seccomp_notify)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getcwd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program), "seccomp");
}

SITUATION(landlocked)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE };
	int fd = must(syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0), "landlock");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	must(syscall(SYS_landlock_restrict_self, fd, 0), "restrict");
	close(fd);
}

/* --- scheduling and limits --------------------------------------------------------------------------------- */

static const char *affinity_kept(void)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	must(sched_getaffinity(0, sizeof(set), &set), "affinity");
	return CPU_COUNT(&set) == 1 && CPU_ISSET(0, &set) ? NULL : "the CPU affinity changed";
}

SITUATION(cpu_affinity)
{
	cpu_set_t set;
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip("one CPU");
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	must(sched_setaffinity(0, sizeof(set), &set), "affinity");
	check = affinity_kept;
}

static int policy, priority;
static const char *policy_kept(void)
{
	struct sched_param now;
	sched_getparam(0, &now);
	return sched_getscheduler(0) == policy && now.sched_priority == priority ? NULL : "the scheduling policy changed";
}

static void schedule(int as, int with)
{
	struct sched_param param = { .sched_priority = with };
	policy = as;
	priority = with;
	must(sched_setscheduler(0, as, &param), "sched_setscheduler");
	check = policy_kept;
}

SITUATION(sched_fifo)
{
	schedule(SCHED_FIFO, 5);
}

SITUATION(sched_rr)
{
	schedule(SCHED_RR, 5);
}

SITUATION(sched_batch)
{
	schedule(SCHED_BATCH, 0);
}

SITUATION(sched_idle)
{
	schedule(SCHED_IDLE, 0);
}

SITUATION(sched_reset_on_fork)
{
	struct sched_param param = { .sched_priority = 5 };
	must(sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param), "sched_setscheduler");
}

SITUATION(sched_deadline)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = { .size = 48, .policy = 6, .runtime = 1000000, .deadline = 10000000, .period = 10000000 };
	must(syscall(SYS_sched_setattr, 0, &attr, 0), "sched_setattr");
}

static const char *nice_kept(void)
{
	return getpriority(PRIO_PROCESS, 0) == 7 ? NULL : "nice changed";
}

SITUATION(nice)
{
	must(setpriority(PRIO_PROCESS, 0, 7), "setpriority");
	check = nice_kept;
}

static const char *ioprio_kept(void)
{
	return syscall(SYS_ioprio_get, 1, 0) == ((2 << 13) | 7) ? NULL : "the I/O priority changed";
}

SITUATION(ioprio)
{
	must(syscall(SYS_ioprio_set, 1, 0, (2 << 13) | 7), "ioprio");
	check = ioprio_kept;
}

SITUATION(oom_score_adj)
{
	int fd = must(open("/proc/self/oom_score_adj", O_WRONLY), "open");
	must(write(fd, "500", 3), "write");
	close(fd);
}

static const char *limit_kept(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur == 256 && limit.rlim_max == 512 ? NULL : "the limit changed";
}

SITUATION(lower_limits)
{
	struct rlimit limit = { 256, 512 };
	must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	check = limit_kept;
}

SITUATION(lower_core_limit)
{
	struct rlimit limit = { 0, 0 };
	must(setrlimit(RLIMIT_CORE, &limit), "setrlimit");
}

static const char *slack_kept(void)
{
	return prctl(PR_GET_TIMERSLACK) == 123456 ? NULL : "the timer slack changed";
}

SITUATION(timer_slack)
{
	must(prctl(PR_SET_TIMERSLACK, 123456), "prctl");
	check = slack_kept;
}

SITUATION(core_scheduling)
{
	must(prctl(62 /* PR_SCHED_CORE */, 1, 0, 0, 0), "PR_SCHED_CORE");
}

static const char *thp_kept(void)
{
	return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1 ? NULL : "PR_SET_THP_DISABLE is gone";
}

SITUATION(thp_disabled)
{
	must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl");
	check = thp_kept;
}

static const char *mdwe_kept(void)
{
	return prctl(66, 0, 0, 0, 0) == 1 ? NULL : "PR_SET_MDWE is gone";
}

SITUATION(memory_deny_write_execute)
{
	must(prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0), "PR_SET_MDWE");
	check = mdwe_kept;
}

static const char *tsc_kept(void)
{
	int mode = 0;
	prctl(PR_GET_TSC, &mode);
	return mode == PR_TSC_SIGSEGV ? NULL : "PR_SET_TSC is gone";
}

SITUATION(tsc_disabled)
{
	must(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), "prctl");
	check = tsc_kept;
}

static const char *personality_kept(void)
{
	return personality(0xffffffff) & ADDR_NO_RANDOMIZE ? NULL : "the personality changed";
}

SITUATION(personality)
{
	must(personality(ADDR_NO_RANDOMIZE), "personality");
	check = personality_kept;
}

static char *volatile page_zero;

static const char *page_zero_kept(void)
{
	return *page_zero == 'z' ? NULL : "the page at address 0 has changed";
}

static void map_page_zero(int rights)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (page == MAP_FAILED)
		skip("the page at address 0 cannot be mapped");
	page_zero = page;
	*page_zero = 'z';
	must(mprotect(page, 4096, rights), "mprotect");
	check = page_zero_kept;
}

SITUATION(page_zero)
{
	map_page_zero(PROT_READ);
}

/* As MMAP_PAGE_ZERO of setarch does it. */
SITUATION(page_zero_executable)
{
	map_page_zero(PROT_READ | PROT_EXEC);
}

SITUATION(syscall_user_dispatch)
{
	static char selector;
	must(prctl(59, 1, 0, 0, &selector), "PR_SET_SYSCALL_USER_DISPATCH");
}

SITUATION(robust_list)
{
	static struct {
		void *next;
		long offset;
		void *pending;
	} head = { &head, 0, NULL };
	must(syscall(SYS_set_robust_list, &head, 24), "set_robust_list");
}

SITUATION(membarrier_registered)
{
	must(syscall(SYS_membarrier, 16 /* REGISTER_PRIVATE_EXPEDITED */, 0, 0), "membarrier");
}

/* --- signals and timers ------------------------------------------------------------------------------------ */

static const char *pending_kept(void)
{
	sigset_t set;
	sigpending(&set);
	return sigismember(&set, SIGUSR2) && sigismember(&set, SIGRTMIN + 4) ? NULL : "a pending signal is lost";
}

SITUATION(pending_signals)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 4);
	sigprocmask(SIG_BLOCK, &set, NULL);
	must(kill(getpid(), SIGUSR2), "kill");
	for (int i = 0; i < 5; i++)
		must(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){ .sival_int = i }), "sigqueue");
	check = pending_kept;
}

static const char *altstack_kept(void)
{
	stack_t now;
	sigaltstack(NULL, &now);
	return now.ss_sp == other_stack ? NULL : "the alternate stack is gone";
}

SITUATION(alternate_stack)
{
	stack_t stack = { .ss_sp = other_stack, .ss_size = sizeof(other_stack) };
	must(sigaltstack(&stack, NULL), "sigaltstack");
	check = altstack_kept;
}

static const char *itimer_kept(void)
{
	struct itimerval now;
	getitimer(ITIMER_REAL, &now);
	return now.it_value.tv_sec > 600 ? NULL : "the interval timer is not armed";
}

SITUATION(interval_timer)
{
	struct itimerval in_an_hour = { .it_value.tv_sec = 3600 };
	must(setitimer(ITIMER_REAL, &in_an_hour, NULL), "setitimer");
	must(setitimer(ITIMER_VIRTUAL, &in_an_hour, NULL), "setitimer");
	must(setitimer(ITIMER_PROF, &in_an_hour, NULL), "setitimer");
	check = itimer_kept;
}

static timer_t posix_timer;
static const char *posix_timer_kept(void)
{
	struct itimerspec now;
	return !timer_gettime(posix_timer, &now) && now.it_value.tv_sec > 600 ? NULL : "the timer is not armed";
}

static void timer_on(clockid_t clock)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	struct itimerspec in_an_hour = { .it_value.tv_sec = 3600 };
	must(timer_create(clock, &event, &posix_timer), "timer_create");
	must(timer_settime(posix_timer, 0, &in_an_hour, NULL), "timer_settime");
	check = posix_timer_kept;
}

SITUATION(posix_timer)
{
	timer_on(CLOCK_MONOTONIC);
}

SITUATION(posix_timer_cpu)
{
	timer_on(CLOCK_PROCESS_CPUTIME_ID);
}

SITUATION(posix_timer_boottime)
{
	timer_on(CLOCK_BOOTTIME);
}

SITUATION(posix_timer_id_gap)
{
	timer_t unused;
	for (int i = 0; i < 20; i++) {
		must(timer_create(CLOCK_MONOTONIC, NULL, &unused), "timer_create");
		must(timer_delete(unused), "timer_delete");
	}
	timer_on(CLOCK_MONOTONIC);
}

SITUATION(in_nanosleep)
{
	dprintf(STDOUT_FILENO, "ready\n");
	nanosleep(&(struct timespec){ .tv_sec = 3600 }, NULL);
	dprintf(STDOUT_FILENO, "BAD the sleep ended\n");
}
