#!/usr/bin/env python3
"""What another process does to a store that is open: a second opener, and files that are taken away or cut short.

  second_process.py SURVIVOR [--java] [--rounds N] [--work DIR]

A second opener, ours or Java's, finds the lock taken and is refused; ours changes no byte of the directory, whoever was
first. (Java reads and mends before it looks at the lock; what it does to a store that another holds is counted, and
everything acknowledged before must be there for ours all the same.) Segments that are removed or shortened while a
writer has them open: the writer goes on or ends with an error, never by a signal; opening what is left is refused by an
error that changes nothing, or serves everything that stood elsewhere. Ends with a line `N passed, N failed`.
"""
import argparse
import hashlib
import os
import shutil
import signal
import tempfile

import survivor


def digest(store):
    """Every file of the directory and its bytes."""
    found = {}
    for root, _, names in os.walk(store):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, store)] = hashlib.sha256(file.read()).hexdigest()
    return found


def changed(before, after):
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


class Scene:
    """A directory and a writer in it."""

    def __init__(self, program, root, name, flush="SYNC_FLUSH"):
        self.program = program
        self.home = os.path.join(root, name)
        os.makedirs(self.home)
        self.store, self.acks = os.path.join(self.home, "store"), os.path.join(self.home, "acks")
        self.conf = survivor.config(os.path.join(self.home, "broker.conf"), flush, survivor.SMALL)
        open(self.acks, "w").close()
        self.writer = None
        self.runs = 0

    def write(self, messages=150, pause_us=200):
        """Starts a writer and returns once it has acknowledged so many more."""
        self.runs += 1
        goal = self.acknowledged() + messages
        self.writer = survivor.Writer(self.program, self.store, self.conf, self.acks, pause_us=pause_us,
                                      **{"from": self.runs * 10**9})
        self.wait(goal)

    def wait(self, goal):
        for _ in range(6000):
            if self.acknowledged() >= goal or self.writer.process.poll() is not None:
                return
            survivor.nap(0.02)

    def acknowledged(self):
        with open(self.acks) as lines:
            return sum(1 for line in lines if line.startswith("ack "))

    def pause(self):
        self.writer.process.send_signal(signal.SIGSTOP)
        survivor.nap(0.05)

    def resume(self):
        self.writer.process.send_signal(signal.SIGCONT)

    def audit(self, **options):
        return survivor.audit(self.program, self.store, self.conf, acks=self.acks, **options)

    def segments(self):
        return sorted(os.listdir(os.path.join(self.store, "commitlog")))

    def end(self):
        if self.writer and self.writer.process.poll() is None:
            self.writer.kill()


def ours_behind_ours(scene, java, tally):
    scene.write()
    scene.pause()
    before = digest(scene.store)
    said, _ = scene.audit()
    after = digest(scene.store)
    scene.resume()
    if not said or "ended with 2" not in said or "locked" not in said:
        return "the second opener was not refused for the lock: %s" % said
    if changed(before, after):
        return "the second opener changed %s" % changed(before, after)
    goal = scene.acknowledged() + 20
    scene.wait(goal)
    if scene.acknowledged() < goal:
        return "the first did not go on: %s" % scene.writer.lines[-2:]
    scene.writer.kill()
    return scene.audit()[0]


def ours_behind_java(scene, java, tally):
    scene.write()
    scene.writer.kill()
    said = java.hold(scene.store, scene.conf)
    if said != "loaded":
        return "Java: " + said
    java.process.send_signal(signal.SIGSTOP)
    survivor.nap(0.2)
    before = digest(scene.store)
    said, _ = scene.audit()
    after = digest(scene.store)
    java.process.send_signal(signal.SIGCONT)
    java.end()
    if not said or "ended with 2" not in said or "locked" not in said:
        return "ours was not refused for Java's lock: %s" % said
    if changed(before, after):
        return "ours changed %s" % changed(before, after)
    return scene.audit()[0]


def java_behind_ours(scene, java, tally):
    scene.write()
    scene.pause()
    before = digest(scene.store)
    said = java.hold(scene.store, scene.conf)
    after = digest(scene.store)
    java.end()
    # What Java has done to the files is done; nothing written after it could be kept.
    scene.writer.kill()
    if said == "loaded":
        return "Java opened a store that ours holds"
    tally.note("files that Java changed or removed before it was refused", len(changed(before, after)))
    return scene.audit()[0]


def taken_away(cut):
    """Segments under a writer's feet: `cut` says what happens to the file."""
    def case(scene, java, tally):
        scene.write(400)
        victim = scene.segments()[1]
        path = os.path.join(scene.store, "commitlog", victim)
        cut(path)
        goal = scene.acknowledged() + 50
        scene.wait(goal)
        status = scene.writer.kill()
        if status not in (-9, 3):
            return "the writer ended with %s: %s" % (status, scene.writer.lines[-2:])
        before = digest(scene.store)
        base = int(victim)
        said, numbers = scene.audit(**{"taken-from": base, "taken-to": base + survivor.SMALL["mappedFileSizeCommitLog"]})
        if not said:
            tally.note("stores with a segment gone that were opened")
            return None
        if "ended with 2" not in said:
            return said
        tally.note("stores with a segment gone that were refused")
        rest = [name for name in changed(before, digest(scene.store))]
        if rest:
            return "refused (%s), but changed %s" % (said, rest)
        return None
    return case


def shorten(path):
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path):
    os.truncate(path, 0)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("program")
    words.add_argument("--java", nargs="?", const="build")
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--work")
    words = words.parse_args()
    tally = survivor.Tally()
    root = tempfile.mkdtemp(prefix="reput-second.", dir=words.work)
    cases = {"ours behind ours": ours_behind_ours, "a segment removed": taken_away(os.remove),
             "a segment shortened": taken_away(shorten), "a segment emptied": taken_away(empty)}
    java = None
    if words.java:
        import java_reader
        java = java_reader.Reader(words.java)
        cases.update({"ours behind Java": ours_behind_java, "Java behind ours": java_behind_ours})
    for n in range(words.rounds):
        for name, case in cases.items():
            scene = Scene(words.program, root, "%s-%d" % (name.replace(" ", "-"), n), ("SYNC_FLUSH", "ASYNC_FLUSH")[n % 2])
            try:
                why = case(scene, java, tally)
            except Exception as error:  # a rig that cannot run its case has not passed it
                why = repr(error)
            scene.end()
            tally.check("%s, %s" % (name, n), why, "left in " + scene.home)
    if java:
        java.end()
    if not tally.failed:
        shutil.rmtree(root, ignore_errors=True)
    tally.end(len(cases) * words.rounds)


if __name__ == "__main__":
    main()
