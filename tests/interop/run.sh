#!/usr/bin/env bash
# Stock RocketMQ clients and servers against a broker of ours.
#   run.sh REPUT [PART...]
# REPUT is the built program. Parts, all of them without a word:
#   embedded   the scenarios of the stock Java, Go and Node clients, with our embedded name server
#   stock      the same with RocketMQ's own name server
#   kill       messages that were acknowledged survive kill -9 and a stop between send and receive, with consumers
#              going on where they were, for both flush types
#   swap       RocketMQ's own broker opens our directory and serves it to the same consumers, and ours opens its
#   mqadmin    RocketMQ's own command line tool: its everyday commands, one after another
#   halves     transactions that one broker began are ended under the other, ours and RocketMQ's, stopped and killed
#   grpc       the Python and Node clients that speak gRPC, through RocketMQ's own proxy: simple and push consumers,
#              acknowledgements, changed invisible times, order
#   light      light queues by the Java client: what one broker dispatched and committed the other goes on with
#   allocation the Java client's six ways to share the queues of a topic within a group
#   readme     the README's programs as they stand there, against the broker that it starts without any setting
# Prints PASS or FAIL a scenario; a scenario that did not report is a FAIL. Ends with `N passed, N failed`.
# With REPUT=stock the broker is RocketMQ's own, to see what a scenario gives there (not `swap`).
# The clients come from ../shared/interop (INTEROP names another place); java, maven, go and node are needed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../.." && pwd)
interop=$(realpath "${INTEROP:-$root/../shared/interop}")/run.sh
reput=${1:?the reput program}; shift
[ "$reput" = stock ] || reput=$(realpath "$reput")
parts=${*:-readme embedded stock mqadmin grpc kill swap halves light allocation}

JAVA="send_sync send_async send_oneway send_batch send_large send_too_large send_autocreate pull_no_topic compression
 send_ordered orderly_suspend push_concurrent push_broadcast long_poll rebalance offset_resume tag_filter sql92 delay_level
 timer_delay recall pull_consumer lite_pull_assign lite_pull_subscribe retry dlq reset_offset pop_consumer query_key
 query_uniqkey view_message trace admin_stats topic_delete tx_commit tx_rollback tx_checkback request_reply"
GO="send_sync send_async send_oneway send_batch push_concurrent push_orderly push_broadcast tag_filter sql92 delay_level retry
 dlq offset_resume compression pull_from tx_commit tx_rollback tx_checkback request_reply"
NODE="send push"
MQADMIN="updateTopic updateTopic_2 updateTopicPerm topicRoute topicStatus topicList topicList_2 topicClusterList allocateMQ updateOrderConf updateOrderConf_2
 updateOrderConf_3 updateSubGroup updateSubGroup_2 getConsumerConfig setConsumeMode clusterList clusterList_2 brokerStatus
 getBrokerConfig getBrokerConfig_2 updateBrokerConfig getNamesrvConfig brokerConsumeStats haStatus statsAll
 consumerProgress consumerProgress_2 consumerConnection producerConnection producer consumerStatus queryMsgById
 queryMsgByUniqueKey queryMsgByKey queryMsgByOffset queryMsgTraceById printMsg printMsgByQueue sendMessage consumeMessage
 queryCq sendMsgStatus checkMsgSendRT resetOffsetByTime resetOffsetByTime_2 skipAccumulatedMessage cloneGroupOffset
 cleanExpiredCQ deleteExpiredCommitLog cleanUnusedTopic setCommitLogReadAheadMode wipeWritePerm addWritePerm
 updateKvConfig deleteKvConfig exportMetadata exportMetadata_2 exportConfigs exportMetrics deleteSubGroup deleteTopic"
GRPC_PYTHON="ack change push fifo"
GRPC_NODE="ack change push"
# What they are from, as pip and npm name it.
PYTHON_CLIENT=rocketmq-python-client==5.1.2
NODE_CLIENT=rocketmq-client-nodejs@1.0.8

work=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/reput-interop.XXXXXX")")
# Some commands of mqadmin write into the directory where they run.
mkdir "$work/here"; cd "$work/here"
children=()
cleanup() {
  for p in "${children[@]:-}"; do [ -z "$p" ] || kill -9 -- "-$p" 2>/dev/null || true; done
  [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
passed=0; failed=0
pass() { passed=$((passed + 1)); echo "PASS $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }
tail_of() { [ ! -s "$1" ] || tail -n "${2:-15}" "$1" | sed 's/^/    /'; }

# Starts a command in a process group of its own; its id is in $started. `run.sh` may leave children behind.
start() { # log command...
  local log=$1; shift
  setsid "$@" >"$log" 2>&1 </dev/null &
  started=$!; children+=("$started"); disown "$started"
}
stop() { # pid signal
  kill "-$2" -- "-$1" 2>/dev/null || true
  for _ in $(seq 300); do kill -0 -- "-$1" 2>/dev/null || break; sleep 0.1; done
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
await() { # port pid seconds
  for _ in $(seq $(($3 * 10))); do
    listens "$1" && return 0
    kill -0 "$2" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
# A name server port, and a broker port with the two that belong to it: listenPort-2 and the port of replication.
next_port=$((20000 + RANDOM % 8000))
ports() {
  while :; do
    namesrv_port=$((next_port)); broker_port=$((next_port + 5)); next_port=$((next_port + 10))
    local busy=0 p
    for p in "$namesrv_port" $((broker_port - 2)) "$broker_port" $((broker_port + 1)); do ! listens "$p" || busy=1; done
    [ "$busy" = 1 ] || return 0
  done
}

# A broker.conf over $work/$1 that both brokers read. $2: `embedded` or the address of a name server; the rest: keys.
conf() {
  local dir=$work/$1; mkdir -p "$dir"
  {
    echo "brokerClusterName=DefaultCluster"; echo "brokerName=broker-a"; echo "brokerId=0"; echo "brokerIP1=127.0.0.1"
    echo "brokerIP2=127.0.0.1"; echo "bindAddress=127.0.0.1"
    echo "listenPort=$broker_port"; echo "haListenPort=$((broker_port + 1))"; echo "autoCreateTopicEnable=true"
    echo "storePathRootDir=$dir/store"; echo "storePathCommitLog=$dir/store/commitlog"
    echo "enablePropertyFilter=true"; echo "transactionTimeOut=2000"; echo "transactionCheckInterval=3000"
    echo "recallMessageEnable=true"; echo "traceTopicEnable=true"
    [ "$2" = embedded ] || echo "namesrvAddr=$2"
  } >"$dir/broker.conf"
  local to=$dir/broker.conf; shift 2
  [ $# = 0 ] || printf '%s\n' "$@" >>"$to"
}
namesrv() { # name
  start "$work/$1.log" "$interop" stock-namesrv "$namesrv_port"; namesrv_pid=$started
  await "$namesrv_port" "$namesrv_pid" 60 || { tail_of "$work/$1.log"; return 1; }
}
our_broker() { # name embedded|stock
  local with=()
  [ "$2" != embedded ] || with=(--namesrv-port "$namesrv_port")
  start "$work/$1/broker.log" "$reput" broker -c "$work/$1/broker.conf" "${with[@]}"; broker_pid=$started
  await "$broker_port" "$broker_pid" 60 || { tail_of "$work/$1/broker.log"; return 1; }
  [ "$2" != embedded ] || await "$namesrv_port" "$broker_pid" 10
}
stock_broker() { # name
  start "$work/$1/stock.log" "$interop" stock-broker "$work/$1/broker.conf"; broker_pid=$started
  await "$broker_port" "$broker_pid" 90 || { tail_of "$work/$1/stock.log"; return 1; }
}
any_broker() { if [ "$2" = ours ]; then our_broker "$1" stock; else stock_broker "$1"; fi; } # name ours|java
broker() { if [ "$reput" = stock ]; then stock_broker "$1"; else our_broker "$@"; fi; }

# Runs one client program and holds its PASS lines against the list of what must be there.
scenarios() { # part client prefix "names" command...
  local part=$1 client=$2 prefix=$3 names=$4 log; log=$work/$1-$2.out; shift 4
  "$@" >"$log" 2>"$log.err" </dev/null || true
  local name line
  for name in $names; do
    line=$(grep -E "^(PASS|FAIL) $prefix$name( |\$)" "$log" | tail -n 1 || true)
    case $line in
      PASS*) echo "PASS $part $client $name${line#PASS "$prefix$name"}" ;;
      FAIL*) echo "FAIL $part $client $name${line#FAIL "$prefix$name"}" ;;
      *) echo "FAIL $part $client $name did not report"; tail_of "$log.err" 5 ;;
    esac
  done
}
# One outcome is the client's own: `seek` of the Java lite pull consumer forgets that it moved as soon as the next pull
# begins, and an answer to the pull before, still on its way, then counts. What lies before the place comes too; with
# RocketMQ's own broker once in 60 runs on a busy machine. That outcome alone, of that scenario, is tried again, twice
# at most, and stays to be seen.
SEEK_RACE='^FAIL ([a-z]+ java lite_pull_assign .* polled .*: want 15 got 20)$'
after_race() { # part file command...
  local part=$1 file=$2; shift 2
  for _ in 1 2; do
    grep -qE "$SEEK_RACE" "$file" || return 0
    sed -i -E "s/$SEEK_RACE/    again: \1/" "$file"
    scenarios "$part" java "" lite_pull_assign "$@" lite_pull_assign >>"$file"
  done
}
count_lines() { # file
  cat "$1"
  passed=$((passed + $(grep -c '^PASS ' "$1" || true))); failed=$((failed + $(grep -c '^FAIL ' "$1" || true)))
}
# All client programs at once against one broker; they use topics and groups of their own.
clients() { # part
  local part=$1 ns=127.0.0.1:$namesrv_port at=127.0.0.1:$broker_port topic=NODE_$RANDOM
  # shellcheck disable=SC2086
  scenarios "$part" java "" "$JAVA" "$interop" java -n "$ns" -b "$at" -t 90 $JAVA >"$work/$part.java" & local a=$!
  # shellcheck disable=SC2086
  scenarios "$part" go "go_" "$GO" "$interop" go -n "$ns" -b "$at" -t 120 $GO >"$work/$part.go" & local b=$!
  wait "$a" "$b" || true
  after_race "$part" "$work/$part.java" "$interop" java -n "$ns" -b "$at" -t 90
  "$interop" stock-admin updateTopic -n "$ns" -b "$at" -t "$topic" >"$work/$part.admin" 2>&1 || tail_of "$work/$part.admin"
  scenarios "$part" node "alions_" "$NODE" timeout 90 "$interop" alions "$ns" "$topic" >"$work/$part.node"
  count_lines "$work/$part.java"; count_lines "$work/$part.go"; count_lines "$work/$part.node"
}

part_embedded() {
  ports
  if [ "$reput" = stock ]; then fail "embedded: RocketMQ's own broker has no embedded name server"; return; fi
  conf embedded embedded
  if ! our_broker embedded embedded; then fail "embedded: the broker did not start"; return; fi
  clients embedded
  stop_cleanly embedded
}
part_stock() {
  ports; conf stock "127.0.0.1:$namesrv_port"
  if ! namesrv stock-namesrv; then fail "stock: the name server did not start"; return; fi
  if ! broker stock stock; then fail "stock: the broker did not start"; return; fi
  sleep 2
  clients stock
  stop_cleanly stock
  stop "$namesrv_pid" KILL
}
part_mqadmin() {
  ports; local with=embedded
  if [ "$reput" = stock ]; then with=stock; namesrv mqadmin-namesrv; fi
  if [ "$with" = embedded ]; then conf mqadmin embedded; else conf mqadmin "127.0.0.1:$namesrv_port"; fi
  if ! broker mqadmin "$with"; then fail "mqadmin: the broker did not start"; return; fi
  scenarios mqadmin java mqadmin_ "$MQADMIN" "$interop" java -n "127.0.0.1:$namesrv_port" -b "127.0.0.1:$broker_port" \
    -t 90 mqadmin >"$work/mqadmin.java"
  count_lines "$work/mqadmin.java"
  mqadmin_lists
  stop_cleanly mqadmin
  [ "$reput" != stock ] || stop "$namesrv_pid" KILL
}
# What a command of mqadmin says, tried again until it says so.
says() { # name pattern arguments...
  local name=$1 pattern=$2 log=$work/mqadmin/$1.log; shift 2
  for _ in $(seq 12); do
    "$interop" stock-admin "$name" -n "127.0.0.1:$namesrv_port" "$@" >"$log" 2>&1 || true
    ! grep -qE -- "$pattern" "$log" || { pass "mqadmin $name"; return; }
    sleep 5
  done
  fail "mqadmin $name: no line like $pattern"; tail_of "$log"
}
# The commands that take lists, and the figures of a topic that they made.
mqadmin_lists() {
  local dir=$work/mqadmin at=127.0.0.1:$broker_port
  echo '[{"topicName":"Listed_1","readQueueNums":1,"writeQueueNums":1},{"topicName":"Listed_2","attributes":{"+message.type":"FIFO"}}]' >"$dir/topics.json"
  echo '[{"groupName":"GID_listed_1"},{"groupName":"GID_listed_2","retryMaxTimes":3}]' >"$dir/groups.json"
  says updateTopicList "success" -b "$at" -f "$dir/topics.json"
  says topicList "^Listed_2"
  says updateSubGroupList "success" -b "$at" -f "$dir/groups.json"
  says getConsumerConfig "retryMaxTimes *= *3" -g GID_listed_2
  says sendMessage "SEND_OK" -t Listed_1 -p hello
  # Nothing waits for anybody, one message came.
  says statsAll "^Listed_1 +0 +[0-9.]+ +1 +NO_CONSUMER" -t Listed_1
  # A group that was put at the end has consumed no more than it pulled.
  says skipAccumulatedMessage "Listed_1|broker-a" -g GID_listed_1 -t Listed_1 -f true
  says consumerProgress "^Consume Inflight Total: 0" -g GID_listed_1 -t Listed_1
}
# RocketMQ's own proxy before the name server and broker that run. $1: name, $2: its port, a free one without
proxy() {
  grpc_port=${2:-}
  while [ -z "$grpc_port" ] || listens "$grpc_port" || listens $((grpc_port + 1)); do
    [ -z "${2:-}" ] || { echo "    ports $2 and $(($2 + 1)) must be free"; return 1; }
    grpc_port=$next_port; next_port=$((next_port + 10))
  done
  printf '{"rocketMQClusterName":"DefaultCluster","namesrvAddr":"127.0.0.1:%s","grpcServerPort":%s,"remotingListenPort":%s,"proxyMode":"CLUSTER"}\n' \
    "$namesrv_port" "$grpc_port" $((grpc_port + 1)) >"$work/$1/proxy.json"
  start "$work/$1/proxy.log" "$interop" stock-proxy "$work/$1/proxy.json"; proxy_pid=$started
  await "$grpc_port" "$proxy_pid" 90 || { tail_of "$work/$1/proxy.log"; return 1; }
}
python_grpc() { # where to
  [ -x "$1/bin/python" ] || { python3 -m venv "$1" && "$1/bin/pip" install -q "$PYTHON_CLIENT"; }
}
# What is popped and not acknowledged when the broker is killed comes again: from ours, and from RocketMQ's own over
# our directory.
grpc_takeover() { # topic group
  local dir=$work/grpc next half
  for next in ours java; do
    for half in hold regain; do
      scenarios grpc "python-$next" "py_" "$half" env HOME="$work/home" timeout 400 "$dir/venv/bin/python" "$here/grpc/clients.py" "127.0.0.1:$grpc_port" \
        "${1}_$next" "${1}_FIFO" "$2$next" "${2}_FIFO" "$half" >"$work/grpc.$next"
      count_lines "$work/grpc.$next"
      [ "$half" = hold ] || break
      # So that the group's offset is on the disk.
      sleep 7
      stop "$broker_pid" KILL
      if [ "$next" = java ]; then stock_broker grpc; else broker grpc stock; fi || { fail "grpc: the $next broker did not start"; return; }
    done
  done
}
part_grpc() {
  local dir=$work/grpc at topic=GRPC_$RANDOM group=GID_$RANDOM tools
  ports; conf grpc "127.0.0.1:$namesrv_port"
  namesrv grpc-namesrv || { fail "grpc: the name server did not start"; return; }
  broker grpc stock || { fail "grpc: the broker did not start"; return; }
  mkdir -p "$work/home" "$dir/node"
  python_grpc "$dir/venv" >"$dir/pip.log" 2>&1 || { fail "grpc: $PYTHON_CLIENT was not installed"; tail_of "$dir/pip.log"; }
  (cd "$dir/node" && npm install --silent --no-audit --no-fund "$NODE_CLIENT") >"$dir/npm.log" 2>&1 || { fail "grpc: $NODE_CLIENT was not installed"; tail_of "$dir/npm.log"; }
  cp "$here/grpc/clients.js" "$dir/node/"
  proxy grpc || { fail "grpc: the proxy did not start"; return; }
  at="-n 127.0.0.1:$namesrv_port -b 127.0.0.1:$broker_port"
  for tools in "updateTopic $at -t ${topic}_PY" "updateTopic $at -t ${topic}_JS" "updateTopic $at -t ${topic}_ours" "updateTopic $at -t ${topic}_java" \
    "updateTopic $at -t ${topic}_FIFO -o true -a +message.type=FIFO" \
    "updateSubGroup $at -g ${group}_FIFO -o true"; do
    # shellcheck disable=SC2086
    "$interop" stock-admin $tools >"$dir/admin.log" 2>&1 || tail_of "$dir/admin.log"
  done
  # shellcheck disable=SC2086
  scenarios grpc python "py_" "$GRPC_PYTHON" env HOME="$work/home" timeout 400 "$dir/venv/bin/python" "$here/grpc/clients.py" "127.0.0.1:$grpc_port" \
    "${topic}_PY" "${topic}_FIFO" "$group" "${group}_FIFO" $GRPC_PYTHON >"$work/grpc.python" & local a=$!
  # shellcheck disable=SC2086
  scenarios grpc node "js_" "$GRPC_NODE" env HOME="$work/home" timeout 400 node "$dir/node/clients.js" "127.0.0.1:$grpc_port" "${topic}_JS" "$group" $GRPC_NODE >"$work/grpc.node" & local b=$!
  wait "$a" "$b" || true
  count_lines "$work/grpc.python"; count_lines "$work/grpc.node"
  grpc_takeover "$topic" "$group"
  stop "$proxy_pid" KILL
  stop_cleanly grpc
  stop "$namesrv_pid" KILL
}
# SIGTERM must end the broker soon, and end it well: the mark of an unclean stop is gone.
stop_cleanly() {
  local at=$SECONDS
  stop "$broker_pid" TERM
  if [ -e "$work/$1/store/abort" ]; then fail "$1 stop: abort is still there after $((SECONDS - at)) s"; tail_of "$work/$1/broker.log"
  else pass "$1 stop: clean after $((SECONDS - at)) s"; fi
}

java_client() { java_client_of reput.Client "$@"; }
java_client_of() { # class arguments...
  timeout 180 java -Djava.net.preferIPv4Stack=true -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m -Duser.home="$work/home" \
    -Drocketmq.client.logRoot="$work/home/log" -cp "$root/tests/java/target/classes:$(cat "$work/classpath")" "$@"
}
build_client() {
  [ ! -s "$work/classpath" ] || return 0
  mkdir -p "$work/home"
  (cd "$root/tests/java" && mvn -q -B -ntp compile dependency:build-classpath -Dmdep.outputFile="$work/classpath" >"$work/mvn.log" 2>&1) ||
    { tail_of "$work/mvn.log" 30; return 1; }
}
# Sends COUNT messages and notes those that were acknowledged.
send() { # name prefix count
  java_client send "127.0.0.1:$namesrv_port" "Swap_$1" "$2" "$3" "$work/$1/sent.$2" >"$work/$1/send.$2.log" 2>&1 ||
    { fail "$1: sending $2"; tail_of "$work/$1/send.$2.log"; return 1; }
}
# A group receives everything in a file of expected bodies; what it got goes to $work/NAME/got.GROUP.LABEL.
receive() { # name group expected label
  java_client receive "127.0.0.1:$namesrv_port" "Swap_$1" "$2" "$3" "$work/$1/got.$2.$4" 90 >"$work/$1/receive.$2.$4.log" 2>&1
}
expect() { # what name group expected label
  if receive "$2" "$3" "$4" "$5"; then pass "$1 ($(wc -l <"$4") messages)"
  else fail "$1: $(tail -n 1 "$work/$2/receive.$3.$5.log")"; tail_of "$work/$2/broker.log"; fi
}
# None of the bodies of a file may have come to the group under this label: it went on where it was.
not_again() { # what name group label file
  local again; again=$(sort -u "$work/$2/got.$3.$4" | comm -12 - <(sort -u "$5") | wc -l)
  if [ "$again" = 0 ]; then pass "$1"; else fail "$1: $again of $(wc -l <"$5") came again"; fi
}

# Messages acknowledged while the broker is killed are there afterwards, and consumers go on where they were.
kill_between() { # name flush
  local n=$1; ports; conf "$n" embedded "flushDiskType=$2"
  local with=embedded
  if [ "$reput" = stock ]; then with=stock; namesrv "$n-namesrv"; echo "namesrvAddr=127.0.0.1:$namesrv_port" >>"$work/$n/broker.conf"; fi
  broker "$n" "$with" || { fail "$n: the broker did not start"; return; }
  send "$n" first 300 || return 0
  expect "$n: received before the kill" "$n" resume "$work/$n/sent.first" before
  # Committed offsets are written every five seconds, ours as RocketMQ's.
  sleep 7
  java_client send "127.0.0.1:$namesrv_port" "Swap_$n" flood 0 "$work/$n/sent.flood" >"$work/$n/flood.log" 2>&1 &
  local sender=$!
  for _ in $(seq 200); do [ "$(wc -l 2>/dev/null <"$work/$n/sent.flood" || echo 0)" -lt 500 ] || break; sleep 0.1; done
  stop "$broker_pid" KILL
  wait "$sender" || true
  [ "$(wc -l <"$work/$n/sent.flood")" -ge 500 ] || { fail "$n: only $(wc -l <"$work/$n/sent.flood") messages acknowledged"; return; }
  broker "$n" "$with" || { fail "$n: the broker did not start again"; return; }
  expect "$n: after kill -9 the group receives what was acknowledged since" "$n" resume "$work/$n/sent.flood" after
  not_again "$n: after kill -9 the group goes on where it was" "$n" resume after "$work/$n/sent.first"
  cat "$work/$n/sent.first" "$work/$n/sent.flood" >"$work/$n/sent.all"
  expect "$n: after kill -9 a new group receives all" "$n" fresh "$work/$n/sent.all" after
  # A stop in place of the kill, at once: nothing is due to a timer.
  send "$n" second 300 || return 0
  expect "$n: received before the stop" "$n" resume "$work/$n/sent.second" second
  stop "$broker_pid" TERM
  broker "$n" "$with" || { fail "$n: the broker did not start after the stop"; return; }
  send "$n" third 100 || return 0
  expect "$n: received after the stop" "$n" resume "$work/$n/sent.third" third
  cat "$work/$n/sent.second" "$work/$n/sent.flood" >"$work/$n/sent.before"
  not_again "$n: after the stop the group goes on where it was" "$n" resume third "$work/$n/sent.before"
  stop_cleanly "$n"
  [ "$reput" != stock ] || stop "$namesrv_pid" KILL
}
part_kill() {
  build_client || { fail "kill: the client was not built"; return; }
  kill_between kill_async ASYNC_FLUSH
  kill_between kill_sync SYNC_FLUSH
}

# One directory under both brokers in turn: ours, theirs, ours, theirs, stopped and killed.
part_swap() {
  build_client || { fail "swap: the client was not built"; return; }
  local n=swap step=0 maker end
  ports; conf "$n" "127.0.0.1:$namesrv_port"
  namesrv swap-namesrv || { fail "swap: the name server did not start"; return; }
  : >"$work/$n/sent.all"; : >"$work/$n/sent.old"
  for maker in ours:TERM java:TERM ours:KILL java:KILL ours:TERM; do
    end=${maker#*:}; maker=${maker%:*}; step=$((step + 1))
    any_broker "$n" "$maker" || { fail "swap $step: $maker broker did not open the directory"; break; }
    sleep 2
    if [ "$step" -gt 1 ]; then
      expect "swap $step: $maker broker serves all that was sent to a new group" "$n" "fresh$step" "$work/$n/sent.all" "all$step"
    fi
    send "$n" "step$step" 200 || break
    cat "$work/$n/sent.step$step" >>"$work/$n/sent.all"
    expect "swap $step: $maker broker serves the new messages to the old group" "$n" steady "$work/$n/sent.step$step" "step$step"
    [ "$step" = 1 ] || not_again "swap $step: with the $maker broker the group goes on where it was" "$n" steady "step$step" "$work/$n/sent.old"
    cat "$work/$n/sent.step$step" >>"$work/$n/sent.old"
    # So that the committed offsets are on the disk even when the broker is killed.
    [ "$end" = TERM ] || sleep 7
    stop "$broker_pid" "$end"
  done
  [ "$step" = 5 ] || fail "swap: ended at step $step of 5"
  stop "$namesrv_pid" KILL
}

# Half messages sent under one broker; the other asks their producer, delivers what it commits and nothing else.
part_halves() {
  build_client || { fail "halves: the client was not built"; return; }
  local n=halves step=0 maker taker end
  ports; conf "$n" "127.0.0.1:$namesrv_port"
  namesrv halves-namesrv || { fail "halves: the name server did not start"; return; }
  for maker in ours:java:TERM java:ours:TERM ours:java:KILL java:ours:KILL; do
    IFS=: read -r maker taker end <<<"$maker"; step=$((step + 1))
    any_broker "$n" "$maker" || { fail "halves $step: $maker broker did not open the directory"; break; }
    send "$n" "open$step" 1 || break
    java_client half "127.0.0.1:$namesrv_port" "Swap_$n" "PID_halves$step" "half$step" 40 "$work/$n/halves$step" >"$work/$n/half$step.log" 2>&1 ||
      { fail "halves $step: sending under $maker"; tail_of "$work/$n/half$step.log"; break; }
    # Asked once or twice about some of them, and the offsets are on the disk.
    sleep 8
    stop "$broker_pid" "$end"
    any_broker "$n" "$taker" || { fail "halves $step: $taker broker did not open the directory"; break; }
    if java_client decide "127.0.0.1:$namesrv_port" "Swap_$n" "PID_halves$step" "$work/$n/halves$step" "$work/$n/committed$step" 90 >"$work/$n/decide$step.log" 2>&1; then
      pass "halves $step: $taker broker asks about all that was sent under $maker"
    else fail "halves $step: $(tail -n 1 "$work/$n/decide$step.log")"; tail_of "$work/$n/broker.log"; break; fi
    expect "halves $step: $taker broker delivers what was committed" "$n" "halves$step" "$work/$n/committed$step" "$step"
    if grep -qE -- "^half$step-[0-9]*[13579]\$" "$work/$n/got.halves$step.$step"; then fail "halves $step: a message that was rolled back came"
    else pass "halves $step: nothing that was rolled back comes"; fi
    stop "$broker_pid" TERM
  done
  [ "$step" = 4 ] || fail "halves: ended at step $step of 4"
  stop "$namesrv_pid" KILL
}

# Light queues under both brokers in turn, over one directory.
part_light() {
  build_client || { fail "light: the client was not built"; return; }
  local n=light from=0 maker
  ports; conf "$n" "127.0.0.1:$namesrv_port" enableLmq=true enableMultiDispatch=true
  namesrv light-namesrv || { fail "light: the name server did not start"; return; }
  for maker in ours java ours; do
    any_broker "$n" "$maker" || { fail "light: $maker broker did not open the directory"; break; }
    if java_client_of reput.Light "127.0.0.1:$namesrv_port" Light "$from" 21 >"$work/$n/light.$from.log" 2>&1; then
      pass "light: from $from under the $maker broker"
    else fail "light: from $from under the $maker broker"; tail_of "$work/$n/light.$from.log"; break; fi
    from=$((from + 21))
    stop "$broker_pid" TERM
  done
  stop "$namesrv_pid" KILL
}

# Six groups of two consumers each, each with a strategy of its own; the broker's name says in which room it is.
part_allocation() {
  build_client || { fail "allocation: the client was not built"; return; }
  ports; conf allocation "127.0.0.1:$namesrv_port" brokerName=room1@broker-a defaultTopicQueueNums=8
  namesrv allocation-namesrv || { fail "allocation: the name server did not start"; return; }
  broker allocation stock || { fail "allocation: the broker did not start"; return; }
  scenarios allocation java "" "averagely by_circle by_config by_machine_room consistent_hash machine_room_nearby" \
    java_client_of reput.Allocation "127.0.0.1:$namesrv_port" room1@broker-a >"$work/allocation.java"
  count_lines "$work/allocation.java"
  stop_cleanly allocation
  stop "$namesrv_pid" KILL
}

# The first block of a language in the README.
snippet() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```/ { if (on) exit } on' "$root/README.md"; }
received() { # language command...
  local language=$1 log=$work/readme/$1.log; shift
  if timeout 120 "$@" >"$log" 2>&1 </dev/null && grep -q '^received .*paid' "$log"; then
    pass "readme $language: $(grep '^received' "$log" | head -n 1)"
  else fail "readme $language"; tail_of "$log"; fi
}
part_readme() {
  [ "$reput" != stock ] || { fail "readme: it is about our broker"; return; }
  build_client || { fail "readme: the client was not built"; return; }
  local dir=$work/readme; mkdir -p "$dir/run" "$dir/java" "$dir/go"
  namesrv_port=9876; broker_port=10911
  if listens 9876 || listens 10911; then fail "readme: ports 9876 and 10911 must be free"; return; fi
  start "$dir/broker.log" env -C "$dir/run" "$reput"; broker_pid=$started
  if ! await 10911 "$broker_pid" 60 || ! await 9876 "$broker_pid" 10; then fail "readme: the broker did not start"; tail_of "$dir/broker.log"; return; fi
  snippet java >"$dir/java/Orders.java"
  received java java -Duser.home="$work/home" -cp "$(cat "$work/classpath")" "$dir/java/Orders.java"
  cp "$(dirname "$interop")"/go/go.mod "$(dirname "$interop")"/go/go.sum "$dir/go/"; snippet go >"$dir/go/main.go"
  # Fetching and compiling the client takes as long as it takes.
  if go -C "$dir/go" build -o orders . >"$dir/go.build" 2>&1; then received go "$dir/go/orders"
  else fail "readme go: not built"; tail_of "$dir/go.build"; fi
  snippet python >"$dir/orders.py"
  if python_grpc "$dir/venv" >"$dir/pip.log" 2>&1 && "$interop" stock-admin updateTopic -n 127.0.0.1:9876 -c DefaultCluster -t orders-py >"$dir/admin.log" 2>&1 &&
    proxy readme 8081; then
    received python env HOME="$work/home" "$dir/venv/bin/python" "$dir/orders.py"
    stop "$proxy_pid" KILL
  else fail "readme python: no client, topic or proxy"; tail_of "$dir/pip.log"; tail_of "$dir/admin.log"; fi
  # Ctrl-C, as the README says.
  stop "$broker_pid" INT
  if [ -d "$dir/run/store/commitlog" ] && [ ! -e "$dir/run/store/abort" ] && ! listens 10911; then pass "readme: Ctrl-C stops it cleanly"
  else fail "readme: Ctrl-C"; tail_of "$dir/broker.log"; fi
}

[ -x "$interop" ] || { echo "FAIL no clients at $interop"; echo "0 passed, 1 failed"; exit 1; }
for part in $parts; do
  at=$SECONDS
  "part_$part"
  echo "-- $part took $((SECONDS - at)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
