#!/usr/bin/env bash
# Does every part of the model that pays in small ones pay at d12, too? What a GPU must confirm: the same text, steps and seed
# with all parts, and without each of them. Meant for ten minutes of one H200; never run on a GPU yet.
#
#   NANOCHAT_BASE_DIR=~/.cache/nanochat-parts bash benchmarks/parts.sh              d12, 20M tokens
#   NANOCHAT_BASE_DIR=... bash benchmarks/parts.sh 2 20 --total_batch_size=2048     tried out on a CPU: d2, 20 steps
#
# Nothing is compiled: the minute that takes is most of a run's. Steps and not seconds are equal, so that seconds stand beside
# the bits. A part that is done is not trained again.
set -euo pipefail
: "${NANOCHAT_BASE_DIR:?name a folder of its own}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.venv/bin:$PATH
depth=${1:-12} steps=${2:-300}
shift $(($# < 2 ? $# : 2))
python -m nanochat.dataset -n 2 --dataset=climbmix
[ -d "$NANOCHAT_BASE_DIR/tokenizer" ] || python -m scripts.tok_train --dataset=climbmix --vocab_size=8192 --max_chars=40_000_000
parts="key_offset value_offset value_tables embedding_skips"
for without in nothing $parts; do
    result=$NANOCHAT_BASE_DIR/parts/d$depth-$without.json
    [ -f "$result" ] && continue
    flags=(--dataset=climbmix --depth="$depth" --sequence_len=1024 --num_iterations="$steps" --total_batch_size=65536
           --compile=0 --eval_every=0 "$@")
    [ "$without" = nothing ] || flags+=("--$without=0")
    python -m scripts.base_train --tag=parts --fresh "${flags[@]}"
    mkdir -p "$NANOCHAT_BASE_DIR/parts"
    cp "$NANOCHAT_BASE_DIR/report/results/base_train.json" "$result"
done
for without in nothing $parts; do
    python -c '
import json
import sys

metrics = json.load(open(sys.argv[1]))["metrics"]
print("%.4f bits a byte, %.0f s without" % (metrics["val_bpb"], metrics["train_s"]), sys.argv[2])
' "$NANOCHAT_BASE_DIR/parts/d$depth-$without.json" "$without"
done
