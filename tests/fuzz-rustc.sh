#!/bin/bash
# The compiler wrapper of `make fuzz`. Cargo calls it only for the packages of this workspace, so only they are
# instrumented, and not their hundreds of dependencies. All flags are stable.
set -euo pipefail

flags=(-Cpasses=sancov-module -Ccodegen-units=1)
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$flag")
done
exec "$@" "${flags[@]}"
