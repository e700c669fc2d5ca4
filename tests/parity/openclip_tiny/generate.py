"""The weights of `clip_tiny/quick` under the names that OpenAI's and OpenCLIP's checkpoints use.

    python generate.py OUT        (the committed files: `python generate.py .` in this folder)

Made with torch 2.9.1, open_clip_torch 3.3.0, safetensors 0.8.0, from the committed `clip_tiny/quick`. Files written:

- `open_clip_config.json`, `open_clip_model.safetensors`   the layout of an OpenCLIP folder on the hub
- `plain.pt`       a plain state dict in a torch zip file; every pickled value is a tensor or an `OrderedDict`
- `training.pt`    as OpenCLIP writes while training: `{"epoch", "name", "state_dict", "optimizer"}`, names prefixed
                   with `module.`, float16
- `malicious.pt`   a zip that looks like `plain.pt` but whose pickle runs a command when it is unpickled: it would make
                   the empty file `inarch-pickle-was-run` in the current folder. A reader must refuse it
- `expected.safetensors`   outputs of `open_clip.CLIP` with these weights for the inputs of `clip_tiny/quick`; they agree
                   with those of `clip_tiny/quick` (checked here to 1e-5)
"""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import clip_reference as reference

SOURCE = Path(__file__).resolve().parents[1] / "clip_tiny" / "quick"
VISION = dict(image_size=32, patch_size=8, width=48, layers=3, head_width=12, mlp_ratio=2.0)
TEXT = dict(context_length=20, vocab_size=600, width=32, heads=4, layers=2, mlp_ratio=2.0)
BLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def renamed(state):
    """The state dict of `open_clip.CLIP` from that of `transformers.CLIPModel`."""
    found = {
        "logit_scale": state["logit_scale"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["visual_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        for tower, prefix, layers in (("vision_model", "visual.", 3), ("text_model", "", 2)):
            for layer in range(layers):
                source = f"{tower}.encoder.layers.{layer}"
                target = f"{prefix}transformer.resblocks.{layer}"
                for old, new in BLOCK.items():
                    found[f"{target}.{new}.{kind}"] = state[f"{source}.{old}.{kind}"]
                parts = [state[f"{source}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                found[f"{target}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: value.contiguous() for name, value in found.items()}


def outputs(model, pixels, ids):
    """The numbers of `clip_reference.outputs` that OpenCLIP's model can give."""
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(ids.long())
        unit = torch.nn.functional.normalize
        logits = model.logit_scale.exp() * unit(image, dim=-1) @ unit(text, dim=-1).T
    return {"image_features": image, "text_features": text, "logits_per_image": logits}


class RunsWhenUnpickled:
    """What an attacker would put in a checkpoint."""

    def __reduce__(self):
        return os.system, ("touch inarch-pickle-was-run",)


def main(out):
    model = CLIP(24, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT), quick_gelu=True).eval()
    names = list(model.state_dict())
    state = renamed(load_file(SOURCE / "model.safetensors"))
    model.load_state_dict(state, strict=True)
    state = OrderedDict((name, state[name]) for name in names)

    expected = load_file(SOURCE / "expected.safetensors")
    found = outputs(model, expected["pixels"], expected["input_ids"])
    for name, value in found.items():
        difference = (value - expected[name]).abs().max().item()
        assert difference < 1e-5, (name, difference)

    out.mkdir(parents=True, exist_ok=True)
    save_file(found, out / "expected.safetensors")
    save_file(state, out / "open_clip_model.safetensors", {"format": "pt"})
    reference.write_json(out / "open_clip_config.json", {
        "model_cfg": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": reference.MEAN, "std": reference.STD, "interpolation": "bicubic",
                           "resize_mode": "shortest"},
    })
    torch.save(state, out / "plain.pt")
    torch.save({
        "epoch": 32,
        "name": "tiny",
        "state_dict": OrderedDict((f"module.{name}", value.half()) for name, value in state.items()),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(2, 3)}},
                      "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.98), "amsgrad": False, "params": [0]}]},
    }, out / "training.pt")
    torch.save(OrderedDict(logit_scale=state["logit_scale"], note=RunsWhenUnpickled()), out / "malicious.pt")

    for name in ("plain.pt", "training.pt"):
        torch.load(out / name, weights_only=True)
    try:
        torch.load(out / "malicious.pt", weights_only=True)
    except Exception:
        return
    sys.exit("the malicious file was not refused")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
