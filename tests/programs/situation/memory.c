/* Memory: mappings of every kind, System V shared memory, and what the kernel keeps per address space. */
#include "situation.h"

#include <linux/aio_abi.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define PAGE 4096UL

static char *area;
static size_t area_size;

static const char *area_kept(void)
{
	for (size_t i = 0; i < area_size; i += PAGE)
		if (area[i] != (char)(i / PAGE + 1))
			return "memory changed";
	return NULL;
}

static void *mapping(size_t size, int protection, int flags, int fd)
{
	void *at = mmap(NULL, size, protection, flags, fd, 0);
	must((long)at, "mmap");
	return at;
}

static void fill(size_t size, int flags, int fd)
{
	area = mapping(size, PROT_READ | PROT_WRITE, flags, fd);
	area_size = size;
	for (size_t i = 0; i < size; i += PAGE)
		area[i] = (char)(i / PAGE + 1);
	check = area_kept;
}

SITUATION(anonymous_private)
{
	fill(16 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

SITUATION(anonymous_shared)
{
	fill(16 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	waiting_child();
}

/* Shared memory made before the split: the outside has it too. */
SITUATION(anonymous_shared_outside)
{
	fill(16 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	split_off();
}

SITUATION(file_shared)
{
	int fd = file_with("mapped", 16 * PAGE, 0);
	fill(16 * PAGE, MAP_SHARED, fd);
	close(fd);
}

SITUATION(file_private)
{
	int fd = file_with("mapped", 16 * PAGE, 0);
	fill(16 * PAGE, MAP_PRIVATE, fd);
	close(fd);
}

SITUATION(deleted_file_shared)
{
	make_file_shared();
	must(unlink("mapped"), "unlink");
}

SITUATION(deleted_file_private)
{
	make_file_private();
	must(unlink("mapped"), "unlink");
}

SITUATION(deleted_file_mapped_2m)
{
	int fd = file_with("mapped", 2 << 20, 0);
	fill(2 << 20, MAP_SHARED, fd);
	close(fd);
	must(unlink("mapped"), "unlink");
}

SITUATION(truncated_file_mapped)
{
	int fd = file_with("mapped", 4 * PAGE, 0);
	mapping(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	must(ftruncate(fd, PAGE), "ftruncate");
}

SITUATION(zero_shared)
{
	int fd = must(open("/dev/zero", O_RDWR), "open");
	fill(4 * PAGE, MAP_SHARED, fd);
}

SITUATION(zero_private)
{
	int fd = must(open("/dev/zero", O_RDWR), "open");
	fill(4 * PAGE, MAP_PRIVATE, fd);
}

SITUATION(device_mapped)
{
	int fd = must(open(argument, O_RDONLY), argument);
	mapping(PAGE, PROT_READ, MAP_SHARED, fd);
	close(fd);
}

SITUATION(block_device_mapped)
{
	int fd = must(open("/dev/vda", O_RDONLY), "open");
	mapping(PAGE, PROT_READ, MAP_PRIVATE, fd);
	close(fd);
}

SITUATION(grows_down)
{
	/* With room below, so that the guard gap stays. */
	char *room = mapping(1024 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	munmap(room, 1024 * PAGE);
	area = mmap(room + 1020 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
	must((long)area, "mmap");
	memset(area, 1, PAGE);
	area_size = PAGE;
	check = area_kept;
}

SITUATION(droppable)
{
	area = mapping(4 * PAGE, PROT_READ | PROT_WRITE, 0x08 /* MAP_DROPPABLE */ | MAP_ANONYMOUS, -1);
	memset(area, 1, PAGE);
}

SITUATION(guard_pages)
{
	fill(8 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(madvise(area + 4 * PAGE, PAGE, 102 /* MADV_GUARD_INSTALL */), "MADV_GUARD_INSTALL");
	area_size = 4 * PAGE;
}

static const char *still_sealed(void)
{
	return mprotect(area, PAGE, PROT_READ) ? NULL : "the mapping is not sealed any more";
}

SITUATION(sealed_mapping)
{
	fill(4 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(syscall(462, area, 4 * PAGE, 0), "mseal");
	check = still_sealed;
}

SITUATION(huge_pages)
{
	fill(2 << 20, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
}

SITUATION(huge_pages_shared)
{
	fill(2 << 20, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
}

SITUATION(transparent_huge_pages)
{
	char *room = mapping(4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(madvise(room, 4 << 20, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	memset(room, 1, 4 << 20);
}

static void advised(int advice)
{
	fill(4 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(madvise(area, 4 * PAGE, advice), "madvise");
}

SITUATION(dont_fork)
{
	advised(MADV_DONTFORK);
}

SITUATION(dont_dump)
{
	advised(MADV_DONTDUMP);
}

SITUATION(wipe_on_fork)
{
	advised(MADV_WIPEONFORK);
}

SITUATION(mergeable)
{
	advised(MADV_MERGEABLE);
}

SITUATION(locked)
{
	fill(16 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(mlock(area, 16 * PAGE), "mlock");
}

SITUATION(locked_all)
{
	must(mlockall(MCL_CURRENT | MCL_FUTURE), "mlockall");
}

SITUATION(no_access)
{
	fill(16 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(mprotect(area, 16 * PAGE, PROT_NONE), "mprotect");
	check = NULL;
}

SITUATION(write_execute)
{
	mapping(4 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

SITUATION(write_only)
{
	mapping(4 * PAGE, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

SITUATION(protection_key)
{
	int key = must(pkey_alloc(0, 0), "pkey_alloc");
	fill(4 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(pkey_mprotect(area, 4 * PAGE, PROT_READ | PROT_WRITE, key), "pkey_mprotect");
}

SITUATION(reserved_terabyte)
{
	mapping(1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

SITUATION(many_mappings)
{
	for (int i = 0; i < 2000; i++)
		mapping(PAGE, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

SITUATION(memory_64m)
{
	fill(64 << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

SITUATION(nonlinear)
{
	fill(8 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	must(remap_file_pages(area, PAGE, 0, 3, 0), "remap_file_pages");
	check = NULL;
}

static uintptr_t vdso(size_t *size)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	uintptr_t from = 0, to = 0;
	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[vdso]"))
			sscanf(line, "%lx-%lx", &from, &to);
	fclose(maps);
	if (!from)
		skip("no vDSO");
	*size = to - from;
	return from;
}

SITUATION(vdso_unmapped)
{
	size_t size;
	uintptr_t at = vdso(&size);
	must(munmap((void *)at, size), "munmap");
}

SITUATION(vdso_moved)
{
	size_t size;
	uintptr_t at = vdso(&size);
	char *to = mapping(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must((long)mremap((void *)at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to), "mremap");
}

SITUATION(linux_aio)
{
	aio_context_t context = 0;
	must(syscall(SYS_io_setup, 16, &context), "io_setup");
}

SITUATION(stack_deep)
{
	volatile char deep[4 << 20];
	for (size_t i = 0; i < sizeof(deep); i += PAGE)
		deep[i] = 1;
}

/* --- System V IPC: in the host's IPC namespace unless said ------------------------------------------------- */

static int shared_segment(void)
{
	int id = must(shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600), "shmget");
	area = shmat(id, NULL, 0);
	must((long)area, "shmat");
	/* Marked for removal at once, so that nothing stays after the victim. */
	must(shmctl(id, IPC_RMID, NULL), "IPC_RMID");
	memset(area, 1, PAGE);
	area_size = PAGE;
	check = area_kept;
	return id;
}

SITUATION(sysv_shm)
{
	shared_segment();
}

SITUATION(sysv_shm_kept)
{
	int id = must(shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600), "shmget");
	dprintf(STDOUT_FILENO, "shm %d\n", id);
	must((long)shmat(id, NULL, 0), "shmat");
}

SITUATION(sysv_shm_detached)
{
	int id = must(shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600), "shmget");
	dprintf(STDOUT_FILENO, "shm %d\n", id);
}

SITUATION(sysv_sem_undo)
{
	int id = must(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600), "semget");
	dprintf(STDOUT_FILENO, "sem %d\n", id);
	struct sembuf up = { 0, 1, SEM_UNDO };
	must(semop(id, &up, 1), "semop");
}

SITUATION(sysv_sem)
{
	int id = must(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600), "semget");
	dprintf(STDOUT_FILENO, "sem %d\n", id);
}

SITUATION(sysv_msg)
{
	int id = must(msgget(IPC_PRIVATE, IPC_CREAT | 0600), "msgget");
	dprintf(STDOUT_FILENO, "msg %d\n", id);
}

SITUATION(own_ipcns_shm)
{
	must(unshare(CLONE_NEWIPC), "unshare");
	int id = must(shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600), "shmget");
	area = shmat(id, NULL, 0);
	must((long)area, "shmat");
	memset(area, 1, PAGE);
	area_size = PAGE;
	check = area_kept;
}
