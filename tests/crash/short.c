/* Reads and writes that do less than was asked for, as the system is free to: put before a program by LD_PRELOAD. On
 * files below SHORT_ROOT the calls read, write, pread64 and pwrite64 of the name SHORT_CALL, or each of them for `all`,
 * take half of their bytes, or one when SHORT_BYTES is set: the SHORT_NTH of the process, or every one for 0. A line on
 * SHORT_LOG says that one was cut. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long calls;

static size_t cut(const char *name, int fd, size_t count) {
    const char *root = getenv("SHORT_ROOT"), *call = getenv("SHORT_CALL"), *nth = getenv("SHORT_NTH"), *log = getenv("SHORT_LOG");
    char link[64], path[4096];
    if (count < 2 || !root || !call || !nth || (strcmp(call, "all") && strcmp(call, name))) return count;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || strncmp(path, root, strlen(root))) return count;
    long number = atomic_fetch_add(&calls, 1) + 1, wanted = atol(nth);
    if (wanted && number != wanted) return count;
    int out = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (out >= 0) close(out);
    return getenv("SHORT_BYTES") ? 1 : count / 2;
}

#define REAL(name, type) static __typeof__(type) *real; if (!real) real = (__typeof__(type) *)dlsym(RTLD_NEXT, name)

ssize_t read(int fd, void *to, size_t count) {
    REAL("read", ssize_t (int, void *, size_t));
    return real(fd, to, cut("read", fd, count));
}
ssize_t write(int fd, const void *from, size_t count) {
    REAL("write", ssize_t (int, const void *, size_t));
    return real(fd, from, cut("write", fd, count));
}
ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
    REAL("pread64", ssize_t (int, void *, size_t, off64_t));
    return real(fd, to, cut("pread64", fd, count), at);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    REAL("pwrite64", ssize_t (int, const void *, size_t, off64_t));
    return real(fd, from, cut("pwrite64", fd, count), at);
}
