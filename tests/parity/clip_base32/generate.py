"""A CLIP ViT-B/32 with random weights and what the reference implementation computes with it. Nothing is committed.

    python generate.py OUT [--half] [--seed N]

Checked with torch 2.9.1, transformers 5.23.0, safetensors 0.8.0. Needs `text/tokenizer.json` of the test data. Writes a
folder in the Hugging Face layout (605 MB; 303 MB with `--half`) with the dimensions of `openai/clip-vit-base-patch32`
and `expected.safetensors` with the names of `clip_tiny` (two images, four texts, every hidden state).
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import clip_reference as reference
from transformers import CLIPConfig

TEXTS = ["a photo of a cat.", "", "an X-ray of the chest, frontal view", "word " * 100]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", action="store_true", help="round the weights to float16")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # The defaults of the reference are ViT-B/32 with a text tower of width 512, 12 blocks, 8 heads, context 77.
    config = CLIPConfig(text_config=dict(bos_token_id=49406, eos_token_id=49407, pad_token_id=49407),
                        vision_config={})
    tokenizer = (reference.data_folder() / "text" / "tokenizer.json").read_text(encoding="utf-8").rstrip("\n")
    model = reference.random_model(config, given.seed)
    read = reference.write_backbone(given.out, model, tokenizer, dtype=torch.float16 if given.half else None)
    ids = reference.padded(tokenizer, TEXTS, 77, pad=49407)
    pixels = reference.random_pixels(config, 2, given.seed + 1)
    reference.write_expected(given.out, reference.outputs(read, pixels, ids), TEXTS)


if __name__ == "__main__":
    main()
