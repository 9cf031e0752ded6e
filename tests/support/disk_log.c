/* Records what a process writes below one folder, and when it asks for it to be on the disk.

   Preload it with DISK_LOG (the file that it appends to) and DISK_FOLDER. Each record is a head and then a path and
   data. `powerloss.py` reads them. A call is recorded before it returns to its caller. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC_BEGINS, SYNC_ENDS, UNLINK };

struct head {
    uint32_t kind, path_size;
    uint64_t offset, size;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static void record(uint32_t kind, const char *path, uint64_t offset, const void *data, uint64_t size, uint64_t kept) {
    struct head head = {kind, (uint32_t)strlen(path), offset, size};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path_size}, {(void *)data, kept}};
    pthread_mutex_lock(&lock);
    if (log_fd < 0) log_fd = open(getenv("DISK_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (writev(log_fd, parts, kept ? 3 : 2) != (ssize_t)(sizeof head + head.path_size + kept)) abort();
    pthread_mutex_unlock(&lock);
}

/* Returns whether the path is below the folder that is watched. */
static int watched(const char *path) {
    const char *folder = getenv("DISK_FOLDER");
    return folder && getenv("DISK_LOG") && !strncmp(path, folder, strlen(folder));
}

static int path_of(int fd, char *path) {
    char link[64];
    strcpy(link, "/proc/self/fd/");
    char digits[16];
    int count = 0;
    for (int rest = fd; rest || !count; rest /= 10) digits[count++] = (char)('0' + rest % 10);
    char *end = link + strlen(link);
    while (count) *end++ = digits[--count];
    *end = 0;
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0 || fd == log_fd) return 0;
    path[size] = 0;
    return watched(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    ssize_t done = REAL(pwrite64)(fd, data, size, offset);
    if (done > 0 && path_of(fd, path)) record(WRITE, path, (uint64_t)offset, data, (uint64_t)done, (uint64_t)done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    int wanted = fd > 2 && path_of(fd, path);
    off_t offset = wanted ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = REAL(write)(fd, data, size);
    if (wanted && done > 0) record(WRITE, path, (uint64_t)offset, data, (uint64_t)done, (uint64_t)done);
    return done;
}

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    int failed = REAL(ftruncate64)(fd, size);
    if (!failed && path_of(fd, path)) record(TRUNCATE, path, 0, NULL, (uint64_t)size, 0);
    return failed;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int sync_with(int (*real)(int), int fd) {
    char path[PATH_MAX];
    int wanted = path_of(fd, path);
    if (wanted) record(SYNC_BEGINS, path, 0, NULL, 0, 0);
    int failed = real(fd);
    if (wanted && !failed) record(SYNC_ENDS, path, 0, NULL, 0, 0);
    return failed;
}

int fsync(int fd) { return sync_with(REAL(fsync), fd); }

int fdatasync(int fd) { return sync_with(REAL(fdatasync), fd); }

int unlink(const char *path) {
    int failed = REAL(unlink)(path);
    if (!failed && watched(path)) record(UNLINK, path, 0, NULL, 0, 0);
    return failed;
}
