#!/usr/bin/env python3
"""Fills the page cache, as that of a server which has run for a while is filled.

  fill_memory.py FILE

New pages of a log then come from what the cache gives up. Where much memory is free they may come from a hypervisor
that took free memory back, which costs several times what clearing them does and hides what is measured; it is the same
for every store. FILE is longer than memory and a hole from end to end, so it takes no space; FILE.at says how far it was
read, and the next call goes on there and takes what is free by then.
"""
import os
import sys

PAGE, PIECE = 4096, 1 << 20
# What a kernel leaves free by itself, roughly: below this nothing more is to be had.
ENOUGH = 320 << 20


def free():
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree:"))


def main(path):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = memory // PIECE * PIECE * 5 // 4
    with open(path, "ab") as made:
        made.truncate(size)
    mark = path + ".at"
    at = int(open(mark).read()) if os.path.exists(mark) else 0
    file = os.open(path, os.O_RDONLY)
    read = 0
    while free() > 4 * ENOUGH and read < size:
        for _ in range(64):
            os.pread(file, PIECE, at)
            at, read = (at + PIECE) % size, read + PIECE
    # The rest page by page: long reads make the kernel clear long runs.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    while free() > ENOUGH and read < size:
        for _ in range(4096):
            os.pread(file, PAGE, at)
            at, read = (at + PAGE) % size, read + PAGE
    open(mark, "w").write(str(at))
    print("free: %d MiB" % (free() >> 20))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
