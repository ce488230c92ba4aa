#!/usr/bin/env python3
"""Kills a writer again and again, in the middle of its puts and inside recovery, and audits what is left.

  kill.py SURVIVOR [--cycles N] [--seed N] [--java] [--work DIR]

Each cycle: a writer is killed 1 to 500 ms after its store is open, in every third cycle up to three more are killed
while they recover; then the audit holds the store to every acknowledgement of all cycles before, to what recoveries
have shown, and to FORMAT.md's invariants. Both flush types, small files and the default ones, one thread and four.
Every tenth directory is also opened by Java, as it was left by the kill: a copy, so that ours finds what ours left.
Ends with a line `N passed, N failed`.
"""
import argparse
import os
import shutil
import subprocess
import tempfile

import survivor

# A directory lives for so many cycles, then the next begins.
CYCLES_A_STORE = 8


class Life:
    """One directory over its cycles."""

    def __init__(self, root, number, geometry, flush, threads):
        self.root = os.path.join(root, "store-%d" % number)
        os.makedirs(self.root)
        self.store = os.path.join(self.root, "store")
        self.acks = os.path.join(self.root, "acks")
        self.listing = os.path.join(self.root, "listing")
        self.conf = survivor.config(os.path.join(self.root, "broker.conf"), flush, geometry)
        self.small = geometry is survivor.SMALL
        self.threads = threads
        self.runs = 0
        open(self.acks, "w").close()

    def writer(self, program):
        self.runs += 1
        self.fresh = self.runs * 10**9
        pause = 0 if self.small else 50
        return survivor.Writer(program, self.store, self.conf, self.acks, threads=self.threads,
                               pause_us=pause, **{"from": self.fresh})


def cycle(life, program, dice, tally):
    """Returns the number of the first message of this cycle."""
    writer = life.writer(program)
    fresh = life.fresh
    writer.opened.wait(120)
    survivor.nap(dice.uniform(0.001, 0.5))
    status = writer.kill()
    if status != -9:
        raise RuntimeError("the writer ended by itself with %s: %s" % (status, writer.lines[-3:]))
    if dice.random() < 1 / 3:
        for _ in range(dice.randint(1, 3)):
            writer = life.writer(program)
            writer.opening.wait(120)
            # Recovery of these directories takes some milliseconds.
            survivor.nap(dice.uniform(0, 0.012 if life.small else 0.03))
            inside = not writer.opened.is_set()
            writer.kill()
            tally.note("kills inside recovery" if inside else "kills just behind recovery")
    tally.note("kills of a writer")
    return fresh


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("--cycles", type=int, default=100)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--java", nargs="?", const="build")
    words.add_argument("--work")
    words = words.parse_args()
    root = tempfile.mkdtemp(prefix="reput-kill.", dir=words.work)
    tally = survivor.Tally()
    java = None
    if words.java:
        import java_reader
        java = java_reader.reader(words.java, tally, "directories for Java", words.cycles // 10)
    life, kinds = None, [(g, f, t) for g in (survivor.SMALL, survivor.DEFAULT)
                         for f in ("SYNC_FLUSH", "ASYNC_FLUSH") for t in (1, 4)]
    try:
        for n in range(words.cycles):
            dice = survivor.dice("%d/%d" % (words.seed, n))
            if life is None or life.runs >= CYCLES_A_STORE:
                if life:
                    shutil.rmtree(life.root)
                life = Life(root, n, *kinds[(n // 3) % len(kinds)])
            why = None
            try:
                fresh = cycle(life, words.program, dice, tally)
                # Kills inside recovery began runs of their own, which put nothing or next to nothing: all are fresh.
                copy = None
                if java and n % 10 == 9:
                    # Not within the life's directory: Java closes it aside, at its leisure.
                    copy = os.path.join(root, "for-java-%d" % n)
                    copy_with_holes(life.store, copy)
                before = life.listing if os.path.exists(life.listing) else None
                why, numbers = survivor.audit(words.program, life.store, life.conf, acks=life.acks, before=before,
                                              fresh=fresh, listing=life.listing)
                tally.note("acknowledgements held", numbers.get("acknowledged", 0))
                if numbers.get("kept aside"):
                    tally.note("cycles that left bytes which went to the quarantine")
                if not why and numbers.get("damage"):
                    why = "a kill damages nothing, recovery reports %d damaged ranges" % numbers["damage"]
                if not why and copy:
                    why = java.agrees(copy, life.conf, life.listing)
                    tally.note("directories opened by Java too")
                    shutil.rmtree(copy, ignore_errors=True)
            except Exception as error:  # a rig that cannot run its case has not passed it
                why = repr(error)
            replay = "kill.py SURVIVOR --seed %d --cycles %d; left in %s" % (words.seed, n + 1, life.root)
            if not tally.check("cycle %d" % n, why, replay):
                life = None
    finally:
        if java:
            java.end()
        if not tally.failed:
            shutil.rmtree(root, ignore_errors=True)
    tally.end(words.cycles)


def copy_with_holes(source, target):
    """A copy that keeps holes: default files are a gigabyte each."""
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


if __name__ == "__main__":
    main()
