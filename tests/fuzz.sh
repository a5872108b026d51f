#!/bin/bash
# Searches each target of tests/src/fuzz for this number of seconds, guided by coverage, and prints a table. It needs only
# the project's own toolchain.
set -euo pipefail

seconds=${1:-60}
cd "$(dirname "$0")/.."
target=target/fuzz
CARGO_TARGET_DIR=$target RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz-rustc.sh \
  cargo build --locked --package rekindle-tests --bin fuzz --features fuzz

failed=0 table=
for corpus in tests/corpus/*/; do
  name=$(basename "$corpus")
  # New inputs go to their own folder; the first folder names the target.
  found=$target/found/$name log=$target/$name.log
  mkdir -p "$found" "$target/broken"
  case $name in
  event) examples=(events) ;;
  settings) examples=(settings) ;;
  *) examples=() ;;
  esac
  before=$(find "$found" -type f | wc -l)
  echo "$name: $seconds seconds"
  status=0
  "$target/debug/fuzz" "$found" "$corpus" "${examples[@]}" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="$target/broken/$name-" >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  new=$(($(find "$found" -type f | wc -l) - before))
  promises=0
  if [ "$status" != 0 ]; then
    promises=1 failed=1
    tail -n 40 "$log"
    echo "Add the input to tests/corpus/$name, and correct the reader."
  fi
  table+=$(printf '%-14s %12s %11s %16s' "$name" "${runs:-?}" "$new" "$promises")$'\n'
done
printf '\n%-14s %12s %11s %16s\n%s' target runs "new corpus" "promises broken" "$table"
exit "$failed"
