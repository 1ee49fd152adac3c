/* `timers`: an interval timer, a POSIX timer and a timerfd, each of which fires every 20 ms. */
#include "program.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/timerfd.h>

static volatile sig_atomic_t interval_fired, posix_fired;
static volatile unsigned long descriptor_fired;
static int descriptor;

static void on_interval(int unused)
{
	(void)unused;
	interval_fired++;
}

static void on_posix(int unused)
{
	(void)unused;
	posix_fired++;
}

/* Arms the timerfd anew each time: a periodic one that has expired when CRIU looks never fires again after the restore. */
static void *read_descriptor(void *unused)
{
	struct itimerspec once = { { 0, 0 }, every_tick };
	uint64_t times;
	(void)unused;
	for (;;) {
		must(timerfd_settime(descriptor, 0, &once, NULL), "timerfd_settime");
		while (read(descriptor, &times, sizeof(times)) != sizeof(times))
			;
		descriptor_fired++;
	}
	return NULL;
}

static const char *all_fire(void)
{
	long interval = interval_fired, posix = posix_fired, by_descriptor = descriptor_fired;
	for (int i = 0; i < 200; i++) {
		nanosleep(&every_tick, NULL);
		if (interval_fired > interval + 2 && posix_fired > posix + 2 && (long)descriptor_fired > by_descriptor + 2)
			return NULL;
	}
	if (interval_fired <= interval + 2)
		return "the interval timer does not fire";
	if (posix_fired <= posix + 2)
		return "the POSIX timer does not fire";
	return "the timerfd does not fire";
}

int main(void)
{
	sigset_t awaited;
	pthread_t thread;
	timer_t timer;
	begin(&awaited);
	struct itimerspec spec = { every_tick, every_tick };
	struct itimerval value = { { 0, 20000 }, { 0, 20000 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	must(sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_interval, .sa_flags = SA_RESTART }, NULL), "SIGALRM");
	must(sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = on_posix, .sa_flags = SA_RESTART }, NULL), "SIGUSR2");
	must(setitimer(ITIMER_REAL, &value, NULL), "setitimer");
	must(timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
	must(timer_settime(timer, 0, &spec, NULL), "timer_settime");
	descriptor = must(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd");
	must(-pthread_create(&thread, NULL, read_descriptor, NULL), "pthread_create");
	return run(&awaited, NULL, all_fire);
}
