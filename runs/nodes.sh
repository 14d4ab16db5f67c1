#!/usr/bin/env bash
# A stage on several nodes that share this folder and $NANOCHAT_BASE_DIR with shards and tokenizer:
#
#   sbatch -N2 --ntasks-per-node=1 --gpus-per-node=8 runs/nodes.sh scripts.base_train --depth=26 --device_batch_size=16
set -eu
: "${SLURM_JOB_NODELIST:?start this with sbatch}"
export PATH=$PWD/.venv/bin:$PATH
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
srun torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" --rdzv_backend=c10d \
    --rdzv_endpoint="$first:29500" --rdzv_id="$SLURM_JOB_ID" -m "$1" -- "${@:2}"
