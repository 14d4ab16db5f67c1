# Sourced by speedrun.sh and test.sh, in the repository's root: `venv [EXTRA]` makes .venv and installs the project into
# it, with the extra's packages. What it installed is remembered, so a second call takes no time; a change of
# pyproject.toml or constraints.txt, or a folder that was moved, installs again.

CPU_INDEX=https://download.pytorch.org/whl/cpu

# Not grep -q, which goes before nvidia-smi has said all: by pipefail a failure.
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus 2>/dev/null | grep GPU >/dev/null; }

# AMD's driver is here, and the torch in .venv is built for it: PIP_EXTRA_INDEX_URL must have named pytorch.org's ROCm index.
has_amd() { [ -e /dev/kfd ] && .venv/bin/python -c 'import sys, torch; sys.exit(not torch.version.hip)' 2>/dev/null; }

find_python() {
    local p bare='' names=(python3 python3.13 python3.12 python3.11 python3.10 python)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for p in "${names[@]}"; do
        "$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        "$p" -c 'import ensurepip, venv' 2>/dev/null && { echo "$p"; return; }
        bare=${bare:-$p}
    done
    [ -z "$bare" ] || no_venv "$bare cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
    no_venv "Python 3.10 or newer is needed. Install one, or name it: PYTHON=/path/to/python3 bash $0"
}

no_venv() { echo "error: $1" >&2; exit 1; }

# On Linux PyPI's torch brings gigabytes of CUDA. Without a GPU take PyTorch's CPU build, when its index answers.
cpu_index() {
    [ "$(uname -s)" = Linux ] && [ ! -e /dev/kfd ] && ! has_gpu || return 0
    timeout 5 .venv/bin/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=3)' "$CPU_INDEX/torch/" \
        2>/dev/null && echo "--extra-index-url=$CPU_INDEX" || true
}

venv() {
    local extra=${1:-} python want index place
    local stamp=".venv/.installed${extra:+-$extra}"
    want=$(cat pyproject.toml constraints.txt | cksum)
    place=$(cat .venv/.place 2>/dev/null || true)
    [ "$place" = "$PWD" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && .venv/bin/python -c '' 2>/dev/null && return

    [ -w . ] || no_venv "cannot write to $PWD, where .venv belongs. Copy it to a folder of yours"
    if [ "$place" != "$PWD" ]; then  # its scripts name the folder that they were made in
        [ ! -L .venv ] || [ ! -e .venv/bin ] || no_venv ".venv is a link to another folder's. Remove it, to get one here"
        rm -f .venv/.installed* .venv/bin/python
    fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        echo "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv || no_venv "$python could not make .venv, see above"
        echo "$PWD" >.venv/.place
    fi
    echo "installing into .venv (about 250 MB without a GPU, some GB with one)"
    index=$(cpu_index)
    local install=(env PIP_USER=0 .venv/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt)
    "${install[@]}" ${index:+"$index"} torch && "${install[@]}" -qq -e ".${extra:+[$extra]}" ||
        no_venv "not all packages could be installed, see above (the network? a full disk?). Then run this again"
    echo "$want" >"$stamp"
}
