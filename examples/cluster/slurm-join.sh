#!/usr/bin/env bash
# Joins the shards of slurm-encode.sh.
#SBATCH --job-name=inarch-join
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=00:30:00
set -euo pipefail

: "${OUT:?}"

exec "${INARCH:-inarch}" data join "$OUT"/shard-*.safetensors -o "$OUT/features.safetensors"
