"""A CLIP of real dimensions with random weights, in the Hugging Face layout.

    python make_backbone.py vit-b-32 tokenizer.json FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

SIZES = {
    "vit-b-32": dict(patch_size=32, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "vit-b-16": dict(patch_size=16, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
}


def main() -> None:
    size, tokenizer, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.manual_seed(1)
    text = dict(vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
                eos_token_id=49407, bos_token_id=49406)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=dict(image_size=224, **SIZES[size]), projection_dim=512))
    model.eval().save_pretrained(folder)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 224}, "image_processor_type": "CLIPImageProcessor",
    }, indent=2))


if __name__ == "__main__":
    main()
