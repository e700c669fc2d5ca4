"""Adapter files in the layouts of other programs, and the scores that they mean.

    python generate.py        (writes the files and expected.json beside this one; needs torch, transformers, peft)

Made with torch 2.15.0, transformers 5.24.0. Each file holds the names, shapes, types and side objects that the authors'
code writes, read in their repositories:

- CoOp, CoCoOp      KaiyangZhou/CoOp, trainers/{coop,cocoop}.py; saved by KaiyangZhou/Dassl.pytorch, save_checkpoint
- KgCoOp            htyao89/KgCoOp, trainers/kgcoop.py
- MaPLe, VPT        muzairkhattak/multimodal-prompt-learning, trainers/{maple,vpt}.py, clip/model.py
- PromptSRC, IVLP   muzairkhattak/PromptSRC, trainers/{promptsrc,independentVL}.py, clip/model.py
- CLIP-LoRA         MaxZanella/CLIP-LoRA, loralib/{utils,layers}.py
- Tip-Adapter       gaopengcuhk/Tip-Adapter, main.py, utils.py
- LoRA, DoRA        kohya-ss/sd-scripts, networks/lora.py; KohakuBlueleaf/LyCORIS, modules/locon.py
- LoHa, LoKr        KohakuBlueleaf/LyCORIS, modules/{loha,lokr}.py

The scores come from the towers of `../methods/generate.py`, in double precision, with the values of the files.
"""

import json
import math
import sys
import types
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "methods")]
import generate as towers  # noqa: E402
from generate import CLASSES, MODEL, SCALE, TOKENIZER, Sites  # noqa: E402

CONTEXT = MODEL.config.text_config.max_position_embeddings
TABLE = MODEL.text_model.embeddings.token_embedding.weight.detach().float()
BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
         "self_attn.out_proj": "attn.out_proj"}


def drawn(*shape, scale=0.3, dtype=torch.float32):
    return (torch.randn(*shape) * scale).to(dtype)


def clip_tokens(text):
    """`clip.tokenize`: padded with zeros."""
    ids = TOKENIZER.encode(text).ids
    return ids + [0] * (CONTEXT - len(ids))


def buffers(words, tokens, dtype):
    """`token_prefix` and `token_suffix` of a prompt of `tokens` learned tokens. CoOp counts words, which the small
    vocabulary of this backbone would cut into more tokens than one: its prompts are placeholders here."""
    rows = TABLE[torch.tensor([clip_tokens(f"{words} {name}.") for name in CLASSES])].to(dtype)
    return {"token_prefix": rows[:, :1], "token_suffix": rows[:, 1 + tokens:]}


def openai_weights(dtype):
    """The image encoder, text encoder and scale of the model, as CustomCLIP registers them."""
    state = {name: value.detach().float() for name, value in MODEL.state_dict().items()}
    image = {
        "class_embedding": state["vision_model.embeddings.class_embedding"],
        "positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    text = {"positional_embedding": state["text_model.embeddings.position_embedding.weight"],
            "text_projection": state["text_projection.weight"].T}
    for kind in ("weight", "bias"):
        image[f"ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        image[f"ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        text[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for tower, found, layers in (("vision_model", image, 3), ("text_model", text, 2)):
            for layer in range(layers):
                source, target = f"{tower}.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
                for old, new in BLOCK.items():
                    found[f"{target}.{new}.{kind}"] = state[f"{source}.{old}.{kind}"]
                parts = [state[f"{source}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                found[f"{target}.attn.in_proj_{kind}"] = torch.cat(parts)
    half = lambda prefix, tensors: {f"{prefix}{name}": value.to(dtype) for name, value in tensors.items()}
    return half("image_encoder.", image) | half("text_encoder.", text) | {"logit_scale": state["logit_scale"].to(dtype)}


class _Scheduler(torch.optim.lr_scheduler.LRScheduler):
    """Dassl's warm-up: it keeps the schedule that follows, an object, among its state."""

    def __init__(self, optimizer, successor):
        self.successor, self.warmup_epoch, self.cons_lr = successor, 1, 1e-5
        super().__init__(optimizer)

    def get_lr(self):
        return [self.cons_lr for _ in self.base_lrs]


_Scheduler.__module__, _Scheduler.__qualname__ = "dassl.optim.lr_scheduler", "ConstantWarmupScheduler"
for name in ["dassl", "dassl.optim", "dassl.optim.lr_scheduler"]:
    sys.modules[name] = types.ModuleType(name)
sys.modules["dassl.optim.lr_scheduler"].ConstantWarmupScheduler = _Scheduler


def save(name, state, **options):
    """`dassl.utils.save_checkpoint`, with an optimizer that has moved and a schedule in its warm-up."""
    trained = torch.nn.Parameter(drawn(2, 3))
    optimizer = torch.optim.SGD([trained], lr=0.002, momentum=0.9, weight_decay=5e-4)
    trained.square().sum().backward()
    optimizer.step()
    scheduler = _Scheduler(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50))
    checkpoint = {"state_dict": OrderedDict(state), "epoch": 50, "optimizer": optimizer.state_dict(),
                  "scheduler": scheduler.state_dict(), "val_result": 61.5}
    torch.save(checkpoint, HERE / name, **options)


def double(tensor):
    return tensor.detach().double()


def coop(out):
    state = {"ctx": drawn(4, 32, dtype=torch.float16)} | buffers("X X X X", 4, torch.float16)
    save("coop.pth.tar", state)
    # The format of PyTorch before 1.6.
    save("coop-old.pth.tar", state, _use_new_zipfile_serialization=False)
    out["coop"] = towers.Coop({"context": double(state["ctx"])})
    # The name in front, as the configuration of the run says and the file does not.
    own = double(state["ctx"])

    class Front(Sites):
        templates = ["{} X X X X."]

        def tokens(self, tower, block, x, ends):
            if tower != "text" or block != 0:
                return x
            return torch.stack([torch.cat([row[:end - 5], own, row[end - 1:]]) for row, end in zip(x, ends)])

    out["coop-front"] = Front()
    state = {"ctx": drawn(4, 4, 32)} | buffers("X X X X", 4, torch.float32)
    save("coop-specific.pth.tar", state)
    out["coop-specific"] = towers.CoopSpecific({"context": double(state["ctx"]).reshape(16, 32)})
    net = {"meta_net.linear1.weight": drawn(6, 24), "meta_net.linear1.bias": drawn(6),
           "meta_net.linear2.weight": drawn(32, 6), "meta_net.linear2.bias": drawn(32)}
    state = {"ctx": drawn(4, 32)} | buffers("X X X X", 4, torch.float32)
    save("cocoop.pth.tar", state | net)

    class CoCoop(towers.CoCoop):
        templates = ["X X X X {}."]

    down, up = double(net["meta_net.linear1.weight"]).T, double(net["meta_net.linear2.weight"]).T
    out["cocoop"] = CoCoop({"context": double(state["ctx"]), "down.weight": down, "up.weight": up,
                            "down.bias": double(net["meta_net.linear1.bias"]),
                            "up.bias": double(net["meta_net.linear2.bias"])})
    state = {"ctx": drawn(4, 32, dtype=torch.float16), "bias_vectors": drawn(1, 32, dtype=torch.float16)}
    state |= {name: value.half() for name, value in net.items()} | buffers("X X X X", 4, torch.float16)
    save("kgcoop.pth.tar", state)
    out["kgcoop"] = towers.Coop({"context": double(state["ctx"])})


def learner(tensors):
    return {f"prompt_learner.{name}": value for name, value in tensors.items()}


def deep(out):
    half = torch.float16
    frozen = openai_weights(half)
    own = {"ctx": drawn(2, 32, dtype=half), "proj.weight": drawn(48, 32, dtype=half), "proj.bias": drawn(48, dtype=half),
           "compound_prompts_text.0": drawn(2, 32), "compound_prompt_projections.0.weight": drawn(48, 32),
           "compound_prompt_projections.0.bias": drawn(48)}
    save("maple.pth.tar", learner(own | buffers("a photo of a", 2, half)) | frozen)
    out["maple"] = towers.Maple({
        "text.blocks.0": double(own["ctx"]), "text.blocks.1": double(own["compound_prompts_text.0"]),
        "maps.0.weight": double(own["proj.weight"]).T, "maps.0.bias": double(own["proj.bias"]),
        "maps.1.weight": double(own["compound_prompt_projections.0.weight"]).T,
        "maps.1.bias": double(own["compound_prompt_projections.0.bias"])})

    def prompts(text):
        own = {"image_encoder.VPT": drawn(4, 48)}
        own |= {f"image_encoder.transformer.resblocks.{block}.VPT_shallow": drawn(4, 48) for block in (1, 2)}
        if text:
            own |= {"prompt_learner.ctx": drawn(3, 32, dtype=half)}
            own |= {"text_encoder.transformer.resblocks.1.VPT_shallow": drawn(3, 32)}
        names = {"image_encoder.VPT": "image.blocks.0", "prompt_learner.ctx": "text.blocks.0"}
        p = {}
        for name, value in own.items():
            parts = name.split(".")
            p[names.get(name) or f"{parts[0].removesuffix('_encoder')}.blocks.{parts[3]}"] = double(value)
        return own, p

    own, p = prompts(True)
    around = learner(buffers("a photo of a", 3, half))
    save("ivlp.pth.tar", own | around | frozen)
    out["ivlp"] = towers.Ivlp(p)
    own, p = prompts(True)
    teacher = {name.replace("image_encoder", "prompt_learner.ZS_image_encoder"): value for name, value in frozen.items()
               if name.startswith("image_encoder.")}
    # Averaging the whole state in half precision moves the frozen weights a little.
    worn = {name: (value.float() * (1 + 1e-3 * torch.rand(()))).to(half) for name, value in frozen.items()}
    save("promptsrc.pth.tar", own | around | worn | teacher)
    out["promptsrc"] = towers.Ivlp(p)
    own, p = prompts(False)
    save("vpt.pth.tar", own | frozen)

    class VptWords(towers.Vpt):
        templates = ["a photo of a {}."]

    out["vpt"] = VptWords(p)


class Change(Sites):
    """Changes of weights `[d_output, d_input]` by site."""

    templates = ["a photo of a {}."]

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def linear(self, name, layer, x):
        change = self.weights.get(name)
        return layer(x) if change is None else F.linear(x, change(layer.weight), layer.bias)


def clip_lora(out):
    weights, changes = {}, {}
    blocks = [("text", 0), ("text", 1), ("image", 0), ("image", 1), ("image", 2)]
    for index, (tower, block) in enumerate(blocks):
        width = towers.WIDTH[tower]
        layer = {}
        for name, part in [("q_proj", "q_proj"), ("v_proj", "v_proj"), ("proj", "out_proj")]:
            a, b = drawn(3, width), drawn(width, 3)
            layer[name] = {"w_lora_A": a, "w_lora_B": b}
            change = double(b) @ double(a) * 2 / math.sqrt(3)
            changes[f"{tower}.blocks.{block}.{part}"] = lambda w, change=change: w + change
        weights[f"layer_{index}"] = layer
    metadata = {"r": 3, "alpha": 2, "encoder": "both", "params": ["q", "v", "o"], "position": "all"}
    torch.save({"weights": weights, "metadata": metadata}, HERE / "lora_weights.pt")
    out["clip-lora"] = Change(changes)


def tip_adapter(out):
    labels = torch.arange(8) % 4
    keys = F.normalize(drawn(8, 24), dim=-1).half().t()
    values = F.one_hot(labels).half()
    torch.save(keys, HERE / "keys_2shots.pt")
    torch.save(values, HERE / "values_2shots.pt")
    trained = torch.nn.Parameter(drawn(8, 24, dtype=torch.float16))
    torch.save(trained, HERE / "best_F_2shots.pt")

    class Tip(Sites):
        templates = ["a {}", "a photo of a {}."]

        def __init__(self, keys):
            super().__init__()
            self.keys = double(keys)

        def logits(self, image, text, scores):
            return scores + 20.0 * torch.exp(-5.0 * (1 - image @ self.keys)) @ double(values)

    out["tip-adapter"] = Tip(keys)
    out["tip-adapter-f"] = Tip(trained.t())


def modules(*names):
    """Sites, and the names of their modules in `CLIPModel` with underscores."""
    for name in names:
        if name == "image.projection":
            yield name, "visual_projection"
            continue
        tower, _, block, part = name.split(".")
        tower = "vision_model" if tower == "image" else "text_model"
        yield name, f"{tower}_encoder_layers_{block}_{towers.NAMES[part].replace('.', '_')}"


def kohya(out):
    tensors, changes = {}, {}
    for rank, (name, module) in enumerate(modules("text.blocks.0.q_proj", "text.blocks.1.fc1", "text.blocks.1.fc2"), 2):
        shape = {"q_proj": (32, 32), "fc1": (64, 32), "fc2": (32, 64)}[name.rsplit(".", 1)[1]]
        down, up = drawn(rank, shape[1], dtype=torch.float16), drawn(shape[0], rank, dtype=torch.float16)
        tensors |= {f"lora_te_{module}.lora_down.weight": down, f"lora_te_{module}.lora_up.weight": up}
        alpha = rank if rank == 3 else 1.5
        if rank != 3:
            tensors[f"lora_te_{module}.alpha"] = torch.tensor(alpha)
        changes[name] = lambda w, change=double(up) @ double(down) * alpha / rank: w + change
    save_file(tensors, HERE / "kohya-lora.safetensors", {"ss_network_module": "networks.lora"})
    out["kohya-lora"] = Change(changes)
    unet = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": drawn(2, 4)}
    save_file(tensors | unet, HERE / "kohya-unet.safetensors")

    tensors, changes = {}, {}
    for name, module in modules("text.blocks.0.v_proj", "image.blocks.2.fc1", "image.projection"):
        shape = {"v_proj": (32, 32), "fc1": (96, 48), "projection": (24, 48)}[name.rsplit(".", 1)[1]]
        down, up, length = drawn(2, shape[1]), drawn(shape[0], 2), 1 + torch.rand(shape[0], 1)
        key = f"lycoris_{module}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.dora_scale": length,
                    f"{key}.alpha": torch.tensor(1.0)}

        def change(w, change=double(up) @ double(down) / 2, length=double(length)):
            moved = w + change
            return length * moved / moved.norm(dim=1, keepdim=True)

        changes[name] = change
    save_file(tensors, HERE / "lycoris-dora.safetensors")
    out["lycoris-dora"] = Change(changes)

    tensors, changes = {}, {}
    for name, module in modules("text.blocks.0.k_proj", "image.blocks.1.out_proj"):
        width = 32 if name.startswith("text") else 48
        parts = {"hada_w1_a": drawn(width, 2), "hada_w1_b": drawn(2, width), "hada_w2_a": drawn(width, 2),
                 "hada_w2_b": drawn(2, width)}
        tensors |= {f"lycoris_{module}.{part}": value for part, value in parts.items()}
        tensors[f"lycoris_{module}.alpha"] = torch.tensor(1.0)
        a1, b1, a2, b2 = map(double, parts.values())
        changes[name] = lambda w, change=(a1 @ b1) * (a2 @ b2) / 2: w + change
    save_file(tensors, HERE / "lycoris-loha.safetensors")
    out["lycoris-loha"] = Change(changes)

    # 32 = 4 x 8 and 48 = 6 x 8; rank 2 cuts the greater factor.
    tensors, changes = {}, {}
    for name, module in modules("text.blocks.0.k_proj", "image.blocks.1.out_proj"):
        m, n = (4, 8) if name.startswith("text") else (6, 8)
        w1, a, b = drawn(m, m), drawn(n, 2), drawn(2, n)
        key = f"lycoris_{module}"
        tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": a, f"{key}.lokr_w2_b": b, f"{key}.alpha": torch.tensor(3.0)}
        changes[name] = lambda w, change=torch.kron(double(w1), double(a) @ double(b)) * 1.5: w + change
    save_file(tensors, HERE / "lycoris-lokr.safetensors")
    out["lycoris-lokr"] = Change(changes)
    name, module = next(modules("image.blocks.1.fc1"))
    w1, w2 = drawn(8, 6), drawn(12, 8)
    key = f"lycoris_{module}"
    save_file({f"{key}.lokr_w1": w1, f"{key}.lokr_w2": w2, f"{key}.alpha": torch.tensor(5.0)},
              HERE / "lycoris-lokr-whole.safetensors")
    out["lycoris-lokr-whole"] = Change({name: lambda w: w + torch.kron(double(w1), double(w2))})


def main():
    torch.manual_seed(11)
    out = {}
    coop(out)
    deep(out)
    clip_lora(out)
    tip_adapter(out)
    kohya(out)
    size = MODEL.config.vision_config.image_size
    i = torch.arange(1, 3 * 3 * size * size + 1, dtype=torch.float64)
    pixels = torch.sin(0.37 * i).float().double().reshape(3, 3, size, size)
    lines = []
    for name, sites in out.items():
        with torch.no_grad():
            logits = towers.scores(sites, pixels)
        lines.append(f"{json.dumps(name)}: {json.dumps([float(f'{v:.9g}') for v in logits.reshape(-1).tolist()])}")
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
