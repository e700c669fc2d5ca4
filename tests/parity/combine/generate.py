"""Two random LoRA adapters and what HF PEFT merges them to (`add_weighted_adapter`).

    python generate.py        (writes expected.safetensors beside this file)

Made with torch 2.9.1, transformers 5.23.0, peft. Tensors: `<part>.<site>.a|b` in the layout of our adapters
(`[d_input, rank]`, `[rank, d_output]`), and `<merge>.<site>`, the merged change of the weight `[d_input, d_output]` cut to
rank 3. Weights 0.7 and -0.4, density 0.5, alpha / rank = 4 / 2. Random dropping (`dare-*`) cannot be drawn alike: its
rule is the rule of `linear` and `ties` when everything is kept, and the generator writes none.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import CLIPModel

HERE = Path(__file__).resolve().parent
SITES = {
    "image.blocks.0.q_proj": "vision_model.encoder.layers.0.self_attn.q_proj",
    "text.blocks.1.fc1": "text_model.encoder.layers.1.mlp.fc1",
}
MERGES = {"linear": "svd", "ties": "ties_svd", "magnitude-prune": "magnitude_prune_svd"}


def layer(model, name):
    return next(module for path, module in model.named_modules() if path.endswith(name))


def main():
    torch.manual_seed(3)
    model = CLIPModel.from_pretrained(HERE.parent / "clip_tiny" / "quick")
    config = LoraConfig(r=2, lora_alpha=4, target_modules=list(SITES.values()), init_lora_weights=False)
    model = get_peft_model(model, config, adapter_name="first")
    model.add_adapter("second", config)
    out = {}
    for site, name in SITES.items():
        module = layer(model, name)
        for part in ["first", "second"]:
            out[f"{part}.{site}.a"] = module.lora_A[part].weight.detach().T.contiguous()
            out[f"{part}.{site}.b"] = module.lora_B[part].weight.detach().T.contiguous()
    for merge, kind in MERGES.items():
        model.base_model.add_weighted_adapter(
            ["first", "second"], [0.7, -0.4], merge, combination_type=kind, svd_rank=3, density=0.5,
            svd_full_matrices=False,
        )
        for site, name in SITES.items():
            out[f"{merge}.{site}"] = layer(model, name).get_delta_weight(merge).detach().T.contiguous()
    save_file(out, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
