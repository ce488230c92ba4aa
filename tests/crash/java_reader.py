"""Java's own store as a program that opens directories: tests/java's reput.Dump, one JVM for all of them."""
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import threading

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "java")
# Java takes a tenth of a second; a directory on which it sits for so long is one on which it hangs.
PATIENCE = 90
# Java keeps nine threads of every store that it has opened and closed, and they all wake up several times a second.
MOST_STORES = 100


def build(work):
    """Compiles the Java side; returns the class path."""
    path = os.path.join(work, "classpath")
    done = subprocess.run(["mvn", "-q", "-B", "-ntp", "compile", "dependency:build-classpath", "-Dmdep.outputFile=" + path],
                          cwd=HERE, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise OSError("mvn ended with %d: %s" % (done.returncode, (done.stdout + done.stderr).strip()[:300]))
    with open(path) as text:
        return os.path.join(HERE, "target", "classes") + ":" + text.read()


def reader(classpath, tally, what, count):
    """A reader; None, and the tally says that `count` of `what` were not run, where there is no Java."""
    try:
        made = Reader(classpath)
        made.start()
    except OSError as error:
        tally.not_run(what, error, count)
        return None
    return made


class Reader:
    def __init__(self, classpath=None):
        self.work = tempfile.mkdtemp(prefix="reput-java-reader.")
        self.classpath = classpath if classpath and classpath != "build" else build(self.work)
        with open(os.path.join(HERE, "pom.xml")) as text:
            self.words = re.search(r"<java.args>(.*)</java.args>", text.read()).group(1).split()
        self.process = None
        self.count = 0
        # Directories are asked for one after the other, whoever asks.
        self.lock = threading.Lock()

    def start(self):
        self.log = open(os.path.join(self.work, "log"), "ab")
        self.process = subprocess.Popen(
            ["java", *self.words, "-Duser.home=" + self.work, "-cp", self.classpath, "reput.Dump"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.rest = b""
        self.opened = 0

    def answer(self):
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                return None if ready else "hangs"
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def hold(self, store, conf):
        """Opens the store and leaves it open until `end`; says `loaded` or what happened instead."""
        return self.dump(store, conf, "-")[0]

    def dump(self, store, conf, out=None):
        """(`loaded`, lines) or (what happened instead, []). Java changes the directory."""
        if out is None and self.process and self.opened >= MOST_STORES:
            self.end()
        if self.process is None:
            self.start()
        self.count += 1
        self.opened += 1
        out = out or os.path.join(self.work, "dump-%d" % self.count)
        self.process.stdin.write(("%s\t%s\t%s\n" % (store, conf, out)).encode())
        self.process.stdin.flush()
        while True:
            said = self.answer()
            if said is None or said == "hangs":
                self.end()
                return "died" if said is None else said, []
            if said.startswith("== "):
                break
        said = said[3:]
        lines = []
        if os.path.exists(out):
            with open(out) as text:
                lines = [json.loads(line) for line in text if line.endswith("\n")]
            os.remove(out)
        return said, lines

    def agrees_on_copy(self, store, copy, conf, listing):
        """`agrees` of a copy of the directory, which goes when it was asked for."""
        # Default files are a gigabyte each, most of it holes.
        subprocess.run(["cp", "-a", "--sparse=always", store, copy], check=True)
        try:
            return self.agrees(copy, conf, listing)
        finally:
            # Java closes it aside, at its leisure.
            shutil.rmtree(copy, ignore_errors=True)

    def agrees(self, store, conf, listing):
        """Whether Java serves what ours has listed: None or what is different."""
        with self.lock:
            said, lines = self.dump(store, conf)
        if said != "loaded":
            return "Java: " + said
        with open(listing) as text:
            ours = [tuple(map(int, line.split())) for line in text]
        theirs = [(int(line["keys"][4:]), line["phyOffset"], line["queueOffset"], line["size"])
                  for line in lines if line["t"] == "record" and line["bodyWhole"]]
        if ours != theirs:
            return "Java has %d records, ours %d; first other: %s" % (
                len(theirs), len(ours), next((pair for pair in zip(theirs, ours) if pair[0] != pair[1]), "the end"))
        entries = {line["phyOffset"]: line["queueOffset"] for line in lines if line["t"] == "cq" and line["found"]}
        lost = [o for o in ours if entries.get(o[1]) != o[2]]
        if lost:
            return "Java has no entry for %d records, the first %s" % (len(lost), lost[0])
        return None

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
