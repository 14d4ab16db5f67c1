#!/usr/bin/env bash
# From a fresh clone: make .venv, install the project and the test extra, run every test. Arguments go to pytest:
#   bash test.sh
#   bash test.sh tests/test_gpt.py -x
#   bash test.sh --slow                 the tests that take minutes, too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source dev/venv.sh

venv test
.venv/bin/python -m pytest -q "$@"
