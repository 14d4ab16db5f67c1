# Sourced by speedrun.sh and test.sh, in the repository's root: `venv [EXTRA]` makes .venv and installs the project into
# it, with the extra's packages. What it installed is remembered, so a second call takes no time; a change of
# pyproject.toml or constraints.txt, or a folder that was moved, installs again.

CPU_INDEX=https://download.pytorch.org/whl/cpu

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; }

find_python() {
    local p
    for p in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        "$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$p"; return; }
    done
    echo "error: Python 3.10 or newer is needed. Install one, or name it: PYTHON=/path/to/python3 bash $0" >&2
    return 1
}

# On Linux PyPI's torch brings gigabytes of CUDA. Without a GPU take PyTorch's CPU build, when its index answers.
cpu_index() {
    [ "$(uname -s)" = Linux ] && ! has_gpu || return 0
    timeout 5 .venv/bin/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=3)' "$CPU_INDEX/torch/" \
        2>/dev/null && echo "--extra-index-url=$CPU_INDEX" || true
}

venv() {
    local extra=${1:-} python want index
    local stamp=".venv/.installed${extra:+-$extra}"
    want=$(cat pyproject.toml constraints.txt | cksum)
    [ "$(cat .venv/.place 2>/dev/null)" = "$PWD" ] || rm -f .venv/.installed* .venv/bin/python   # its scripts name their folder
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && .venv/bin/python -c '' 2>/dev/null && return

    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        echo "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv || {
            echo "error: $python cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2
            return 1
        }
        echo "$PWD" >.venv/.place
    fi
    echo "installing into .venv (about 250 MB without a GPU, some GB with one)"
    index=$(cpu_index)
    local install=(.venv/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt)
    "${install[@]}" ${index:+"$index"} torch
    "${install[@]}" -qq -e ".${extra:+[$extra]}"
    echo "$want" >"$stamp"
}
