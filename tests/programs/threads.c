/* `threads COUNT`: a token goes round a ring of threads, each with a variable of its own. */
#include "program.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static long threads, turn, rounds;
static const char *wrong;
static __thread long own = -1;

static void *member(void *number)
{
	own = (long)number;
	pthread_mutex_lock(&lock);
	for (;;) {
		while (turn != (long)number)
			pthread_cond_wait(&moved, &lock);
		if (own != (long)number)
			wrong = "a thread-local variable changed";
		turn = (turn + 1) % threads;
		if (turn == 0) {
			rounds++;
			pthread_mutex_unlock(&lock);
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			pthread_mutex_lock(&lock);
		}
		pthread_cond_broadcast(&moved);
	}
	return NULL;
}

static const char *goes_round(void)
{
	pthread_mutex_lock(&lock);
	long before = rounds;
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < 500; i++) {
		nanosleep(&every_tick, NULL);
		pthread_mutex_lock(&lock);
		int on = rounds > before + 1;
		const char *found = wrong;
		pthread_mutex_unlock(&lock);
		if (on)
			return found;
	}
	return "the token does not go round";
}

int main(int argc, char **argv)
{
	sigset_t awaited;
	begin(&awaited);
	threads = argc > 1 ? atoi(argv[1]) : 4;
	for (long i = 0; i < threads; i++) {
		pthread_t thread;
		must(-pthread_create(&thread, NULL, member, (void *)i), "pthread_create");
	}
	return run(&awaited, NULL, goes_round);
}
