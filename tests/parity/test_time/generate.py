"""What methods of test-time adaptation answer, by an implementation in PyTorch that shares nothing with ours.

    python generate.py        (writes features.safetensors and towers.safetensors beside this file)

Made with torch 2.9.1, transformers 5.23.0, safetensors 0.8.0. Written after the papers and the formulas of the authors'
code (github.com/TomSheng21/tta-vlm for most). `features.safetensors` holds a stream of view features and what every method
answers that needs nothing else: probabilities `[images, classes]`. `towers.safetensors` holds what methods give that run
the tiny CLIP of `clip_tiny/quick`.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import CLIPModel

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "clip_tiny" / "quick"
IMAGES, VIEWS, CLASSES, DIM, SCALE = 48, 20, 6, 16, 14.0


def entropy(logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def floored(p):
    return -(p * torch.log(p + 1e-5)).sum(-1)


def sure(logits, share):
    return torch.argsort(entropy(logits), stable=True)[: int(len(logits) * share)]


def marginal(logits):
    p = logits.log_softmax(-1)
    mean = p.logsumexp(0) - math.log(len(p))
    return -(mean * mean.exp()).sum()


def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def zero(stream, text):
    for x in stream:
        logits = SCALE * x @ text.T
        order = torch.argsort(entropy(logits), stable=True)
        k = int(0.3 * len(x))
        votes = torch.bincount(logits[order[:k]].argmax(1), minlength=CLASSES).float()
        tied = (votes == votes.max()).nonzero().flatten().tolist()
        if len(tied) > 1:
            winner = next(c for c in logits[order[k:]].argmax(1).tolist() if c in tied)
            votes[winner] += 1
        yield votes / votes.sum()


def mta(stream, text, lambda_q=4.0, lambda_y=0.2):
    for x in stream:
        s = (SCALE * x @ text.T).softmax(1)
        affinity = s @ s.T
        k = int(0.3 * (len(x) - 1))
        h = (0.5 * (torch.cdist(x, x).sort(1)[0][:, 1 : k + 1] ** 2).mean(1)).sqrt()
        kernel = lambda m: torch.exp(-((x - m).norm(dim=1) ** 2) / (2 * h**2))
        y, mode = torch.full((len(x),), 1 / len(x)), x[0]
        for _ in range(5):
            density = kernel(mode)
            for _ in range(5):
                old, y = y, ((density + lambda_q * affinity @ y) / lambda_y).softmax(0)
                if (old - y).norm() < 1e-6:
                    break
            for _ in range(5):
                w = kernel(mode) * y
                old, mode = mode, unit((w[:, None] * x).sum(0) / w.sum(), 0)
                if (old - mode).norm() < 1e-6:
                    break
        yield (SCALE * mode @ text.T).softmax(0)


def tps(stream, text, lr=1e-3):
    for x in stream:
        shift = torch.zeros_like(text, requires_grad=True)
        optimizer = torch.optim.AdamW([shift], lr)
        rows = sure(SCALE * x @ text.T, 0.1)
        marginal(SCALE * x[rows] @ unit(text + shift).T).backward()
        optimizer.step()
        yield (SCALE * x[0] @ unit(text + shift.detach()).T).softmax(0)


class Queues(dict):
    """Per class a list of (entropy, feature, probabilities)."""

    def best(self, pred, item, capacity):
        self[pred] = sorted(self.get(pred, []) + [item], key=lambda item: item[0])[:capacity]

    def fifo(self, pred, item, capacity):
        self[pred] = (self.get(pred, []) + [item])[-capacity:]

    def items_in_order(self):
        return [(c, item) for c in sorted(self) for item in self[c]]


def for_classes(queues, f, alpha, beta):
    out = torch.zeros(CLASSES)
    for c, item in queues.items_in_order():
        out[c] += alpha * torch.exp(-beta * (1 - f @ item[1]))
    return out


def against(queues, f):
    out = torch.zeros(CLASSES)
    for _, item in queues.items_in_order():
        mask = ((item[2] > 0.03) & (item[2] < 1.0)).float()
        out += 0.117 * torch.exp(-(1 - f @ item[1])) * mask
    return out


def unsure(h):
    return 0.2 < h / math.log2(CLASSES) < 0.5


def tda(stream, text, alpha=2.0, beta=5.0):
    positive, negative, taken = Queues(), Queues(), 0
    for x in stream:
        logits = SCALE * x[0] @ text.T
        p = logits.softmax(0)
        h, pred = floored(p).item(), int(logits.argmax())
        positive.best(pred, (h, x[0]), 3)
        if unsure(h):
            taken += 1
            negative.best(pred, (h, x[0], p), 2)
        yield (logits + for_classes(positive, x[0], alpha, beta) - against(negative, x[0])).softmax(0)
    assert taken > 5, "the stream must show unsure images"


def boost_adapter(stream, text, alpha=2.0, beta=5.0, delta=1):
    positive, negative = Queues(), Queues()
    for x in stream:
        logits = SCALE * x @ text.T
        p = logits.softmax(1)
        h, pred = floored(p[0]).item(), int(logits[0].argmax())
        positive.best(pred, (h, x[0]), 3)
        joined = Queues({c: list(items) for c, items in positive.items()})
        for view in sure(logits, 0.1).tolist():
            joined.best(int(logits[view].argmax()), (floored(p[view]).item(), x[view]), 3 + delta)
        if unsure(h):
            negative.fifo(pred, (h, x[0], p[0]), 2)
        yield (logits[0] + for_classes(joined, x[0], alpha, beta) - against(negative, x[0])).softmax(0)


def dmn(stream, text, weak, capacity, beta=5.5):
    memory = {c: [] for c in range(CLASSES)}
    replaced = 0
    for x in stream:
        logits = SCALE * x @ text.T
        mean = logits[0] if weak else logits[sure(logits, 0.1)].mean(0)
        pred, h = int(mean.argmax()), floored(mean.softmax(0)).item()
        if len(memory[pred]) < capacity:
            memory[pred].append((h, x[0]))
        else:
            replaced += 1
            memory[pred][max(range(capacity), key=lambda i: memory[pred][i][0])] = (h, x[0])
        read = []
        for c in range(CLASSES):
            rows = torch.stack([f for _, f in memory[c]] + [text[c]])
            read.append(unit(torch.exp(-beta * (1 - rows @ x[0])) @ rows, 0))
        p = logits[0].softmax(0) + (SCALE * x[0] @ torch.stack(read).T).softmax(0)
        yield p / p.sum()
    assert capacity > 10 or replaced > 5, "a small memory must overflow"


def onzeta(stream, text, beta=0.4, alpha=1.0):
    w, rho = text.T.clone(), torch.zeros(CLASSES)
    for i, x in enumerate(stream, 1):
        f = x[0]
        t = (SCALE * f @ text.T).softmax(0) * rho.exp()
        t = t / t.sum()
        rho = (rho - 20 / math.sqrt(i) * (t - alpha / CLASSES)).clamp_min(0)
        v = (f @ w / 0.04).softmax(0)
        b = beta * math.sqrt(i / len(stream))
        yield b * v + (1 - b) * t
        w = unit(w - 0.5 / math.sqrt(i) / 0.04 * torch.outer(f, v - t), 0)


def dpe(stream, text, alpha=6.0, beta=5.0, lr=6e-4, align=0.5):
    cache, running, averaged = Queues(), text.clone(), 0
    for x in stream:
        logits = SCALE * x @ unit(running).T
        rows = sure(logits, 0.1)
        feature, mean = x[rows].mean(0), logits[rows].mean(0)
        cache.best(int(mean.argmax()), (floored(mean.softmax(0)).item() / math.log2(CLASSES), feature), 3)
        filled = sorted(cache)
        prototypes = torch.stack([torch.stack([item[1] for item in cache[c]]).mean(0) for c in filled])
        votes = F.one_hot(torch.tensor(filled), CLASSES).float()
        text_residual = torch.zeros_like(text, requires_grad=True)
        image_residual = torch.zeros_like(prototypes, requires_grad=True)
        optimizer = torch.optim.AdamW([text_residual, image_residual], lr, eps=1e-3, weight_decay=0.1)
        tuned = lambda: (unit(running + text_residual), unit(prototypes + image_residual))
        vote = lambda f, keys: alpha * torch.exp(-beta * (1 - f @ keys.T)) @ votes
        texts, keys = tuned()
        loss = marginal((mean + vote(feature, keys))[None])
        loss = loss + align * F.cross_entropy(keys @ texts[filled].T / 0.01, torch.arange(len(filled)))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            texts, keys = tuned()
            final = SCALE * x[0] @ texts.T + vote(x[0], keys)
            if entropy(final) / math.log2(CLASSES) < 0.1:
                averaged += 1
                running = running * (averaged / (averaged + 1)) + texts / (averaged + 1)
        yield final.softmax(0)
    assert averaged > 5, "the texts must move"


def features():
    g = torch.Generator().manual_seed(3)
    text = unit(torch.randn(CLASSES, DIM, generator=g))
    labels = torch.randint(CLASSES, (IMAGES,), generator=g)
    noise = 0.2 + 1.6 * torch.rand(IMAGES, 1, 1, generator=g)
    common = torch.randn(IMAGES, 1, DIM, generator=g) / math.sqrt(DIM)
    own = torch.randn(IMAGES, VIEWS, DIM, generator=g) / math.sqrt(DIM)
    stream = unit(text[labels][:, None] + noise * (common + 0.7 * own))
    found = {"text": text, "stream": stream}
    methods = {
        "zero": zero, "mta": mta, "tps": tps, "tda": tda, "boost-adapter": boost_adapter, "onzeta": onzeta, "dpe": dpe,
        "dmn": lambda s, t: dmn(s, t, False, 50), "dmn-weak": lambda s, t: dmn(s, t, True, 50),
        "dmn, small": lambda s, t: dmn(s, t, False, 4),
    }
    plain = (SCALE * stream[:, 0] @ text.T).softmax(1)
    for name, method in methods.items():
        found[name] = torch.stack(list(method(stream, text))).float()
        moved = (found[name] - plain).abs().max().item()
        right = (found[name].argmax(1) == labels).float().mean().item()
        print(f"{name}: right {right:.3f} (plain {(plain.argmax(1) == labels).float().mean():.3f}), moved by {moved:.3f}")
        assert moved > 1e-3
    save_file({name: value.contiguous() for name, value in found.items()}, HERE / "features.safetensors")


def towers():
    model = CLIPModel.from_pretrained(TINY).eval().double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    scale = model.logit_scale.exp()
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    ids = [tokenizer.encode(f"a photo of a {name}.").ids for name in ["cat", "dog", "red hat", "x ray"]]
    ids = torch.tensor([row + [599] * (20 - len(row)) for row in ids])
    count = len(tokenizer.encode("a photo of a").ids) - 2
    first = model.text_model.embeddings.token_embedding(ids)[0, 1 : 1 + count].clone()

    def text_of(context):
        insert = lambda module, inputs, output: torch.cat(
            [output[:, :1], context[None].expand(len(output), -1, -1), output[:, 1 + count :]], 1
        )
        hook = model.text_model.embeddings.token_embedding.register_forward_hook(insert)
        features = model.text_projection(model.text_model(ids).pooler_output)
        hook.remove()
        return unit(features)

    g = torch.Generator().manual_seed(8)
    own = text_of(first)
    images = torch.tensor([0, 1, 2, 3, 1])
    stream = unit(own[images][:, None] + 0.12 * torch.randn(5, VIEWS, 24, generator=g).double())
    # In single precision from here on, as the other side reads them.
    stream = stream.float().double()
    judged_text = unit(torch.randn(4, 8, generator=g)).double()
    judged = unit(judged_text[images][:, None] + 0.5 * torch.randn(5, VIEWS, 8, generator=g)).double()
    found = {"stream": stream, "context": first, "text": own, "judge.text": judged_text, "judge.stream": judged}

    def tuned(name, loss_of, lr, steps, decay=0.01):
        contexts, answers = [], []
        for image in range(5):
            x = stream[image]
            context = first.clone().requires_grad_(True)
            optimizer = torch.optim.AdamW([context], lr, weight_decay=decay)
            rows = sure(scale * x @ own.T, 0.1)
            for step in range(steps):
                optimizer.zero_grad()
                texts = text_of(context)
                loss_of(scale * x[rows] @ texts.T, texts, image, rows).backward()
                if step == 0:
                    g = context.grad.abs()
                    # A gradient near zero has no sign to be compared.
                    assert g.min() > 1e-5 * g.max(), (name, g.min(), g.max())
                optimizer.step()
            contexts.append(context.detach())
            answers.append((scale * x[0] @ text_of(context.detach()).T).softmax(0))
        found[f"{name}.contexts"], found[f"{name}.answers"] = torch.stack(contexts), torch.stack(answers)
        print(name, "moved by", (torch.stack(answers) - (scale * stream[:, 0] @ own.T).softmax(1)).abs().max().item())

    def dispersion(texts):
        return (texts - texts.mean(0)).norm(dim=1).mean()

    def reward(logits, texts, image, rows):
        top = logits.topk(3, 1)[1]
        rewards = (2.5 * (judged[image][rows][:, None] * judged_text[top]).sum(-1)).clamp_min(0)
        rewards = rewards - rewards.mean(1, keepdim=True)
        return (rewards * -logits.log_softmax(1).gather(1, top)).mean()

    tuned("tpt", lambda logits, *_: marginal(logits), 5e-3, 1)
    tuned("tpt, three steps", lambda logits, *_: marginal(logits), 5e-3, 3)
    tuned("c-tpt", lambda logits, texts, *_: marginal(logits) - 50 * dispersion(texts), 5e-3, 1)
    tuned("rlcf", reward, 7e-3, 3, 5e-4)

    # Normalisations of the image tower, over the pixels of `clip_tiny/quick`: two rounds over its four images.
    pixels = load_file(TINY / "expected.safetensors")["pixels"].double()
    vision = model.vision_model
    norms = {"image.pre_norm": vision.pre_layrnorm, "image.post_norm": vision.post_layernorm}
    for index, layer in enumerate(vision.encoder.layers):
        norms |= {f"image.blocks.{index}.norm1": layer.layer_norm1, f"image.blocks.{index}.norm2": layer.layer_norm2}
    start = {name: (norm.weight.clone(), norm.bias.clone()) for name, norm in norms.items()}

    def scores():
        return scale * unit(model.visual_projection(vision(pixels).pooler_output)) @ own.T

    def moving(chosen):
        for name, norm in norms.items():
            norm.weight.data, norm.bias.data = (value.clone() for value in start[name])
            norm.requires_grad_(name in chosen)
        return [value for name in chosen for value in norms[name].parameters()]

    values = moving(list(norms))
    optimizer = torch.optim.SGD(values, 1e-2, momentum=0.9)
    answers = []
    for _ in range(3):
        optimizer.zero_grad()
        logits = scores()
        answers.append(logits.softmax(1).detach())
        entropy(logits).mean().backward()
        optimizer.step()
    found["tent.answers"] = torch.cat(answers)

    chosen = [name for name in norms if name != "image.post_norm" and "blocks.2" not in name]
    values = moving(chosen)
    optimizer = torch.optim.SGD(values, 1e-2, momentum=0.9)
    bound = 0.9 * math.log(4)
    answers = []
    for _ in range(3):
        optimizer.zero_grad()
        logits = scores()
        answers.append(logits.softmax(1).detach())
        first_sure = entropy(logits) < bound
        assert 0 < first_sure.sum()
        entropy(logits)[first_sure].mean().backward()
        length = torch.stack([value.grad.norm() for value in values]).norm()
        moves = [0.05 * value.grad / (length + 1e-12) for value in values]
        with torch.no_grad():
            for value, move in zip(values, moves):
                value += move
        optimizer.zero_grad()
        again = entropy(scores())
        again[first_sure & (again < bound)].mean().backward()
        with torch.no_grad():
            for value, move in zip(values, moves):
                value -= move
        optimizer.step()
    found["sar.answers"] = torch.cat(answers)
    for name in ["tent", "sar"]:
        rounds = found[f"{name}.answers"].reshape(3, 4, 4)
        print(name, "moved by", (rounds[2] - rounds[0]).abs().max().item())
    save_file({name: value.detach().float().contiguous() for name, value in found.items()}, HERE / "towers.safetensors")


features()
towers()
