#!/usr/bin/env bash
# From a fresh clone to a chatbot with a report card.
#
#   bash speedrun.sh                  what fits this machine: kindergarten without a GPU, else --hours=4
#   bash speedrun.sh --hours=8        the best model of real text that this machine makes in 8 hours of working
#   bash speedrun.sh --dollars=100    the same by price; python -m scripts.plan --hours=8 --gpu=4090 says beforehand what
#   bash speedrun.sh kindergarten     2 CPU cores, 11 to 35 minutes, nothing to download but packages
#   bash speedrun.sh d20|d26|d32      8xH100: about $100, $300, $1000
#   bash speedrun.sh --fresh          start over: forget finished stages and delete this tier's checkpoints
#   bash speedrun.sh --no_page        without the page in which one watches it learn, and talks to it meanwhile
#
# Run again, it goes on where it stopped. Everything is kept under $NANOCHAT_BASE_DIR, by default ~/.cache/nanochat.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started as: sh speedrun.sh
set -euo pipefail +Cf  # the last two and what is unset may come with the environment
unset CDPATH PYTHONPATH PYTHONHOME
{ true 3>&1; } 2>/dev/null || exec >/dev/null  # closed
fail() { echo "error: $*" >&2; exit 2; }

[ -n "${BASH_SOURCE[0]:-}" ] || fail "fetch the whole folder, then: bash speedrun.sh"
here=$(pwd -P) script=${BASH_SOURCE[0]}
export HOME="${HOME-$(echo ~)}"
export NANOCHAT_BASE_DIR="${NANOCHAT_BASE_DIR:-$HOME/.cache/nanochat}"
case $NANOCHAT_BASE_DIR in
    '~' | '~'/*) NANOCHAT_BASE_DIR=$HOME${NANOCHAT_BASE_DIR#'~'} ;;
    '~'*) fail "NANOCHAT_BASE_DIR is $NANOCHAT_BASE_DIR, whose home is not known here. Write it out" ;;
    /*) ;;
    *) NANOCHAT_BASE_DIR=$here/$NANOCHAT_BASE_DIR ;;
esac
while [ -L "$script" ]; do  # in ~/bin, say; macOS has no readlink -f
    cd "$(dirname "$script")"
    script=$(readlink "$(basename "$script")")
done
cd -P "$(dirname "$script")"
source dev/venv.sh
source dev/stages.sh

kindergarten() {
    local steps=3900 conversations=179000  # of finetuning; bfloat16 leaves time for more
    if python -c 'import sys; from nanochat import runtime; sys.exit(runtime.init("cpu").dtype.itemsize != 2)'; then
        steps=4900 conversations=225000
    fi
    stage report_reset     python -m nanochat.report reset
    stage tok_train        python -m scripts.tok_train --dataset=kindergarten --vocab_size=6144
    stage tok_eval         python -m scripts.tok_eval --dataset=kindergarten
    stage base_train       python -m scripts.base_train --dataset=kindergarten --depth=3 --sequence_len=256 \
                               --total_batch_size=2048 --num_iterations=700 --eval_every=0 --eval_tokens=60000
    stage base_loss        python -m scripts.base_loss --max_rows=128
    stage base_eval        python -m scripts.base_eval
    stage chat_eval_base   python -m scripts.chat_eval -i base --max_problems=20 --max_new_tokens=32
    stage mid_train        python -m scripts.mid_train --num_iterations=700 --conversations=33000
    stage chat_eval_mid    python -m scripts.chat_eval -i mid --max_problems=50
    stage chat_sft         python -m scripts.chat_sft --num_iterations="$steps" --conversations="$conversations" \
                               --lr_scale=0.7
    stage chat_eval_sft    python -m scripts.chat_eval -i sft
    stage chat_rl          python -m scripts.chat_rl --num_iterations=12 --questions=32 \
                               --tasks="kg_word_problem_wide|kg_passages|kg_orders|kg_letter_of_word|kg_sentences" \
                               --samples=8 --anchor_rows=48 --device_batch_size=48 --max_new_tokens=64 --lr_scale=0.1
    stage chat_eval_rl     python -m scripts.chat_eval -i rl
    stage report_generate  python -m nanochat.report generate
}

# gpu_tier DEPTH: not run on 8xH100 yet; README.md's figures are goals.
gpu_tier() {
    local depth=$1 gpus rows shards each
    python -m scripts.plan --depth="$depth"
    eval "$(python -m scripts.plan --depth="$depth" --shell)"
    [ "$rows" -gt 0 ] || fail "d$depth does not fit into the memory of these GPUs"
    each=$(((15 + gpus) / gpus * gpus))  # 16 if these GPUs can share them
    local train=(torchrun --standalone --nproc_per_node="$gpus" -m)
    stage report_reset     python -m nanochat.report reset
    stage first_shards     python -m nanochat.dataset -n 8
    background shards      python -m nanochat.dataset -n "$shards"
    stage tok_train        python -m scripts.tok_train --dataset=climbmix --vocab_size=32768 --max_chars=2000000000
    stage tok_eval         python -m scripts.tok_eval --dataset=climbmix
    stage shards           python -m nanochat.dataset -n "$shards"
    stage base_train       "${train[@]}" scripts.base_train -- --depth="$depth" --device_batch_size="$rows"
    stage base_loss        "${train[@]}" scripts.base_loss
    stage base_eval        "${train[@]}" scripts.base_eval -- --download
    stage chat_eval_base   "${train[@]}" scripts.chat_eval -- -i base
    stage mid_train        "${train[@]}" scripts.mid_train -- --device_batch_size="$rows"
    stage chat_eval_mid    "${train[@]}" scripts.chat_eval -- -i mid
    stage chat_sft         "${train[@]}" scripts.chat_sft -- --device_batch_size="$rows"
    stage chat_eval_sft    "${train[@]}" scripts.chat_eval -- -i sft
    stage chat_rl          "${train[@]}" scripts.chat_rl -- --questions="$each" --anchor_rows="$each"
    stage chat_eval_rl     "${train[@]}" scripts.chat_eval -- -i rl
    stage report_generate  python -m nanochat.report generate
}

# budget_tier --hours=8: by the recipe of nanochat/budget.py for this machine's measured speed, kept in plan.json, so that
# every sitting does what the first has planned: a budget is of working time.
budget_tier() {
    local budget=$1 train=(python -m) gpus each rl_tasks='gsm8k|spellingbee' rl_scale=0.05
    gpus=$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')
    [ "$gpus" = 1 ] || train=(torchrun --standalone --nproc_per_node="$gpus" -m)
    each=$(((15 + gpus) / gpus * gpus))
    stage report_reset     python -m nanochat.report reset
    stage probe            "${train[@]}" scripts.probe "$budget"
    stage plan             python -m scripts.plan "$budget" --keep
    eval "$(python -m scripts.plan "$budget" --shell)"
    { [ "$dataset" != kindergarten ] && [ "$depth" -ge 8 ]; } ||  # smaller, all answers to GSM8K would be wrong
        { rl_tasks='kg_word_problem_wide|kg_letter_of_word|kg_sentences' rl_scale=0.25; }
    stage first_text       python -m nanochat.dataset --dataset="$dataset" --chars="$tokenizer_chars"
    background text        python -m nanochat.dataset --dataset="$dataset" --chars="$text_chars"
    stage tok_train        python -m scripts.tok_train --dataset="$dataset" --vocab_size="$vocab_size" \
                               --max_chars="$tokenizer_chars"
    stage tok_eval         python -m scripts.tok_eval --dataset="$dataset"
    stage text             python -m nanochat.dataset --dataset="$dataset" --chars="$text_chars"
    stage base_train       "${train[@]}" scripts.base_train --tag=budget --dataset="$dataset" --depth="$depth" --fp8="$fp8" \
                               --sequence_len="$sequence_len" --total_batch_size="$batch_tokens" \
                               --num_iterations="$base_steps" --device_batch_size="$rows"
    stage base_loss        "${train[@]}" scripts.base_loss --max_rows=128
    stage base_eval        "${train[@]}" scripts.base_eval --max_per_task="$core_questions" --download
    stage chat_eval_base   "${train[@]}" scripts.chat_eval -i base --max_problems="$questions"
    stage mid_train        "${train[@]}" scripts.mid_train --num_iterations="$mid_steps" --conversations="$mid_conversations" \
                               --total_batch_size="$chat_batch_tokens" --device_batch_size="$rows"
    stage chat_eval_mid    "${train[@]}" scripts.chat_eval -i mid --max_problems="$questions"
    stage chat_sft         "${train[@]}" scripts.chat_sft --num_iterations="$sft_steps" --conversations="$sft_conversations" \
                               --lr_scale="$sft_lr_scale" --total_batch_size="$chat_batch_tokens" --device_batch_size="$rows"
    stage chat_eval_sft    "${train[@]}" scripts.chat_eval -i sft --max_problems="$questions"
    stage chat_rl          "${train[@]}" scripts.chat_rl --num_iterations="$rl_steps" --questions="$each" --anchor_rows="$each" \
                               --samples=8 --tasks="$rl_tasks" --lr_scale="$rl_scale"
    stage chat_eval_rl     "${train[@]}" scripts.chat_eval -i rl --max_problems="$questions"
    stage report_generate  python -m nanochat.report generate
}

asked='' fresh='' page=yes
for argument in "$@"; do
    case $argument in
        kindergarten|d20|d26|d32|--hours=*|--dollars=*)
            [ -z "$asked" ] || fail "one tier at a time, and a folder for each (NANOCHAT_BASE_DIR): got $asked and $argument"
            asked=$argument ;;
        --fresh) fresh=yes ;;
        --no_page|--no-page) page='' ;;
        -h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' speedrun.sh; exit ;;
        *) fail "unknown argument $argument. Usage: bash speedrun.sh [kindergarten|d20|d26|d32|--hours=8|--dollars=8]" \
            "[--fresh] [--no_page]" ;;
    esac
done
case $asked in
    --*=*[!0-9.]* | --*=) fail "$asked: a number is wanted, as in --hours=8 or --dollars=100" ;;
    d* | --dollars=*) has_gpu || fail "$asked wants an NVIDIA GPU. Without one: bash speedrun.sh kindergarten, or --hours=8" ;;
esac
mkdir -p "$NANOCHAT_BASE_DIR" 2>/dev/null && [ -w "$NANOCHAT_BASE_DIR" ] ||
    fail "cannot write to $NANOCHAT_BASE_DIR. Name a folder of yours: NANOCHAT_BASE_DIR=FOLDER bash speedrun.sh"

venv
export PATH="$PWD/.venv/bin:$PATH"
[ -n "$asked" ] || { { has_gpu || has_amd; } && asked=--hours=4 || asked=kindergarten; }
tier=$asked
case $asked in --*) tier=budget ;; esac
begin
[ -z "$page" ] || start_page
case $tier in
    kindergarten) kindergarten ;;
    budget) budget_tier "$asked" ;;
    *) gpu_tier "${tier#d}" ;;
esac
end
