"""Java's own store as a program that opens directories: tests/java's reput.Dump, one JVM for all of them."""
import json
import os
import re
import select
import subprocess
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "java")
# Java takes a tenth of a second; a directory on which it sits for so long is one on which it hangs.
PATIENCE = 90


def build(work):
    """Compiles the Java side; returns the class path."""
    path = os.path.join(work, "classpath")
    subprocess.run(["mvn", "-q", "-B", "-ntp", "compile", "dependency:build-classpath", "-Dmdep.outputFile=" + path],
                   cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    with open(path) as text:
        return os.path.join(HERE, "target", "classes") + ":" + text.read()


class Reader:
    def __init__(self, classpath=None):
        self.work = tempfile.mkdtemp(prefix="reput-java-reader.")
        self.classpath = classpath if classpath and classpath != "build" else build(self.work)
        with open(os.path.join(HERE, "pom.xml")) as text:
            self.words = re.search(r"<java.args>(.*)</java.args>", text.read()).group(1).split()
        self.process = None
        self.count = 0

    def start(self):
        self.log = open(os.path.join(self.work, "log"), "ab")
        self.process = subprocess.Popen(
            ["java", *self.words, "-Duser.home=" + self.work, "-cp", self.classpath, "reput.Dump"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.rest = b""

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
        if self.process is None:
            self.start()
        self.count += 1
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

    def agrees(self, store, conf, listing):
        """Whether Java serves what ours has listed: None or what is different."""
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
