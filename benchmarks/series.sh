#!/usr/bin/env bash
# A series of depths, each trained to its own horizon; then bits per byte against compute (benchmarks/curves.py).
#
#   bash benchmarks/series.sh "12 14 16 18 20" --dataset=climbmix
#
# Then flags of base_train. TRAIN starts it (default: python -m), OUT keeps the results (default: runs/series); a result
# that is there is not made again.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
export PATH=$PWD/.venv/bin:$PATH
python -c 'import nanochat.common' 2>/dev/null && [[ ${1:-} =~ ^[0-9\ ]+$ ]] ||
    { echo "error: in nanochat's folder, with its .venv: bash $0 "'"12 14 16" [FLAGS]' >&2; exit 2; }
depths=$1 out=${OUT:-runs/series}
shift
mkdir -p "$out"
base=$(python -c 'from nanochat.common import base_dir; print(base_dir())')
for depth in $depths; do
    [ -f "$out/d$depth.json" ] && continue
    ${TRAIN:-python -m} scripts.base_train ${TRAIN:+--} --depth="$depth" --tag="series_d$depth" --fresh "$@"
    cp "$base/report/results/base_train.json" "$out/d$depth.json"
done
python benchmarks/curves.py series "$out"
