#!/usr/bin/env bash
# Encodes a list in several processes on this machine and joins their files:
#
#     SHARDS=4 BACKBONE=pocket IMAGES=photos OUT=features examples/cluster/local.sh
#
# The features are in $OUT/features.safetensors, the same bytes as those of a single process. Run it again after a
# failure: shards that are there are kept.
set -euo pipefail

: "${SHARDS:?how many processes}" "${BACKBONE:?}" "${IMAGES:?what to encode}" "${OUT:?the folder to write to}"
export INARCH=${INARCH:-inarch} BACKBONE IMAGES OUT SHARDS

mkdir -p "$OUT"
# shellcheck disable=SC2016  # expanded by the shell of each process
seq 0 $((SHARDS - 1)) | xargs -P "$SHARDS" -I '{}' sh -c \
    '"$INARCH" encode -b "$BACKBONE" --images "$IMAGES" --shard "{}/$SHARDS" -o "$OUT/shard-{}.safetensors"'
"$INARCH" data join "$OUT"/shard-*.safetensors -o "$OUT/features.safetensors"
