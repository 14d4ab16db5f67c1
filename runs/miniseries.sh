#!/usr/bin/env bash
# A series of depths, each trained to its own horizon; then bits per byte against compute, as a table and a plot.
#
#   bash runs/miniseries.sh DEPTHS [FLAGS OF base_train...]
#   bash runs/miniseries.sh "12 14 16 18 20" --dataset=climbmix
#   OUT=series bash runs/miniseries.sh "2 3 4" --dataset=kindergarten --sequence_len=256 --param_data_ratio=2
#
# Wants the shards and the tokenizer that base_train wants. TRAIN is how to start it (default: python -m; on a node
# "torchrun --standalone --nproc_per_node=8 -m"), OUT where the results are kept (default: runs/series). A run whose result is
# there is not repeated.
set -euo pipefail
depths=${1:?which depths?}
shift
out=${OUT:-runs/series}
base=${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}
mkdir -p "$out"
for depth in $depths; do
    [ -f "$out/d$depth.json" ] && continue
    # shellcheck disable=SC2086
    ${TRAIN:-python -m} scripts.base_train ${TRAIN:+--} --depth="$depth" --tag="series_d$depth" --keep=1 --save_every=0 "$@"
    cp "$base/report/results/base_train.json" "$out/d$depth.json"
done
python benchmarks/curves.py series "$out"
