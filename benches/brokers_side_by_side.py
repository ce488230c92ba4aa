#!/usr/bin/env python3
"""Our broker and Apache RocketMQ's own 5.5.0 in turn, with the same program of the stock Java client over loopback.

  brokers_side_by_side.py REPUT [ROUNDS] [--seconds N] [--sizes 128,1024] [--threads 1,16,64] [--conf KEY=VALUE]...
                          [--full-memory]

REPUT is the built program. Both brokers run all the time over stores of their own, under one configuration, each with
its own name server; a round loads one and then the other, in an order that changes; the first round warms both up and
does not count. --full-memory fills the page cache before each load (fill_memory.py). A line a cell: messages a second
as the client saw them, messages a second of the broker's processor time (/proc/PID/stat of the broker alone), and the
99th percentile of a send. The medians of all rounds, their spread, and ours divided by RocketMQ's. Five rounds or more
are needed for a figure worth quoting.

The load and the stock servers are ../shared/interop/run.sh (INTEROP names another place); java and maven are needed.
"""
import argparse, collections, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
INTEROP = os.path.join(os.environ.get("INTEROP", ROOT / "../shared/interop"), "run.sh")
# RocketMQ's broker as its own start script runs it: both compilers, G1.
JVM = "-Xms1g -Xmx1g -XX:MaxDirectMemorySize=1g -XX:TieredStopAtLevel=4 -XX:-UseSerialGC -XX:+UseG1GC"
TICK = os.sysconf("SC_CLK_TCK")
LINE = re.compile(r"^(sync_send|batch32_send|push_consume) (\S+)(?: (x\d+))? rep=(-?\d+) tps=(\d+)(.*)$")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ports_of_a_broker():
    """A port whose neighbours are free as well: the fast channel is two below, replication one above."""
    while True:
        port = free_port()
        try:
            for other in (port - 2, port + 1):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", other))
            return port
        except OSError:
            continue


def await_port(port, process):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("a server ended while it started: %s" % process.args)
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("no server on port %d" % port)


class Side:
    """One broker with its name server."""

    def __init__(self, name, work, reput, extra):
        self.name, self.dir = name, work / name
        self.dir.mkdir()
        self.namesrv, self.port = free_port(), ports_of_a_broker()
        conf = self.dir / "broker.conf"
        keys = {
            "brokerName": "broker-a", "brokerClusterName": "DefaultCluster", "brokerId": "0", "brokerIP1": "127.0.0.1",
            "listenPort": self.port, "namesrvAddr": "127.0.0.1:%d" % self.namesrv, "storePathRootDir": self.dir / "store",
            "storePathCommitLog": self.dir / "store/commitlog", "autoCreateTopicEnable": "true", **extra,
        }
        conf.write_text("".join("%s=%s\n" % item for item in keys.items()))
        ours = name == "reput"
        self.servers = []
        self.start(self.namesrv, [reput, "namesrv", "-p", self.namesrv] if ours
                   else [INTEROP, "stock-namesrv", str(self.namesrv)])
        self.broker = self.start(self.port, [reput, "broker", "-c", conf] if ours else [INTEROP, "stock-broker", conf])

    def start(self, port, command):
        log = open(self.dir / ("%d.log" % port), "wb")
        env = {**os.environ, "HEAP": JVM} if "stock-broker" in command else None
        process = subprocess.Popen([str(c) for c in command], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   start_new_session=True)
        self.servers.append(process)
        await_port(port, process)
        return process

    def cpu(self):
        """Seconds of processor time of the broker so far. Its script has replaced itself by the server."""
        fields = pathlib.Path("/proc/%d/stat" % self.broker.pid).read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        for process in reversed(self.servers):
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)

    def load(self, args, seen):
        """One run of the client's program; the broker's time between two of its lines belongs to the later one."""
        command = [INTEROP, "bench", "127.0.0.1:%d" % self.namesrv, "127.0.0.1:%d" % self.port, str(args.seconds), "1",
                   args.sizes, args.threads]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        before = self.cpu()
        for line in client.stdout:
            used, before = self.cpu() - before, self.cpu()
            found = LINE.match(line)
            if not found or int(found[4]) < 0:
                continue
            what, size, threads, _, rate, rest = found.groups()
            number = re.search(r"got=(\d+) of (\d+)", rest)
            # The program consumes for a bounded time, so a slow machine leaves some; what it got counts.
            if (failed := re.search(r"fail=(\d+)", rest)) and int(failed[1]):
                sys.exit("%s: %s sends failed" % (self.name, failed[1]))
            messages = int(number[1]) if number else int(rate) * args.seconds
            p99 = re.search(r"p99=([\d.]+)ms", rest)
            cell = seen[(what, size, threads or "")][self.name]
            cell["rate"].append(int(rate))
            cell["per_cpu"].append(messages / max(used, 1 / TICK))
            if p99:
                cell["p99"].append(float(p99[1]))
            print("%-6s %-13s %-6s %-4s %9d/s %10.0f/cpu-s %s" % (
                self.name, what, size, threads or "", int(rate), cell["per_cpu"][-1], p99[0] if p99 else ""), flush=True)
        if client.wait() != 0:
            sys.exit("the client's program ended with %d" % client.returncode)


def cells():
    """(what, size, threads) -> broker -> unit -> figures."""
    return collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(list)))


def table(seen):
    def figure(values):
        return "%.4g (%.4g–%.4g)" % (statistics.median(values), min(values), max(values))
    print("\n%-30s %-10s %32s %32s %7s" % ("", "", "reput", "rocketmq", "ratio"))
    for cell, sides in seen.items():
        for unit in ("rate", "per_cpu", "p99"):
            ours, theirs = sides["reput"][unit], sides["rocketmq"][unit]
            if ours and theirs:
                ratio = statistics.median(ours) / statistics.median(theirs)
                print("%-30s %-10s %32s %32s %7.2f" % (" ".join(cell), unit, figure(ours), figure(theirs), ratio))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reput")
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--sizes", default="128,1024")
    parser.add_argument("--threads", default="1,16,64")
    parser.add_argument("--conf", action="append", default=[])
    parser.add_argument("--full-memory", action="store_true")
    args = parser.parse_args()
    extra = dict(item.split("=", 1) for item in args.conf)
    work = pathlib.Path(tempfile.mkdtemp(prefix="reput-brokers."))
    sides = []
    seen, warming = cells(), cells()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        for name in ("reput", "rocketmq"):
            sides.append(Side(name, work, os.path.abspath(args.reput), extra))
        time.sleep(2)
        for number in range(args.rounds + 1):
            for side in sides if number % 2 else reversed(sides):
                if args.full_memory:
                    subprocess.run([ROOT / "benches/fill_memory.py", work / "hole"], check=True, stdout=subprocess.DEVNULL)
                side.load(args, seen if number else warming)
        table(seen)
    finally:
        for side in sides:
            side.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
