#!/usr/bin/env bash
# Instructions per message of the store's paths, counted by callgrind: figures that other work on the machine cannot
# move. README.md here keeps them and says how to read them.
#   instructions.sh [CASE]...        PROFILE=dir keeps the profiles there, for callgrind_annotate
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
profiles=${PROFILE:-$work}; mkdir -p "$profiles"
(cd "$root" && cargo build -q --release --example hot_paths --no-default-features)
program=${CARGO_TARGET_DIR:-$root/target}/release/examples/hot_paths
cases=${*:-$("$program" | cut -d' ' -f1)}
for name in $cases; do
  said=$(valgrind -q --tool=callgrind --callgrind-out-file="$profiles/$name.callgrind" \
    --toggle-collect='hot_paths::measured' "$program" "$work/store" "$name" 2>"$work/errors") || { cat "$work/errors" >&2; exit 1; }
  messages=$(echo "$said" | cut -d' ' -f2)
  counted=$(sed -n 's/^\(summary\|totals\): //p' "$profiles/$name.callgrind" | head -1)
  awk -v name="$name" -v counted="$counted" -v messages="$messages" \
    'BEGIN { printf "%-22s %9.1f instructions per message\n", name, counted / messages }'
done
