"""Seconds of one image under test-time prompt tuning in PyTorch, beside `inarch predict --test-time tpt`.

    python peer.py make FOLDER TOKENIZER.json               a CLIP of ViT-B/16 dimensions with random weights
    python peer.py official|optimised FOLDER IMAGE CLASSES  CLASSES is a number; prints seconds, views included

`official` does what the authors' code does for an image: 64 views encoded, all class texts of 77 tokens forward, backward,
and forward once more with the new context. `optimised` cuts the texts at the longest one and takes the first class
features from before. Both in single precision on all cores. Needs torch, torchvision, transformers, pillow.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torchvision.transforms import RandomHorizontalFlip, RandomResizedCrop
from transformers import CLIPConfig, CLIPModel

VIEWS, KEPT, LR, CONTEXT = 64, 6, 5e-3, 4
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def make(folder, tokenizer):
    text = dict(hidden_size=512, num_hidden_layers=12, num_attention_heads=8, intermediate_size=2048, vocab_size=49408,
                max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    vision = dict(image_size=224, patch_size=16, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                  intermediate_size=3072)
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(projection_dim=512, text_config=text, vision_config=vision)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(Path(tokenizer).read_bytes())
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN.flatten().tolist(), "image_std": STD.flatten().tolist()}))


def names(count):
    words = ["cat", "dog", "tree", "house", "boat", "train", "flower", "bird", "horse", "plane"]
    return [words[at % 10] + (f" {at // 10}" if at >= 10 else "") for at in range(count)]


def views(image):
    # Crops only: the authors' AugMix adds to the time of both ways alike.
    random = [RandomHorizontalFlip()(RandomResizedCrop(224)(image)) for _ in range(VIEWS - 1)]
    pixels = lambda view: (torch.from_numpy(np.array(view)).permute(2, 0, 1) / 255 - MEAN) / STD
    return torch.stack([pixels(image.resize((224, 224), Image.Resampling.BICUBIC)), *map(pixels, random)])


def main(way, folder, image, count):
    model = CLIPModel.from_pretrained(folder).eval()
    model.requires_grad_(False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(f"a photo of a {name}.").ids for name in names(count)]
    length = 77 if way == "official" else max(map(len, rows))
    ids = torch.tensor([row + [49407] * (length - len(row)) for row in rows])
    ends = ids.argmax(1)
    text, scale = model.text_model, model.logit_scale.exp()
    embedded = text.embeddings.token_embedding(ids)
    start = embedded[0, 1 : 1 + CONTEXT].clone()
    mask = torch.full((length, length), -math.inf).triu(1)[None, None]
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)

    def text_of(context):
        x = torch.cat([embedded[:, :1], context.expand(count, -1, -1), embedded[:, 1 + CONTEXT :]], 1)
        x = x + text.embeddings.position_embedding.weight[:length]
        for layer in text.encoder.layers:
            x = layer(x, mask)
            x = x[0] if isinstance(x, tuple) else x
        return unit(model.text_projection(text.final_layer_norm(x[torch.arange(count), ends])))

    def image_of(pixels):
        with torch.no_grad():
            return unit(model.visual_projection(model.vision_model(pixels).pooler_output))

    with torch.no_grad():
        before = text_of(start)
    photo = Image.open(image).convert("RGB")
    began = time.time()
    pixels = views(photo)
    made = time.time()
    features = image_of(pixels)
    encoded = time.time()
    context = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([context], LR)
    texts = text_of(context)
    logits = scale * features @ (texts.detach() if way == "official" else before).T
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    rows = entropy.argsort()[:KEPT]
    shares = (scale * features[rows] @ texts.T).log_softmax(1).logsumexp(0) - math.log(KEPT)
    (-(shares * shares.exp()).sum()).backward()
    optimizer.step()
    with torch.no_grad():
        centre = image_of(pixels[:1]) if way == "official" else features[:1]
        (scale * centre @ text_of(context).T).softmax(1)
    done = time.time()
    print(f"{way}, {count} classes: {done - began:.2f} s (views {made - began:.2f}, images {encoded - made:.2f}, "
          f"prompt {done - encoded:.2f})")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), sys.argv[3])
    else:
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
