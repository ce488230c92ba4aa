#!/usr/bin/env python3
"""Cuts the power under a store, on ext4 and on xfs, and audits what the disk has kept.

  powercut.py SURVIVOR DEVICE [--cuts N] [--seed N] [--only ext4|xfs] [--java] [--reput PROGRAM] [--work DIR]

DEVICE is tests/powercut: a FUSE file that logs every write and flush, under a loop device, under the file system. A
writer lives on it twice, so that the log holds a recovery too, once with SYNC_FLUSH and once with ASYNC_FLUSH and syncs
in between. Then the log is replayed to random points; what was not flushed is lost or kept by the sector; the image is
mounted, and the audit must find everything that was acknowledged as durable before the cut, of everything else a run
without a hole, and no damage: a power cut damages nothing. Every tenth directory that ours leaves is opened by Java too.
Then the device fails with EIO under a writer: it may acknowledge nothing more, and what it had acknowledged must be there
after all. Then it cannot read a page of a segment, a queue or the index: opening, `store verify` and `store repair` (of
REPUT, the program beside SURVIVOR's folder) say so and name the file and the place, or take it for damage; none dies,
and when the disk reads again everything is there. Last the control: a disk that drops flushed writes must be found out.
Ends with a line `N passed, N failed`.
"""
import argparse
import concurrent.futures
import fcntl
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile

import picture
import survivor

SIZE_MB = 96
PAGE = 4096
GEOMETRY = {**survivor.SMALL, "mappedFileSizeCommitLog": 262144}
OPTIONS = {"ext4": "noatime", "xfs": "noatime,nouuid"}
MAKE = {"ext4": ["-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"], "xfs": ["-q", "-K"]}
# The control file of the device: events, mode, and so many ranges that cannot be read.
RANGES = 16
CONTROL = 16 + 16 * RANGES
# Files with an unreadable page, each opened and repaired.
UNREADABLE = 8
# Every so many-th directory is opened by Java too.
JAVA_EVERY = 10
# Of what was written and not flushed, so many sectors of a hundred are kept.
KEEPS = (50, 50, 50, 0, 10, 90, 100)


def call(*words, check=True):
    # mkfs.xfs makes file systems of this size only for those who say that they test.
    env = {**os.environ, "TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
    return subprocess.run(words, check=check, capture_output=True, text=True, env=env)


class Device:
    """A file system on the logging disk."""

    def __init__(self, device, root, kind, base=None, make=()):
        self.root, self.kind, self.loop = root, kind, None
        self.base, self.log = base or os.path.join(root, "base.img"), os.path.join(root, "log")
        self.fuse, self.mount = os.path.join(root, "fuse"), os.path.join(root, "mnt")
        os.makedirs(self.fuse)
        os.makedirs(self.mount)
        if not base:
            with open(self.base, "wb") as file:
                file.truncate(SIZE_MB << 20)
            call("mkfs." + kind, *MAKE[kind], *make, self.base)
        control = os.path.join(root, "control")
        with open(control, "wb") as file:
            file.write(b"\0" * CONTROL)
        with open(control, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), CONTROL)
        self.server = subprocess.Popen([device, "serve", self.base, self.fuse, self.log, control])
        disk = os.path.join(self.fuse, "disk")
        for _ in range(600):
            if os.path.exists(disk) or self.server.poll() is not None:
                break
            survivor.nap(0.05)
        try:
            self.attach()
        except BaseException:
            self.end()
            raise

    def attach(self):
        self.loop = call("losetup", "--show", "-f", os.path.join(self.fuse, "disk")).stdout.strip()
        call("mount", "-t", self.kind, "-o", OPTIONS[self.kind], self.loop, self.mount)

    def detach(self):
        """Unmounts: what was read is forgotten, by the file system and by the file below it when it is opened again."""
        call("umount", self.mount, check=False)
        if os.path.ismount(self.mount):
            call("umount", "-l", self.mount, check=False)
        if self.loop:
            call("losetup", "-d", self.loop, check=False)
            self.loop = None

    def unreadable(self, *ranges):
        """Reads of these bytes fail from now on, and no others; nothing of them is in memory."""
        self.detach()
        for n in range(RANGES):
            self.control[16 + 16 * n:32 + 16 * n] = struct.pack(">QQ", *(ranges[n] if n < len(ranges) else (0, 0)))
        self.attach()

    def events(self):
        return struct.unpack(">Q", self.control[:8])[0]

    def fail(self, on):
        self.control[8] = 1 if on else 0

    def end(self):
        self.detach()
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


def audit_cut(words, device, root, conf, acks, marks, job, java=None):
    """Replays to one point, mounts, audits. Returns (why, numbers)."""
    program, device_program = words.program, words.device
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
            listing = os.path.join(root, "cut-listing-%d" % number)
            why, numbers = survivor.audit(program, store, conf, acks=cut_acks, durable="true" if durable else None,
                                          put=acks, listing=listing)
            if not why and numbers["damage"]:
                why = "a power cut damages nothing, recovery reports %d damaged ranges" % numbers["damage"]
            if not why and java and number % JAVA_EVERY == 0:
                numbers["java"] = 1
                why = java.agrees_on_copy(store, os.path.join(root, "for-java-%d" % number), conf, listing)
            return why, numbers
        finally:
            call("umount", mount, check=False)
            if os.path.ismount(mount):
                call("umount", "-l", mount, check=False)
    finally:
        for path in (image, cut_acks):
            os.remove(path)


def cuts(words, kind, flush, count, tally, java=None, lie=0):
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
    lost, failed = 0, tally.failed

    def audited(job):
        try:
            return audit_cut(words, device, root, conf, acks, marks, job, java)
        except OSError as error:
            # A lying disk may cost the file system its own structures.
            return "the file system cannot be read: %s" % error, {}

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = pool.map(audited, jobs)
        for job, (why, numbers) in zip(jobs, results):
            name = "%s %s cut at %d keep %d" % (kind, flush, job[1], job[2])
            if lie:
                lost += bool(why)
                continue
            tally.check(name, why, "seed %d; left in %s" % (words.seed, root))
            tally.note("acknowledgements held", numbers.get("acknowledged", 0))
            tally.note("directories opened by Java too", numbers.get("java", 0))
            if numbers.get("kept aside"):
                tally.note("cuts that left bytes which went to the quarantine")
    if tally.failed == failed:
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
        why, numbers = audit_cut(words, device, root, conf, acks, [(0, os.path.getsize(acks))], job)
        tally.note("acknowledgements held after EIO", numbers.get("acknowledged", 0))
    if tally.check("%s EIO" % kind, why, "left in " + root):
        shutil.rmtree(root, ignore_errors=True)


def place_on_disk(path, at, length):
    """The bytes of the disk that hold `length` bytes of a file from `at` on."""
    asked = bytearray(struct.pack("=QQLLLL", at, length, 1, 0, 1, 0) + bytes(56))
    with open(path, "rb") as file:
        fcntl.ioctl(file.fileno(), 0xC020660B, asked)  # FS_IOC_FIEMAP, flushing first
    if struct.unpack_from("=L", asked, 20)[0] != 1:
        raise RuntimeError("%s has nothing at %d" % (path, at))
    logical, physical = struct.unpack_from("=QQ", asked, 32)
    start = physical + at - logical
    return start, start + length


class Unread:
    """One file of which a page in the middle of what is written cannot be read."""

    def __init__(self, name, path, at, taken, forget):
        self.name, self.path, self.at, self.taken, self.forget = name, path, at, taken, forget


def unreadable_files(store):
    """The cases: a segment that recovery reads because nothing says that it need not, the one it always reads, a queue,
    the index."""
    segments = sorted(name for name in os.listdir(os.path.join(store, "commitlog")))
    written = [name for name in segments if any(True for _ in picture.blocks(os.path.join(store, "commitlog", name)))]
    queue = os.path.join("consumequeue", "crash-0", "0")
    index = max(os.listdir(os.path.join(store, "index")))
    paths = [("a segment", os.path.join("commitlog", written[len(written) // 2]), True),
             ("the last segment", os.path.join("commitlog", written[-1]), False),
             ("a queue", os.path.join(queue, min(os.listdir(os.path.join(store, queue)))), True),
             ("the index", os.path.join("index", index), True)]
    for name, path, forget in paths:
        pages = [at for at, _ in picture.blocks(os.path.join(store, path))]
        at = pages[len(pages) // 2]
        # What can be lost is what stands in the page, and the record that reaches into it.
        base = int(os.path.basename(path)) + at if path.startswith("commitlog") else None
        taken = (max(0, base - 16384), base + PAGE) if base is not None else (0, 0)
        yield Unread(name, path, at, taken, forget)


def ended_well(what, done, case, allowed):
    """Whether a program ended by itself, and where it refuses names the file and a place in the page: None or why not."""
    text = "; ".join((done.stdout + done.stderr).split("\n"))
    if done.returncode not in allowed or "panicked" in text:
        return "%s ended with %s: %s" % (what, done.returncode, text[-300:])
    # Both ways to give a place: in the file, in the log.
    base = int(os.path.basename(case.path)) if case.path.startswith("commitlog") else 0
    places = {int(number) for number in re.findall(r"\d+", text.replace(case.path, ""))}
    named = any(0 <= place - case.at < PAGE or 0 <= place - base - case.at < PAGE for place in places)
    if done.returncode and not (case.path in text and named):
        return "%s does not name %s and its byte %d: %s" % (what, case.path, case.at, text[-300:])
    return None


def unreadable_case(words, device, case, conf, acks, verb):
    """Opens, or verifies and repairs, a store with a page that cannot be read; then the disk reads again."""
    store = os.path.join(device.mount, "store")
    if case.forget and os.path.exists(os.path.join(store, "agreed")):
        os.remove(os.path.join(store, "agreed"))
    device.unreadable(place_on_disk(os.path.join(store, case.path), case.at, PAGE))
    try:
        with open(os.path.join(store, case.path), "rb") as file:
            os.pread(file.fileno(), PAGE, case.at)
        return "the device reads what it was told not to"
    except OSError:
        pass

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)

    if verb == "open":
        said = [("opening", run(words.program, "write", store, "--config", conf, "--count", "0"), (0, 3))]
    else:
        said = [("verify", run(words.reput, "store", "verify", "--config", conf, store), (0, 1, 2)),
                ("repair", run(words.reput, "store", "repair", "--apply", "--config", conf, store), (0, 1, 2))]
    whys = [ended_well(what, done, case, allowed) for what, done, allowed in said]
    # The program has ended, and the disk reads again: what was not taken for damage is there.
    device.unreadable()
    mended = said[-1][1].returncode in ((0,) if verb == "open" else (0, 1))
    taken = case.taken if mended and case.taken[1] else (None, None)
    whys.append(survivor.audit(words.program, store, conf, acks=acks, **{"taken-from": taken[0], "taken-to": taken[1]})[0])
    return "; ".join(why for why in whys if why) or None


def unreadable(words, kind, tally):
    """Pages that the disk cannot read."""
    root = tempfile.mkdtemp(prefix="reput-unread.", dir=words.work)
    image, homes = os.path.join(root, "image"), 0
    # A small ext4 has blocks of 1 KiB unless it is told otherwise, and a page of the disk then holds other files' too.
    device = Device(words.device, root, kind, make=["-b", "4096"] if kind == "ext4" else [])
    try:
        conf, acks, _ = record(words.program, device, root, "SYNC_FLUSH", words.seconds)
        cases = list(unreadable_files(os.path.join(device.mount, "store")))
    finally:
        device.end()
    call(words.device, "cut", device.base, device.log, image, str(device.events()), "1", "100", "0")
    failed = tally.failed
    for case in cases:
        for verb in ("open", "verify and repair"):
            homes += 1
            home = os.path.join(root, "home-%d" % homes)
            os.makedirs(home)
            try:
                device = Device(words.device, home, kind, base=image)
                try:
                    why = unreadable_case(words, device, case, conf, acks, verb)
                finally:
                    device.end()
            except (OSError, subprocess.SubprocessError, RuntimeError) as error:
                why = repr(error)
            tally.check("%s unreadable page of %s, %s" % (kind, case.name, verb), why, "left in " + root)
    if tally.failed == failed:
        shutil.rmtree(root, ignore_errors=True)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("device")
    words.add_argument("--cuts", type=int, default=200)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--seconds", type=float, default=1.5)
    words.add_argument("--only")
    words.add_argument("--skip", choices=["cuts", "unreadable"])
    words.add_argument("--java", nargs="?", const="build")
    words.add_argument("--reput")
    words.add_argument("--work", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    words = words.parse_args()
    words.reput = words.reput or os.path.join(os.path.dirname(words.program), os.pardir, "reput")
    # What others put beside it is theirs.
    words.work = tempfile.mkdtemp(prefix="reput-cuts.", dir=words.work)
    tally = survivor.Tally()
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        os.rmdir(words.work)
        survivor.forbidden("power cuts", "/dev/fuse or /dev/loop-control is not there", words.cuts)
    java = None
    if words.java:
        import java_reader
        java = java_reader.reader(words.java, tally, "directories for Java", words.cuts // JAVA_EVERY)
    kinds = [words.only] if words.only else ["ext4", "xfs"]
    try:
        planned = sum(one_kind(words, kind, tally, java, words.cuts // (2 * len(kinds))) for kind in kinds)
    finally:
        if java:
            java.end()
    if not os.listdir(words.work):
        os.rmdir(words.work)
    tally.end(planned)


def one_kind(words, kind, tally, java, count):
    """Everything on one file system; returns how many cases that is."""
    def control():
        lost = cuts(words, kind, "SYNC_FLUSH", 12, tally, lie=100)
        tally.check("%s control" % kind, None if lost else "a disk that drops flushed writes was not found out")
        tally.note("cuts of a lying disk that lost something, of 12 each", lost)

    parts = [(count, "power cuts on %s, %s" % (kind, flush), lambda flush=flush: cuts(words, kind, flush, count, tally, java))
             for flush in ("SYNC_FLUSH", "ASYNC_FLUSH")]
    parts += [(1, "runs with EIO on " + kind, lambda: errors(words, kind, tally)), (1, "lying disks with " + kind, control)]
    if words.skip == "cuts":
        parts = []
    if words.skip != "unreadable":
        parts.append((UNREADABLE, "unreadable pages on " + kind, lambda: unreadable(words, kind, tally)))
    for cases, what, part in parts:
        done, here = tally.passed + tally.failed, set(os.listdir(words.work))
        try:
            part()
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            for name in set(os.listdir(words.work)) - here:
                shutil.rmtree(os.path.join(words.work, name), ignore_errors=True)
            tally.not_run(what, error, max(1, cases - (tally.passed + tally.failed - done)))
    return sum(cases for cases, _, _ in parts)


if __name__ == "__main__":
    main()
