#!/usr/bin/env bash
# How many tokens for each parameter? Trains several depths on each of several budgets of FLOPs; the best size of each budget,
# by a parabola through bits per byte over log(parameters), gives the ratio that --param_data_ratio wants.
#
#   bash runs/scaling.sh BUDGETS DEPTHS [FLAGS OF base_train...]
#   bash runs/scaling.sh "1e18 3e18 6e18" "8 10 12 14 16" --dataset=climbmix
#   OUT=fit bash runs/scaling.sh "2e12 8e12" "2 3 4 5" --dataset=kindergarten --sequence_len=256 --total_batch_size=4096
#
# The environment is that of runs/miniseries.sh.
set -euo pipefail
budgets=${1:?which budgets of FLOPs?} depths=${2:?which depths?}
shift 2
out=${OUT:-runs/scaling}
for budget in $budgets; do
    for depth in $depths; do
        steps=$(python benchmarks/curves.py steps "$budget" "$depth" "$@")
        OUT="$out/$budget" bash runs/miniseries.sh "$depth" --num_iterations="$steps" "$@"
    done
done
python benchmarks/curves.py horizon "$out"
