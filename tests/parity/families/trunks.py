"""LoRA and DoRA of HF PEFT on the 1 x 1 convolutions of convolutional image towers, and the features that they give.

    python trunks.py        (writes trunks.safetensors beside this file)

Made with torch 2.9.1, transformers 5.24.0, open_clip_torch 3.3.0, peft 0.21.2. The backbones are those of `align/` and `resnet/`. A
convolution stands before its batch normalisation there and is one with it here, so `b` is written with the normalisation's scale in each
column, and a magnitude with that scale's size.

For each `FAMILY.METHOD`: `pixels` are those of `FAMILY/expected.safetensors`, `features` what the adapted tower makes of them, and
`SITE.a` `[d_input, rank]`, `SITE.b` `[rank, d_output]`, with DoRA `SITE.magnitude` `[d_output]`, the values of each site. The scale is
4 / sqrt(3), which is `rank = 3, alpha = 4` with `rank_stabilised`.
"""

import json
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AlignModel

HERE = Path(__file__).resolve().parent


def align():
    """The model, what makes features with it, and for each of our sites its module and the normalisation behind that."""
    model, sites = AlignModel.from_pretrained(HERE / "align").eval(), {}
    for number, block in enumerate(model.vision_model.encoder.blocks):
        name, ours = f"vision_model.encoder.blocks.{number}", f"image.trunk.blocks.{number}"
        if hasattr(block, "expansion"):
            sites[f"{ours}.expand"] = (f"{name}.expansion.expand_conv", block.expansion.expand_bn)
        sites[f"{ours}.reduce"] = (f"{name}.squeeze_excite.reduce", None)
        sites[f"{ours}.excite"] = (f"{name}.squeeze_excite.expand", None)
        sites[f"{ours}.project"] = (f"{name}.projection.project_conv", block.projection.project_bn)
    return model, lambda model, pixels: model.vision_model(pixels).pooler_output, sites


def resnet():
    config = json.loads((HERE / "resnet" / "open_clip_config.json").read_text())["model_cfg"]
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    model = CLIP(config["embed_dim"], vision, text, quick_gelu=config["quick_gelu"]).eval()
    missing = model.load_state_dict(load_file(HERE / "resnet" / "open_clip_model.safetensors"), strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"attn_mask"}, missing
    sites, number = {}, 0
    for stage in range(1, 5):
        for place, block in enumerate(getattr(model.visual, f"layer{stage}")):
            name, ours = f"visual.layer{stage}.{place}", f"image.trunk.blocks.{number}"
            sites[f"{ours}.conv1"], sites[f"{ours}.conv3"] = (f"{name}.conv1", block.bn1), (f"{name}.conv3", block.bn3)
            if block.downsample is not None:
                sites[f"{ours}.downsample"] = (f"{name}.downsample.0", block.downsample[2])
            number += 1
    return model, lambda model, pixels: model.encode_image(pixels), sites


@torch.no_grad()
def adapted(family, dora):
    model, features, sites = {"align": align, "resnet": resnet}[family]()
    pixels = load_file(HERE / family / "expected.safetensors")["pixels"]
    expected = load_file(HERE / family / "expected.safetensors")["image_features"]
    frozen = features(model, pixels)
    assert torch.allclose(frozen, expected, atol=1e-4 * expected.abs().max()), (family, (frozen - expected).abs().max())
    scales = {site: torch.ones(1) if norm is None else norm.weight / (norm.running_var + norm.eps).sqrt()
              for site, (_, norm) in sites.items()}
    config = LoraConfig(r=3, lora_alpha=4, use_rslora=True, use_dora=dora, target_modules=[module for module, _ in sites.values()])
    model = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(31 + dora)
    found = {}
    for site, (module, _) in sites.items():
        layer = model.get_base_model().get_submodule(module)
        assert type(layer).__name__ == "Conv2d" and layer.scaling["default"] == 4 / 3 ** 0.5, layer
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        down.copy_(0.5 * torch.randn(down.shape, generator=generator) * down[0].numel() ** -0.5)
        up.copy_(0.3 * torch.randn(up.shape, generator=generator))
        found[f"{site}.a"] = down.flatten(1).T
        found[f"{site}.b"] = up.flatten(1).T * scales[site]
        if dora:
            magnitude = layer.lora_magnitude_vector["default"].weight
            magnitude.mul_(1 + 0.3 * torch.randn(magnitude.shape, generator=generator))
            found[f"{site}.magnitude"] = magnitude.flatten() * scales[site].abs()
    found["features"] = features(model.get_base_model(), pixels)
    moved = (found["features"] - expected).abs().max() / expected.abs().max()
    assert moved > 0.1, moved
    print(f"{family}, {'dora' if dora else 'lora'}: {len(sites)} sites, features moved by {moved:.2f}")
    name = f"{family}.{'dora' if dora else 'lora'}"
    return {f"{name}.{key}": value.contiguous().clone() for key, value in found.items()}


if __name__ == "__main__":
    cases = [adapted(family, dora) for family in ("align", "resnet") for dora in (False, True)]
    save_file({key: value for case in cases for key, value in case.items()}, HERE / "trunks.safetensors")
