#!/usr/bin/env python3
"""Fills a corpus for each fuzz target from what Java's stores, brokers and clients have written, and from a few
inputs made by hand.

  seeds.py CORPUS        run from the project's folder; makes CORPUS/<target>/ with the inputs in it

Sources are tests/golden and tests/frames. Needs tar and zstd.
"""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile

# Inputs of a target; the fuzzer finds its own way from there.
MOST = 600
MAGICS = (0xDAA320A7, 0xDAA320AB)


def add(corpus, target, data):
    folder = os.path.join(corpus, target)
    os.makedirs(folder, exist_ok=True)
    if len(os.listdir(folder)) < MOST:
        with open(os.path.join(folder, hashlib.sha1(data).hexdigest()), "wb") as out:
            out.write(data)


def records(log):
    at = 0
    while at + 8 <= len(log):
        size, magic = struct.unpack_from(">iI", log, at)
        if magic not in MAGICS or size < 91 or at + size > len(log):
            return
        yield log[at:at + size]
        at += size


def properties(record):
    """The last field: its length stands before it, its end is the record's."""
    flags = struct.unpack_from(">i", record, 36)[0]
    born, store = (20 if flags & bit else 8 for bit in (0x10, 0x20))
    at = 68 + born + store
    at += 4 + struct.unpack_from(">i", record, at)[0]
    wide = struct.unpack_from(">I", record, 4)[0] == MAGICS[1]
    at += struct.unpack_from(">h", record, at)[0] + 2 if wide else record[at] + 1
    return record[at + 2:]


def store(corpus, root):
    for folder, _, names in os.walk(root):
        kind = os.path.relpath(folder, root).split(os.sep)[0]
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read(1 << 20)
            whole = data.rstrip(b"\0")[:4096]
            if kind == "commitlog":
                for record in records(data):
                    add(corpus, "record", record)
                    add(corpus, "properties", properties(record))
                    add(corpus, "tag_filter", b"TagA || TagB\0" + record)
            elif kind in ("consumequeue", "consumequeue_ext", "batchconsumequeue"):
                add(corpus, "queue_files", whole)
            elif kind == "index":
                add(corpus, "index_file", whole)
                add(corpus, "names", name.encode())
            elif name == "checkpoint":
                add(corpus, "checkpoint", data[:64])


def operations():
    """Workloads as src/sim/lab/decode.rs reads them: four bytes of settings, then steps."""
    put, batch, wait, sync, flush, reput, upkeep, prepare, retention, late, back, fails, close, kill, cut = (
        bytes([0, 0x91, 12, 0]), bytes([0x03, 0x80, 3, 0, 0x11, 90, 150]), bytes([0x20, 0xA2, 40, 0]),
        b"\x04", b"\x05", b"\x06", b"\x07", b"\x08", b"\x09", b"\x2a", b"\x0b", b"\x0c", b"\x0d", b"\x0e", b"\x0f\x05")
    large = bytes([0x20, 0x80, 250, 0])
    lives = [
        put + reput + wait + flush + upkeep + cut + put + close,
        wait * 3 + reput + late + upkeep + close + put + reput + kill + wait + cut,
        batch + sync + reput + upkeep + put + batch + reput + flush + cut + batch + sync,
        large * 4 + reput + sync + retention + upkeep + put + cut + large + close,
        (put + reput) * 6 + back + put + reput + sync + late + upkeep + close + cut,
        prepare + large * 3 + prepare + flush + reput + upkeep + retention + kill + put,
    ]
    for settings in ((0, 0), (0xA9, 1), (0x55, 0x63), (0x1E, 0xA5), (0xF3, 0x18), (0x40, 0xC1)):
        for life in lives:
            yield bytes(settings) + b"\0\1" + life
        # A failure, the kind of call in the high half, after so many good calls; from the high bit on for ever.
        for kind in range(16):
            when = bytes([kind << 4 | 0x0C, (kind * 5) % 40 | (kind & 1) << 7])
            yield bytes(settings) + b"\0\2" + wait + when + lives[kind % len(lives)]


def main():
    corpus = sys.argv[1]
    for archive in ("written", "live", "crash"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["tar", "--zstd", "-xf", "tests/golden/%s.tar.zst" % archive, "-C", folder], check=True)
            for name in sorted(os.listdir(folder)):
                store(corpus, os.path.join(folder, name, "store"))
                with open(os.path.join(folder, name, "MANIFEST.json")) as manifest:
                    pairs = json.load(manifest)["config"].items()
                add(corpus, "names", "".join("%s=%s\n" % pair for pair in pairs).encode())
    for name in sorted(os.listdir("tests/golden/broker-config")):
        with open(os.path.join("tests/golden/broker-config", name), "rb") as file:
            add(corpus, "config_json", file.read())
    for name in sorted(os.listdir("tests/frames")):
        if name.endswith(".jsonl"):
            with open(os.path.join("tests/frames", name)) as lines:
                for line in lines:
                    add(corpus, "frame", bytes.fromhex(json.loads(line).get("hex", "")))
    for text in (b"a BETWEEN 1 AND 6.5e0 AND NOT (b IN ('x', 'y') OR c IS NULL)", b"s NOT CONTAINS 'b' OR -a <= b = TRUE",
                 b"a > 3 AND a IS NOT NULL"):
        add(corpus, "filter", text + b"\na\x013\x02b\x01x\x02s\x01abc\x02")
    # A file's number, a kind of change with a length, a place, bytes; see change_files.
    for kind in range(16):
        for file in range(8):
            add(corpus, "store_open", bytes([file, 4 << 4 | kind, kind % 4 * 4, 40 + file, 1, 2, 3, 4]))
    for data in operations():
        add(corpus, "operations", data)
    for target in sorted(os.listdir(corpus)):
        print("-- %s: %d inputs" % (target, len(os.listdir(os.path.join(corpus, target)))))


if __name__ == "__main__":
    main()
