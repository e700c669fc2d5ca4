"""Tiny CLIP backbones with random weights, and what the reference implementation computes with them.

    python generate.py OUT        (the committed files: `python generate.py .` in this folder)

Made with torch 2.9.1, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0. Needs the CLIP tokenizer
(`text/tokenizer.json` of the test data). Folders written:

- `quick/`    quick-GELU; vision 32 px, patch 8, width 48, 3 blocks, 4 heads; text width 32, 2 blocks, 4 heads, context
              20, vocabulary 600; END from the config (599, the highest id), rows filled with END
- `half/`     `quick/` with its weights rounded to float16; expected numbers are those of the rounded weights in float32
              (its pixels are those of `quick/`)
- `gelu/`     GELU; other sizes and head counts; a config of 2021 (`eos_token_id` 2, so END is found as the highest id
              in the row, sizes as plain numbers, `position_ids` buffers in the file); rows filled with 0
- `sharded/`  the weights of `gelu/` in two shards with an index; same config as `gelu/`,
              expected numbers are in `gelu/expected.safetensors`

`gelu/` holds texts with token 2 (`#`) and with the filling token in the middle: pooling at the wrong place shows.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import clip_reference as reference
from transformers import CLIPConfig, CLIPModel

TEXTS = ["a photo of a cat.", "", "An X-ray of the chest, frontal view", "naïve 猫 123 it's", "word " * 30]
LEGACY_TEXTS = ["#", "a # photo # of!", "!! a dog !", "", "many " * 30]


def quick_config():
    return CLIPConfig(
        projection_dim=24,
        vision_config=dict(image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                           intermediate_size=96, projection_dim=24, hidden_act="quick_gelu"),
        text_config=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                         vocab_size=600, max_position_embeddings=20, projection_dim=24, hidden_act="quick_gelu",
                         bos_token_id=598, eos_token_id=599, pad_token_id=599),
    )


def gelu_config():
    return CLIPConfig(
        projection_dim=20,
        vision_config=dict(image_size=24, patch_size=6, hidden_size=30, num_hidden_layers=2, num_attention_heads=3,
                           intermediate_size=60, projection_dim=20, hidden_act="gelu", layer_norm_eps=1e-6),
        text_config=dict(hidden_size=28, num_hidden_layers=3, num_attention_heads=2, intermediate_size=52,
                         vocab_size=560, max_position_embeddings=16, projection_dim=20, hidden_act="gelu",
                         bos_token_id=0, eos_token_id=2, pad_token_id=1),
    )


def main(out):
    torch.manual_seed(0)
    quick, tokens = quick_config(), reference.reduced_tokenizer(86)
    model = reference.random_model(quick, seed=11)
    pixels = reference.random_pixels(quick, 4, seed=12)
    ids = reference.padded(tokens, TEXTS, 20, pad=599)
    for name, dtype in (("quick", None), ("half", torch.float16)):
        read = reference.write_backbone(out / name, model, tokens, dtype=dtype)
        found = reference.outputs(read, pixels, ids)
        if name == "half":
            found = {key: found[key] for key in ("input_ids", "image_features", "text_features", "logits_per_image")}
        reference.write_expected(out / name, found, TEXTS)

    gelu, tokens = gelu_config(), reference.reduced_tokenizer(46)
    model = reference.random_model(gelu, seed=21)
    pixels = reference.random_pixels(gelu, 4, seed=22)
    ids = reference.padded(tokens, LEGACY_TEXTS, 16, pad=0)
    read = reference.write_backbone(out / "gelu", model, tokens, legacy=True)
    expected = reference.outputs(read, pixels, ids)
    reference.write_expected(out / "gelu", expected, LEGACY_TEXTS)

    sharded = out / "sharded"
    sharded.mkdir(exist_ok=True)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / "gelu" / name, sharded / name)
    state = load_file(out / "gelu" / "model.safetensors")
    place = {}
    for number in (1, 2):
        file = f"model-{number:05}-of-00002.safetensors"
        part = {name: state[name] for index, name in enumerate(sorted(state)) if index % 2 == number - 1}
        save_file(part, sharded / file, {"format": "pt"})
        place |= dict.fromkeys(part, file)
    size = sum(value.numel() * value.element_size() for value in state.values())
    reference.write_json(sharded / "model.safetensors.index.json",
                         {"metadata": {"total_size": size}, "weight_map": dict(sorted(place.items()))})
    again = reference.outputs(CLIPModel.from_pretrained(sharded).eval(), pixels, ids)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
