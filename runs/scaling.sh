#!/usr/bin/env bash
# How many tokens for each parameter? Several depths on each of several budgets of FLOPs; the lowest bits per byte give
# --param_data_ratio. Environment and further flags as for runs/miniseries.sh.
#
#   bash runs/scaling.sh "1e18 3e18 6e18" "8 10 12 14 16" --dataset=climbmix
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
export PATH=$PWD/.venv/bin:$PATH
: "${2:?wants budgets and depths, as above}"
budgets=$1 depths=$2 out=${OUT:-runs/scaling}
shift 2
for budget in $budgets; do
    for depth in $depths; do
        steps=$(python benchmarks/curves.py steps "$budget" "$depth" "$@")
        OUT=$out/$budget bash runs/miniseries.sh "$depth" --num_iterations="$steps" "$@"
    done
done
python benchmarks/curves.py horizon "$out"
