#!/usr/bin/env python3
"""Fails or kills a writer at its system calls, one after the other, and audits what is left.

  inject.py SURVIVOR [--share N] [--work DIR]

A scripted run is traced once: which calls on the store's files it makes, in recovery of a torn directory, in puts with
rolls, in dispatch and in closing. Then for each call, by name and number within its thread, the run is repeated: the
call returns EIO, once and from then on for ever; or ENOSPC in the same two ways where space is asked for; or the process
is killed there. The writer must end by itself with an error or without one, never by a signal but the one sent; it may
acknowledge nothing after it has said that a sync failed; and the audit must find all that it did acknowledge.
--share N runs one case in N. Ends with a line `N passed, N failed`.
"""
import argparse
import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile

import survivor

GEOMETRY = {**survivor.SMALL, "mappedFileSizeCommitLog": 16384, "mappedFileSizeConsumeQueue": 200}
SPACE = {"fallocate", "ftruncate", "pwrite64", "write", "openat", "mkdir", "rename"}
# Calls whose failure says nothing about the store: the writer's own pipe and memory.
CALLS = ("openat,mkdir,rename,unlink,ftruncate,fallocate,pwrite64,write,read,pread64,fdatasync,fsync,msync,"
         "sync_file_range,statx,newfstatat,fstat,statfs,getdents64,fcntl,lseek,mmap")
MESSAGES = 40


def strace(extra, log):
    return ["strace", "-f", "-qq", "-o", log, *extra]


class Case:
    def __init__(self, name, start, call, number, what):
        self.name, self.start, self.call, self.number, self.what = name, start, call, number, what


def baseline(program, root, conf, start):
    """The calls of an undisturbed run on the store's files: their paths, and how many of each name a thread makes."""
    home = os.path.join(root, "baseline")
    shutil.copytree(start, home)
    log = os.path.join(root, "baseline.trace")
    writer = survivor.Writer(program, os.path.join(home, "store"), conf, os.path.join(home, "acks"),
                             before=strace(["-y", "-e", "trace=" + CALLS], log), count=MESSAGES, **{"from": 10**9})
    status = writer.end()
    if status != 0:
        raise RuntimeError("the undisturbed run ends with %s: %s" % (status, writer.lines))
    paths, calls, threads, names = set(), collections.Counter(), collections.Counter(), {}
    with open(log, errors="replace") as lines:
        for line in lines:
            made = re.match(r"(\d+) +(\w+)\((.*)", line)
            if not made:
                continue
            here = re.findall(re.escape(home) + r'/store[^">]*', made.group(3))
            if here:
                paths.update(path[len(home) + 1:] for path in here)
                threads[(made.group(1), made.group(2))] += 1
    for (_, call), count in threads.items():
        calls[call] = max(calls[call], count)
    shutil.rmtree(home)
    return sorted(paths), calls


def prepare(program, root, conf):
    """The directories that runs start from: none, and one that was killed with a torn end."""
    empty, torn = os.path.join(root, "empty"), os.path.join(root, "torn")
    for start in (empty, torn):
        os.makedirs(start)
        open(os.path.join(start, "acks"), "w").close()
    writer = survivor.Writer(program, os.path.join(torn, "store"), conf, os.path.join(torn, "acks"), count=60, pause_us=3000)
    writer.opened.wait(60)
    while sum(1 for line in open(os.path.join(torn, "acks")) if line.startswith("ack")) < 50:
        survivor.nap(0.01)
    writer.kill()
    acks = [line for line in open(os.path.join(torn, "acks")) if line.endswith("\n") and line.startswith("ack")]
    # The last messages become torn: they are no longer counted among the acknowledged.
    at, size = int(acks[-2].split()[2]), int(acks[-2].split()[4])
    names = sorted(os.listdir(os.path.join(torn, "store", "commitlog")))
    segment = GEOMETRY["mappedFileSizeCommitLog"]
    with open(os.path.join(torn, "store", "commitlog", "%020d" % (at // segment * segment)), "r+b") as file:
        file.seek(at % segment + size // 2)
        file.write(b"\0" * (segment - at % segment - size // 2))
    for name in names:
        if int(name) > at:
            os.truncate(os.path.join(torn, "store", "commitlog", name), 0)
            os.truncate(os.path.join(torn, "store", "commitlog", name), segment)
    with open(os.path.join(torn, "acks"), "w") as out:
        out.writelines(line for line in acks if int(line.split()[2]) < at)
    return {"empty": empty, "torn": torn}


def cases(program, root, conf, starts):
    made = []
    for name, start in starts.items():
        paths, calls = baseline(program, root, conf, start)
        for call, count in sorted(calls.items()):
            for number in range(1, count + 1):
                kinds = [("error=EIO", "%d" % number), ("error=EIO", "%d+" % number), ("signal=KILL", "%d" % number)]
                if call in SPACE:
                    kinds += [("error=ENOSPC", "%d" % number), ("error=ENOSPC", "%d+" % number)]
                for what, when in kinds:
                    title = "%s %s %s when=%s" % (name, call, what, when)
                    made.append((title, start, paths, "inject=%s:%s:when=%s" % (call, what, when), what))
    return made


def run(program, root, conf, number, case):
    title, start, paths, rule, what = case
    home = os.path.join(root, "case-%d" % number)
    shutil.copytree(start, home)
    store, acks, log = (os.path.join(home, name) for name in ("store", "acks", "trace"))
    only = [word for path in paths for word in ("-P", os.path.join(home, path))]
    call = rule.split("=")[1].split(":")[0]
    writer = survivor.Writer(program, store, conf, acks, before=strace([*only, "-e", "trace=" + call, "-e", rule], log),
                             count=MESSAGES, **{"from": 10**9})
    status = writer.end(60)
    with open(log, errors="replace") as text:
        traced = text.read()
    hit = "INJECTED" in traced or "killed by SIGKILL" in traced
    why = None
    allowed = (-9, 137, 0, 3) if what == "signal=KILL" else (0, 3)
    if status not in allowed:
        with open(acks + ".stderr", errors="replace") as text:
            why = "the writer ended with %s: %s %s" % (status, writer.lines[-2:], text.read()[-300:])
    with open(acks) as lines:
        lines = lines.readlines()
    ended = next((i for i, line in enumerate(lines) if "since a sync failed" in line), None)
    if not why and ended is not None and any(line.startswith("ack ") for line in lines[ended:]):
        why = "acknowledged after a failed sync"
    if not why and os.path.isdir(store):
        why, numbers = survivor.audit(program, store, conf, acks=acks)
        if not why and numbers["damage"]:
            why = "damage where nothing was damaged: %s" % numbers
    if not why:
        shutil.rmtree(home)
    return title, why, hit, "strace -f -e %s ...; left in %s" % (rule, home)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("--share", type=int, default=1)
    words.add_argument("--work")
    words = words.parse_args()
    tally = survivor.Tally()
    probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "inject=getpid:error=EIO", "true"], capture_output=True)
    if probe.returncode:
        survivor.forbidden("injected system calls", "strace cannot inject here: %r" % probe.stderr, 1)
    root = tempfile.mkdtemp(prefix="reput-inject.", dir=words.work)
    conf = survivor.config(os.path.join(root, "broker.conf"), "SYNC_FLUSH", GEOMETRY)
    made = cases(words.program, root, conf, prepare(words.program, root, conf))
    survivor.dice(words.share).shuffle(made)
    chosen = made[::words.share]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for title, why, hit, replay in pool.map(lambda one: run(words.program, root, conf, *one), enumerate(chosen)):
            tally.check(title, why, replay)
            tally.note("cases in which the call was reached" if hit else "cases in which it was not")
    tally.note("cases in all", len(made))
    if tally.notes.get("cases in which the call was reached", 0) * 10 < len(chosen) * 8:
        tally.check("reach", "fewer than eight of ten cases reached their call: %s" % tally.notes)
    if not tally.failed:
        shutil.rmtree(root)
    tally.end(len(chosen))


if __name__ == "__main__":
    main()
