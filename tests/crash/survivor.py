"""The writer and the audit of examples/survivor, as every rig here uses them."""
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

import picture

SMALL = {
    "mappedFileSizeCommitLog": 65536,
    "mappedFileSizeConsumeQueue": 6000,
    "maxHashSlotNum": 1000,
    "maxIndexNum": 4000,
    "flushIntervalCommitLog": 40,
    "flushCommitLogThoroughInterval": 200,
    "flushIntervalConsumeQueue": 50,
    "flushConsumeQueueThoroughInterval": 300,
    # A full disk is for the rig that fills one.
    "cleanFileForciblyEnable": "false",
    "diskSpaceWarningLevelRatio": 100,
}
DEFAULT = {"cleanFileForciblyEnable": "false", "diskSpaceWarningLevelRatio": 100}


def config(path, flush, geometry):
    with open(path, "w") as out:
        for key, value in {**geometry, "flushDiskType": flush}.items():
            out.write("%s=%s\n" % (key, value))
    return path


class Tally:
    """Counts, and the last line of every rig."""

    def __init__(self):
        self.passed = self.failed = 0
        self.notes = {}
        self.missing = []

    def check(self, name, why, replay=None):
        if why:
            self.failed += 1
            print("FAIL %s: %s" % (name, why), flush=True)
            if replay:
                print("     " + replay, flush=True)
        else:
            self.passed += 1
        return not why

    def note(self, name, count=1):
        self.notes[name] = self.notes.get(name, 0) + count

    def not_run(self, what, why, count=1):
        """Cases that the machine does not let run: failures, for nothing was shown, that say so in the totals."""
        self.failed += count
        lines = str(getattr(why, "stderr", None) or why).strip().splitlines()[-1:] or [repr(why)]
        print("FAIL not run: %d %s: %s" % (count, what, lines[0]), flush=True)
        self.missing.append("%d %s" % (count, what))

    def end(self, least=1):
        for name, count in sorted(self.notes.items()):
            print("-- %s: %s" % (name, count))
        if self.passed + self.failed < least:
            self.failed += 1
            print("FAIL only %d of %d were run" % (self.passed, least))
        for what in self.missing:
            print("-- not run: " + what)
        print("%d passed, %d failed" % (self.passed, self.failed), flush=True)
        sys.exit(1 if self.failed else 0)


def forbidden(what, why, count):
    """The machine does not let this rig run: a failure, for nothing was shown, that says so in its totals."""
    print("-- not run: %d %s: %s" % (count, what, why))
    print("0 passed, %d failed" % count, flush=True)
    sys.exit(1)


class Writer:
    """A writer whose lines are appended to `acks` as they come out of its pipe."""

    def __init__(self, program, store, conf, acks, before=(), on_line=None, **options):
        words = [*before, program, "write", store, "--config", conf]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), str(value)]
        self.stderr = open(acks + ".stderr", "ab")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.stderr)
        self.opened = threading.Event()
        self.opening = threading.Event()
        self.on_line = on_line
        self.lines = []
        self.reader = threading.Thread(target=self.read, args=(acks,), daemon=True)
        self.reader.start()

    def read(self, acks):
        rest = b""
        with open(acks, "ab") as out:
            while True:
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                out.write(piece)
                rest += piece
                # Bytes that only the last lines matter of.
                *whole, rest = rest.split(b"\n")
                for line in whole:
                    if line.startswith(b"opening"):
                        self.opening.set()
                    elif line.startswith(b"open "):
                        self.opened.set()
                    if self.on_line:
                        self.on_line(line.decode())
                    elif not line.startswith(b"ack "):
                        self.lines.append(line.decode(errors="replace"))
        self.opening.set()
        self.opened.set()

    def kill(self):
        self.process.kill()
        return self.end()

    def end(self, timeout=300):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "hangs"
        self.reader.join(timeout=60)
        self.process.stdout.close()
        self.stderr.close()
        return status


# What an opening and closing writes anew though nothing was mended: stamps and times of its own.
REWRITTEN = {"cleanStop"}
turns = itertools.count()


def call(program, verb, store, conf, options):
    """Runs the audit or the opening after it; returns (exit code, what is wrong or None, its last line's numbers)."""
    words = [program, verb, store, "--config", conf]
    for name, value in options.items():
        if value is not None:
            words += ["--" + name, str(value)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=600)
    last = done.stdout.strip().splitlines()[-1:] or [""]
    numbers = {}
    fields = last[0].split()
    if done.returncode in (0, 1) and len(fields) % 2 == 0:
        numbers = {fields[i]: int(fields[i + 1]) for i in range(0, len(fields), 2)}
    if done.returncode == 0:
        return 0, None, numbers
    broken = [line for line in done.stdout.splitlines() if line.startswith("BROKEN")][:4]
    why = "%s ended with %s: %s %s" % (verb, done.returncode, "; ".join(broken), done.stderr.strip()[-400:])
    return done.returncode, why, numbers


def audit(program, store, conf, twice=True, **options):
    """Holds a directory to what was promised, and its opening to FORMAT.md: what it takes from the log is in the
    quarantine, and opening what it left, here with `cleanStop` and there without, changes no byte and finds nothing to
    mend. Returns (what is wrong or None, the audit's numbers by name)."""
    listing = options.pop("listing", None)
    made = None if listing else tempfile.mkstemp(prefix="reput-listing.")
    if made:
        os.close(made[0])
    try:
        before = picture.log(store)
        code, why, numbers = call(program, "audit", store, conf, {**options, "listing": listing or made[1]})
        unseen, numbers["kept aside"] = picture.cut_unseen(before, store)
        why = unseen or why
        if not why and twice:
            why = opens_again(program, store, conf, listing or made[1])
    finally:
        if made:
            os.remove(made[1])
    return why, numbers


def opens_again(program, store, conf, listing):
    if next(turns) % 2 and os.path.exists(os.path.join(store, "cleanStop")):
        os.remove(os.path.join(store, "cleanStop"))
    before = picture.files(store)
    _, why, _ = call(program, "again", store, conf, {"listing": listing})
    other = picture.changed(before, picture.files(store), REWRITTEN)
    return why or ("a second opening changed %s" % other[:4] if other else None)


def nap(seconds):
    time.sleep(max(0, seconds))


def dice(seed):
    return random.Random(seed)
