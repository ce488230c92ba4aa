#!/usr/bin/env python3
"""Says which of the places in the store that call the file system have seen that call fail, in the library's own tests.

  sites.py [FILTER...]

A place is a call of a method of `Vfs` or `Backing` that can fail, in the store's sources without tests. The tests run
with FAULT_SITES set: whatever fails a call then notes the lines through which it came. Ends with a line
`N of M places`; exit code 1 when a place is left over.
"""
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APART = ("sim", "vfs", "broker", "cli", "namesrv", "remoting", "main.rs")
VFS = ("create_dir_all|create_dirs_unsynced|list|stat|create|open|read|replace|rename|set_len|remove|remove_dir|sync_dir|"
       "sync_all|lock|usage")
# Also of a file system that somebody opens for himself.
CALL = re.compile(r"(?:(?:vfs|Vfs|overlay)\s*\.\s*(%s)|"
                  r"(?:backing(?:\(\))?|region|segment|tail)\s*\.\s*(write|sync|reserve|rewrite|rewrite_from))\(" % VFS)


def places():
    """File and name of each call, with its lines."""
    for path in sorted((ROOT / "src").rglob("*.rs")):
        name = str(path.relative_to(ROOT / "src"))
        if name.startswith(APART) or "tests" in name:
            continue
        text = path.read_text().split("#[cfg(test)]\nmod tests {")[0]
        text = re.sub(r"//.*", "", text)
        for call in CALL.finditer(text):
            # The whole expression: from the line on which its receiver begins to that of the method.
            first, last = (text.count("\n", 0, place) + 1 for place in (call.start(), call.end()))
            yield name, call[1] or call[2], range(first, last + 1)


def main():
    notes = Path(tempfile.mkstemp(prefix="reput-sites.")[1])
    try:
        tests = ["cargo", "test", "--all-features", "--lib", "--", *sys.argv[1:]]
        done = subprocess.run(tests, cwd=ROOT, env={**os.environ, "FAULT_SITES": str(notes)}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
        hit = collections.defaultdict(set)
        for line in notes.read_text().splitlines():
            file, number = line.split(":")[:2]
            hit[file].add(int(number))
    finally:
        notes.unlink()
    count = reached = 0
    for file, call, lines in places():
        count += 1
        if hit[file].intersection(lines):
            reached += 1
            continue
        print("not reached: src/%s:%d %s" % (file, lines[-1], call))
    print("%d of %d places" % (reached, count))
    sys.exit(reached < count)


main()
