"""Tiny models in which images and texts meet before the score, with random weights, and what transformers computes with them.

    python generate.py OUT        (the committed files: `python generate.py .` in this folder)

Made with torch 2.9.1, transformers 4.57.3, tokenizers 0.22.2, safetensors 0.8.0, peft 0.18.0. Folders written:

- `blip/`         a captioner: `BlipForConditionalGeneration`, image and text of different widths
- `vilt/`         `ViltForImageAndTextRetrieval`
- `vilt_words/`   `ViltForMaskedLM`; no offset of queries, keys and values
- `lora/`         a LoRA of the captioner as PEFT saves it, on projections of both towers and of the attention between them

Each backbone holds `expected.safetensors`: pixels, token rows, what enters each block, and the scores of all pairs.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BlipConfig, BlipForConditionalGeneration, ViltConfig, ViltForImageAndTextRetrieval, ViltForMaskedLM,
)

TEXTS = ["a cat", "a small dog on a mat", "a photo of a cat.", "dog"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "mat", "on", "sm", "##all", "##s", "photo", "of", ".", "x",
         "hat", "shoes", "dress"]
START = len(WORDS)
SIDE = 24


def randomise(model, seed):
    """No parameter is trivial: gains differ from one, biases from zero, widths keep the scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name.lower():
                value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                value.copy_(0.1 * noise)
            elif ("embed" in name or "token" in name) and "patch" not in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise * value[0].numel() ** -0.5)
    return model.eval()


def tokenizer(folder, context):
    pieces = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    pieces.decoder = decoders.WordPiece()
    pieces.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    pieces.save(str(folder / "tokenizer.json"))
    pieces.enable_truncation(context)
    return pieces


def rows(pieces):
    ids = [pieces.encode(text).ids for text in TEXTS]
    length = max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return torch.tensor([row + [0] * (length - len(row)) for row in ids]), mask


def pixels(seed):
    return torch.rand((3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def pairs(images, ids, mask):
    """Every image with every text, image-major."""
    count = len(ids)
    return images.repeat_interleave(count, 0), ids.repeat(len(images), 1), mask.repeat(len(images), 1)


def write(folder, model, processor, found):
    model.config.save_pretrained(folder)
    state = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    base = {"do_resize": True, "do_normalize": True, "do_rescale": True, "resample": 3, "rescale_factor": 1 / 255,
            "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(base | processor, indent=2) + "\n")
    found = {name: value.detach().contiguous().clone() for name, value in found.items()}
    save_file(found, folder / "expected.safetensors", {"texts": json.dumps(TEXTS)})


def keep(blocks, name, found):
    def hook(number):
        def run(_, inputs, kwargs):
            found[f"{name}.{number}"] = inputs[0] if inputs else kwargs["hidden_states"]
        return run
    return [block.register_forward_pre_hook(hook(number), with_kwargs=True) for number, block in enumerate(blocks)]


def likelihoods(logits, ids, mask):
    """The mean log-likelihood of each text's words behind the first."""
    told = torch.log_softmax(logits[:, :-1], -1).gather(2, ids[:, 1:, None]).squeeze(2)
    return (told * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


def captioner():
    vision = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=SIDE, patch_size=8)
    text = dict(hidden_size=20, encoder_hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36,
                vocab_size=START + 1, max_position_embeddings=16, bos_token_id=START, sep_token_id=3, eos_token_id=3, pad_token_id=0)
    config = BlipConfig(vision_config=vision, text_config=text, attn_implementation="eager")
    return randomise(BlipForConditionalGeneration(config), 1)


def captions(model, images, ids, mask, found=None):
    """The scores of all pairs, and with `found` what enters the blocks."""
    every = pairs(images, ids, mask)
    seen = {} if found is None else found
    hooks = keep(model.text_decoder.bert.encoder.layer, "text.hidden", seen)
    logits = model(pixel_values=every[0], input_ids=every[1], attention_mask=every[2]).logits
    for hook in hooks:
        hook.remove()
    return likelihoods(logits, every[1], every[2]).reshape(len(images), len(ids)), logits


@torch.no_grad()
def blip(out):
    folder = out / "blip"
    folder.mkdir(exist_ok=True)
    model = captioner()
    ids, mask = rows(tokenizer(folder, 16))
    ids[:, 0] = START
    found = {"pixels": pixels(2), "input_ids": ids.to(torch.int32), "mask": mask.to(torch.int32)}
    hooks = keep(model.vision_model.encoder.layers, "vision.hidden", found)
    found["image_tokens"] = model.vision_model(found["pixels"]).last_hidden_state
    for hook in hooks:
        hook.remove()
    found["scores"], found["logits"] = captions(model, found["pixels"], ids, mask, found)
    # Each image with a text of its own, as captions are trained on.
    labels = ids[:3].masked_fill(mask[:3] == 0, -100)
    labels[:, 0] = -100
    own = model(pixel_values=found["pixels"], input_ids=ids[:3], attention_mask=mask[:3], labels=labels)
    found["loss"] = own.loss.reshape(1)
    greedy = model.generate(pixel_values=found["pixels"], max_new_tokens=8, num_beams=1, do_sample=False)
    found["greedy"] = torch.nn.functional.pad(greedy, (0, 12 - greedy.shape[1])).to(torch.int32)
    processor = {"image_processor_type": "BlipImageProcessor", "size": {"height": SIDE, "width": SIDE}}
    write(folder, model, processor, found)


@torch.no_grad()
def lora(out):
    folder = out / "lora"
    model = captioner()
    ids, mask = rows(tokenizer(out / "blip", 16))
    ids[:, 0] = START
    targets = r".*text_decoder.*(self\.query|self\.key|self\.value|output\.dense|intermediate\.dense)|.*vision_model.*fc1"
    adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=5, target_modules=targets, init_lora_weights=False))
    generator = torch.Generator().manual_seed(4)
    for name, value in sorted(adapted.named_parameters()):
        if "lora_" in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    adapted.eval().save_pretrained(folder)
    (folder / "README.md").unlink()
    scores, _ = captions(adapted, pixels(2), ids, mask)
    save_file({"scores": scores.contiguous()}, folder / "expected.safetensors")


def vilt_config(**more):
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=SIDE, patch_size=8,
                 vocab_size=START, max_position_embeddings=16, max_image_length=-1, attn_implementation="eager")
    return ViltConfig(**(shape | more))


VILT = {"image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": SIDE}, "size_divisor": 8, "do_pad": True}


def in_order(hidden, order, words):
    """Patches of a stream in the order of the grid, which the reference shuffles."""
    back = torch.argsort(order, 1) + words + 1
    places = torch.cat([torch.arange(words + 1).expand(len(order), -1), back], 1)
    return hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def stream(model, every, found):
    """A pass over pairs, with what enters the blocks."""
    order = []
    embed = model.vilt.embeddings.visual_embed
    def watched(*arguments, **named):
        result = embed(*arguments, **named)
        index, (_, width) = result[2]
        order.append(index[..., 0] * width + index[..., 1])
        return result
    model.vilt.embeddings.visual_embed = watched
    hidden = {}
    hooks = keep(model.vilt.encoder.layer, "text.hidden", hidden)
    output = model(pixel_values=every[0], input_ids=every[1], attention_mask=every[2])
    for hook in hooks:
        hook.remove()
    model.vilt.embeddings.visual_embed = embed
    found |= {name: in_order(value, order[0], every[1].shape[1]) for name, value in hidden.items()}
    return output.logits


@torch.no_grad()
def vilt(out):
    folder = out / "vilt"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = randomise(ViltForImageAndTextRetrieval(vilt_config()), 3)
    ids, mask = rows(tokenizer(folder, 16))
    found = {"pixels": pixels(5), "input_ids": ids.to(torch.int32), "mask": mask.to(torch.int32)}
    scores = stream(model, pairs(found["pixels"], ids, mask), found)
    found["scores"] = scores.reshape(3, len(TEXTS))
    write(folder, model, VILT, found)


@torch.no_grad()
def vilt_words(out):
    folder = out / "vilt_words"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = randomise(ViltForMaskedLM(vilt_config(qkv_bias=False)), 6)
    ids, mask = rows(tokenizer(folder, 16))
    found = {"pixels": pixels(7), "input_ids": ids.to(torch.int32), "mask": mask.to(torch.int32)}
    # Each word hidden in turn; the mean of its log-probabilities.
    scores = torch.zeros(3, len(TEXTS))
    for image in range(3):
        for text, row in enumerate(ids):
            words = range(1, int(mask[text].sum()) - 1)
            hidden = row.repeat(len(words), 1)
            for at, place in enumerate(words):
                hidden[at, place] = 4
            logits = stream(model, (found["pixels"][image:image + 1].repeat(len(words), 1, 1, 1), hidden,
                                    mask[text:text + 1].repeat(len(words), 1)), {})
            told = torch.log_softmax(logits, -1)
            scores[image, text] = torch.stack([told[at, place, row[place]] for at, place in enumerate(words)]).mean()
    found["scores"] = scores
    # A masked batch, as it is trained on: places 1 and 3 of each text are hidden.
    hidden, labels = ids[:3].clone(), torch.full((3, ids.shape[1]), -100)
    for row in range(3):
        for place in (1, 3):
            if place < int(mask[row].sum()) - 1:
                labels[row, place], hidden[row, place] = ids[row, place], 4
    output = model(pixel_values=found["pixels"], input_ids=hidden, attention_mask=mask[:3], labels=labels)
    found |= {"masked_ids": hidden.to(torch.int32), "labels": labels.to(torch.int32), "loss": output.loss.reshape(1)}
    write(folder, model, VILT, found)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for family in (blip, lora, vilt, vilt_words):
        family(out)
    for folder in ("blip", "vilt", "vilt_words"):
        print(folder, load_file(out / folder / "expected.safetensors")["scores"])
