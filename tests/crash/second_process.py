#!/usr/bin/env python3
"""What another process does to a store that is open: a second opener, and files that are taken away or cut short.

  second_process.py SURVIVOR [--java] [--rounds N] [--work DIR]

A second opener, ours or Java's, finds the lock taken and is refused; ours changes no byte of the directory, whoever was
first. (Java reads and mends before it looks at the lock; what it does to a store that another holds is counted, and
everything acknowledged before must be there for ours all the same.) Segments, queue files and index files that are
removed or shortened while a writer has them open, old ones and the one being written: the writer goes on, or ends with an
error, or with exit code 74 and a message that names the file, never by a signal; opening what is left is refused by an
error that changes nothing, or serves everything that stood elsewhere: all of it where a queue or the index was hit.
Ends with a line `N passed, N failed`.
"""
import argparse
import os
import shutil
import signal
import tempfile

import picture
import survivor


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
    before = picture.files(scene.store)
    said, _ = scene.audit()
    after = picture.files(scene.store)
    scene.resume()
    if not said or "ended with 2" not in said or "locked" not in said:
        return "the second opener was not refused for the lock: %s" % said
    if picture.changed(before, after):
        return "the second opener changed %s" % picture.changed(before, after)
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
    before = picture.files(scene.store)
    said, _ = scene.audit()
    after = picture.files(scene.store)
    java.process.send_signal(signal.SIGCONT)
    java.end()
    if not said or "ended with 2" not in said or "locked" not in said:
        return "ours was not refused for Java's lock: %s" % said
    if picture.changed(before, after):
        return "ours changed %s" % picture.changed(before, after)
    return scene.audit()[0]


def java_behind_ours(scene, java, tally):
    scene.write()
    scene.pause()
    before = picture.files(scene.store)
    said = java.hold(scene.store, scene.conf)
    after = picture.files(scene.store)
    java.end()
    # What Java has done to the files is done; nothing written after it could be kept.
    scene.writer.kill()
    if said == "loaded":
        return "Java opened a store that ours holds"
    tally.note("files that Java changed or removed before it was refused", len(picture.changed(before, after)))
    return scene.audit()[0]


def taken_away(cut, victim):
    """A file is taken under a writer's feet: `cut` says what happens to it, `victim` which it is and what is lost with it."""
    def case(scene, java, tally):
        scene.write(400)
        # Between two writes nobody knows, but not between the choice and the cut.
        scene.pause()
        name, lost = victim(scene, cut)
        cut(os.path.join(scene.store, name))
        scene.resume()
        goal = scene.acknowledged() + 200
        scene.wait(goal)
        status = scene.writer.kill()
        with open(scene.acks + ".stderr", errors="replace") as text:
            stderr = text.read()
        if status == SIGBUS_EXIT:
            if not ("lost byte" in stderr and name in stderr):
                return "the writer ended with %s and does not name %s: %s" % (status, name, stderr[-300:])
            tally.note("writers that ended because a file lost bytes under them")
        elif status not in (-9, 3) or "panicked" in stderr:
            return "the writer ended with %s: %s %s" % (status, scene.writer.lines[-2:], stderr[-300:])
        else:
            tally.note("writers that went on" if status == -9 else "writers that ended with an error")
        before = picture.files(scene.store)
        said, numbers = scene.audit(**{"taken-from": lost[0], "taken-to": lost[1]})
        if not said:
            tally.note("stores with a file gone that were opened")
            return None
        if "ended with 2" not in said:
            return said
        if lost == NOTHING:
            return "refused, though the log is whole: " + said
        tally.note("stores with a file gone that were refused")
        rest = picture.changed(before, picture.files(scene.store))
        if rest:
            return "refused (%s), but changed %s" % (said, rest)
        return None
    return case


NOTHING = (0, 0)
# Of the handler that the writer installs as a program with a store should.
SIGBUS_EXIT = 74


def segment(number):
    """What is in the file, or behind its cut, is lost and nothing else."""
    def victim(scene, cut):
        size = survivor.SMALL["mappedFileSizeCommitLog"]
        written = [name for name in scene.segments() if any(True for _ in picture.blocks(os.path.join(scene.store, "commitlog", name)))]
        base = int(written[number])
        # What the writer goes on to write into a removed file is gone with it.
        kept = middle(os.path.join(scene.store, "commitlog", written[number])) if cut is shorten else 0
        # A record that reaches over the cut is lost with what is behind it.
        return os.path.join("commitlog", written[number]), (base + max(0, kept - LONGEST), base + size)
    return victim


# No record of the writer is longer.
LONGEST = 16384


def queue_file(scene, cut):
    """The last file of a queue, which is being written. The log has everything that stood in it."""
    folder = os.path.join("consumequeue", "crash-0", "0")
    return os.path.join(folder, max(os.listdir(os.path.join(scene.store, folder)))), NOTHING


def index_file(scene, cut):
    """The index file that is being written; the log has all keys."""
    return os.path.join("index", max(os.listdir(os.path.join(scene.store, "index")))), NOTHING


def middle(path):
    """Half of what is written in a file."""
    return max(at + len(block.rstrip(b"\0")) for at, block in picture.blocks(path)) // 2


def shorten(path):
    os.truncate(path, middle(path))


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
    cases = {"ours behind ours": ours_behind_ours}
    for what, victim in (("an old segment", segment(1)), ("the segment being written", segment(-1)),
                         ("a queue file", queue_file), ("an index file", index_file)):
        for how, cut in (("removed", os.remove), ("shortened", shorten), ("emptied", empty)):
            cases["%s %s" % (what, how)] = taken_away(cut, victim)
    java = None
    if words.java:
        import java_reader
        java = java_reader.reader(words.java, tally, "openers of Java's", 2 * words.rounds)
        if java:
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
