"""PEFT folders for other families than CLIP, the features that they give, and a check of the folders that we write.

    python families.py        (writes families/NAME and families/NAME.safetensors beside this file)

Run once with transformers 4.57.3 and peft 0.18.0, which name the layers of ViT and DINOv2 in the old way (`vit-4`, `dinov2-4`), and
once with transformers 5.24.0 and peft 0.21.2 (the others); torch 2.9.1. The backbones are those of `../families`. With
`written/NAME` there, the same adapters as `inarch convert --to peft` wrote them (INARCH_WRITE_FIXTURES=1), they are loaded by
PEFT and must give the same features.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from peft import IA3Config, LNTuningConfig, LoraConfig, OFTConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BertModel, DeiTModel, Dinov2Model, SiglipModel, ViTForImageClassification

HERE = Path(__file__).resolve().parent
FAMILIES = HERE.parent / "families"
OLD = transformers.__version__.startswith("4.")
QUERY, VALUE, UP = ("query", "value", "intermediate.dense") if OLD else ("q_proj", "v_proj", "fc1")
ONE = "vit.encoder.layer.1.attention.attention.key" if OLD else "vit.layers.1.attention.k_proj"

VIT = LoraConfig(r=3, lora_alpha=4, target_modules=[QUERY, VALUE, UP, ONE.split(".")[-1]], modules_to_save=["classifier"],
                 rank_pattern={f"^{ONE}": 2}, alpha_pattern={UP.split(".")[0] + ".dense" if OLD else UP: 5})
DINO = OFTConfig(oft_block_size=8, target_modules=[QUERY, "fc2"], modules_to_save=["norm2"])
CASES = {
    "vit-4": (ViTForImageClassification, "vit", VIT),
    "dinov2-4": (Dinov2Model, "dinov2", DINO),
} if OLD else {
    "vit": (ViTForImageClassification, "vit", VIT),
    "deit": (DeiTModel, "deit", IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"])),
    "dinov2": (Dinov2Model, "dinov2", DINO),
    "bert": (BertModel, "bert", LoraConfig(r=2, use_dora=True, target_modules=["query", "intermediate.dense"],
                                           modules_to_save=["output.LayerNorm"])),
    "siglip": (SiglipModel, "siglip", LoraConfig(r=2, lora_alpha=3, target_modules=["layers.1.self_attn.q_proj", "layers.0.mlp.fc1"])),
    "siglip-ln": (SiglipModel, "siglip", LNTuningConfig(target_modules=["layer_norm1", "encoder.layers.1.layer_norm2"])),
}


def features(model, family):
    """What the adapted model makes of the inputs of its family's fixture."""
    inputs = load_file(FAMILIES / family / "expected.safetensors")
    inner = model.get_base_model()
    with torch.no_grad():
        found = {}
        if family == "siglip":
            out = inner(input_ids=inputs["input_ids"].long(), pixel_values=inputs["pixels"])
            return {"image": out.image_embeds, "text": out.text_embeds}
        if family == "bert":
            ids = inputs["input_ids"].long()
            mask = (ids != 0).long()
            return {"text": inner(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]}
        tower = getattr(inner, "vit", inner)
        found["image"] = tower(inputs["pixels"]).last_hidden_state[:, 0]
        if hasattr(inner, "classifier"):
            found["logits"] = inner(inputs["pixels"]).logits
        return found


def main():
    for name, (kind, family, config) in CASES.items():
        torch.manual_seed(7)
        model = get_peft_model(kind.from_pretrained(FAMILIES / family), config).eval()
        for key, parameter in model.named_parameters():
            if any(part in key for part in ["lora_A", "lora_B"]):
                parameter.data = torch.randn_like(parameter) * 0.3
            if "oft_R" in key or "ln_tuning_layers" in key or "modules_to_save" in key:
                parameter.data = parameter.data + torch.randn_like(parameter) * 0.1
            if "magnitude" in key or "ia3_l" in key:
                parameter.data = parameter.data * (1 + 0.3 * torch.rand_like(parameter))
        folder = HERE / "families" / name
        shutil.rmtree(folder, ignore_errors=True)
        model.peft_config["default"].base_model_name_or_path = "tiny"
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        expected = features(model, family)
        save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
        written = HERE / "written" / name
        if written.is_dir():
            found = features(PeftModel.from_pretrained(kind.from_pretrained(FAMILIES / family), written).eval(), family)
            for key in expected:
                torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=2e-6)
            print(f"PEFT reads what we wrote: {name}")


if __name__ == "__main__":
    main()
