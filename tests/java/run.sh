#!/usr/bin/env bash
# Directories of ours open in Apache RocketMQ's own store and the other way round, clean and killed.
#   run.sh WORKLOAD [ours|java|self] [CASE...]
# WORKLOAD is the built example program `workload` (cargo build --release --example workload).
#   ours   ours writes, Java opens, checks, appends and closes, ours opens again and checks
#   java   Java writes, ours opens and checks, writes on, checks again
#   self   Java writes, Java opens: the checks themselves, when they are in doubt
# Without a direction both of the first. Ends with a line `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")"
workload=$(realpath "${1:?the workload program}"); shift
directions="ours java"
case "${1:-}" in ours|java|self) directions=$1; shift ;; esac
wanted=" $* "
count=${COUNT:-3000}
work=$(mktemp -d "${TMPDIR:-/tmp}/reput-java.XXXXXX")
pids=()
cleanup() { for p in "${pids[@]:-}"; do [ -z "$p" ] || kill -9 "$p" 2>/dev/null || true; done; [ -n "${KEEP:-}" ] || rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM
passed=0; failed=0
pass() { passed=$((passed + 1)); echo "PASS $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }

mvn -q -B -ntp test-compile dependency:build-classpath -Dmdep.outputFile="$work/classpath" >"$work/mvn.log" 2>&1 || { cat "$work/mvn.log"; echo "0 passed, 1 failed"; exit 1; }
java_args=$(sed -n 's/.*<java.args>\(.*\)<\/java.args>.*/\1/p' pom.xml)
java_write() { # shellcheck disable=SC2086
  java $java_args -Duser.home="$work" -cp "target/classes:$(cat "$work/classpath")" reput.Write "$@"; }

# A case's folder: store.conf, plan, and an empty place for the store and the acknowledgements.
prepare() { # folder plan topics queues body keys...
  mkdir -p "$1"; echo "$2 $3 $4 $5" >"$1/plan"; : >"$1/acks.jsonl"; local dir=$1; shift 5
  printf '%s\n' "$@" >"$dir/store.conf"
}

# Ours writes until `count` are acknowledged; with `kill` it then is killed in the middle of writing.
ours_write() { # folder plan topics queues body threads clean|kill
  local dir=$1 end=$7 n=$count
  [ "$end" = clean ] || n=0
  "$workload" write "$dir/store" --acks "$dir/acks.jsonl" --config "$dir/store.conf" --plan "$2" --topics "$3" --queues "$4" \
    --max-body "$5" --threads "$6" --count "$n" >"$dir/write.log" 2>&1 &
  local pid=$!; pids+=("$pid")
  if [ "$end" = kill ]; then
    for _ in $(seq 600); do
      [ "$(wc -l <"$dir/acks.jsonl")" -lt "$count" ] || break
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.05
    done
    kill -9 "$pid" 2>/dev/null || { cat "$dir/write.log"; return 1; }
    wait "$pid" 2>/dev/null || true
    [ "$(wc -l <"$dir/acks.jsonl")" -ge "$count" ] || { cat "$dir/write.log"; return 1; }
  else
    wait "$pid" || { cat "$dir/write.log"; return 1; }
  fi
}
ours_check() { "$workload" check "$1/store" --acks "$1/acks.jsonl" --config "$1/store.conf" >"$1/check.log" 2>&1 || { tail -n 20 "$1/check.log"; return 1; }; }

each_case() { # function
  local name plan topics queues body threads keys ends
  while read -r name plan topics queues body threads keys; do
    case $name in ''|'#'*) continue ;; clean:*) ends=clean; name=${name#clean:} ;; *) ends='clean kill' ;; esac
    [ "$wanted" = "  " ] || [[ "$wanted" == *" $name "* ]] || continue
    for end in $ends; do
      # shellcheck disable=SC2086
      "$1" "$name" "$end" "$plan" "$topics" "$queues" "$body" "$threads" $keys </dev/null
    done
  done <cases.txt
}
suffix() { [ "$1" = clean ] && echo clean || echo killed; }

one_of_ours() { # name end plan topics queues body threads keys...
  local dir; dir="$work/ours/$1-$(suffix "$2")"; local name=$1 end=$2 plan=$3 topics=$4 queues=$5 body=$6 threads=$7; shift 7
  prepare "$dir" "$plan" "$topics" "$queues" "$body" "$@"
  ours_write "$dir" "$plan" "$topics" "$queues" "$body" "$threads" "$end" || { fail "ours $name $end: our writer"; rm -rf "$dir"; return 0; }
}
one_of_java() {
  local kind=$direction dir; dir="$work/$kind/$1-$(suffix "$2")"; local name=$1 end=$2 plan=$3 topics=$4 queues=$5 body=$6 threads=$7; shift 7
  prepare "$dir" "$plan" "$topics" "$queues" "$body" "$@"
  local halt=clean want=0; [ "$end" = clean ] || { halt=halt; want=137; }
  local status=0
  java_write "$dir/store" "$dir/acks.jsonl" "$dir/store.conf" "$plan" "$topics" "$queues" "$body" "$threads" "$count" $halt >"$dir/write.log" 2>&1 || status=$?
  [ "$status" = "$want" ] || { tail -n 20 "$dir/write.log"; fail "$kind $name $end: Java's writer ended with $status"; rm -rf "$dir"; return 0; }
  [ "$kind" = java ] || return 0
  if ! ours_check "$dir"; then fail "java $name $end: ours opens Java's"; return 0; fi
  # Ours goes on where Java stopped.
  if ours_write "$dir" "$plan" "$topics" "$queues" "$body" "$threads" clean && ours_check "$dir"; then
    pass "java $name $end: $(tail -n 1 "$dir/check.log")"
  else
    fail "java $name $end: ours writes on in Java's"
  fi
  rm -rf "$dir"
}

# All directories below one folder through Java's store, by surefire; then what Java left through ours.
java_opens() { # folder
  local status=0
  mvn -q -B -ntp surefire:test -Dreput.cases="$1" >"$work/surefire.log" 2>&1 || status=$?
  local dir name report; report=$(ls target/surefire-reports/TEST-*.xml)
  for dir in "$1"/*/; do
    name=$(basename "$dir")
    if ! python3 - "$report" "$name" "$1" <<'P'
import os, sys, xml.etree.ElementTree as tree
report, name, cases = sys.argv[1:]
tests = tree.parse(report).getroot().findall("testcase")
place = sorted(d for d in os.listdir(cases) if os.path.isdir(os.path.join(cases, d))).index(name) + 1
mine = [t for t in tests if t.get("name", "").endswith("[%d]" % place)]
if len(mine) != 1 or mine[0].find("skipped") is not None:
    print("no result for " + name); sys.exit(1)
for kind in ("failure", "error"):
    found = mine[0].find(kind)
    if found is not None:
        print((found.text or found.get("message") or "")[:3000]); sys.exit(1)
P
    then fail "$direction $name: Java opens it"; continue; fi
    if [ "$direction" = ours ] && ! ours_check "$dir"; then fail "$direction $name: ours opens what Java left"; continue; fi
    pass "$direction $name"
  done
  [ "$status" = 0 ] || [ "$failed" -gt 0 ] || fail "surefire ended with $status"
}

for direction in $directions; do
  case $direction in
    ours) each_case one_of_ours; java_opens "$work/ours"; [ -n "${KEEP:-}" ] || rm -rf "$work/ours" ;;
    java) each_case one_of_java ;;
    self) each_case one_of_java; java_opens "$work/self" ;;
  esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
