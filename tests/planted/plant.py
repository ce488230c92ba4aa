#!/usr/bin/env python3
"""Plants known mistakes in a copy of the sources and counts how many crash images it takes to catch each.

    tests/planted/plant.py [--seeds N] [--jobs N] [--tests] [NUMBER...]
    tests/planted/plant.py --remedies [ROW...]
With --tree DIR the copy stays there, and of the next run only what has changed is built. With --store the broker is left
out, and with it the tests that need one: half as much is built.

All mistakes go into one build, each behind a number that the environment variable PLANT chooses; the tree itself is
not touched. Prints one line of the README's table for each. With --tests, what the lab does not find within its seeds,
which may be 0, is tried on the library's own tests. With --remedies, what keeps each of the known failures from
happening is taken out instead, and the test of that failure must fail (`remedies.py`). Exit code 1 when one is not
caught, or when a place in the sources has changed so that a mistake can no longer be planted.
"""
import argparse, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import remedies

ROOT = Path(__file__).resolve().parents[2]
P = "crate::planted"
# Number, what is wrong, file, the right text, the text that is wrong when PLANT is the number.
PLANTS = [
    (1, "recovery does not zero what it cuts", "commit_log/load.rs", "for page in dirty {",
     f"for page in dirty.into_iter().filter(|_| !{P}(1)) {{"),
    (2, "recovery does not sync what it accepts", "commit_log/load.rs", "self.sync(&kept)?;",
     f"if !{P}(2) {{ self.sync(&kept)?; }}"),
    (3, "acknowledged before the sync", "commit_log/flush.rs", "for segment in self.segments.between(durable, target) {",
     f"for segment in self.segments.between(durable, target).into_iter().filter(|_| !{P}(3)).skip(if {P}(4) {{ 1 }} else {{ 0 }}) {{"),
    (4, "of the segments of one sync the first is left out", None, None, None),
    (5, "the name of a new segment is not synced", "segment/allocator.rs",
     ".and_then(|()| self.vfs.sync_dir(&self.dir).map_err(Error::io(\"sync\", &self.dir)));",
     f".and_then(|()| if {P}(5) {{ Ok(()) }} else {{ self.vfs.sync_dir(&self.dir).map_err(Error::io(\"sync\", &self.dir)) }});"),
    (6, "a sync leaves out the page that its last record ends in", "commit_log/flush.rs", "segment.region.sync(segment.overlap(durable, target))",
     f"segment.region.sync(segment.overlap(durable, if {P}(6) {{ PhysicalOffset(target.0 / PAGE * PAGE).max(durable) }} else {{ target }}))"),
    (7, "what is cut is not kept aside", "commit_log/load.rs", "self.keep_aside(end, &*clock)?;",
     f"if !{P}(7) {{ self.keep_aside(end, &*clock)?; }}"),
    (8, "what is cut is kept one byte short", "commit_log/quarantine.rs", "let len = len_without_zeros(cut);",
     f"let len = len_without_zeros(cut).saturating_sub(usize::from({P}(8)));"),
    (9, "the checkpoint runs ahead of the log", "store/background.rs", "let durable = self.log.durable_offset();",
     f"let durable = if {P}(9) {{ self.log.max_offset() }} else {{ self.log.durable_offset() }};"),
    (10, "the blank at a roll is one byte short", "commit_log/appender.rs", "encode_blank(self.left)",
     f"encode_blank(self.left - usize::from({P}(10)))"),
    (11, "queues follow the log before it is durable in synchronous mode", "commit_log/mod.rs",
     "if self.sync_flush { self.durable_offset() }", f"if self.sync_flush && !{P}(11) {{ self.durable_offset() }}"),
    (12, "puts are taken after a failed sync", "commit_log/mod.rs", "if self.poisoned.load(Ordering::Acquire) {",
     f"if self.poisoned.load(Ordering::Acquire) && !{P}(12) {{"),
    (13, "entries behind a queue's last record are not dropped", "recovery/mod.rs",
     "&|queue, unit| self.leads(end, start.is_late, queue, unit))",
     f"&|queue, unit| Ok({P}(13) || self.leads(end, start.is_late, queue, unit)?))"),
    (14, "index entries behind the end of the log stay", "recovery/keys.rs",
     "if self.agrees && self.skip_to(end, damage)? && self.cursor.peek(self.index, self.files).is_some() {\n"
     "            self.cut(Some(self.cursor.place()))?;\n        }\n        self.index.truncate_from(end)?;",
     f"if {P}(14) {{ return Ok(self.done); }}\n        if self.agrees && self.skip_to(end, damage)? && self.cursor.peek(self.index, self.files).is_some() {{\n"
     "            self.cut(Some(self.cursor.place()))?;\n        }\n        self.index.truncate_from(end)?;"),
    (15, "index files are believed unseen", "recovery/keys.rs", "if index.check(number) != Soundness::Sound {",
     f"if !{P}(15) && index.check(number) != Soundness::Sound {{"),
    (16, "no abort file is written", "store/open.rs",
     "vfs.replace(&abort, std::process::id().to_string().as_bytes()).map_err(Error::io(\"write\", &abort))?;",
     f"if !{P}(16) {{ vfs.replace(&abort, std::process::id().to_string().as_bytes()).map_err(Error::io(\"write\", &abort))?; }}"),
    (17, "holes are taken for damage", "recovery/hole.rs", "range.from >= self.durable &&",
     f"!{P}(17) && range.from >= self.durable &&"),
    (18, "a body with a lost sector is accepted where none was to be checked", "recovery/scan.rs",
     "let may_lack_sectors = self.checks", f"let may_lack_sectors = !{P}(18) && self.checks"),
    (19, "retention deletes what is not dispatched", "retention.rs", "|| end > needed {",
     f"|| (end > needed && !{P}(19)) {{"),
    (20, "retention does not wait for the queues", "retention.rs", "if plan.segments.is_empty() {",
     f"if plan.segments.is_empty() || {P}(20) {{"),
    (21, "segments are removed together and synced once", "commit_log/load.rs",
     "// One by one: of two removals a power cut may keep the second alone, and leave a gap.\n            self.sync_dir(&self.dir)?;",
     f"if !{P}(21) {{ self.sync_dir(&self.dir)?; }}"),
    (22, "later index files stay when one is cut", "index/set.rs", "self.drop_from(&mut state, number + 1)?;\n            if let",
     f"if !{P}(22) {{ self.drop_from(&mut state, number + 1)?; }}\n            if let"),
    (23, "of a queue with a gap the older part is believed", "consume_queue/files.rs", "if base != run.written {",
     f"if {P}(23) && base != run.written && !run.files.is_empty() {{ run.strays.push(path); continue; }}\n            if base != run.written {{"),
    (24, "a failed sync is tried again", "commit_log/flush.rs",
     "return Err(self.poison(&Error::Io { action: \"sync\", path, source }));",
     f"if {P}(24) {{ continue; }}\n                    return Err(self.poison(&Error::Io {{ action: \"sync\", path, source }}));"),
    (25, "a clean stop does not sync the log", "store/open.rs", "let synced = self.log.sync_to(end);",
     f"let synced = if {P}(25) {{ Ok(()) }} else {{ self.log.sync_to(end) }};"),
    (26, "bodies are not held against their checksums", "recovery/scan.rs", "if (self.checks.body_crc || may_lack_sectors) && !whole {",
     f"if !{P}(26) && (self.checks.body_crc || may_lack_sectors) && !whole {{"),
    (27, "the end of the log is kept one byte long", "recovery/mod.rs", "let end = report.end;\n    let",
     f"let end = report.end.plus(usize::from({P}(27) && report.torn.is_some()));\n    let"),
    (28, "queue files are not synced", "consume_queue/mapping.rs", "let synced = table.backing().sync(0..table.len());",
     f"let synced = table.backing().sync(0..if {P}(28) {{ 0 }} else {{ table.len() }});"),
    (29, "the first number after recovery is one too high", "store/registry.rs", "let first = queue.max_offset();",
     f"let first = queue.max_offset().plus(i64::from({P}(29) && queue.max_offset().0 > 0));"),
    (30, "the minimum of a queue does not follow the log", "recovery/mod.rs", "queue.correct_min_offset(log.min_offset())?;",
     f"if !{P}(30) {{ queue.correct_min_offset(log.min_offset())?; }}"),
    (31, "WAIT=false is acknowledged before the write", "commit_log/stage.rs", "self.write_out()?;\n        // Nobody",
     f"if !{P}(31) {{ self.write_out()?; }}\n        // Nobody"),
    (32, "without a mapping an asynchronous put stays in memory", "commit_log/appender.rs", "if !self.log.sync_flush {",
     f"if !self.log.sync_flush && !{P}(32) {{"),
    (33, "after recovery the checkpoint still says durable what was cut", "store/open.rs",
     "checkpoint.now.durable_end = Some(recovered.log.durable_offset());",
     f"if !{P}(33) {{ checkpoint.now.durable_end = Some(recovered.log.durable_offset()); }}"),
    (34, "the length of a new segment is not synced", "segment/allocator.rs", "let synced = backing\n            .sync(0..backing.len())",
     f"let synced = if {P}(34) {{ Ok(()) }} else {{ backing.sync(0..backing.len()) }}"),
    (35, "an index that saw the clock go back is taken for another's", "recovery/keys.rs",
     "    files.iter().all(|file| file.end_timestamp != durable)",
     f"    ({P}(35) || files.iter().all(|file| file.end_timestamp != durable))"),
    (36, "a sector of zeros in a body passes for one that never reached the disk", "recovery/scan.rs",
     "if header.topic == GAP_TOPIC\n",
     f"let zeros = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);\n"
     f"        if {P}(36) && may_lack_sectors && rest[..size].windows(SECTOR).any(zeros) {{\n"
     "            return Err(Corruption::Text { what: \"unwritten sector\" });\n        }\n"
     "        if header.topic == GAP_TOPIC\n"),
    (37, "on a full disk a segment goes with the numbers that stand in it alone", "retention.rs",
     "dispatched.min(self.table.needs_log_from())",
     f"if {P}(37) {{ dispatched }} else {{ dispatched.min(self.table.needs_log_from()) }}"),
    (38, "a failed sync is forgotten when a queue that began a file asked for it", "consume_queue/mapping.rs",
     "synced.map_err(Error::io(\"sync\", &slot.path)).map_err(|error| self.fail(error))",
     f"synced.map_err(Error::io(\"sync\", &slot.path)).map_err(|error| if {P}(38) {{ error }} else {{ self.fail(error) }})"),
    (39, "a segment goes while the removal of the one before is not durable", "commit_log/reader.rs",
     "if self.removal_is_unsynced.load(Ordering::Acquire) {",
     f"if self.removal_is_unsynced.load(Ordering::Acquire) && !{P}(39) {{"),
    (40, "one queue that cannot be written keeps all others from the disk", "consume_queue/table.rs",
     "let written = self.write_out_from(worth);",
     f"let mut written = self.write_out_from(worth);\n        if {P}(40) {{ std::mem::replace(&mut written, Ok(()))?; }}"),
    (41, "a put may dispatch into a closed store", "store/open.rs", "self.turns.end();",
     f"if !{P}(41) {{ self.turns.end(); }}"),
]
SWITCH = """
#[doc(hidden)]
pub(crate) fn planted(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var("PLANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)) == number
}
"""
OURS = ["sim::", "recovery::", "commit_log::", "consume_queue::", "index::", "retention::", "segment::", "store::"]


def plant(tree):
    """Copies the sources to `tree`, with every mistake in them."""
    for name in ["src", "examples", "benches", "tests", "Cargo.toml", "Cargo.lock", "README.md"]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("golden"))
        else:
            shutil.copy(source, tree / name)
    (tree / "tests/golden").symlink_to(ROOT / "tests/golden")
    missing = []
    for number, what, file, right, wrong in PLANTS + remedies.PLANTED:
        if file is None:
            continue
        path = tree / "src" / file
        text = path.read_text()
        if text.count(right) != 1:
            missing.append(f"{number} ({what}): {text.count(right)} places in {file}")
        path.write_text(text.replace(right, wrong))
    if missing:
        sys.exit("cannot be planted:\n  " + "\n  ".join(missing))
    lib = tree / "src/lib.rs"
    lib.write_text(lib.read_text() + SWITCH)


def renew(tree, fresh):
    """Makes `tree` what `fresh` is, and touches only files that differ."""
    for path in sorted(fresh.rglob("*")):
        old = tree / path.relative_to(fresh)
        if path.is_symlink():
            if not old.is_symlink():
                old.symlink_to(os.readlink(path))
        elif path.is_dir():
            old.mkdir(parents=True, exist_ok=True)
        elif not old.exists() or old.read_bytes() != path.read_bytes():
            shutil.copy(path, old)
    for old in sorted((tree / "src").rglob("*.rs")):
        if not (fresh / old.relative_to(tree)).exists():
            old.unlink()


class Built:
    """The planted sources, built in `target`."""

    def __init__(self, tree, target, store):
        self.tree, self.target, self.store = tree, target, store
        self.test = ["cargo", "test", *(["--no-default-features"] if store else []), "--features", "sim"]

    def cargo(self, command, number=0, **more):
        # What a test leaves outside its directory goes with this one.
        with tempfile.TemporaryDirectory(prefix="reput-planted.") as temporary:
            environment = {**os.environ, "PLANT": str(number), "CARGO_TARGET_DIR": self.target, "TMPDIR": temporary}
            return subprocess.run(command, cwd=self.tree, env=environment, text=True, **more)

    def failing(self, number):
        """Which of the library's own tests of the store fail."""
        done = self.cargo([*self.test, "--lib", "--", *OURS], number, capture_output=True)
        return re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, re.M)

    def fails(self, number, test):
        """Whether one test fails, and what it says then."""
        where = ["--lib"] if test.startswith("lib:") else ["--test", "failures"]
        command = [*self.test, *where, "--", "--exact", test.removeprefix("lib:")]
        try:
            done = self.cargo(command, number, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired:
            return True, "does not end"
        if done.returncode and not re.search(r"^running 1 test$", done.stdout, re.M):
            sys.exit(done.stdout + done.stderr)
        said = re.search(r"panicked at [^\n]*\n([^\n]*)", done.stdout) or re.search(r"(signal: [^)]*)", done.stderr)
        said = re.sub(r"/\S*reput-planted\S*/", "", said[1]) if said else ""
        return done.returncode != 0, said.replace("|", "/")[:70].strip()


def without_remedies(built, rows):
    """Takes each remedy out; says how many tests did not notice."""
    built.cargo([*built.test, "--lib", "--test", "failures", "--no-run"], check=True)
    names = {number: what for number, what, *_ in PLANTS + remedies.PLANTED}
    missed = 0
    for row, numbers, test in remedies.ROWS:
        if (rows and row not in rows) or (built.store and test.startswith("tables::")):
            continue
        broken, said = built.fails(0, test)
        if broken:
            sys.exit(f"{test} fails with nothing taken out: {said}")
        for number in numbers:
            failed, said = built.fails(number, test)
            missed += not failed
            print(f"| {row} | {number} | {names[number]} | `{test}` | {said if failed else 'PASSES'} |", flush=True)
    return missed


def with_mistakes(built, options):
    """Plants each mistake; says how many nothing found."""
    if options.seeds:
        # The lab apart, so that no sound one is overwritten; a test program has a name of its own.
        subprocess.run(["cargo", "build", "--release", "--no-default-features", "--features", "sim", "--example", "crash_lab"],
                       cwd=built.tree, env={**os.environ, "CARGO_TARGET_DIR": built.target + "/planted"}, check=True)
    sound = set()
    if options.tests:
        built.cargo([*built.test, "--lib", "--no-run"], check=True)
        sound = set(built.failing(0))
    lab = Path(built.target) / "planted/release/examples/crash_lab"
    missed = 0
    for number, what, *_ in PLANTS:
        if options.numbers and number not in options.numbers:
            continue
        ran = None
        if options.seeds:
            command = [lab, "--quiet", "--images", "100000000", "--seeds", str(options.seeds), "--jobs", str(options.jobs)]
            done = subprocess.run(command, env={**os.environ, "PLANT": str(number)}, capture_output=True, text=True)
            out = done.stdout
            ran = re.search(r"^ran (\d+) images .*?, (\d+) workloads", out, re.M)
            found = re.search(r"^seed (\d+) after (\d+) images: invariant (\d+): (.*)", out, re.M)
            if done.returncode == 1 and found:
                images = int(ran[1]) + int(found[2])
                print(f"| {number} | {what} | {found[1]} | {images} | I{found[3]}: {found[4][:90]} |", flush=True)
                continue
        failed = [test for test in built.failing(number) if test not in sound] if options.tests else []
        missed += not failed
        print(f"| {number} | {what} | not within {options.seeds} | {ran[1] if ran else '?'} | {', '.join(failed)} |", flush=True)
    return missed


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seeds", type=int, default=400, help="seeds to try at most")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--tests", action="store_true", help="try the library's tests on what the lab does not find")
    options.add_argument("--remedies", action="store_true", help="take the remedies of the known failures out")
    options.add_argument("--store", action="store_true", help="without the broker")
    options.add_argument("--tree", type=Path, help="where the copy is made and stays")
    options.add_argument("numbers", type=int, nargs="*")
    options = options.parse_args()
    tree = Path(tempfile.mkdtemp(prefix="reput-planted."))
    try:
        plant(tree)
        if options.tree:
            options.tree.mkdir(parents=True, exist_ok=True)
            renew(options.tree, tree)
        target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
        built = Built(options.tree or tree, target, options.store)
        missed = without_remedies(built, options.numbers) if options.remedies else with_mistakes(built, options)
        sys.exit(1 if missed else 0)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


main()
