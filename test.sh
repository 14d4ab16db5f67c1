#!/usr/bin/env bash
# From a fresh clone: make .venv, install the project and the test extra, run everything. Arguments go to pytest:
#   bash test.sh                        lint, types, then every test, on as many processes as cores, 4 at most
#   bash test.sh --slow                 the same, with the tests that take minutes
#   bash test.sh tests/test_gpt.py -x   just these tests, in one process
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started as: sh test.sh
set -euo pipefail +Cf
unset CDPATH PYTHONPATH PYTHONHOME
script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do  # in ~/bin, say; macOS has no readlink -f
    cd "$(dirname "$script")"
    script=$(readlink "$(basename "$script")")
done
cd -P "$(dirname "$script")"
source dev/venv.sh

venv test
case "$*" in
    '' | --slow)
        .venv/bin/python -m ruff check
        .venv/bin/python -m mypy
        # A file's tests stay in one process, as they share what is slow to make: a trained model, a browser.
        set -- -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder "$@"
        ;;
esac
.venv/bin/python -m pytest -q "$@"
