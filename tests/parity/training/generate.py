"""The losses of the first 20 training steps of some methods, in PyTorch.

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
import generate as towers  # noqa: E402
from generate import CLASSES, MODEL, SCALE, TOKENIZER  # noqa: E402
from generate import Lora, PromptSrc, Prototypes, Sites, Tcp, TipAdapter, Words  # noqa: E402
from generate import class_features, image_features, scores, text_rows  # noqa: E402

# The runs have one template.
towers.TEMPLATES = ["a photo of a {}."]
STEPS = 20
# Of a fresh prototype of CLAP.
LENGTH = 10.0
# Steps at which the gradient of ProGrad was corrected.
CONFLICTS = []
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


def sgd(parameters, weight_decay=5e-4):
    return torch.optim.SGD(parameters, lr=1.0, momentum=0.9, weight_decay=weight_decay)


def adamw(eps):
    return lambda parameters: torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.01, eps=eps)


def train(reference, p, loss, optimizer, rate, guide=None):
    """`reference(p)` is made anew in each step, since it may compute with its parameters. Of a gradient that works against
    that of `guide`, the part along the latter is taken out."""
    for value in p.values():
        value.requires_grad_(True)
    optimizer, losses = optimizer(list(p.values())), []
    for step in range(STEPS):
        optimizer.zero_grad()
        guiding = guide and torch.autograd.grad(guide(reference(p)), list(p.values()))
        value = loss(reference(p))
        losses.append(value.item())
        value.backward()
        for own, other in zip(p.values(), guiding or []):
            product = (own.grad * other).sum()
            if product < 0:
                CONFLICTS.append(step)
                own.grad -= product / other.square().sum() * other
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


def zero_shot():
    with torch.no_grad():
        text = F.normalize(class_features(Sites(), ["a photo of a {}."]), dim=-1)
        image = F.normalize(image_features(Sites(), PIXELS), dim=-1)
        return text, (SCALE * image @ text.T).softmax(1)


def text_drift(sites):
    """Cross entropy and 8 times the mean distance of the class features from the frozen ones (KgCoOp, TCP)."""
    frozen, _ = zero_shot()
    text = F.normalize(class_features(sites, sites.templates), dim=-1)
    return cross_entropy(sites) + 8.0 * (1 - (text * frozen).sum(1).mean())


def prograd_guide(sites):
    _, teacher = zero_shot()
    return -(teacher * scores(sites, PIXELS).log_softmax(1)).sum(1).mean()


def clap(origin, multipliers):
    def loss(sites):
        distance = (sites.p["prototypes"] - origin).square().sum(1)
        return cross_entropy(sites) + (multipliers * distance).mean()

    return loss


def main():
    drawn = {key: value.double() for key, value in load_file(HERE / "init.safetensors").items()}
    of = lambda method: {key[len(method) + 1:]: value for key, value in drawn.items() if key.startswith(f"{method}.")}
    words = TOKENIZER.encode("a photo of a").ids[1:-1]
    context = MODEL.text_model.embeddings.token_embedding.weight[words].clone()
    keys = F.normalize(image_features(Sites(), PIXELS), dim=-1).detach().clone()
    steeper = 100 / SCALE.item()

    class Tip(TipAdapter):
        templates = ["a photo of a {}."]

    class Bad(Words):
        """A context that starts elsewhere than the frozen features, so that these pull from the first step on."""

        templates = ["a bad photo of {}."]

    bad = MODEL.text_model.embeddings.token_embedding.weight[TOKENIZER.encode("a bad photo of").ids[1:-1]].detach()
    text, teacher = zero_shot()
    # Prototypes start with a length of their own.
    origin = text * LENGTH
    multipliers = torch.stack([teacher[LABELS == c, c].mean() for c in range(len(CLASSES))])

    class Clap(Prototypes):
        templates = ["a photo of a {}."]

    class CoopLora(Lora):
        templates = ["a photo of a {}."]

    out = {
        "coop": train(Words, {"context": context.clone()}, cross_entropy, sgd, lambda s: coop_rate(0.002, s) * steeper),
        "lora": train(CoopLora, of("lora"), cross_entropy, adamw(1e-8), lambda s: cosine_rate(0.01, s)),
        "tip-adapter-f": train(Tip, {"keys": keys}, cross_entropy, adamw(1e-4), lambda s: cosine_rate(0.001, s)),
        "promptsrc": train(PromptSrc, of("promptsrc"), promptsrc, sgd, lambda s: coop_rate(0.0025, s) * steeper),
        "kgcoop": train(Bad, {"context": bad.clone()}, text_drift, sgd, lambda s: coop_rate(0.002, s) * steeper),
        "tcp": train(Tcp, of("tcp"), text_drift, sgd, lambda s: coop_rate(0.002, s) * steeper),
        "prograd": train(Bad, {"context": bad.clone()}, cross_entropy, sgd, lambda s: coop_rate(0.002, s) * steeper,
                         prograd_guide),
        "clap": train(Clap, {"prototypes": origin.clone()}, clap(origin, multipliers), lambda p: sgd(p, 0.0),
                      lambda s: coop_rate(0.1, s) * steeper),
        "biomedcoop": train(Words, {"context": context.detach().clone()}, biomedcoop, sgd, lambda s: coop_rate(0.0025, s) * steeper),
    }
    assert CONFLICTS, "the gradients of ProGrad never point apart, which tests nothing"
    lines = ",\n".join(f'"{k}": {json.dumps([float(f"{v:.9g}") for v in losses])}' for k, losses in out.items())
    (HERE / "expected.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
