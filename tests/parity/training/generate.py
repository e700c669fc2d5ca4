"""The losses of the first 20 training steps of five methods, in PyTorch.

    python generate.py        (writes expected.json beside this file)

Towers and methods are those of `../methods/generate.py`; optimizers are PyTorch's own. Eight images of four classes, all of
them in every step, so that their order plays no part. Values that we draw are read from `init.safetensors`, which the test
writes (`INARCH_WRITE_FIXTURES=1`). The rates of SGD are multiplied by 100 / logit scale, as our recipes do.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "methods"))
from generate import CLASSES, MODEL, SCALE, TOKENIZER, Lora, PromptSrc, Sites, TipAdapter, Words  # noqa: E402
from generate import class_features, image_features, scores, text_rows  # noqa: E402

STEPS = 20
LABELS = torch.arange(8) // 2
PRIOR = ["a photo of a {}.", "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}."]
# Descriptions of every class, of which some suit the images less than others.
DESCRIBED = ["a photo of a {}.", "a bad photo of a {}.", "a {} on a mat.", "x {} x", "the red {} of a hat.", "{}"]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64).reshape(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64).reshape(3, 1, 1)


def images():
    """Image `n`, channel `c`, row `y`, column `x`: (37 n + 59 c + (3 + n) y + (5 + 2 c) x) mod 256."""
    n, c, y, x = (torch.arange(k) for k in (8, 3, 32, 32))
    n, c, y, x = n.view(-1, 1, 1, 1), c.view(1, -1, 1, 1), y.view(1, 1, -1, 1), x.view(1, 1, 1, -1)
    return ((37 * n + 59 * c + (3 + n) * y + (5 + 2 * c) * x) % 256).double()


PIXELS = (images() / 255 - MEAN) / STD


def coop_rate(lr, step):
    """Dassl's: an epoch (here a step) at 1e-5, then cosine."""
    return 1e-5 if step == 0 else lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / STEPS))


def cosine_rate(lr, step):
    return 1e-6 + (lr - 1e-6) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0, momentum=0.9, weight_decay=5e-4)


def adamw(eps):
    return lambda parameters: torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.01, eps=eps)


def train(reference, p, loss, optimizer, rate):
    """`reference(p)` is made anew in each step, since it may compute with its parameters."""
    for value in p.values():
        value.requires_grad_(True)
    optimizer, losses = optimizer(list(p.values())), []
    for step in range(STEPS):
        optimizer.zero_grad()
        value = loss(reference(p))
        losses.append(value.item())
        value.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
    return losses


def cross_entropy(sites):
    return F.cross_entropy(scores(sites, PIXELS), LABELS)


def promptsrc(sites):
    with torch.no_grad():
        texts = [template.format(name) for name in CLASSES for template in PRIOR]
        frozen_text = F.normalize(text_rows(Sites(), texts).reshape(len(CLASSES), len(PRIOR), -1).mean(1), dim=-1)
        frozen_image = F.normalize(image_features(Sites(), PIXELS), dim=-1)
        frozen = SCALE * frozen_image @ frozen_text.T
    image = F.normalize(image_features(sites, PIXELS), dim=-1)
    text = F.normalize(class_features(sites, sites.templates), dim=-1)
    logits = SCALE * image @ text.T
    divergence = F.kl_div(logits.log_softmax(1), frozen.log_softmax(1), reduction="sum", log_target=True)
    distance = 25 * F.l1_loss(text, frozen_text) + 10 * F.l1_loss(image, frozen_image)
    return F.cross_entropy(logits, LABELS) + distance + divergence / logits.numel()


def biomedcoop(sites):
    with torch.no_grad():
        texts = [template.format(name) for name in CLASSES for template in DESCRIBED]
        described = F.normalize(text_rows(Sites(), texts), dim=-1).reshape(len(CLASSES), len(DESCRIBED), -1)
        image = F.normalize(image_features(Sites(), PIXELS), dim=-1)
        fit = torch.stack([(SCALE * image @ described[:, p].T).max(1).values.mean() for p in range(len(DESCRIBED))])
        z = (fit - fit.median()) / (fit - fit.median()).abs().median()
        kept = ((z - z.mean()) / z.std()).abs() <= 1.0
        assert 1 < kept.sum() < len(DESCRIBED), (fit, kept)
        chosen = F.normalize(described[:, kept].mean(1), dim=-1)
        everything = F.normalize(described.mean(1), dim=-1)
        teacher = (SCALE * image @ chosen.T).log_softmax(1)
    text = F.normalize(class_features(sites, sites.templates), dim=-1)
    logits = SCALE * image @ text.T
    divergence = F.kl_div(logits.log_softmax(1), teacher, reduction="sum", log_target=True) / logits.numel()
    return F.cross_entropy(logits, LABELS) + 3.0 * F.mse_loss(text, everything) + 2.0 * divergence


def main():
    drawn = {key: value.double() for key, value in load_file(HERE / "init.safetensors").items()}
    of = lambda method: {key[len(method) + 1:]: value for key, value in drawn.items() if key.startswith(f"{method}.")}
    words = TOKENIZER.encode("a photo of a").ids[1:-1]
    context = MODEL.text_model.embeddings.token_embedding.weight[words].clone()
    keys = F.normalize(image_features(Sites(), PIXELS), dim=-1).detach().clone()
    steeper = 100 / SCALE.item()

    class Tip(TipAdapter):
        templates = ["a photo of a {}."]

    class CoopLora(Lora):
        templates = ["a photo of a {}."]

    out = {
        "coop": train(Words, {"context": context.clone()}, cross_entropy, sgd, lambda s: coop_rate(0.002, s) * steeper),
        "lora": train(CoopLora, of("lora"), cross_entropy, adamw(1e-8), lambda s: cosine_rate(0.01, s)),
        "tip-adapter-f": train(Tip, {"keys": keys}, cross_entropy, adamw(1e-4), lambda s: cosine_rate(0.001, s)),
        "promptsrc": train(PromptSrc, of("promptsrc"), promptsrc, sgd, lambda s: coop_rate(0.0025, s) * steeper),
        "biomedcoop": train(Words, {"context": context.detach().clone()}, biomedcoop, sgd, lambda s: coop_rate(0.0025, s) * steeper),
    }
    lines = ",\n".join(f'"{k}": {json.dumps([float(f"{v:.9g}") for v in losses])}' for k, losses in out.items())
    (HERE / "expected.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
