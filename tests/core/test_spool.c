/* with: base/memory.c base/buf.c base/error.c */
/* Where a body lies while it arrives: memory, memfd, file; its bytes are the same everywhere. */
#include "http/spool.c"

#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"

static char directory[] = "spool-XXXXXX";

typedef enum { MEMORY, MEMFD, DISK } place;

static char byte_at(uint64_t index)
{
    return (char)(index * 7 + (index >> 12));
}

static void add(as_spool *spool, uint64_t from, size_t len, uint64_t expected)
{
    char *piece = malloc(len);
    for (size_t i = 0; i < len; i++)
        piece[i] = byte_at(from + i);
    CHECK_INT(as_spool_add(spool, as_str_of(piece, len), expected), AS_OK);
    free(piece);
}

/* In the directory's file system, or in the kernel's own one for memory. */
static bool is_on_disk(int fd)
{
    struct stat file, folder;
    CHECK(fstat(fd, &file) == 0 && stat(directory, &folder) == 0);
    return file.st_dev == folder.st_dev;
}

static void check_content(int fd, uint64_t length)
{
    struct stat file;
    CHECK(fstat(fd, &file) == 0);
    CHECK_INT(file.st_size, length);
    CHECK_INT(lseek(fd, 0, SEEK_CUR), 0); /* handlers read from the start */
    char block[4096];
    uint64_t at = 0;
    bool same = true;
    for (ssize_t n; (n = read(fd, block, sizeof(block))) > 0;) {
        for (ssize_t i = 0; i < n; i++)
            same = same && block[i] == byte_at(at + (uint64_t)i);
        at += (uint64_t)n;
    }
    CHECK(same);
    CHECK_INT(at, length);
}

static void test_size(uint64_t length, size_t piece, bool known, place expected_place)
{
    as_spool spool = {.fd = -1};
    as_spool_init(&spool, directory);
    for (uint64_t at = 0; at < length; at += piece)
        add(&spool, at, length - at < piece ? (size_t)(length - at) : piece, known ? length : 0);
    CHECK_INT(spool.length, length);
    int failures = check_failures;
    if (expected_place == MEMORY) {
        CHECK_INT(spool.memory.len, length);
        for (uint64_t i = 0; i < length; i++) {
            if (spool.memory.ptr[i] != byte_at(i)) {
                CHECK(spool.memory.ptr[i] == byte_at(i));
                break;
            }
        }
        CHECK_INT(as_spool_take_fd(&spool), -1);
    } else {
        int fd = as_spool_take_fd(&spool);
        CHECK(fd >= 0);
        CHECK_INT(is_on_disk(fd), expected_place == DISK);
        check_content(fd, length);
        close(fd);
    }
    if (failures != check_failures)
        fprintf(stderr, "^ %llu bytes in pieces of %zu, length %s\n", (unsigned long long)length, piece,
                known ? "known" : "unknown");
    as_spool_free(&spool);
}

static void test_sizes(void)
{
    for (int known = 0; known <= 1; known++) {
        test_size(0, 1, known, MEMORY);
        test_size(1, 1, known, MEMORY);
        test_size(AS_MAX_INLINE_BODY, 1000, known, MEMORY);
        test_size(AS_MAX_INLINE_BODY + 1, 1000, known, MEMFD);
        test_size(AS_SPOOL_MEMORY, 4096, known, MEMFD);
        test_size(AS_SPOOL_MEMORY + 1, 4096, known, DISK);
        test_size(3 * AS_SPOOL_MEMORY + 17, 16 * 1024, known, DISK);
    }
}

/* Used again for the next body: nothing of the first is left. */
static void test_reuse(void)
{
    as_spool spool = {.fd = -1};
    as_spool_init(&spool, directory);
    add(&spool, 0, AS_MAX_INLINE_BODY + 1, 0);
    int fd = spool.fd;
    CHECK(fd >= 0);
    as_spool_reset(&spool);
    CHECK(fcntl(fd, F_GETFD) == -1);
    as_spool_init(&spool, directory);
    add(&spool, 0, 10, 0);
    CHECK_INT(spool.length, 10);
    CHECK_INT(spool.memory.len, 10);
    CHECK_INT(spool.fd, -1);
    as_spool_free(&spool);
}

/* A directory that cannot be written: the body stays in memory. */
static void test_no_directory(void)
{
    as_spool spool = {.fd = -1};
    as_spool_init(&spool, "does/not/exist");
    for (uint64_t at = 0; at < 2 * AS_SPOOL_MEMORY; at += 64 * 1024)
        add(&spool, at, 64 * 1024, 0);
    int fd = as_spool_take_fd(&spool);
    CHECK(fd >= 0);
    check_content(fd, 2 * AS_SPOOL_MEMORY);
    close(fd);
    as_spool_free(&spool);
}

/* A full disk is an error with its errno, and the spool can still be closed. */
static void test_full_disk(void)
{
    as_spool spool = {.fd = -1};
    as_spool_init(&spool, directory);
    add(&spool, 0, AS_MAX_INLINE_BODY + 1, 0);
    close(spool.fd);
    spool.fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(spool.fd >= 0);
    CHECK_INT(as_spool_add(&spool, AS_STR("x"), 0), AS_ESYSTEM);
    CHECK_INT(errno, ENOSPC);
    CHECK_INT(spool.length, AS_MAX_INLINE_BODY + 1);
    as_spool_free(&spool);
}

int main(void)
{
    CHECK(mkdtemp(directory) != NULL);
    test_sizes();
    test_reuse();
    test_no_directory();
    test_full_disk();
    CHECK_INT(rmdir(directory), 0); /* nothing is left in it */
    return check_result("spool");
}
