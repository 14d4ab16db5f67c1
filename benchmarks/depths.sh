#!/usr/bin/env bash
# Is a recipe's depth the best for its hours? Pretrains several depths, each with what the plan gives it in the same hours of
# the same text, and prints bits per byte. The table behind RATIO in nanochat/budget.py wants this for three budgets:
#
#   NANOCHAT_BASE_DIR=~/.cache/nanochat-depths bash benchmarks/depths.sh 1 "3 4 5"
#
# Measures this machine first (scripts/probe.py), so let nothing else run on it. Each depth has a folder of its own, as its
# vocabulary is another; a depth that is done is not trained again.
set -euo pipefail
: "${NANOCHAT_BASE_DIR:?name a folder of its own}" "${2:?wants hours and depths, as in: 1 "3 4 5"}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.venv/bin:$PATH
hours=$1 depths=$2 all=$NANOCHAT_BASE_DIR
[ -f "$all/probe.json" ] || python -m scripts.probe --hours="$hours"
for depth in $depths; do
    export NANOCHAT_BASE_DIR=$all/$hours/d$depth
    mkdir -p "$NANOCHAT_BASE_DIR" "$all/base_data"
    ln -sfn "$all/base_data" "$NANOCHAT_BASE_DIR/base_data"
    cp "$all/probe.json" "$NANOCHAT_BASE_DIR"
    [ -f "$NANOCHAT_BASE_DIR/plan.json" ] || python -m scripts.plan --hours="$hours" --depth="$depth" --keep
    eval "$(python -m scripts.plan --hours="$hours" --shell)"
    python -m nanochat.dataset --dataset="$dataset" --chars="$text_chars"
    [ -d "$NANOCHAT_BASE_DIR/tokenizer" ] ||
        python -m scripts.tok_train --dataset="$dataset" --vocab_size="$vocab_size" --max_chars="$tokenizer_chars"
    python -m scripts.base_train --dataset="$dataset" --depth="$depth" --sequence_len="$sequence_len" \
        --total_batch_size="$batch_tokens" --num_iterations="$base_steps" --device_batch_size="$rows"
done
for depth in $depths; do
    python -c 'import json, sys; m = json.load(open(sys.argv[1]))["metrics"]; print(sys.argv[2], m["tokens"], m["train_s"], m["val_bpb"])' \
        "$all/$hours/d$depth/report/results/base_train.json" "d$depth"
done
