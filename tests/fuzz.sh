#!/bin/bash
# Runs coverage-guided fuzzing of each target of tests/src/fuzz for the given number of seconds (default 60), and prints
# a table at the end. Then restores random databases. It needs only the project's own toolchain.
set -euo pipefail

seconds=${1:-60}
cd "$(dirname "$0")/.."
target=target/fuzz
CARGO_TARGET_DIR=$target RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz-rustc.sh \
  cargo build --locked --package rekindle-tests --bin fuzz --features fuzz

failed=0 table=
for corpus in tests/corpus/*/; do
  name=$(basename "$corpus")
  # libFuzzer writes new inputs to the first folder. The fuzz program takes the target from its name.
  found=$target/found/$name log=$target/$name.log
  mkdir -p "$found" "$target/failures"
  case $name in
  event) examples=(events) ;;
  settings) examples=(settings) ;;
  *) examples=() ;;
  esac
  before=$(find "$found" -type f | wc -l)
  echo "$name: $seconds seconds"
  status=0
  "$target/debug/fuzz" "$found" "$corpus" "${examples[@]}" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="$target/failures/$name-" >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  new=$(($(find "$found" -type f | wc -l) - before))
  failures=0
  if [ "$status" != 0 ]; then
    failures=1 failed=1
    tail -n 40 "$log"
    echo "Add the input from $target/failures to tests/corpus/$name, and fix the code that reads it."
  fi
  table+=$(printf '%-14s %12s %11s %16s' "$name" "${runs:-?}" "$new" "$failures")$'\n'
done
printf '\n%-14s %12s %11s %16s\n%s' target runs "new inputs" failures "$table"

# Other databases every time. To repeat a run: DATABASES_SEED=… cargo test --workspace --test databases -- generated
for _ in 1 2 3 4; do
  export DATABASES_SEED=$RANDOM
  printf '\nRestoring random databases, DATABASES_SEED=%s\n' "$DATABASES_SEED"
  cargo test --locked --workspace --test databases -- generated || failed=1
done
exit "$failed"
