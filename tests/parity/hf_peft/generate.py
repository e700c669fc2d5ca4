"""PEFT folders and the features that they give, and a check of the folders that we write.

    python generate.py        (writes a folder for each kind and expected.safetensors beside this file)

Made with torch 2.9.1 (2.15.0 for `oft`, `oft-exact`, `boft`, `boft-factors`, `ln`, `saved` and `pickled`), transformers 5.24.0, peft 0.21.2. `lora` has rank and alpha patterns, rsLoRA and the projections;
the others are plain. With `written/` there, folders of the same adapters as `inarch convert --to peft` wrote them
(INARCH_WRITE_FIXTURES=1), they are loaded by PEFT and must give the same features.
"""

import shutil
from pathlib import Path

import torch
from peft import (
    BOFTConfig, IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftModel, VeraConfig, get_peft_model,
)
from peft.tuners.boft import layer as boft
from safetensors.torch import save_file
from transformers import CLIPModel

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "clip_tiny" / "quick"
Q = "vision_model.encoder.layers.1.self_attn.q_proj"
CONFIGS = {
    "lora": LoraConfig(
        r=3, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj", "fc1", "visual_projection"],
        rank_pattern={"fc1": 2, f"^{Q}": 5}, alpha_pattern={"text_model.encoder.layers.0.mlp.fc1": 7}, lora_dropout=0.1,
    ),
    "dora": LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["k_proj", "fc2"]),
    "vera": VeraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"]),
    "loha": LoHaConfig(r=2, alpha=3, target_modules=["q_proj", "fc1"]),
    "lokr": LoKrConfig(r=2, alpha=3, target_modules=["v_proj", "fc2"]),
    "oft": OFTConfig(oft_block_size=8, target_modules=["q_proj", "fc2"]),
    "oft-exact": OFTConfig(oft_block_size=8, target_modules=["v_proj"], use_cayley_neumann=False),
    "boft": BOFTConfig(boft_block_size=8, target_modules=["q_proj", "fc2"]),
    "boft-factors": BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=3, target_modules=["k_proj", "visual_projection"]),
    "ln": LNTuningConfig(target_modules=["layer_norm1", "pre_layrnorm", "final_layer_norm"]),
    "saved": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["layer_norm2", "visual_projection"]),
}


def inputs():
    i = torch.arange(1, 2 * 3 * 32 * 32 + 1, dtype=torch.float64)
    pixels = torch.sin(0.37 * i).float().reshape(2, 3, 32, 32)
    ids = torch.tensor([[598, 10, 200, 301, 599], [598, 44, 91, 77, 599]])
    return pixels, ids


def features(model):
    pixels, ids = inputs()
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
    return {"image": out.image_embeds, "text": out.text_embeds}


class BlockDiagonal(torch.autograd.Function):
    """What PEFT's CUDA extension computes, without which it refuses several butterfly factors."""

    @staticmethod
    def forward(context, blocks):
        return torch.stack([torch.block_diag(*factor) for factor in blocks])


def main():
    boft.get_fbd_cuda = lambda: True
    boft.FastBlockDiag = BlockDiagonal
    out = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(5)
        model = get_peft_model(CLIPModel.from_pretrained(TINY), config).eval()
        for key, parameter in model.named_parameters():
            if any(part in key for part in ["lora_A", "lora_B", "hada_", "lokr_", "vera_lambda"]):
                parameter.data = torch.randn_like(parameter) * 0.3
            if "oft_R" in key:
                parameter.data = torch.randn_like(parameter) * 0.1
            if "boft_R" in key:
                skew = torch.randn_like(parameter) * 0.2
                parameter.data = 0.5 * (skew - skew.transpose(-1, -2))
            if "boft_s" in key:
                parameter.data = 1 + 0.2 * torch.randn_like(parameter)
            if "ln_tuning_layers" in key or "modules_to_save" in key:
                parameter.data = parameter.data + torch.randn_like(parameter) * 0.1
            if "magnitude" in key or "ia3_l" in key:
                parameter.data = parameter.data * (1 + 0.3 * torch.rand_like(parameter))
        shutil.rmtree(HERE / name, ignore_errors=True)
        model.peft_config["default"].base_model_name_or_path = "tiny"
        model.save_pretrained(HERE / name)
        (HERE / name / "README.md").unlink(missing_ok=True)
        if name == "ia3":
            # As versions before safetensors wrote it.
            model.save_pretrained(HERE / "pickled", safe_serialization=False)
            (HERE / "pickled" / "README.md").unlink(missing_ok=True)
        expected = features(model)
        out.update({f"{name}.{tower}": value.contiguous() for tower, value in expected.items()})
        written = HERE / "written" / name
        if written.is_dir():
            found = features(PeftModel.from_pretrained(CLIPModel.from_pretrained(TINY), written).eval())
            for tower in expected:
                torch.testing.assert_close(found[tower], expected[tower], rtol=1e-5, atol=1e-6)
            print(f"PEFT reads what we wrote: {name}")
    save_file(out, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
