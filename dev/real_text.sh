#!/usr/bin/env bash
# The pipeline on real text and real conversations, at a size that a 2-core machine trains in a quarter of an hour: a d4 on
# web text, then SmolTalk, MMLU, GSM8K and ARC, evaluated on the real test sets. What d20 does, a thousand times smaller.
#
#   NANOCHAT_BASE_DIR=~/.cache/nanochat-real bash dev/real_text.sh
#   NANOCHAT_BASE_DIR=~/.cache/nanochat-core bash dev/real_text.sh core
#
# `core` asks instead whether CORE tells models apart at this size: a d4 and a d6 on the same text, 500 questions a task, the two
# compared question by question, and both with exchanged questions.
#
# Needs .venv (bash speedrun.sh or test.sh makes it) and the Hugging Face hub, or a mirror named by HF_ENDPOINT. Run again it
# goes on where it stopped.
set -euo pipefail
here=$PWD
: "${NANOCHAT_BASE_DIR:?name a folder of its own: the tokenizer there is replaced}"
export NANOCHAT_BASE_DIR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
what=${1:-real_text}
[ "$what" = core ] || [ "$what" = real_text ] || { echo "error: the argument may be core, not $what" >&2; exit 2; }
tier=$what fresh=''
source dev/stages.sh
again() { echo "bash dev/real_text.sh $what"; }
begin
stage report_reset     python -m nanochat.report reset
stage dataset          python -m nanochat.dataset --dataset=climbmix -n 2
stage tok_train        python -m scripts.tok_train --dataset=climbmix --vocab_size=4096 --max_chars=50000000
if [ "$what" = core ]; then
    text='--dataset=climbmix --sequence_len=512 --device_batch_size=16 --total_batch_size=8192 --eval_every=200'
    stage base_train_d4  python -m scripts.base_train --depth=4 --tag=core_d4 --num_iterations=800 $text
    stage base_train_d6  python -m scripts.base_train --depth=6 --tag=core_d6 --num_iterations=700 $text
    stage base_eval_d4   python -m scripts.base_eval --max_per_task=500 --download --tag=core_d4
    stage base_eval_d6   python -m scripts.base_eval --max_per_task=500 --download --tag=core_d6
    stage compare        python -m scripts.chat_eval --compare=core@core_d4,core@core_d6
    stage control_d4     python -m scripts.base_eval --max_per_task=200 --control --tag=core_d4
    stage control_d6     python -m scripts.base_eval --max_per_task=200 --control --tag=core_d6
    exit
fi
tasks='arc_easy|arc_challenge|mmlu|gsm8k|humaneval|spellingbee'
stage tok_eval         python -m scripts.tok_eval --dataset=climbmix
stage base_train       python -m scripts.base_train --dataset=climbmix --depth=4 --sequence_len=512 --device_batch_size=16 \
                           --total_batch_size=8192 --num_iterations=200 --eval_every=100
stage base_loss        python -m scripts.base_loss
stage base_eval        python -m scripts.base_eval --max_per_task=30
stage chat_eval_base   python -m scripts.chat_eval -i base -a "$tasks" --max_problems=100 --max_new_tokens=64
stage mid_train        python -m scripts.mid_train --conversations=20000 --num_iterations=60 --device_batch_size=16
stage chat_eval_mid    python -m scripts.chat_eval -i mid -a "$tasks" --max_problems=100 --max_new_tokens=128
stage chat_sft         python -m scripts.chat_sft --conversations=20000 --num_iterations=60 --device_batch_size=16
stage chat_eval_sft    python -m scripts.chat_eval -i sft -a "$tasks" --max_problems=100 --max_new_tokens=128
stage chat_rl          python -m scripts.chat_rl --num_iterations=3 --questions=4 --samples=8
stage chat_eval_rl     python -m scripts.chat_eval -i rl -a "$tasks" --max_problems=100 --max_new_tokens=128
stage report_generate  python -m nanochat.report generate
