#!/usr/bin/env bash
# On a machine with a GPU: the tests that need one, then the short benchmark, whose table is printed last.
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m pytest -q -m gpu tests
python scripts/benchmark.py --quick
