/* `memory MIB [DIRTY]`: memory full of numbers that follow from their place; DIRTY megabytes of it change at every tick. */
#include "program.h"

#include <stdint.h>
#include <sys/mman.h>

static uint64_t *words;
static size_t count, dirty;
static uint64_t generation;

static uint64_t expected(size_t place, uint64_t of)
{
	uint64_t x = place * 0x9e3779b97f4a7c15u + of;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9u;
	return x ^ (x >> 32);
}

static const char *rewrite(void)
{
	if (!dirty)
		return NULL;
	generation++;
	for (size_t i = 0; i < dirty; i++)
		words[i] = expected(i, generation);
	return NULL;
}

static const char *intact(void)
{
	for (size_t i = 0; i < count; i++)
		if (words[i] != expected(i, i < dirty ? generation : 0))
			return "memory changed";
	return NULL;
}

int main(int argc, char **argv)
{
	sigset_t awaited;
	begin(&awaited);
	size_t megabytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 16;
	dirty = (argc > 2 ? strtoul(argv[2], NULL, 10) : 0) << 17;
	count = megabytes << 17;
	if (dirty > count)
		return 64;
	words = mmap(NULL, count * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must((long)words, "mmap");
	for (size_t i = 0; i < count; i++)
		words[i] = expected(i, 0);
	return run(&awaited, rewrite, intact);
}
