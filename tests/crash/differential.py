#!/usr/bin/env python3
"""Damaged directories, opened by Java's own store and by ours: both serve the same, or ours kept more for a known reason.

  differential.py REPUT ARCHIVE.tar.zst... [--directories N] [--seed N] [--one N] [--work DIR]

Each directory is a store that Java wrote (the golden archives), with one to three changes: a bit flipped, a page zeroed
or swapped, a file cut, lengthened, removed, renamed, copied over another. REPUT is the built program; what it makes of a
directory it tells with `store dump --json`, which changes nothing. Java opens a copy. Every difference must be one of
REASONS, which say when ours is right to differ; any other is a failure. --one N runs the N-th directory alone and
prints both sides. Then ours mends the directory by `store repair --apply`, and where there was something to mend, Java
opens the result: it must serve what ours serves, without any excuse. Ends with a line `N passed, N failed`.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile

import java_reader
import picture
import survivor

PAGE = 4096
KEYS = 25
# What the names of topics are made of.
NAME = re.compile(r"[%|a-zA-Z0-9_-]+")

# Why ours may serve what Java does not, may refuse to serve what Java serves, or may open what Java does not.
REASONS = {
    "java-refuses": "Java does not load the directory: a file of a wrong length or name, a missing queue file.",
    "java-fails": "Java ends with an exception, hangs or dies on the directory.",
    "cut-by-java": "Java ends its log at damage that has whole records behind it; ours passes over the damage.",
    "queue-not-rebuilt": "Java has the record in its log and not in its queue: it rebuilds queues from the segment that "
                         "the checkpoint names, ours from the first record.",
    "java-misplaced": "An entry of Java's leads to another queue's message, another offset, a wrong length or to none, or to one that "
                      "does not name the light queue; ours has the message that belongs there, or none.",
    "java-serves-damage": "Java serves a record whose body has not its checksum, whose end was never written, or that has "
                          "zeros among its properties.",
    "java-phantom-end": "Java's queue ends behind its last message: zeros or entries of lost records are counted.",
    "number-of-lost-record": "Ours keeps the numbers of records that were lost to damage; Java gives them out again.",
    "queue-starts-later": "Java's queue begins later than ours, with the same messages behind that.",
    "missing-segment": "More segments in a row are gone than ours stands in for, or no whole number of them: Java goes on and serves other messages in the "
                       "gap, ours refuses and says which segment it misses.",
    "wrong-size": "A file has another length than configured and none of its kind has the configured one, or it is longer: Java "
                  "maps it longer or cuts it, ours refuses and names it.",
    "number-damaged": "The record's queue, topic or number is not what its neighbours and its entry say, or no queue can have the name "
                      "that it gives: in no queue of ours.",
    "stray-segment": "A file of the log has no segment's name, and the log begins behind it: Java serves it by the order of the names, ours "
                     "warns and leaves it.",
    "java-index-lost": "Java finds fewer records by a key: it drops index files that ours mends.",
}


def extract(archives, root):
    for archive in archives:
        subprocess.run(["tar", "--zstd", "-xf", os.path.abspath(archive), "-C", root], check=True)
    return sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name, "store")))


def files_of(store):
    found = []
    for root, _, names in os.walk(store):
        for name in names:
            path = os.path.relpath(os.path.join(root, name), store)
            if not path.startswith(("config", "lock")):
                found.append(path)
    return sorted(found)


def somewhere(dice, size, path):
    """A place in a file, most often where something is written."""
    if dice.random() < 0.7:
        with open(path, "rb") as file:
            end = len(file.read().rstrip(b"\0"))
        return dice.randrange(max(1, end))
    return dice.randrange(max(1, size))


def change(store, dice):
    """One change; says what it was."""
    files = files_of(store)
    if not files:
        return "nothing, for no file is left"
    weight = [6 if name.startswith("commitlog") else 3 if "consumequeue" in name else 2 for name in files]
    name = dice.choices(files, weight)[0]
    path = os.path.join(store, name)
    size = os.path.getsize(path)
    kind = dice.choice(["flip", "flip", "flip", "zero", "zero", "swap", "truncate", "grow", "remove", "rename", "copy"])
    if kind in ("flip", "zero", "swap") and size:
        at = somewhere(dice, size, path)
        with open(path, "r+b") as file:
            if kind == "flip":
                file.seek(at)
                byte = file.read(1)[0] ^ 1 << dice.randrange(8)
                file.seek(at)
                file.write(bytes([byte]))
                return "flip %s@%d" % (name, at)
            start = at // PAGE * PAGE
            length = min(PAGE, size - start)
            if kind == "zero":
                file.seek(start)
                file.write(b"\0" * length)
                return "zero %s@%d+%d" % (name, start, length)
            other = dice.randrange(size) // PAGE * PAGE
            length = min(length, size - other)
            file.seek(start)
            one = file.read(length)
            file.seek(other)
            two = file.read(length)
            file.seek(start)
            file.write(two)
            file.seek(other)
            file.write(one)
            return "swap %s@%d with @%d" % (name, start, other)
    if kind == "truncate" and size:
        length = dice.choice([0, size // 2, dice.randrange(size)])
        os.truncate(path, length)
        return "truncate %s to %d" % (name, length)
    if kind == "grow":
        with open(path, "ab") as file:
            file.write(b"\0" * dice.choice([1, 512, PAGE]))
        return "grow " + name
    if kind == "rename":
        os.rename(path, path + dice.choice([".old", "1"]))
        return "rename " + name
    if kind == "copy":
        same = [other for other in files if os.path.dirname(other) == os.path.dirname(name) and other != name]
        if same:
            other = dice.choice(same)
            shutil.copyfile(os.path.join(store, other), path)
            return "copy %s over %s" % (other, name)
    os.remove(path)
    return "remove " + name


class Served:
    """What one side makes of a directory."""

    def __init__(self, lines, ours):
        self.records = {line["phyOffset"]: line for line in lines if line["t"] == "record"}
        self.max = max([line["maxPhyOffset"] for line in lines if line["t"] == "store"], default=0)
        self.queues = {(line["topic"], line["queueId"]): line for line in lines
                       if line["t"] == "queue" and line.get("stage", "start") == "start"}
        self.queries = {(line["topic"], line["key"]): set(line["phyOffsets"]) for line in lines
                        if line["t"] == "query" and isinstance(line.get("phyOffsets"), list)}
        self.damage = [(line["phyOffset"], line["phyOffset"] + line["size"]) for line in lines if line["t"] == "damage"]
        # Records that name another queue than the one that has their entry.
        self.anothers = {line["phyOffset"] for line in lines
                         if line["t"] == "damage" and line["why"].endswith("names a queue that is not its own")}
        self.messages, self.misplaced, self.entries, self.misnumbered, self.found = {}, {}, {}, [], {}
        for line in lines:
            if line["t"] != "cq":
                continue
            place = (line["topic"], line["queueId"], line["queueOffset"])
            self.entries[place] = (line["phyOffset"], line["size"])
            record = self.records.get(line["phyOffset"], {})
            sha = record.get("recordSha256") if ours else line.get("sha")
            mark = (line["phyOffset"], line["size"], sha)
            if line["found"]:
                self.found[place] = mark
            if not line["found"]:
                self.misplaced[place] = "an entry that leads nowhere"
            elif ours or self.whole(line):
                self.messages[place] = mark
                if ours and line["batchNum"] == 1 and line["topic"] == line["msgTopic"] and line["msgQueueOffset"] != place[2]:
                    self.misnumbered.append(place)
            else:
                damaged = line.get("msgPhyOffset") == line["phyOffset"] and not line["whole"]
                self.misplaced[place] = "java-serves-damage" if damaged else "java-misplaced"

    @staticmethod
    def whole(line):
        if line.get("msgPhyOffset") != line["phyOffset"] or not line["whole"]:
            return False
        # Queues that a message is dispatched to besides its own, and inner batches, count by numbers of their own.
        if is_light(line["topic"]) or line["batchNum"] != 1 or line["topic"] != line.get("msgTopic"):
            return is_light(line["topic"]) or line["topic"] == line.get("msgTopic")
        return line.get("msgQueueId") == line["queueId"] and line.get("msgQueueOffset") == line["queueOffset"]


def compare(java, ours, strays):
    """Yields (reason or None, what differs)."""
    for place in ours.misnumbered:
        yield None, "ours serves %s, which has another number" % (place,)
    for place, mark in sorted(java.messages.items()):
        here = ours.messages.get(place)
        if here == mark:
            continue
        at = mark[0]
        if here is None and not NAME.fullmatch(place[0]):
            yield "number-damaged", "%s has a name that no queue can have" % (place,)
        elif here is None and at in ours.anothers:
            yield "number-damaged", "%s is not where the entry of %d says" % (place, at)
        elif here is None and any(start <= at < end for start, end in ours.damage):
            # Java does not look at what is left of its checkpoint; whoever reads gets bytes that are no record's.
            yield None, "Java serves %s at %d, which ours calls damage" % (place, at)
        elif light_number(ours.records.get(at, {}), place[0]) not in (None, place[2]):
            yield "java-misplaced", "%s leads to a message that has another number there" % (place,)
        elif here is None and is_light(place[0]) and at in ours.records and not names(ours.records[at], place[0]):
            yield "java-misplaced", "%s leads to a message that does not name the queue" % (place,)
        elif here is None and not is_light(place[0]) and elsewhere(place, at, ours):
            yield "java-misplaced", "%s leads to a message that says another place, and is there" % (place,)
        elif here is None and at in ours.records and place not in ours.messages:
            yield "number-damaged" if moved(place, at, ours) else None, "ours has %s at %d in no queue" % (place, at)
        elif here is None and at not in ours.records and strays:
            yield "stray-segment", "%s at %d" % (place, at)
        else:
            yield None, "Java serves %s at %s, ours %s" % (place, mark, here)
    for place, mark in sorted(ours.messages.items()):
        if place in java.messages:
            continue
        at = mark[0]
        if place in java.misplaced:
            # Where Java's entry leads to the same record, it would be for the dump to say why it is not served.
            alike = java.entries[place] == mark[:2] and java.misplaced[place] != "java-serves-damage"
            reason = "java-misplaced" if not alike else "cut-by-java" if at >= java.max else None
            yield reason, "%s at %d, Java's entry leads to %s" % (place, at, java.entries[place])
        elif at >= java.max:
            yield "cut-by-java", "%s at %d" % (place, at)
        elif at in java.records and java.records[at].get("recordSha256") == mark[2]:
            yield "queue-not-rebuilt", "%s at %d" % (place, at)
        elif at not in java.records:
            # Behind something in the segment that Java's reader cannot pass.
            yield "cut-by-java", "%s at %d" % (place, at)
        else:
            yield None, "ours serves %s at %s, Java has another record there" % (place, mark)
    for place, why in sorted(java.misplaced.items()):
        if place not in ours.messages and why.startswith("java-"):
            yield why, "%s" % (place,)
    yield from ends(java, ours, strays)
    for question, hits in sorted(java.queries.items()):
        here = ours.queries.get(question)
        if here is None:
            continue
        lost = {at for at in hits - here if at in ours.records and carries(java.records.get(at), question)}
        if lost and not common(question, java, ours):
            yield None, "key %s: Java finds %s, ours %s" % (question, sorted(hits), sorted(here))
        elif here - hits:
            yield "java-index-lost", "key %s" % (question,)


def is_light(queue):
    return queue.startswith("%LMQ%")


def names(record, queue):
    return queue in record.get("properties", {}).get("INNER_MULTI_DISPATCH", "").split(",")


def light_number(record, queue):
    """The number that a record says it has in a queue that it is dispatched to besides its own."""
    texts = record.get("properties", {})
    queues, numbers = (texts.get("INNER_MULTI_" + name, "").split(",") for name in ("DISPATCH", "QUEUE_OFFSET"))
    return int(numbers[queues.index(queue)]) if names(record, queue) else None


def own_place(record):
    return record["topic"], record["queueId"], record["queueOffset"]


def moved(place, at, ours):
    return own_place(ours.records[at]) == place


def elsewhere(place, at, ours):
    own = at in ours.records and own_place(ours.records[at])
    return own and own != place and ours.messages.get(own, (None,))[0] == at


def carries(record, question):
    if record is None or record["topic"] != question[0]:
        return False
    keys = record.get("keys") or record.get("properties", {}).get("KEYS") or ""
    return question[1] in keys.split(" ")


def ends(java, ours, strays):
    for name in sorted(java.queues.keys() | ours.queues.keys()):
        here, there = ours.queues.get(name), java.queues.get(name)
        mine = [place[2] for place in ours.messages if place[:2] == name]
        theirs = [place[2] for place in java.messages if place[:2] == name]
        if here is None:
            if theirs:
                known = [java.messages[(*name, number)][0] in ours.records.keys() | ours.anothers for number in theirs]
                # A name that no topic can have, or that the record did not have when its entry was made.
                reason = "number-damaged" if all(known) or not NAME.fullmatch(name[0]) else "stray-segment" if strays and not any(known) else None
                yield reason, "ours has no queue %s/%d with %d messages of Java's" % (*name, len(theirs))
            continue
        if there is None or sorted(mine) != sorted(theirs):
            continue
        if here["maxOffset"] < there["maxOffset"]:
            yield "java-phantom-end" if not mine or here["maxOffset"] > max(mine) else None, "end of %s/%d" % name
        elif here["maxOffset"] > there["maxOffset"]:
            yield "number-of-lost-record" if ours.damage else None, "end of %s/%d: ours %d, Java %d" % (
                *name, here["maxOffset"], there["maxOffset"])


# The errors by which ours refuses a directory that Java serves.
REFUSALS = (
    ("missing-segment", r"error: the CommitLog in (?P<path>.+) has no segment at (?P<number>\d+): "),
    ("wrong-size", r"error: (?P<path>.+) has (?P<length>\d+) bytes, the configuration says (?P<right>\d+) \((?P<key>\w+)\): "),
)
# Segments in a row that ours stands in for.
STOOD_IN = 1024


def refusal(text, store, conf):
    """The reason of an error of ours, if it is one and the directory is what it says: (reason, None) or (None, why not)."""
    found = [(reason, re.search(rule, text)) for reason, rule in REFUSALS]
    found = [(reason, match) for reason, match in found if match]
    if len(found) != 1:
        return None, "ours refuses: " + text.strip()[-200:]
    reason, match = found[0]
    path = match["path"]
    holds = os.path.commonpath([path, store]) == store and os.path.exists(path)
    if holds and reason == "missing-segment":
        size = int(conf["mappedFileSizeCommitLog"])
        names = sorted(int(name) for name in os.listdir(path) if re.fullmatch(r"\d{20}", name))
        missing = int(match["number"])
        behind = [name for name in names if name > missing]
        holds = missing not in names and names[0] < missing and behind and (
            (behind[0] - missing) % size or (behind[0] - missing) // size > STOOD_IN)
    elif holds:
        length, right = int(match["length"]), int(match["right"])
        folder, name = os.path.split(path)
        alone = all(os.path.getsize(os.path.join(folder, other)) != right for other in os.listdir(folder))
        holds = os.path.getsize(path) == length != right and (length > right or alone or int(name) % right)
        holds = holds and int(conf.get(match["key"], right)) <= right
    return (reason, None) if holds else (None, "ours refuses, and it is not so: " + text.strip()[-200:])


def read(text):
    """JSON lines; a text in one may hold what else ends a line."""
    return [json.loads(line) for line in text.split("\n") if line]


def questions(lines):
    """The keys that Java was asked for, but for those that no command line can hold."""
    return [line for line in lines if line["t"] == "query" and "\0" not in line["topic"] + line["key"]][:KEYS]


def dump(reput, store, conf, asked):
    """What ours would serve; nothing of the directory is changed."""
    words = [reput, "store", "dump", "--config", conf, "--json"]
    for line in asked:
        words += ["--query", "%s:%s" % (line["topic"], line["key"])]
    return subprocess.run([*words, store], capture_output=True, text=True, timeout=120)


def run(reput, reader, source, home, dice, show):
    """Returns (changes, [(reason or None, what)], whether ours mended it and Java agreed)."""
    shutil.copytree(source, home)
    store = os.path.join(home, "store")
    conf = os.path.join(home, "broker.conf")
    with open(os.path.join(source, "MANIFEST.json")) as manifest, open(conf, "w") as out:
        config = json.load(manifest)["config"]
        out.writelines("%s=%s\n" % pair for pair in config.items())
    changes = [change(store, dice) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
    copy, mended = os.path.join(home, "java"), os.path.join(home, "mended")
    shutil.copytree(store, copy)
    shutil.copytree(store, mended)
    said, lines = reader.dump(copy, conf)
    asked = questions(lines)
    before = picture.files(store)
    done = dump(reput, store, conf, asked)
    touched = picture.changed(before, picture.files(store))
    if touched:
        return changes, [(None, "`store dump` changed %s" % touched)], False
    if show:
        print(said, done.returncode, done.stderr)
    if done.returncode < 0 or "panicked" in done.stderr:
        return changes, [(None, "ours ended with %s: %s" % (done.returncode, done.stderr[-300:]))], False
    if done.returncode:
        if said != "loaded":
            return changes, [], False
        reason, why = refusal(done.stderr, store, config)
        # Who means to mend it is refused in the same way, and finds it as it was.
        repair = subprocess.run([reput, "store", "repair", "--apply", "--config", conf, store], capture_output=True, text=True,
                                timeout=120)
        touched = picture.changed(before, picture.files(store))
        if reason and (repair.returncode != 2 or refusal(repair.stderr, store, config)[0] != reason or touched):
            reason, why = None, "repair ended with %d, changed %s: %s" % (repair.returncode, touched, repair.stderr.strip()[-200:])
        return changes, [(reason, why or reason)], False
    ours = Served(read(done.stdout), True)
    wrong, applied = after_repair(reput, reader, mended, store, conf, ours, show)
    if said == "refused":
        return changes, [("java-refuses", ""), *wrong], applied
    if said != "loaded":
        return changes, [("java-fails", said), *wrong], applied
    strays = [name for name in os.listdir(os.path.join(store, "commitlog")) if not re.fullmatch(r"\d{20}", name)]
    return changes, [*compare(Served(lines, False), ours, strays), *wrong], applied


def after_repair(reput, reader, store, source, conf, before, show):
    """Mends the directory, a copy of `source`, by `store repair --apply`; what Java then serves otherwise than ours, and
    whether there was something to mend. Of a mended directory no difference is excused."""
    repair = subprocess.run([reput, "store", "repair", "--apply", "--config", conf, "--json", store], capture_output=True,
                            text=True, timeout=120)
    said = read(repair.stdout)
    if show:
        print("repair", repair.returncode, repair.stderr, *said[-3:])
    if repair.returncode:
        return [(None, "repair ended with %d: %s %s" % (repair.returncode, said[-3:], repair.stderr[-300:]))], False
    if not any(line.get("t") == "repair" and line.get("applied") for line in said):
        return [], False
    for path in foreign(store):
        # It is not ours to remove, and Java loads no directory with it: whoever repairs is told of it.
        if not any(line.get("t") == "finding" and line.get("path") == path for line in said):
            return [(None, "repair says nothing of %s, which Java refuses" % path)], False
        os.remove(path)
    copy = store + "-java"
    shutil.copytree(store, copy)
    # A check of whole records would cut the log at the first that has no checksum, in a store from before it was on.
    lenient = conf + ".lenient"
    with open(conf) as text, open(lenient, "w") as out:
        out.write(text.read() + "forceVerifyPropCRC=false\n")
    answer, lines = reader.dump(copy, lenient)
    if answer != "loaded":
        return [(None, "mended by ours, Java does not load it: " + answer)], False
    asked = questions(lines)
    done = dump(reput, store, conf, asked)
    if done.returncode:
        return [(None, "mended by ours, ours ends with %d: %s" % (done.returncode, done.stderr[-300:]))], False
    java, ours = Served(lines, False), Served(read(done.stdout), True)
    lost = list(kept(before, ours))
    if lost:
        # Repair holds every record to its checksums, opening as the configuration says.
        strict = conf + ".strict"
        with open(conf) as text, open(strict, "w") as out:
            out.write(text.read() + "checkCRCOnRecover=true\nforceVerifyPropCRC=true\n")
        done = dump(reput, source, strict, [])
        lost = list(kept(Served(read(done.stdout), True), ours))
    wrong = [(None, "mended: " + what) for what in (*alike(java, ours), *lost)]
    return wrong, not wrong


def foreign(store):
    """Files among the store's that have no name of its own."""
    for folder, digits in (("commitlog", 20), ("consumequeue", 20), ("batchconsumequeue", 20), ("consumequeue_ext", 20),
                           ("index", 17)):
        for root, _, names in os.walk(os.path.join(store, folder)):
            for name in names:
                if not re.fullmatch(r"\d{%d}" % digits, name):
                    yield os.path.join(root, name)


def kept(before, ours):
    """What repair does not serve though opening would have."""
    for what, one, other in (("record", before.records, ours.records), ("message", before.messages, ours.messages)):
        for place in sorted(one.keys() - other.keys(), key=str):
            yield "the %s %s would have been served and is not" % (what, place)


def alike(java, ours):
    """What Java serves otherwise than ours."""
    def damaged(at):
        return any(start <= at < end for start, end in ours.damage)

    # A closed gap is a record to Java: its topic is one that nobody has. Entries and keys of what was lost lead there.
    theirs = {at: line["recordSha256"] for at, line in java.records.items() if not (line["topic"] == "-" and damaged(at))}
    here = {at: line["recordSha256"] for at, line in ours.records.items()}
    for at in sorted(theirs.keys() | here.keys()):
        if theirs.get(at) != here.get(at):
            yield "the record at %d: Java %s, ours %s" % (at, theirs.get(at), here.get(at))
    served = {place: mark for place, mark in java.found.items() if not damaged(mark[0])}
    for place in sorted(served.keys() | ours.messages.keys(), key=str):
        one, other = served.get(place), ours.messages.get(place)
        if one != other:
            yield "%s: Java %s, ours %s" % (place, one or java.misplaced.get(place), other or ours.misplaced.get(place))
    for name in sorted(java.queues.keys() | ours.queues.keys()):
        ends = [side.queues.get(name, {}).get("maxOffset") for side in (java, ours)]
        if ends[0] != ends[1]:
            yield "the end of %s/%d: Java %s, ours %s" % (*name, *ends)
    for question in sorted(java.queries.keys() & ours.queries.keys()):
        # Of an entry that leads into a gap Java says -1, or what the zeros there come to.
        one = {at for at in java.queries[question] if at >= 0 and not damaged(at)}
        other = ours.queries[question]
        if one != other and not common(question, java, ours):
            yield "key %s: Java finds %s, ours %s" % (question, sorted(one), sorted(other))


def common(question, *sides):
    """Both list the newest 32 entries of the hash, of which a key that stands twice in a record takes two."""
    return max(sum(carries(record, question) for record in side.records.values()) for side in sides) > 12


def main():
    words = argparse.ArgumentParser()
    words.add_argument("reput")
    words.add_argument("archives", nargs="+")
    words.add_argument("--directories", type=int, default=300)
    words.add_argument("--first", type=int, default=0)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--one", type=int)
    words.add_argument("--work")
    words = words.parse_args()
    root = tempfile.mkdtemp(prefix="reput-differential.", dir=words.work)
    tally = survivor.Tally()
    stores = extract(words.archives, root)
    chosen = [words.one] if words.one is not None else range(words.first, words.first + words.directories)
    reader = java_reader.reader(None, tally, "directories for Java", len(chosen))
    if reader is None:
        shutil.rmtree(root)
        tally.end(len(chosen))
    agree = 0
    try:
        for n in chosen:
            dice = survivor.dice("%d/%d" % (words.seed, n))
            name = dice.choice(stores)
            home = os.path.join(root, "case-%d" % n)
            try:
                changes, found, mended = run(words.reput, reader, os.path.join(root, name), home, dice, words.one is not None)
            except Exception as error:  # a rig that cannot run its case has not passed it
                changes, found, mended = [], [(None, repr(error))], False
            unknown = [what for reason, what in found if reason is None]
            for reason in {reason for reason, _ in found if reason}:
                if reason not in REASONS:
                    unknown.append("%s is no reason on the list" % reason)
                tally.note("directories that differ by " + reason)
            agree += not found
            if mended:
                tally.note("directories that ours mended, and Java serves as ours does")
            why = "%s: %d differences, first %s" % ("; ".join(changes), len(unknown), unknown[0]) if unknown else None
            if words.one is not None:
                for one in found:
                    print(*one)
            tally.check("%d %s" % (n, name), why, "differential.py ... --seed %d --one %d" % (words.seed, n))
            if words.one is None:
                # Java closes the copy aside; what it still writes there goes with the whole folder.
                shutil.rmtree(os.path.join(home, "store"), ignore_errors=True)
    finally:
        reader.end()
        if words.one is None:
            shutil.rmtree(root, ignore_errors=True)
        else:
            print("left in " + root)
    tally.note("directories that agree in everything", agree)
    tally.end(len(chosen))


if __name__ == "__main__":
    main()
