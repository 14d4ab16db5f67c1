#!/usr/bin/env bash
# Does CORE tell models apart at a size that two cores train? A d4 and a d6 of half an hour each or less, on the same web
# text with the same tokenizer, both evaluated on 500 questions a task and compared question by question; then the d6 with exchanged questions.
#
#   NANOCHAT_BASE_DIR=~/.cache/nanochat-core bash dev/core.sh
#
# Needs .venv and the Hugging Face hub, as dev/real_text.sh does. Run again it goes on where it stopped.
set -euo pipefail
here=$PWD
: "${NANOCHAT_BASE_DIR:?name a folder of its own: the tokenizer there is replaced}"
export NANOCHAT_BASE_DIR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
tier=core fresh=''
source dev/stages.sh
again() { echo "bash dev/core.sh"; }
begin
text='--dataset=climbmix --sequence_len=512 --device_batch_size=16 --total_batch_size=8192 --eval_every=200'
stage report_reset   python -m nanochat.report reset
stage dataset        python -m nanochat.dataset --dataset=climbmix -n 2
stage tok_train      python -m scripts.tok_train --dataset=climbmix --vocab_size=4096 --max_chars=50000000
stage base_train_d4  python -m scripts.base_train --depth=4 --tag=core_d4 --num_iterations=800 $text
stage base_train_d6  python -m scripts.base_train --depth=6 --tag=core_d6 --num_iterations=700 $text
stage base_eval_d4   python -m scripts.base_eval --max_per_task=500 --download --tag=core_d4
stage base_eval_d6   python -m scripts.base_eval --max_per_task=500 --download --tag=core_d6
stage compare        python -m scripts.chat_eval --compare=core@core_d4,core@core_d6
stage control_d6     python -m scripts.base_eval --max_per_task=200 --control --tag=core_d6
