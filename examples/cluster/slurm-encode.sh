#!/usr/bin/env bash
# One shard of a list as a task of a Slurm array, on storage that all nodes share:
#
#     export SHARDS=8 BACKBONE=/models/vit-b-32 IMAGES=/data/photos OUT=/data/features
#     encode=$(sbatch --parsable --array=0-$((SHARDS - 1)) slurm-encode.sh)
#     sbatch --dependency=afterok:"$encode" slurm-join.sh
#
# To run one shard again: `sbatch --array=3 slurm-encode.sh`. SHARDS says how many there are because Slurm's own count is that
# of the tasks submitted together.
#SBATCH --job-name=inarch-encode
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --time=02:00:00
#SBATCH --requeue
set -euo pipefail

: "${SHARDS:?}" "${BACKBONE:?}" "${IMAGES:?}" "${OUT:?}" "${SLURM_ARRAY_TASK_ID:?submit it with --array}"

exec "${INARCH:-inarch}" encode -b "$BACKBONE" --images "$IMAGES" --device "${DEVICE:-cpu}" \
    --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" -o "$OUT/shard-$SLURM_ARRAY_TASK_ID.safetensors"
