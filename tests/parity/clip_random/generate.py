"""A small CLIP of random shape, for comparisons over many shapes. Nothing is committed.

    python generate.py OUT --seed N

Checked with torch 2.9.1, transformers 5.23.0, safetensors 0.8.0. Needs `text/tokenizer.json` of the test data. Each seed
draws widths, depths, head counts, patch and image sizes, MLP and projection sizes, activation and epsilon of each tower,
the vocabulary, how END is found (from the config, or the highest id as in configs of 2021) and the filling token. The
folder is in the Hugging Face layout; `expected.safetensors` has the names of `clip_tiny`. The shape goes to stderr.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import clip_reference as reference
from transformers import CLIPConfig

TEXTS = ["a photo of a cat.", "", "# the ! chest # X-ray", "naïve 猫 123 it's", "word " * 100]


def tower(draw):
    """What both towers have."""
    heads = draw.choice([1, 2, 3, 4, 6])
    return dict(hidden_size=heads * draw.choice([4, 6, 8, 10, 16]), num_attention_heads=heads,
                num_hidden_layers=draw.randint(1, 5), intermediate_size=draw.randint(8, 160),
                hidden_act=draw.choice(["quick_gelu", "gelu"]), layer_norm_eps=draw.choice([1e-5, 1e-6]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    draw = random.Random(given.seed)

    patch = draw.choice([2, 4, 5, 7, 8, 14, 16])
    vision = tower(draw) | dict(patch_size=patch, image_size=patch * draw.randint(1, 6))
    merges = draw.randint(0, 400)
    end = 514 + merges - 1
    legacy = draw.random() < 0.5
    context = draw.randint(4, 77)
    text = tower(draw) | dict(vocab_size=end + 1, max_position_embeddings=context)
    text |= dict(bos_token_id=0, eos_token_id=2, pad_token_id=1) if legacy else dict(
        bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    width = draw.randint(4, 64)
    vision["projection_dim"] = text["projection_dim"] = width
    config = CLIPConfig(projection_dim=width, vision_config=vision, text_config=text)

    tokenizer = reference.reduced_tokenizer(merges)
    read = reference.write_backbone(given.out, reference.random_model(config, given.seed), tokenizer, legacy=legacy)
    ids = reference.padded(tokenizer, TEXTS, context, pad=draw.choice([0, end]))
    pixels = reference.random_pixels(config, draw.randint(1, 5), given.seed + 1)
    reference.write_expected(given.out, reference.outputs(read, pixels, ids), TEXTS)
    print(f"vision {vision}\ntext {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
