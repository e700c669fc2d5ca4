"""Ten words in the place of the digits' names, and their features: `words.safetensors`.

    python words.py        (torch, safetensors, transformers)

The small backbone of `../../parity/clip_tiny/quick` has random weights, so no word means anything to it. These ten were found to lie
near the features of the digits they stand for, so that zero-shot says something, is often wrong, and falls on old and on new classes.
The features are those of the reference implementation for `a photo of a {}.`; the scale is that of its scores.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTokenizerFast

HERE = Path(__file__).resolve().parent
WORDS = ["brush", "seal", "fan", "snail", "crate", "zebra", "cherry", "chair", "potato", "rug"]


def main():
    folder = HERE.parents[1] / "parity" / "clip_tiny" / "quick"
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizerFast.from_pretrained(folder)
    rows = tokenizer([f"a photo of a {word}." for word in WORDS], padding=True, return_tensors="pt")
    with torch.no_grad():
        features, scale = model.get_text_features(**rows), model.logit_scale.exp().reshape(1)
    save_file({"features": features.contiguous(), "scale": scale}, HERE / "words.safetensors")


if __name__ == "__main__":
    main()
