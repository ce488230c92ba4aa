#!/usr/bin/env python3
"""Fills small file systems to the last byte under a writer, frees them again, and audits.

  full_disk.py SURVIVOR [--java] [--work DIR] [--rounds N]

On ext4, xfs and tmpfs of some megabytes, with both flush types: the writer fills the disk and a second file takes what
is left. Puts must be refused with the error that names the space, the process must live; when something else on the disk
goes, puts must be acknowledged again without anybody's help. Then the writer is killed on the full disk: opening there may be
refused, but by an error; opened with room again everything acknowledged must be there, for Java too. Needs root, loop devices,
mkfs.ext4 and mkfs.xfs. Ends with a line `N passed, N failed`.
"""
import argparse
import os
import shutil
import subprocess
import tempfile
import time

import survivor

GEOMETRY = {
    "mappedFileSizeCommitLog": 1 << 20,
    "mappedFileSizeConsumeQueue": 20000,
    "maxHashSlotNum": 1000,
    "maxIndexNum": 20000,
    "flushIntervalConsumeQueue": 100,
    "cleanFileForciblyEnable": "false",
    "diskSpaceWarningLevelRatio": 100,
}
SIZE_MB = 32
# Files of others, which go one after the other.
SPARES = ("spare-1", "spare-2")
PATIENCE = 120


def call(*words):
    # mkfs.xfs makes file systems of this size only for those who say that they test.
    env = {**os.environ, "TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
    subprocess.run(words, check=True, capture_output=True, text=True, env=env)


class Disk:
    def __init__(self, root, kind):
        self.kind = kind
        self.mount = os.path.join(root, "disk-" + kind)
        self.image = os.path.join(root, kind + ".img")
        os.makedirs(self.mount, exist_ok=True)
        if kind == "tmpfs":
            call("mount", "-t", "tmpfs", "-o", "size=%dm" % SIZE_MB, "none", self.mount)
        else:
            with open(self.image, "wb") as file:
                file.truncate(SIZE_MB << 20)
            call("mkfs." + kind, *(["-q", "-m", "0"] if kind == "ext4" else ["-q"]), self.image)
            call("mount", "-o", "loop", self.image, self.mount)
        self.filler = os.path.join(self.mount, "filler")

    def fill(self):
        """Takes every byte that is left."""
        with open(self.filler, "ab", buffering=0) as file:
            for piece in (1 << 16, 4096, 512, 1):
                try:
                    while True:
                        file.write(b"x" * piece)
                except OSError as error:
                    if error.errno != 28:
                        raise

    def free(self):
        os.remove(self.filler)

    def end(self):
        subprocess.run(["umount", "-l", self.mount])


def until(what, writer, done):
    """Waits for `done`; None, or why it did not come."""
    end = time.monotonic() + PATIENCE
    while not done():
        if writer.process.poll() is not None:
            return "the writer ended with %s before %s" % (writer.process.returncode, what)
        if time.monotonic() > end:
            return "%s did not come" % what
        time.sleep(0.02)
    return None


class Count:
    """Lines of a writer by their first word, and what it was refused for."""

    def __init__(self):
        self.acks = self.full = 0
        self.other = []

    def line(self, line):
        if line.startswith("ack "):
            self.acks += 1
        elif line.startswith("refused ") and " full: " in line:
            self.full += 1
        elif line.startswith(("refused ", "failed ")):
            self.other.append(line)


def one(program, disk, work, flush, round_number, java):
    """One life on a full disk; what is wrong or None."""
    store = os.path.join(disk.mount, "store-%s-%d" % (flush, round_number))
    acks = os.path.join(work, "acks")
    open(acks, "w").close()
    conf = survivor.config(os.path.join(work, "broker.conf"), flush, GEOMETRY)
    count = Count()
    writer = survivor.Writer(program, store, conf, acks, on_line=count.line, retry_ms=20, threads=2, **{"from": 10**9})
    try:
        why = until("the first acknowledgement", writer, lambda: count.acks > 0)
        for spare in SPARES:
            if not why:
                disk.fill()
                seen = count.full
                why = until("refusals on the full disk", writer, lambda: count.full > seen + 20)
            if not why:
                seen = count.acks
                # The writer has taken what came free; what is freed now was somebody else's all the time.
                os.remove(os.path.join(disk.mount, spare))
                why = until("a put that is taken again", writer, lambda: count.acks > seen)
        if not why:
            disk.fill()
            seen = count.full
            why = until("refusals on the full disk", writer, lambda: count.full > seen)
        if not why:
            status = writer.kill()
            why = None if status == -9 else "the writer ended with %s" % status
    finally:
        writer.process.kill()
        writer.end()
    if not why and count.other:
        why = "refused for something else: %s" % count.other[0]
    if not why:
        # On the full disk an error is an answer; a signal or a broken promise is none.
        said, _ = survivor.audit(program, store, conf, twice=False, acks=acks)
        if said and "ended with 2" not in said:
            why = "opened on the full disk: " + said
        disk.free()
        listing = os.path.join(work, "listing")
        why = why or survivor.audit(program, store, conf, acks=acks, listing=listing)[0]
        if not why and java:
            why = java.agrees_on_copy(store, os.path.join(work, "for-java-%s-%s-%d" % (disk.kind, flush, round_number)), conf, listing)
    shutil.rmtree(store, ignore_errors=True)
    for name in (disk.filler, *SPARES):
        if os.path.exists(os.path.join(disk.mount, name)):
            os.remove(os.path.join(disk.mount, name))
    return why


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--java", nargs="?", const="build")
    words.add_argument("--work")
    words = words.parse_args()
    tally = survivor.Tally()
    java = None
    if words.java:
        import java_reader
        java = java_reader.reader(words.java, tally, "directories for Java", 6 * words.rounds)
    root = tempfile.mkdtemp(prefix="reput-full.", dir=words.work)
    for kind in ("ext4", "xfs", "tmpfs"):
        try:
            disk = Disk(root, kind)
        except (subprocess.CalledProcessError, OSError) as error:
            tally.not_run("full disks with " + kind, error, 2 * words.rounds)
            continue
        try:
            for n in range(words.rounds):
                for flush in ("SYNC_FLUSH", "ASYNC_FLUSH"):
                    for spare in SPARES:
                        with open(os.path.join(disk.mount, spare), "wb") as file:
                            file.write(b"s" * (3 << 20))
                    why = one(words.program, disk, root, flush, n, java)
                    if java and not why:
                        tally.note("directories opened by Java too")
                    tally.check("%s %s %d" % (kind, flush, n), why)
        finally:
            disk.end()
    if java:
        java.end()
    if not tally.failed:
        shutil.rmtree(root, ignore_errors=True)
    tally.end(6 * words.rounds)


if __name__ == "__main__":
    main()
