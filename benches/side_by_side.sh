#!/usr/bin/env bash
# Our store and the Java store of Apache RocketMQ 5.5.0 in turn, round by round, on the same disk and with the same
# workloads; then the medians, the spread, and ours divided by Java's.
#   side_by_side.sh [ROUNDS] [pages|put|sync|batch|pull|reput|lag|query|recover]...
# Five rounds or more are needed for a figure worth quoting. BENCH_DIR is where the stores lie. FULL_MEMORY=1 fills the
# page cache before each call (fill_memory.py). Lines go to $BENCH_DIR/results.jsonl. `pages` is what the new pages of a
# mapped file cost by themselves, whoever writes them: no store is below that. The Java side is
# ../shared/peers/java-store-bench (JAVA_BENCH names another place).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
java_bench=${JAVA_BENCH:-$root/../shared/peers/java-store-bench}/run.sh
export BENCH_DIR=${BENCH_DIR:-${TMPDIR:-/tmp}/reput-side-by-side}
rounds=${1:-5}; [ $# = 0 ] || shift
parts=${*:-pages put sync batch pull reput lag query recover}
mkdir -p "$BENCH_DIR"; dir=$BENCH_DIR/ours; java_dir=$BENCH_DIR/java; out=$BENCH_DIR/results.jsonl; : >"$out"
trap 'rm -rf "$dir" "$java_dir" "$BENCH_DIR/hole"*' EXIT
(cd "$root" && cargo build -q --release --example store_bench --no-default-features)
ours=${CARGO_TARGET_DIR:-$root/target}/release/examples/store_bench
ms=${MS:-2000}; fill=${FILL:-1000000}; log=${LOG:-1g}; keys=${KEYS:-2500000}

both() { # command options...: the same call to both, in an order that changes from round to round
  local command=$1; shift
  if [ $((round % 2)) = 0 ]; then ours_once "$command" "$@"; java_once "$command" "$@"
  else java_once "$command" "$@"; ours_once "$command" "$@"; fi
}
full() { [ -z "${FULL_MEMORY:-}" ] || "$root/benches/fill_memory.py" "$BENCH_DIR/hole" >/dev/null; }
ours_once() { local command=$1; shift; full; "$ours" "$command" --dir "$dir" "$@" | noted; }
java_once() { local command=$1; shift; full; T=240 "$java_bench" "$command" --dir "$java_dir" "$@" | grep '^{' | noted; }
noted() { sed "s/^{/{\"part\":\"$part\",/" | tee -a "$out"; }
quietly() { "$@" >/dev/null; }

for round in $(seq "$rounds"); do
  for part in $parts; do
    case $part in
      pages) ours_once pages --bytes 900m ;;
      put)   both put --jit 2500 --warm 300 --ms "$ms" --maxbytes 900m --cells 128:1,128:4,128:16,128:64,1k:1,1k:4 ;;
      batch) both put --jit 2500 --warm 300 --ms "$ms" --maxbytes 900m --cells 128:1:0:32,128:4:0:32 ;;
      sync)  both put --set flushDiskType=SYNC_FLUSH --jit 1000 --warm 300 --ms "$ms" --cells 1k:1,1k:16,1k:64,1k:4:256 ;;
      pull)  quietly both fill --msgs "$fill" --cells 128:2:0:1:1:8:key
             both pull --warm 1500 --ms "$ms" --cells 1:all:ref,4:all:ref,1:all:copy,1:tag:ref --end wipe ;;
      reput) quietly both fill --msgs "$fill" --cells 128:2:0:1:1:8:key
             both reput --jit 2500 --end halt
             part=reput-queues both reput --jit 2500 --set messageIndexEnable=false --end halt
             rm -rf "$dir" "$java_dir" ;;
      lag)   both lag --jit 1500 --ms 2500 --rates 0,100000 ;;
      query) quietly both fill --msgs "$keys" --cells 128:2:0:1:1:8:key
             both query --keys "$keys" --warm 2000 --ms "$ms" --end wipe ;;
      recover)
        quietly both fill --msgs 100000000 --bytes "$log" --cells 1k:2:0:1:1:8:tag
        both recover --end clean
        # Java's process ends with a kill's status.
        quietly both fill --keep true --msgs 30000 --cells 1k:2:0:1:1:8:tag --end kill || true
        touch "$java_dir/abort"; both recover --end halt; rm -rf "$dir" "$java_dir" ;;
      *) echo "no such part: $part" >&2; exit 2 ;;
    esac
  done
done

python3 - "$out" <<'P'
import collections, json, statistics, sys
names = ("part", "bench", "mode", "body", "threads", "window", "batch", "props", "filter", "read", "abort", "bg_rate")
groups = collections.OrderedDict()
for line in open(sys.argv[1]):
    row = json.loads(line)
    if row["bench"] == "fill": continue
    key = tuple((n, row[n]) for n in names if n in row)
    groups.setdefault(key, {}).setdefault(row["impl"], []).append(row)
print("%-52s %12s %25s %12s %25s %7s %9s" % ("", "reput", "(spread)", "java", "(spread)", "ratio", "cpu ratio"))
units = {"recover": ["total_s"], "query": ["queries_s"], "lag": ["p50_us", "p99_us"]}
cpus = {"recover": "cpu_s", "pull": "cpu_us_per_call", "query": "cpu_us_per_query"}
def line(key, sides, unit, cpu):
    cells, medians, spent = [], [], []
    form = {"total_s": "%.3f", "p50_us": "%.1f", "p99_us": "%.1f"}.get(unit, "%.0f")
    for side in ("reput", "java"):
        values = [row[unit] for row in sides.get(side, [])]
        if not values: cells += ["-", "-"]; continue
        medians.append(statistics.median(values)); spent.append(statistics.median(row.get(cpu, 0) for row in sides[side]))
        cells += [form % medians[-1], ("(" + form + " to " + form + ")") % (min(values), max(values))]
    ratio = cpu_ratio = "-"
    if len(medians) == 2 and all(medians):
        # Above 1 is better: more messages a second, or less time.
        better = medians[0] / medians[1] if unit.endswith("s_s") else medians[1] / medians[0]
        ratio = "%.2f" % better
        if spent[0]: cpu_ratio = "%.2f" % (spent[1] / spent[0])
    what = " ".join(str(v) for n, v in key if n != "bench" and v not in ("block", 0))
    print("%-52s %12s %25s %12s %25s %7s %9s" % (what + (" " + unit if unit[0] == "p" else ""), *cells, ratio, cpu_ratio))
for key, sides in groups.items():
    bench = key[1][1]
    if bench == "pages":
        for unit in ("mb_s", "cpu_us_per_page"):
            values = [row[unit] for row in sides["reput"]]
            print("%-52s %12.2f %25s" % ("pages " + unit, statistics.median(values), "(%.2f to %.2f)" % (min(values), max(values))))
        continue
    for unit in units.get(bench, ["msgs_s"]): line(key, sides, unit, cpus.get(bench, "cpu_us_per_msg"))
P
