#!/usr/bin/env python3
"""Everything at once for as long as is wanted, with kill -9 of the broker every few minutes.

    soak.py REPUT [--seconds 1200] [--kill-every 180] [--rate 20] [--sync] [--drain 120] [--keep DIR]

REPUT is the built program. A stock Java client (tests/java, class reput.Soak) sends plain, delayed, timed, popped,
ordered and transactional messages at --rate a second each, gives some back, and lets members of its groups come and
go; it holds what came against what was acknowledged. This program starts the broker, kills it, starts it again over
the same directory, and samples its memory: what the process holds for itself (RssAnon), without the mapped files.

Prints what the client says of each kind, then a line about kills and one about memory. Ends with `N passed, N failed`;
the exit code is 0 when nothing failed. Needs java 17 and maven.
"""
import argparse, os, pathlib, shutil, signal, socket, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
JAVA = ROOT / "tests" / "java"
# Memory of a life is judged from this age on; what is younger is still filling its tables.
SETTLED_S = 30
# How much more a later life may hold than an earlier one of the same age: a share, and MiB.
GROWTH, SLACK_MIB = 1.25, 16


def free_ports():
    """A name server port, and a broker port with the two that belong to it."""
    for base in range(21000 + os.getpid() % 5000, 32000, 10):
        try:
            held = [socket.create_server(("127.0.0.1", base + n)) for n in (0, 3, 5, 6)]
        except OSError:
            continue
        for one in held:
            one.close()
        return base, base + 5
    raise SystemExit("no free ports")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def memory_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return None


class Broker:
    def __init__(self, args, work):
        self.args, self.work, self.process = args, work, None
        self.namesrv, self.port = free_ports()
        self.lives = []  # of each, (age, MiB)
        self.recovered = []
        flush = "SYNC_FLUSH" if args.sync else "ASYNC_FLUSH"
        (work / "broker.conf").write_text(
            f"brokerName=broker-a\nbrokerIP1=127.0.0.1\nlistenPort={self.port}\nstorePathRootDir={work}/store\n"
            f"flushDiskType={flush}\nmappedFileSizeCommitLog=67108864\ntransactionTimeOut=2000\n"
            "transactionCheckInterval=3000\ndefaultMessageRequestMode=POP\n"
        )

    def start(self):
        log = open(self.work / "broker.log", "ab")
        command = [self.args.reput, "broker", "-c", str(self.work / "broker.conf"), "--namesrv-port", str(self.namesrv)]
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while not (listens(self.port) and listens(self.namesrv)):
            if self.process.poll() is not None or time.monotonic() - began > 120:
                tail = (self.work / "broker.log").read_text(errors="replace")[-2000:]
                raise SystemExit(f"the broker did not start:\n{tail}")
            time.sleep(0.05)
        self.recovered.append(time.monotonic() - began)
        self.lives.append([])
        self.began = time.monotonic()

    def sample(self):
        mib = memory_mib(self.process.pid)
        if mib is not None:
            self.lives[-1].append((time.monotonic() - self.began, mib))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        return not (self.work / "store" / "abort").exists()


def client(work, broker, args):
    classpath = work / "classpath"
    with open(work / "mvn.log", "wb") as log:
        built = subprocess.run(
            ["mvn", "-q", "-B", "-ntp", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}"],
            cwd=JAVA, stdout=log, stderr=log,
        )
    if built.returncode:
        raise SystemExit((work / "mvn.log").read_text(errors="replace")[-2000:])
    command = [
        "java", "-Djava.net.preferIPv4Stack=true", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx384m",
        f"-Duser.home={work}", f"-Drocketmq.client.logRoot={work}/log",
        "-cp", f"{JAVA}/target/classes:{classpath.read_text()}", "reput.Soak",
    ]
    command += [f"127.0.0.1:{broker.namesrv}", str(args.seconds), str(args.rate), str(args.drain)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(work / "client.err", "wb"), text=True
    )


def grows(lives):
    """What a life held at most once it had settled; whether the later half of the lives holds more than the earlier."""
    peaks = [max(mib for age, mib in life if age >= SETTLED_S) for life in lives if life and life[-1][0] >= SETTLED_S]
    halves = [peaks[: (len(peaks) + 1) // 2], peaks[len(peaks) // 2 :]]
    if len(peaks) == 1:
        # One life alone: its own halves.
        settled = [mib for age, mib in lives[0] if age >= SETTLED_S]
        halves = [settled[: len(settled) // 2 + 1], settled[len(settled) // 2 :]]
    if not peaks:
        return peaks, False
    return peaks, max(halves[1]) > max(halves[0]) * GROWTH + SLACK_MIB


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("reput")
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--kill-every", type=int, default=180)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--drain", type=int, default=120)
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--keep")
    args = parser.parse_args()
    work = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="reput-soak."))
    work.mkdir(parents=True, exist_ok=True)
    broker = Broker(args, work)
    soaking = None
    passed = failed = 0
    try:
        broker.start()
        soaking = client(work, broker, args)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(soaking.stdout), daemon=True)
        reader.start()
        began = time.monotonic()
        next_kill, kills = began + args.kill_every, 0
        while soaking.poll() is None:
            time.sleep(1)
            broker.sample()
            now = time.monotonic()
            if now >= next_kill and now - began < args.seconds - 10:
                broker.kill()
                kills += 1
                soaking.stdin.write("k")
                soaking.stdin.flush()
                broker.start()
                next_kill = time.monotonic() + args.kill_every
            elif broker.process.poll() is not None:
                raise SystemExit(f"the broker ended by itself with {broker.process.returncode}")
        reader.join()
        for line in lines:
            print(line.rstrip())
        passed += sum(line.startswith("PASS") for line in lines)
        failed += sum(line.startswith("FAIL") for line in lines)
        if not any(line.startswith(("PASS", "FAIL")) for line in lines):
            failed += 1
            print("FAIL the client did not report:", (work / "client.err").read_text(errors="replace")[-1500:])
        slowest = max(broker.recovered[1:], default=0)
        print(f"-- {kills} kills; back within {slowest:.1f} s at most")
        peaks, grown = grows(broker.lives)
        figures = " ".join(f"{peak:.1f}" for peak in peaks) or "no life was long enough to judge"
        failed, passed = (failed + 1, passed) if grown else (failed, passed + 1)
        print(f"{'FAIL' if grown else 'PASS'} memory of each life at most, MiB: {figures}")
        clean = broker.stop()
        passed, failed = (passed + 1, failed) if clean else (passed, failed + 1)
        print(f"{'PASS' if clean else 'FAIL'} the last stop was clean")
    finally:
        for process in (soaking, broker.process):
            if process and process.poll() is None:
                process.kill()
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
