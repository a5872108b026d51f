#!/usr/bin/env bash
# Checks template.yaml and everything that must agree with it. `make test` runs it with the tools in .venv and the agent
# in target/debug. The variables VENV and REKINDLE_NODE override these paths.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=$(realpath "${VENV:-.venv}")
requirements=tests/template/requirements-checkov.txt
if ! cmp --silent "$requirements" "$venv/checkov/installed"; then
  python3 -m venv "$venv/checkov"
  "$venv/checkov/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$venv/checkov/installed"
fi

export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/template "$@"
