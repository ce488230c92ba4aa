#!/usr/bin/env python3
"""Cuts the power under a store, on ext4 and on xfs, and audits what the disk has kept.

  powercut.py SURVIVOR DEVICE [--cuts N] [--seed N] [--only ext4|xfs] [--work DIR]

DEVICE is tests/powercut: a FUSE file that logs every write and flush, under a loop device, under the file system. A
writer lives on it twice, so that the log holds a recovery too, once with SYNC_FLUSH and once with ASYNC_FLUSH and syncs
in between. Then the log is replayed to random points; what was not flushed is lost or kept by the sector; the image is
mounted, and the audit must find everything that was acknowledged as durable before the cut. Then the device fails with
EIO under a writer: it may acknowledge nothing more, and what it had acknowledged must be there after all. Last the
control: a disk that drops flushed writes must be found out. Ends with a line `N passed, N failed`.
"""
import argparse
import concurrent.futures
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile

import survivor

SIZE_MB = 96
GEOMETRY = {**survivor.SMALL, "mappedFileSizeCommitLog": 262144}
OPTIONS = {"ext4": "noatime", "xfs": "noatime,nouuid"}
MAKE = {"ext4": ["-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"], "xfs": ["-q", "-K"]}
# Of what was written and not flushed, so many sectors of a hundred are kept.
KEEPS = (50, 50, 50, 0, 10, 90, 100)


def call(*words, check=True):
    # mkfs.xfs makes file systems of this size only for those who say that they test.
    env = {**os.environ, "TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
    return subprocess.run(words, check=check, capture_output=True, text=True, env=env)


class Device:
    """A file system on the logging disk."""

    def __init__(self, device, root, kind):
        self.root, self.kind = root, kind
        self.base, self.log = os.path.join(root, "base.img"), os.path.join(root, "log")
        self.fuse, self.mount = os.path.join(root, "fuse"), os.path.join(root, "mnt")
        os.makedirs(self.fuse)
        os.makedirs(self.mount)
        with open(self.base, "wb") as file:
            file.truncate(SIZE_MB << 20)
        call("mkfs." + kind, *MAKE[kind], self.base)
        control = os.path.join(root, "control")
        with open(control, "wb") as file:
            file.write(b"\0" * 16)
        self.control = mmap.mmap(os.open(control, os.O_RDWR), 16)
        self.server = subprocess.Popen([device, "serve", self.base, self.fuse, self.log, control])
        disk = os.path.join(self.fuse, "disk")
        for _ in range(600):
            if os.path.exists(disk) or self.server.poll() is not None:
                break
            survivor.nap(0.05)
        self.loop = None
        try:
            self.loop = call("losetup", "--show", "-f", disk).stdout.strip()
            call("mount", "-t", kind, "-o", OPTIONS[kind], self.loop, self.mount)
        except BaseException:
            self.end()
            raise

    def events(self):
        return struct.unpack(">Q", self.control[:8])[0]

    def fail(self, on):
        self.control[8] = 1 if on else 0

    def end(self):
        call("umount", self.mount, check=False)
        if os.path.ismount(self.mount):
            call("umount", "-l", self.mount, check=False)
        if self.loop:
            call("losetup", "-d", self.loop, check=False)
        for _ in range(200):
            call("umount", self.fuse, check=False)
            if not os.path.ismount(self.fuse):
                break
            survivor.nap(0.05)
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()


class MarkedWriter(survivor.Writer):
    """A writer whose acknowledgements are numbered by the events of the device."""

    def __init__(self, device, marks, *args, **options):
        self.device, self.marks = device, marks
        super().__init__(*args, **options)

    def read(self, acks):
        size = os.path.getsize(acks)
        with open(acks, "ab", buffering=0) as out:
            while True:
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                # Everything in this piece was said before this count was taken.
                out.write(piece)
                size += len(piece)
                self.marks.append((self.device.events(), size))
                if b"opening\n" in piece:
                    self.opening.set()
                if b"open " in piece:
                    self.opened.set()
                self.lines += [line.decode(errors="replace") for line in piece.split(b"\n")
                               if line.startswith((b"refused", b"failed", b"closed"))]
        self.opening.set()
        self.opened.set()


def record(program, device, root, flush, seconds):
    """Two lives of a writer on the device; returns the marks."""
    conf = survivor.config(os.path.join(root, "broker.conf"), flush, GEOMETRY)
    acks, marks = os.path.join(root, "acks"), []
    open(acks, "w").close()
    options = {"threads": 2, "pause_us": 300}
    if flush == "ASYNC_FLUSH":
        options["sync_every"] = 60
    for life in range(2):
        writer = MarkedWriter(device, marks, program, os.path.join(device.mount, "store"), conf, acks,
                              **options, **{"from": (life + 1) * 10**9})
        writer.opened.wait(120)
        survivor.nap(seconds)
        if writer.kill() != -9:
            raise RuntimeError("the writer ended by itself: %s" % writer.lines[-3:])
    return conf, acks, marks


def audit_cut(program, device_program, device, root, conf, acks, marks, job):
    """Replays to one point, mounts, audits. Returns (why, numbers)."""
    number, event, keep, lie, durable = job
    image, mount = (os.path.join(root, "%s-%d" % (name, number)) for name in ("cut", "cut-mnt"))
    known = max((size for at, size in marks if at <= event), default=0)
    cut_acks = os.path.join(root, "cut-acks-%d" % number)
    with open(acks, "rb") as all_acks, open(cut_acks, "wb") as out:
        out.write(all_acks.read(known))
    os.makedirs(mount, exist_ok=True)
    call(device_program, "cut", device.base, device.log, image, str(event), str(number), str(keep), str(lie))
    try:
        done = call("mount", "-t", device.kind, "-o", "loop," + OPTIONS[device.kind], image, mount, check=False)
        if done.returncode:
            return "the file system does not mount: " + done.stderr.strip(), {}
        try:
            store = os.path.join(mount, "store")
            if not os.path.isdir(store):
                said = known and re.search(rb"^(ack|durable)", open(cut_acks, "rb").read(), re.M)
                return ("the store is gone" if said and (not durable or b"durable" in said.group()) else None), {}
            return survivor.audit(program, store, conf, acks=cut_acks, durable="true" if durable else None)
        finally:
            call("umount", mount, check=False)
            if os.path.ismount(mount):
                call("umount", "-l", mount, check=False)
    finally:
        for path in (image, cut_acks):
            os.remove(path)


def cuts(words, kind, flush, count, tally, lie=0):
    """Records a run and cuts it `count` times; returns how many cuts lost something."""
    root = tempfile.mkdtemp(prefix="reput-powercut.", dir=words.work)
    device = Device(words.device, root, kind)
    try:
        first = device.events()
        conf, acks, marks = record(words.program, device, root, flush, words.seconds)
        last = device.events()
    finally:
        device.end()
    dice = survivor.dice("%s %s %s" % (words.seed, kind, flush))
    jobs = []
    for n in range(count):
        event, keep = dice.randint(first, last), dice.choice(KEEPS)
        jobs.append((words.seed * 100000 + n, event, keep, lie, flush == "ASYNC_FLUSH"))
    tally.note("events recorded", last - first)
    tally.note("acknowledgements recorded", sum(1 for line in open(acks) if line.startswith("ack ")))
    lost = 0
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = pool.map(
            lambda job: audit_cut(words.program, words.device, device, root, conf, acks, marks, job), jobs)
        for job, (why, numbers) in zip(jobs, results):
            name = "%s %s cut at %d keep %d" % (kind, flush, job[1], job[2])
            if lie:
                lost += bool(why)
                continue
            tally.check(name, why, "seed %d; left in %s" % (words.seed, root))
            tally.note("acknowledgements held", numbers.get("acknowledged", 0))
            if numbers.get("damage"):
                tally.note("cuts with records behind a hole, which were kept")
    if not tally.failed:
        shutil.rmtree(root, ignore_errors=True)
    return lost


def errors(words, kind, tally):
    """EIO from the device for a quarter of a second."""
    root = tempfile.mkdtemp(prefix="reput-eio.", dir=words.work)
    device = Device(words.device, root, kind)
    marks = []
    try:
        conf = survivor.config(os.path.join(root, "broker.conf"), "SYNC_FLUSH", GEOMETRY)
        acks = os.path.join(root, "acks")
        open(acks, "w").close()
        writer = MarkedWriter(device, marks, words.program, os.path.join(device.mount, "store"), conf, acks,
                              threads=2, pause_us=300, **{"from": 10**9})
        writer.opened.wait(120)
        survivor.nap(1)
        device.fail(True)
        survivor.nap(0.25)
        device.fail(False)
        status = writer.end(120)
    finally:
        device.end()
    with open(acks) as lines:
        lines = lines.readlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("refused")), None)
    why = None
    if status != 3:
        why = "the writer ended with %s, not with an error" % status
    elif first is None:
        why = "no put was refused"
    elif not any(line.startswith("ack ") for line in lines[:first]):
        why = "nothing was acknowledged before the errors"
    else:
        # Two threads: the other may have been told of a sync that ended well just before.
        late = [line for line in lines[first:] if line.startswith("ack ")]
        if len(late) > 1:
            why = "%d acknowledgements after the first refusal" % len(late)
    if not why:
        job = (words.seed, device.events(), 100, 0, False)
        why, numbers = audit_cut(words.program, words.device, device, root, conf, acks, [(0, os.path.getsize(acks))], job)
        tally.note("acknowledgements held after EIO", numbers.get("acknowledged", 0))
    if tally.check("%s EIO" % kind, why, "left in " + root):
        shutil.rmtree(root, ignore_errors=True)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("device")
    words.add_argument("--cuts", type=int, default=200)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--seconds", type=float, default=1.5)
    words.add_argument("--only")
    words.add_argument("--work", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    words = words.parse_args()
    tally = survivor.Tally()
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        survivor.forbidden("power cuts", "/dev/fuse or /dev/loop-control is not there", words.cuts)
    kinds = [words.only] if words.only else ["ext4", "xfs"]
    planned = 0
    for kind in kinds:
        for flush in ("SYNC_FLUSH", "ASYNC_FLUSH"):
            count = words.cuts // (2 * len(kinds))
            cuts(words, kind, flush, count, tally)
            planned += count
        errors(words, kind, tally)
        lost = cuts(words, kind, "SYNC_FLUSH", 12, tally, lie=100)
        tally.check("%s control" % kind, None if lost else "a disk that drops flushed writes was not found out")
        tally.note("cuts of a lying disk that lost something, of 12 each", lost)
        planned += 2
    tally.end(planned)


if __name__ == "__main__":
    main()
