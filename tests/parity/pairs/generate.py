"""The losses of image-text pairs and their gradients in PyTorch, written over the full matrix of a batch.

    python generate.py            (writes `expected.json` beside this file)

Made with torch 2.9.1, in double precision. A text that occurs twice is one leaf, used twice; pairs of one group are matches.
"""

import json
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid, normalize

BATCHES = {
    "distinct": [("a cat", "cat"), ("a dog", "dog"), ("a bird", "bird"), ("a fish", "fish")],
    "repeated": [("a cat", "cat"), ("a dog", "dog"), ("a cat", "cat"), ("one cat", "cat"), ("a bird", "bird"), ("a dog", "dog")],
}
DIM, SCALE, BIAS, SMOOTHING = 5, 7.3, -2.4, 0.1


def softmax_loss(image, texts, hits, copies, scale, smoothing):
    """Over the full matrix; the probability of a text is that of all its copies together."""
    logits = scale * image @ texts.T
    count = len(hits)
    loss = 0
    for scores, matches, of in ((logits, hits, copies.log()), (logits.T, hits.T, 0)):
        targets = (1 - smoothing) * matches / matches.sum(1, keepdim=True) + smoothing / count
        loss = loss - (targets * (scores.log_softmax(1) + of)).sum(1).mean() / 2
    return loss


def sigmoid_loss(image, texts, hits, scale, bias):
    return -logsigmoid((2 * hits - 1) * (scale * image @ texts.T + bias)).sum() / len(hits)


def likeliest_bias(image, texts, hits, scale):
    scores, low, high = scale * image @ texts.T, -100.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if (scores + middle).sigmoid().sum() > hits.sum() else (middle, high)
    return (low + high) / 2


def case(pairs, generator):
    names = list(dict.fromkeys(text for text, _ in pairs))
    draw = lambda rows: torch.randn((rows, DIM), generator=generator, dtype=torch.float64).float().double()
    leaves = {"image": draw(len(pairs)), "text": draw(len(names)), "log_scale": torch.tensor(SCALE).double().log(),
              "bias": torch.tensor(BIAS).double()}
    groups = [group for _, group in pairs]
    hits = torch.tensor([[float(left == right) for right in groups] for left in groups], dtype=torch.float64)
    copies = torch.tensor([float([text for text, _ in pairs].count(text)) for text, _ in pairs], dtype=torch.float64)
    found = {"pairs": pairs, "scale": SCALE, "bias": BIAS, "smoothing": SMOOTHING,
             "image": leaves["image"].flatten().tolist(), "text": leaves["text"].flatten().tolist()}
    for name in ("softmax", "sigmoid"):
        for leaf in leaves.values():
            leaf.requires_grad_(True).grad = None
        image = normalize(leaves["image"])
        texts = normalize(leaves["text"])[[names.index(text) for text, _ in pairs]]
        scale = leaves["log_scale"].exp()
        loss = softmax_loss(image, texts, hits, copies, scale, SMOOTHING) if name == "softmax" else sigmoid_loss(
            image, texts, hits, scale, leaves["bias"])
        loss.backward()
        gradients = {leaf: value.grad.flatten().tolist() for leaf, value in leaves.items() if value.grad is not None}
        found[name] = {"loss": loss.item(), "gradients": gradients}
    with torch.no_grad():
        found["likeliest_bias"] = likeliest_bias(image, texts, hits, SCALE)
    return found


if __name__ == "__main__":
    draws = torch.Generator().manual_seed(1)
    cases = {name: case(pairs, draws) for name, pairs in BATCHES.items()}
    (Path(__file__).parent / "expected.json").write_text(json.dumps(cases, indent=1) + "\n")
