#!/bin/bash
# The compiler for `make fuzz`. Cargo calls it only for the packages of this workspace: they are instrumented, and their
# hundreds of dependencies are not. All flags are stable.
set -euo pipefail

flags=(-Cpasses=sancov-module -Ccodegen-units=1)
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$flag")
done
exec "$@" "${flags[@]}"
