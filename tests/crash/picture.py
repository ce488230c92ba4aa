"""What stands in a store's files, so that two moments can be compared: by content, with holes and zeros alike."""
import hashlib
import json
import os
import re

BLOCK = 4096
PIECE = 1 << 20
ZEROS = bytes(PIECE)


def blocks(path):
    """(offset, bytes) of every block that is not wholly zero; holes are not read."""
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                return
            piece = os.pread(file.fileno(), PIECE, at)
            if piece != ZEROS[:len(piece)]:
                for start in range(0, len(piece), BLOCK):
                    block = piece[start:start + BLOCK]
                    if block != ZEROS[:len(block)]:
                        yield at + start, block
            at += len(piece) or PIECE


def files(store):
    """Every file below the directory: its length, and a hash of what is not zero in it."""
    found = {}
    for root, _, names in os.walk(store):
        for name in names:
            path = os.path.join(root, name)
            digest = hashlib.blake2b(b"%d" % os.path.getsize(path))
            for at, block in blocks(path):
                digest.update(b"%d" % at)
                digest.update(block)
            found[os.path.relpath(path, store)] = digest.hexdigest()
    return found


def changed(before, after, but=()):
    """The files that are not the same, but for those named."""
    return sorted(name for name in before.keys() | after.keys() if name not in but and before.get(name) != after.get(name))


def log(store):
    """The blocks of the log by their physical offset."""
    folder, found = os.path.join(store, "commitlog"), {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if re.fullmatch(r"\d{20}", name):
            found.update((int(name) + at, block) for at, block in blocks(os.path.join(folder, name)))
    return found


def quarantined(store):
    """(offset, bytes) of what is kept, as the manifest lists it; raises where manifest and files do not agree."""
    folder = os.path.join(store, "quarantine")
    manifest = os.path.join(folder, "manifest.jsonl")
    if not os.path.exists(manifest):
        return []
    kept = []
    with open(manifest) as lines:
        for line in lines:
            entry = json.loads(line)
            with open(os.path.join(folder, entry["file"]), "rb") as file:
                data = file.read()
            if len(data) != entry["len"] or not entry["file"].startswith("%020d-%d" % (entry["offset"], entry["len"])):
                raise ValueError("the manifest says %s, the file has %d bytes" % (line.strip(), len(data)))
            kept.append((entry["offset"], data))
    return kept


def cut_unseen(before, store):
    """What an opening took from the log without keeping it aside: None, or what it was; and how many bytes it kept."""
    after, kept, taken = log(store), None, 0
    for at, old in sorted(before.items()):
        new = after.get(at, b"").ljust(len(old), b"\0")
        if old == new:
            continue
        if kept is None:
            try:
                kept = quarantined(store)
            except (OSError, ValueError, KeyError) as error:
                return "the quarantine is not whole: %r" % error, taken
        near = [(offset - at, data) for offset, data in kept if offset < at + len(old) and at < offset + len(data)]
        for i, byte in enumerate(old):
            if byte and byte != new[i]:
                if not any(0 <= i - start < len(data) and data[i - start] == byte for start, data in near):
                    return "byte %d of the log was cut and is not in the quarantine" % (at + i), taken
                taken += 1
    return None, taken
