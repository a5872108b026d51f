#!/bin/bash
# The compiler for `make fuzz`: cargo calls it for the packages of this workspace alone, so that what is searched is
# instrumented and the hundreds of crates below need not be. All flags are stable.
set -euo pipefail

flags=(-Cpasses=sancov-module -Ccodegen-units=1)
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$flag")
done
exec "$@" "${flags[@]}"
