"""Tiny backbones of other families than CLIP with random weights, and what the reference implementations compute with them.

    python generate.py OUT        (the committed files: `python generate.py .` in this folder)

Made with torch 2.9.1, transformers 4.57.3, tokenizers 0.22.2, safetensors 0.8.0. Folders written:

- `vit/`          ViT with a class head; no offset of queries, keys and values
- `deit/`         DeiT with a class and a distillation token
- `dinov2/`       DINOv2 trained at 36 pixels and run at 24: its positions are resampled
- `siglip/`       SigLIP: attention pool, texts filled to the context, scores with an offset
- `align/`        ALIGN: an EfficientNet beside a BERT, and what its image processor makes of a picture
- `bert/`         BERT, whose feature is the first token
- `minilm/`       the same weights as a sentence-transformers folder: the mean of the tokens
- `biomed/`       a ViT of timm beside a BERT, as OpenCLIP saves BiomedCLIP (open_clip_torch 3.2.0, timm 1.0.31)
- `resnet/`       a ResNet of CLIP under OpenAI's names, batch normalisations with statistics (open_clip_torch 3.3.0)
- `vit_pytorch/`  the layout of the `vit-pytorch` package, written out below: heads wider than their share, ReLU, grey pixels

Each holds `expected.safetensors`: inputs, features, logits where there are any, and the residual stream before each block.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlignConfig, AlignModel, BertConfig, BertModel, DeiTConfig, DeiTForImageClassificationWithTeacher, Dinov2Config, Dinov2Model,
    EfficientNetImageProcessor, SiglipConfig,
    SiglipModel, ViTConfig, ViTForImageClassification,
)

TEXTS = ["a cat", "", "a small dog on a mat", "cat " * 30]


def randomise(model, seed):
    """No parameter is trivial: gains differ from one, biases from zero, widths keep the scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            if name in ("logit_scale", "logit_bias"):
                value.copy_(0.2 * noise + (2.5 if name == "logit_scale" else -3.0))
            elif name == "temperature":
                value.fill_(0.07)
            elif "norm" in name.lower() or "_bn." in name or "lambda" in name:
                value.copy_(0.2 * noise + (1.0 if name.endswith(("weight", "lambda1")) else 0.0))
            elif name.endswith("bias"):
                value.copy_(0.1 * noise)
            elif ("embed" in name or "token" in name or "probe" in name) and "patch" not in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise * value[0].numel() ** -0.5)
    return model.eval()


def pixels(count, channels, side, seed):
    """Normalised pixels as a processor with mean and deviation 0.5 would give them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, channels, side, side), generator=generator) * 2 - 1


def write(folder, config, tensors, side=None):
    folder.mkdir(exist_ok=True)
    if isinstance(config, dict):
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    else:
        config.save_pretrained(folder)
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()},
              folder / "model.safetensors", {"format": "pt"})
    if side is not None:
        processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_normalize": True, "do_rescale": True,
                     "size": {"height": side, "width": side}, "resample": 2, "image_mean": [0.5] * 3,
                     "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def expect(folder, found, texts=()):
    found = {name: value.detach().contiguous().clone() for name, value in found.items()}
    save_file(found, folder / "expected.safetensors", {"texts": json.dumps(list(texts))})


def streams(blocks, prefix, found):
    """Hooks that keep what enters each block."""
    def keep(number):
        def hook(_, inputs, kwargs):
            found[f"{prefix}.hidden.{number}"] = inputs[0] if inputs else kwargs["hidden_states"]
        return hook
    return [block.register_forward_pre_hook(keep(number), with_kwargs=True) for number, block in enumerate(blocks)]


@torch.no_grad()
def image_family(folder, model, inner, blocks, side, features):
    found = {"pixels": pixels(3, 3, side, 5)}
    hooks = streams(blocks, "vision", found)
    hidden = inner(found["pixels"])
    for hook in hooks:
        hook.remove()
    found["image_features"] = features(hidden)
    head = getattr(model, "classifier", getattr(model, "cls_classifier", None))
    if head is not None and not isinstance(head, torch.nn.Identity):
        found["logits"] = head(found["image_features"])
    write(folder, model.config, model.state_dict(), side)
    expect(folder, found)


def first(output):
    return output.last_hidden_state[:, 0]


def vits(out):
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=24,
                 patch_size=8, num_labels=3, id2label={0: "cat", 1: "dog", 2: "mat"})
    vit = randomise(ViTForImageClassification(ViTConfig(qkv_bias=False, **shape)), 1)
    image_family(out / "vit", vit, vit.vit, vit.vit.encoder.layer, 24, first)
    deit = randomise(DeiTForImageClassificationWithTeacher(DeiTConfig(**shape)), 2)
    image_family(out / "deit", deit, deit.deit, deit.deit.encoder.layer, 24, first)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=36, patch_size=4)
    dino = randomise(Dinov2Model(config), 3)
    image_family(out / "dinov2", dino, dino, dino.encoder.layer, 24, first)


def word_pieces(folder):
    """A tokenizer with the rules of BERT."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "mat", "on", "sm", "##all", "##s", "photo", "of", ".", "x"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer, len(words)


def sentence_pieces(folder):
    """A tokenizer with the rules of SigLIP."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0)] + [
        (f"\u2581{word}", -float(index + 2)) for index, word in enumerate("a cat dog mat on small photo of".split())]
    pieces += [("\u2581", -20.0), (".", -21.0), ("x", -22.0), ("s", -23.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>", "model_max_length": 12}) + "\n")
    return tokenizer, len(pieces)


def rows(tokenizer, context, pad, whole):
    tokenizer.enable_truncation(context)
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    length = context if whole else max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return torch.tensor([row + [pad] * (length - len(row)) for row in ids]), mask


@torch.no_grad()
def siglip(out):
    folder = out / "siglip"
    folder.mkdir(exist_ok=True)
    tokenizer, vocabulary = sentence_pieces(folder)
    shape = dict(num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    model = randomise(SiglipModel(SiglipConfig(
        vision_config=dict(hidden_size=24, image_size=24, patch_size=8, **shape),
        text_config=dict(hidden_size=30, projection_size=24, max_position_embeddings=12, vocab_size=vocabulary, bos_token_id=0,
                         eos_token_id=1, pad_token_id=1, **shape))), 4)
    ids, _ = rows(tokenizer, 12, 1, True)
    found = {"pixels": pixels(3, 3, 24, 6), "input_ids": ids.to(torch.int32)}
    hooks = streams(model.vision_model.encoder.layers, "vision", found) + streams(model.text_model.encoder.layers, "text", found)
    output = model(input_ids=ids, pixel_values=found["pixels"])
    for hook in hooks:
        hook.remove()
    found["image_features"] = model.vision_model(found["pixels"]).pooler_output
    found["text_features"] = model.text_model(ids).pooler_output
    found["logits_per_image"] = output.logits_per_image
    write(folder, model.config, model.state_dict(), 24)
    expect(folder, found, TEXTS)


@torch.no_grad()
def align(out):
    folder = out / "align"
    folder.mkdir(exist_ok=True)
    tokenizer, vocabulary = word_pieces(folder)
    dim, side = 12, 33
    vision = dict(image_size=64, width_coefficient=0.25, depth_coefficient=1.1, depth_divisor=4, in_channels=[32, 16, 24],
                  out_channels=[16, 24, 40], kernel_sizes=[3, 5, 3], strides=[1, 2, 2], num_block_repeats=[1, 1, 2],
                  expand_ratios=[1, 4, 6], depthwise_padding=[4], hidden_dim=dim)
    text = dict(vocab_size=vocabulary, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
                max_position_embeddings=16)
    model = AlignModel(AlignConfig(vision_config=vision, text_config=text, projection_dim=dim, attn_implementation="eager"))
    randomise(model, 13)
    generator = torch.Generator().manual_seed(14)
    for name, value in sorted(model.named_buffers()):
        if name.endswith("running_mean"):
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    ids, mask = rows(tokenizer, 16, 0, False)
    found = {"pixels": pixels(3, 3, side, 15), "input_ids": ids.to(torch.int32)}
    hooks = streams(model.text_model.encoder.layer, "text", found)
    output = model(input_ids=ids, attention_mask=mask, pixel_values=found["pixels"])
    for hook in hooks:
        hook.remove()
    hidden = model.vision_model(found["pixels"], output_hidden_states=True)
    found |= {f"vision.map.{number}": value for number, value in enumerate(hidden.hidden_states)}
    found["image_features"] = model.get_image_features(found["pixels"])
    found["text_features"] = model.get_text_features(input_ids=ids, attention_mask=mask)
    found["logits_per_image"] = output.logits_per_image
    # As `kakaobrain/align-base` has it, but for the sizes.
    processor = EfficientNetImageProcessor(
        size={"height": 40, "width": 40}, crop_size={"height": side, "width": side}, do_center_crop=True, resample=2,
        rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False)
    picture = torch.randint(0, 256, (52, 47, 3), generator=generator, dtype=torch.uint8)
    found["picture"] = picture.to(torch.int32)
    found["prepared"] = torch.tensor(processor(picture.numpy())["pixel_values"][0])
    twice = EfficientNetImageProcessor(**{**processor.to_dict(), "do_normalize": True, "include_top": True})
    found["prepared_twice"] = torch.tensor(twice(picture.numpy())["pixel_values"][0])
    write(folder, model.config, model.state_dict())
    processor.save_pretrained(folder)
    expect(folder, found, TEXTS)


@torch.no_grad()
def berts(out):
    for name in ("bert", "minilm"):
        folder = out / name
        folder.mkdir(exist_ok=True)
        tokenizer, vocabulary = word_pieces(folder)
        config = BertConfig(vocab_size=vocabulary, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                            intermediate_size=40, max_position_embeddings=16, attn_implementation="eager")
        model = randomise(BertModel(config), 7)
        ids, mask = rows(tokenizer, 16, 0, False)
        found = {"input_ids": ids.to(torch.int32), "mask": mask.to(torch.int32)}
        hooks = streams(model.encoder.layer, "text", found)
        last = model(input_ids=ids, attention_mask=mask).last_hidden_state
        for hook in hooks:
            hook.remove()
        if name == "bert":
            found["text_features"] = last[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(last.dtype)
            found["text_features"] = (last * weights).sum(1) / weights.sum(1)
            (folder / "1_Pooling").mkdir(exist_ok=True)
            (folder / "1_Pooling" / "config.json").write_text(
                json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}) + "\n")
        write(folder, config, model.state_dict())
        expect(folder, found, TEXTS)


@torch.no_grad()
def biomed(out):
    import timm
    from open_clip.hf_model import HFTextEncoder
    from open_clip.timm_model import TimmModel
    from timm.models.vision_transformer import VisionTransformer

    @timm.models.register_model
    def vit_fixture(pretrained=False, **_):
        model = VisionTransformer(img_size=24, patch_size=8, embed_dim=64, depth=2, num_heads=1, mlp_ratio=1)
        model.default_cfg = {}
        return model

    folder, context, dim = out / "biomed", 12, 32
    folder.mkdir(exist_ok=True)
    tokenizer, vocabulary = word_pieces(folder)
    config = BertConfig(vocab_size=vocabulary, hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
                        max_position_embeddings=16, attn_implementation="eager")
    model = torch.nn.Module()
    model.visual = TimmModel("vit_fixture", dim, image_size=24, pool="", proj="linear")
    model.text = HFTextEncoder("bert", dim, config=config, pooler_type="cls_last_hidden_state_pooler", proj_type="mlp")
    model.logit_scale = torch.nn.Parameter(torch.tensor(2.5))
    randomise(model, 11)
    ids, _ = rows(tokenizer, context, 0, False)
    found = {"pixels": pixels(3, 3, 24, 12), "input_ids": ids.to(torch.int32)}
    hooks = streams(model.visual.trunk.blocks, "vision", found) + streams(model.text.transformer.encoder.layer, "text", found)
    found["image_features"], found["text_features"] = model.visual(found["pixels"]), model.text(ids)
    for hook in hooks:
        hook.remove()
    normal = torch.nn.functional.normalize
    found["logits_per_image"] = model.logit_scale.exp() * normal(found["image_features"]) @ normal(found["text_features"]).T
    state = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", {"format": "pt"})
    expect(folder, found, TEXTS)
    text = dict(hf_model_name="tiny", hf_tokenizer_name="tiny", hf_proj_type="mlp", context_length=context,
                hf_pooler_type="cls_last_hidden_state_pooler")
    vision = dict(timm_model_name="vit_fixture", timm_model_pretrained=False, timm_pool="", timm_proj="linear", image_size=24)
    config = dict(model_cfg=dict(embed_dim=dim, vision_cfg=vision, text_cfg=text),
                  preprocess_cfg=dict(mean=[0.5] * 3, std=[0.5] * 3))
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def vit_pytorch(out):
    """A ViT written out: patches as rows of row, column, channel; pre-norm; one matrix for queries, keys and values."""
    width, heads, head, mlp, patch, side, depth, classes = 12, 2, 8, 20, 4, 8, 2, 4
    generator = torch.Generator().manual_seed(9)
    draw = lambda *shape, scale=1.0: torch.randn(shape, generator=generator) * scale
    tokens = (side // patch) ** 2 + 1
    weights = {
        "pos_embedding": draw(1, tokens, width, scale=0.5), "cls_token": draw(1, 1, width, scale=0.5),
        "to_patch_embedding.1.weight": draw(width, patch * patch, scale=0.25), "to_patch_embedding.1.bias": draw(width, scale=0.1),
        "mlp_head.0.weight": 1 + draw(width, scale=0.2), "mlp_head.0.bias": draw(width, scale=0.1),
        "mlp_head.1.weight": draw(classes, width, scale=0.3), "mlp_head.1.bias": draw(classes, scale=0.1),
    }
    for block in range(depth):
        name = f"transformer.layers.{block}"
        for half in (0, 1):
            weights |= {f"{name}.{half}.norm.weight": 1 + draw(width, scale=0.2), f"{name}.{half}.norm.bias": draw(width, scale=0.1)}
        weights |= {
            f"{name}.0.fn.to_qkv.weight": draw(3 * heads * head, width, scale=0.3),
            f"{name}.0.fn.to_out.0.weight": draw(width, heads * head, scale=0.25), f"{name}.0.fn.to_out.0.bias": draw(width, scale=0.1),
            f"{name}.1.fn.net.0.weight": draw(mlp, width, scale=0.3), f"{name}.1.fn.net.0.bias": draw(mlp, scale=0.1),
            f"{name}.1.fn.net.3.weight": draw(width, mlp, scale=0.25), f"{name}.1.fn.net.3.bias": draw(width, scale=0.1),
        }
    grey = pixels(3, 1, side, 10)
    found = {"pixels": grey.expand(-1, 3, -1, -1).contiguous()}
    grid = side // patch
    patches = grey.reshape(3, 1, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).reshape(3, grid * grid, patch * patch)
    linear, norm = torch.nn.functional.linear, torch.nn.functional.layer_norm
    x = linear(patches, weights["to_patch_embedding.1.weight"], weights["to_patch_embedding.1.bias"])
    x = torch.cat([weights["cls_token"].expand(3, -1, -1), x], 1) + weights["pos_embedding"]
    for block in range(depth):
        found[f"vision.hidden.{block}"] = x
        get = lambda rest, name=f"transformer.layers.{block}": weights[f"{name}.{rest}"]
        normed = norm(x, (width,), get("0.norm.weight"), get("0.norm.bias"))
        q, k, v = (part.reshape(3, tokens, heads, head).transpose(1, 2) for part in linear(normed, get("0.fn.to_qkv.weight")).chunk(3, -1))
        seen = (q @ k.transpose(-1, -2) * head ** -0.5).softmax(-1) @ v
        x = x + linear(seen.transpose(1, 2).reshape(3, tokens, heads * head), get("0.fn.to_out.0.weight"), get("0.fn.to_out.0.bias"))
        normed = norm(x, (width,), get("1.norm.weight"), get("1.norm.bias"))
        hidden = linear(normed, get("1.fn.net.0.weight"), get("1.fn.net.0.bias")).relu()
        x = x + linear(hidden, get("1.fn.net.3.weight"), get("1.fn.net.3.bias"))
    found["image_features"] = norm(x[:, 0], (width,), weights["mlp_head.0.weight"], weights["mlp_head.0.bias"])
    found["logits"] = linear(found["image_features"], weights["mlp_head.1.weight"], weights["mlp_head.1.bias"])
    config = {"model_type": "vit-pytorch", "image_size": side, "num_channels": 1, "head_dim": head, "hidden_act": "relu"}
    write(out / "vit_pytorch", config, weights, side)
    expect(out / "vit_pytorch", found)


@torch.no_grad()
def resnet(out):
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import clip_reference as reference

    folder, context = out / "resnet", 16
    folder.mkdir(exist_ok=True)
    tokenizer = reference.reduced_tokenizer(6)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    vision = dict(layers=[1, 2, 1, 1], width=4, image_size=64, head_width=32)
    text = dict(context_length=context, vocab_size=520, width=16, heads=2, layers=1)
    model = CLIP(12, CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=True)
    generator = torch.Generator().manual_seed(11)
    for name, value in sorted(model.state_dict().items()):
        noise = torch.randn(value.shape, generator=generator)
        if "num_batches" in name or name == "attn_mask":
            continue
        if "running_var" in name:
            value.copy_(0.5 + noise.abs())
        elif "bn" in name or "downsample.1" in name or "ln_" in name:
            value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif name == "logit_scale":
            value.copy_(2.5 + 0.2 * noise)
        elif name.endswith("bias") or "embedding" in name:
            value.copy_(0.3 * noise)
        else:
            value.copy_(1.4 * noise * value[0].numel() ** -0.5)
    model.eval()
    ids = reference.padded(tokenizer, TEXTS[:3], context, pad=0)
    found = {"pixels": pixels(2, 3, 64, 12), "input_ids": ids.to(torch.int32)}
    found["image_features"] = model.encode_image(found["pixels"])
    found["text_features"] = model.encode_text(ids)
    config = {"model_cfg": {"embed_dim": 12, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text},
              "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items() if name != "attn_mask"}
    save_file(state, folder / "open_clip_model.safetensors", {"format": "pt"})
    expect(folder, found, TEXTS[:3])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    vits(target)
    siglip(target)
    align(target)
    berts(target)
    biomed(target)
    vit_pytorch(target)
    resnet(target)
