#!/usr/bin/env python3
"""Fails or kills a writer at its system calls, one after the other, and audits what is left.

  inject.py SURVIVOR [--share N] [--seed N] [--java] [--work DIR]

A scripted run is traced once: which calls on the store's files it makes, in recovery of a torn directory, in puts with
rolls, in dispatch and in closing. Then for each call, by name and number within its thread, the run is repeated: the
call returns EIO, once and from then on for ever; or ENOSPC in the same two ways where space is asked for; or it reads or
writes fewer bytes than asked for; or the process is killed there. With SYNC_FLUSH, and with ASYNC_FLUSH from the torn
directory. The writer must end by itself with an error or without one, never by a signal but the one sent; it may
acknowledge nothing after it has said that a sync failed; and the audit must find all that it did acknowledge. Java opens
every hundredth directory. --share N runs one case in N, others for each seed. Ends with a line `N passed, N failed`.
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
CALLS = ("openat,mkdir,rmdir,rename,unlink,ftruncate,fallocate,pwrite64,write,read,pread64,fdatasync,fsync,msync,syncfs,"
         "sync_file_range,statx,newfstatat,fstat,statfs,getdents64,fcntl,lseek,mmap,close")
# Calls that may do less than was asked for. strace can only make them do nothing and say so; half of the bytes, or one,
# is done by short.c, which the rig compiles and puts before the writer.
SHORT = {"pwrite64", "write", "read", "pread64"}
JAVA_EVERY = 100
MESSAGES = 40


def strace(extra, log):
    return ["strace", "-f", "-qq", "-o", log, *extra]


def build(root):
    """Compiles short.c; returns its path."""
    made = os.path.join(root, "short.so")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "short.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True, capture_output=True, text=True)
    return made


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


def cases(program, root, confs, starts, shim):
    """(title, start, configuration, what goes before the writer, its environment, whether it is killed) of each."""
    made = []
    for name, flush in (("empty", "SYNC_FLUSH"), ("torn", "SYNC_FLUSH"), ("torn", "ASYNC_FLUSH")):
        start, conf = starts[name], confs[flush]
        paths, calls = baseline(program, root, conf, start)

        def add(call, what, when):
            made.append(("%s %s %s %s when=%s" % (name, flush, call, what, when), start, conf, paths,
                         "inject=%s:%s:when=%s" % (call, what, when), {}))

        for call, count in sorted(calls.items()):
            for number in range(1, count + 1):
                add(call, "error=EIO", "%d" % number)
                add(call, "error=EIO", "%d+" % number)
                add(call, "signal=KILL", "%d" % number)
                if call in SPACE:
                    add(call, "error=ENOSPC", "%d" % number)
                    add(call, "error=ENOSPC", "%d+" % number)
                if call in SHORT:
                    add(call, "retval=0", "%d" % number)
        for call in [*sorted(SHORT & calls.keys()), "all"]:
            # 0 is every call; the process's calls of all threads are counted together.
            for number in range(0, sum(calls[one] for one in SHORT) + 1 if call == "all" else 1):
                for bytes_ in ("", "1"):
                    env = {"LD_PRELOAD": shim, "SHORT_CALL": call, "SHORT_NTH": str(number)}
                    made.append(("%s %s short %s %s of %s" % (name, flush, call, bytes_ or "half", number or "each"), start,
                                 conf, [], None, {**env, **({"SHORT_BYTES": "1"} if bytes_ else {})}))
    return made


def run(program, root, number, case, java):
    title, start, conf, paths, rule, env = case
    home = os.path.join(root, "case-%d" % number)
    shutil.copytree(start, home)
    store, acks, log = (os.path.join(home, name) for name in ("store", "acks", "trace"))
    if rule:
        only = [word for path in paths for word in ("-P", os.path.join(home, path))]
        before = strace([*only, "-e", "trace=" + rule.split("=")[1].split(":")[0], "-e", rule], log)
    else:
        before = ["env", *("%s=%s" % pair for pair in env.items()), "SHORT_ROOT=" + store, "SHORT_LOG=" + log]
    writer = survivor.Writer(program, store, conf, acks, before=before, count=MESSAGES, **{"from": 10**9})
    status = writer.end(300)
    traced = None
    if os.path.exists(log):
        with open(log, errors="replace") as text:
            traced = text.read()
    # short.c leaves an empty file where it has cut something.
    hit = traced is not None and (not rule or "INJECTED" in traced or "killed by SIGKILL" in traced)
    why = None
    allowed = (-9, 137, 0, 3) if rule and "signal=KILL" in rule else (0, 3)
    if status not in allowed:
        with open(acks + ".stderr", errors="replace") as text:
            why = "the writer ended with %s: %s %s" % (status, writer.lines[-2:], text.read()[-300:])
    with open(acks) as lines:
        lines = lines.readlines()
    ended = next((i for i, line in enumerate(lines) if "since a sync failed" in line), None)
    if not why and ended is not None and any(line.startswith("ack ") for line in lines[ended:]):
        why = "acknowledged after a failed sync"
    asked = False
    if not why and os.path.isdir(store):
        listing = os.path.join(home, "listing")
        why, numbers = survivor.audit(program, store, conf, acks=acks, listing=listing)
        if not why and numbers["damage"]:
            why = "damage where nothing was damaged: %s" % numbers
        asked = not why and java is not None and number % JAVA_EVERY == 0
        if asked:
            why = java.agrees_on_copy(store, os.path.join(root, "for-java-%d" % number), conf, listing)
    if not why:
        shutil.rmtree(home)
    return title, why, hit, asked, "%s; left in %s" % (rule or " ".join("%s=%s" % pair for pair in env.items()), home)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("--share", type=int, default=1)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--jobs", type=int, default=4)
    words.add_argument("--java", nargs="?", const="build")
    words.add_argument("--work")
    words = words.parse_args()
    tally = survivor.Tally()
    try:
        probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "inject=getpid:error=EIO", "true"], capture_output=True)
        why = probe.stderr if probe.returncode else None
    except OSError as error:
        why = error
    if why is not None:
        survivor.forbidden("injected system calls", "strace cannot inject here: %r" % why, 1)
    root = tempfile.mkdtemp(prefix="reput-inject.", dir=words.work)
    confs = {flush: survivor.config(os.path.join(root, flush + ".conf"), flush, GEOMETRY) for flush in ("SYNC_FLUSH", "ASYNC_FLUSH")}
    made = cases(words.program, root, confs, prepare(words.program, root, confs["SYNC_FLUSH"]), build(root))
    survivor.dice(words.seed).shuffle(made)
    chosen = made[::words.share]
    java = None
    if words.java:
        import java_reader
        java = java_reader.reader(words.java, tally, "directories for Java", len(chosen) // JAVA_EVERY)
    reached = 0
    with concurrent.futures.ThreadPoolExecutor(words.jobs) as pool:
        for title, why, hit, asked, replay in pool.map(lambda one: run(words.program, root, *one, java), enumerate(chosen)):
            tally.check(title, why, replay)
            reached += hit
            tally.note("directories opened by Java too", asked)
    if java:
        java.end()
    tally.note("cases in all", len(made))
    tally.note("cases in which the call was reached", reached)
    tally.note("cases in which it was not", len(chosen) - reached)
    if words.share > 1:
        tally.note("one case in %d, those of seed" % words.share, words.seed)
    if reached * 10 < len(chosen) * 8:
        tally.check("reach", "fewer than eight of ten cases reached their call: %s" % tally.notes)
    if not tally.failed:
        shutil.rmtree(root)
    tally.end(len(chosen))


if __name__ == "__main__":
    main()
