"""Scores and gradients of every method on the tiny CLIP, by an implementation in PyTorch that shares nothing with ours.

    python generate.py        (writes expected.json beside this file; needs torch, transformers, peft, safetensors)

Made with torch 2.9.1, transformers 5.24.0, peft 0.21.2. The towers are written out below with a hook at every place at
which a method may enter, and are checked against `transformers.CLIPModel` without a hook. Updates of weights are checked
against HF PEFT's own layers where it has the method. Parameters are not stored: value `i` of tensor `t` (in the order of
their names) is a formula that both sides know, `value()`; their names and shapes are read from `contract/names.txt`. Of a
gradient its length, its sum, and its product with a pattern are stored.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import CLIPModel

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "clip_tiny" / "quick"
CLASSES = ["cat", "dog", "red hat", "x ray"]
TEMPLATES = ["a photo of a {}.", "a {}"]
MODEL = CLIPModel.from_pretrained(TINY).eval().double()
TOKENIZER = Tokenizer.from_file(str(TINY / "tokenizer.json"))
for parameter in MODEL.parameters():
    parameter.requires_grad_(False)
SCALE = MODEL.logit_scale.exp()
WIDTH = {"image": 48, "text": 32}
DEPTH = {"image": 3, "text": 2}
HEADS = 4
NAMES = {"q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj",
         "out_proj": "self_attn.out_proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def values(tensor, shape, scale=0.3):
    i = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (scale * torch.sin(12.9898 * i + 78.233 * (tensor + 1))).float().double().reshape(shape)


def quick(x):
    return x * torch.sigmoid(1.702 * x)


class Sites:
    """The frozen model; a method overrides what it changes. `p` are its parameters by name."""

    templates = TEMPLATES
    conditional = False
    frames = 1  # How many consecutive images are one clip.

    def __init__(self, p=None):
        self.p = p or {}

    def tokens(self, tower, block, x, ends):
        return x

    def linear(self, name, layer, x):
        return layer(x)

    def norm(self, name, layer, x):
        return layer(x)

    def branch(self, name, x, y):
        return y

    def before(self, name, x, norm, attention):
        """The stream that a block's attention reads and adds to; its own normalisation and attention are at hand."""
        return x

    def parallel(self, name, z):
        """What is added beside a block's MLP, of the same normalised input."""
        return 0

    def pool(self, f):
        """Features of frames, `[clips, frames, dim]`, to those of clips."""
        return f.mean(1)

    def feature(self, tower, f):
        return f

    def logits(self, image, text, scores):
        return scores


def block(sites, tower, index, layer, x, causal):
    name = f"{tower}.blocks.{index}"
    lin = lambda part, z: sites.linear(f"{name}.{part}", layer.get_submodule(NAMES[part]), z)
    norm1 = lambda x: sites.norm(f"{name}.norm1", layer.layer_norm1, x)
    split = lambda y: y.reshape(y.shape[0], y.shape[1], HEADS, -1).transpose(1, 2)

    def attention(z):
        q, k, v = (split(lin(part, z)) for part in ["q_proj", "k_proj", "v_proj"])
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        if causal:
            rows, columns = scores.shape[-2:]
            mask = torch.ones(rows, columns).tril(columns - rows).bool()
            scores = scores.masked_fill(~mask, -math.inf)
        return lin("out_proj", (scores.softmax(-1) @ v).transpose(1, 2).reshape(z.shape))

    x = sites.before(name, x, norm1, attention)
    x = x + sites.branch(f"{name}.attention", x, attention(norm1(x)))
    z = sites.norm(f"{name}.norm2", layer.layer_norm2, x)
    y = lin("fc2", quick(lin("fc1", z)))
    return x + sites.branch(f"{name}.mlp", x, y) + sites.parallel(name, z)


def image_features(sites, pixels):
    vision = MODEL.vision_model
    x = vision.embeddings(pixels)
    x = sites.tokens("image", 0, x, None)
    x = sites.norm("image.pre_norm", vision.pre_layrnorm, x)
    for index, layer in enumerate(vision.encoder.layers):
        if index > 0:
            x = sites.tokens("image", index, x, None)
        x = block(sites, "image", index, layer, x, False)
    x = sites.norm("image.post_norm", vision.post_layernorm, x[:, :1])
    x = sites.linear("image.projection", MODEL.visual_projection, x)[:, 0]
    return sites.feature("image", sites.pool(x.reshape(-1, sites.frames, x.shape[-1])))


def text_rows(sites, texts, repeat=1):
    rows = [TOKENIZER.encode(text).ids for text in texts]
    ends = [len(row) - 1 for row in rows]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    text = MODEL.text_model
    x = text.embeddings.token_embedding(ids)
    x = sites.tokens("text", 0, x, ends)
    x = x + text.embeddings.position_embedding.weight[: x.shape[1]]
    for index, layer in enumerate(text.encoder.layers):
        if index > 0:
            x = sites.tokens("text", index, x, ends)
        x = block(sites, "text", index, layer, x, True)
    ends = torch.tensor(ends * (len(x) // len(ends)))
    x = x[torch.arange(len(x)), ends][:, None]
    x = sites.norm("text.post_norm", text.final_layer_norm, x)
    return sites.linear("text.projection", MODEL.text_projection, x)[:, 0]


def class_features(sites, templates):
    rows = text_rows(sites, [template.format(name) for name in CLASSES for template in templates])
    if len(templates) > 1:
        rows = F.normalize(rows, dim=-1).reshape(len(CLASSES), len(templates), -1).mean(1)
    return rows


def scores(sites, pixels):
    image = image_features(sites, pixels)
    sites.raw, sites.condition = image, F.normalize(image, dim=-1)
    text = sites.feature("text", class_features(sites, sites.templates))
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    if sites.conditional:
        logits = SCALE * (image[:, None] * text.reshape(len(image), len(CLASSES), -1)).sum(-1)
    else:
        logits = SCALE * image @ text.T
    return sites.logits(image, text, logits)


# The methods.


class Words(Sites):
    """A context of `n` tokens that replaces the words before the class name."""

    templates = ["a photo of a {}."]
    key = "context"

    def tokens(self, tower, block, x, ends):
        if tower == "text" and block == 0:
            c = self.p[self.key]
            x = torch.cat([x[:, :1], c.expand(len(x), *c.shape), x[:, 1 + len(c):]], 1)
        return x


class Coop(Words):
    templates = ["X X X X {}."]


class CoopSpecific(Coop):
    def tokens(self, tower, block, x, ends):
        if tower == "text" and block == 0:
            c = self.p["context"].reshape(len(CLASSES), 4, -1)
            x = torch.cat([x[:, :1], c, x[:, 5:]], 1)
        return x


class CoopMiddle(Sites):
    templates = ["X X {} X X X."]

    def tokens(self, tower, block, x, ends):
        if tower != "text" or block != 0:
            return x
        c, rows = self.p["context"], []
        for row, end in zip(x, ends):
            # start, 2 tokens, name, 3 tokens, full stop, end
            name = row[3:end - 1 - 3]
            rows.append(torch.cat([row[:1], c[:2], name, c[2:], row[end - 1:]]))
        return torch.stack(rows)


class KgCoop(Words):
    key = "prompt.context"


class CoCoop(Words):
    conditional = True

    def tokens(self, tower, block, x, ends):
        if tower != "text" or block != 0:
            return x
        p = self.p
        shift = torch.relu(self.condition @ p["down.weight"] + p["down.bias"]) @ p["up.weight"] + p["up.bias"]
        out = []
        for bias in shift:
            c = p["context"] + bias
            out.append(torch.cat([x[:, :1], c.expand(len(x), *c.shape), x[:, 1 + len(c):]], 1))
        return torch.cat(out)


class ProDa(Sites):
    templates = ["X X X X {}.", "X X X X {}.", "X X {} X X.", "{} X X X X."]

    def tokens(self, tower, block, x, ends):
        if tower != "text" or block != 0:
            return x
        contexts, rows = self.p["contexts"].reshape(4, 4, -1), []
        for index, (row, end) in enumerate(zip(x, ends)):
            c, before = contexts[index % 4], [4, 4, 2, 0][index % 4]
            name = row[1 + before:end - 1 - (4 - before)]
            rows.append(torch.cat([row[:1], c[:before], name, c[before:], row[end - 1:]]))
        return torch.stack(rows)


class Tcp(Words):
    def tokens(self, tower, block, x, ends):
        x = super().tokens(tower, block, x, ends)
        if tower == "text" and block == 1:
            p = self.p
            prior = text_rows(Sites(), [t.format(name) for name in CLASSES for t in TEMPLATES])
            prior = F.normalize(prior.reshape(len(CLASSES), len(TEMPLATES), -1).mean(1), dim=-1)
            prompts = quick(prior @ p["down.weight"] + p["down.bias"]) @ p["up.weight"] + p["up.bias"]
            n = len(p["context"])
            x = torch.cat([x[:, :1], prompts.reshape(len(CLASSES), n, -1), x[:, 1 + n:]], 1)
        return x


class Vpt(Sites):
    prefix = "image.blocks"

    def tokens(self, tower, block, x, ends):
        prompt = self.p.get(f"{self.prefix}.{block}") if tower == "image" else None
        if prompt is None:
            return x
        kept = x if block == 0 else x[:, : x.shape[1] - len(prompt)]
        return torch.cat([kept, prompt.expand(len(x), *prompt.shape)], 1)


class L2p(Sites):
    query = None  # Normalised frozen features of the images at hand.

    def tokens(self, tower, block, x, ends):
        if tower == "text" or block > 0:
            return x
        nearest = (self.query @ F.normalize(self.p["keys"], dim=1).T).topk(5, dim=1).indices
        return torch.cat([x, self.p["prompts"][nearest].flatten(1, 2)], 1)


class SPrompts(L2p):
    def tokens(self, tower, block, x, ends):
        if tower == "text" or block > 0:
            return x
        centroids = self.p["centroids.fixed"]
        distances = torch.cdist(self.query, centroids.flatten(0, 1)).reshape(len(self.query), *centroids.shape[:2])
        return torch.cat([x, self.p["prompts"][distances.amin(2).argmin(1)]], 1)


class CodaPrompt(L2p):
    def tokens(self, tower, block, x, ends):
        if tower == "text" or f"blocks.{block}.keys" not in self.p:
            return x
        before = lambda name: [self.p[path] for path in [f"blocks.{block}.past.{name}.fixed"] if path in self.p]
        part = lambda name: torch.cat([*before(name), self.p[f"blocks.{block}.{name}"]])
        attended = self.query[:, None] * part("attention")
        weights = F.cosine_similarity(attended, part("keys")[None], dim=2)
        prompts = torch.einsum("im,mlw->ilw", weights, part("prompts"))
        kept = x if block == 0 else x[:, : x.shape[1] - prompts.shape[1]]
        return torch.cat([kept, prompts], 1)


class DualPrompt(L2p):
    tokens = Sites.tokens

    def linear(self, name, layer, x):
        y = layer(x)
        tower, _, *rest = name.split(".")
        if tower == "text" or len(rest) != 2 or rest[1] not in ["k_proj", "v_proj"]:
            return y
        index, which = int(rest[0]), "key" if rest[1] == "k_proj" else "value"
        if index < 2:
            prefix = self.p[f"general.{index}.{which}"].expand(len(x), -1, -1)
        else:
            nearest = (self.query @ F.normalize(self.p["keys"], dim=1).T).argmax(dim=1)
            prefix = self.p[f"expert.{index - 2}.{which}"][nearest]
        return torch.cat([prefix, y], 1)


class Ivlp(Vpt):
    templates = Words.templates
    text = "text.blocks"

    def tokens(self, tower, block, x, ends):
        if tower == "image":
            return super().tokens(tower, block, x, ends)
        prompt = self.p.get(f"{self.text}.{block}")
        if prompt is None:
            return x
        return torch.cat([x[:, :1], prompt.expand(len(x), *prompt.shape), x[:, 1 + len(prompt):]], 1)


class PromptSrc(Ivlp):
    prefix, text = "prompts.image.blocks", "prompts.text.blocks"


class Maple(Ivlp):
    def __init__(self, p=None):
        super().__init__(dict(p or {}))
        for block in range(2):
            prompt = self.p[f"text.blocks.{block}"]
            self.p[f"image.blocks.{block}"] = prompt @ self.p[f"maps.{block}.weight"] + self.p[f"maps.{block}.bias"]


class PrefixTuning(Sites):
    def linear(self, name, layer, x):
        y = layer(x)
        tower, _, *rest = name.split(".")
        if len(rest) == 2 and rest[1] in ["k_proj", "v_proj"]:
            prefix = self.p[f"{tower}.{rest[0]}.{'key' if rest[1] == 'k_proj' else 'value'}"]
            y = torch.cat([prefix.expand(len(x), *prefix.shape), y], 1)
        return y


class Weights(Sites):
    """Methods that are a change of weights `[d_input, d_output]`."""

    def linear(self, name, layer, x):
        own = {key[len(f"sites.{name}."):]: v for key, v in self.p.items() if key.startswith(f"sites.{name}.")}
        if not own:
            return layer(x)
        return x @ self.weight(layer.weight.T, own) + layer.bias


class Lora(Weights):
    def weight(self, w, p):
        return w + p["a"] @ p["b"] / math.sqrt(2)


class SdLora(Weights):
    """Three experiences; factors before side by side, each with its magnitude."""

    def weight(self, w, p):
        m, (a, b) = p["magnitudes"], (p["past.a.fixed"], p["past.b.fixed"])
        rank = p["a"].shape[1]
        for k in range(2):
            own = slice(k * rank, (k + 1) * rank)
            w = w + m[k] * (a[:, own] @ b[own])
        return w + m[2] * (p["a"] @ p["b"])


class Dora(Weights):
    def weight(self, w, p):
        moved = w + p["factors.a"] @ p["factors.b"] / math.sqrt(2)
        return p["magnitude"] * moved / moved.norm(dim=0).detach()


class Vera(Weights):
    def weight(self, w, p):
        a, b = self.p["a.fixed"][: len(w)], self.p["b.fixed"][:, : w.shape[1]]
        return w + (a * p["d"]) @ b * p["e"]


class LoHa(Weights):
    def weight(self, w, p):
        return w + (p["a1"] @ p["b1"]) * (p["a2"] @ p["b2"])


class LoKr(Weights):
    def weight(self, w, p):
        return w + torch.kron(p["c"], p["d"])


class Oft(Weights):
    def weight(self, w, p):
        blocks = []
        for skew in p["skew"]:
            q = torch.zeros(8, 8, dtype=skew.dtype)
            q[tuple(torch.triu_indices(8, 8, 1))] = skew
            q = q - q.T
            blocks.append((torch.eye(8) - q) @ torch.linalg.inv(torch.eye(8) + q))
        return torch.block_diag(*blocks) @ w


class Boft(Weights):
    """Each factor as a dense matrix that rotates two halves at a distance."""

    def weight(self, w, p):
        r = torch.eye(len(w), dtype=p["skew"].dtype)
        for factor, skew in enumerate(p["skew"].reshape(2, -1, 28)):
            q = torch.zeros(len(skew), 8, 8, dtype=skew.dtype)
            q[:, *torch.triu_indices(8, 8, 1)] = skew
            q = q - q.transpose(1, 2)
            eye = torch.eye(8, dtype=skew.dtype)
            turns = torch.linalg.solve(eye + q, eye - q)
            b = torch.zeros_like(r)
            distance = 2 ** factor
            low = [half for half in range(len(w) // 4) if half // distance % 2 == 0]
            for half, turn in zip(low, turns, strict=True):
                at = torch.cat([torch.arange(4) + 4 * half, torch.arange(4) + 4 * (half + distance)])
                b[at[:, None], at] = turn
            r = b @ r
        return r @ w * p["scale"]


class FourierFt(Weights):
    """The places are drawn by our generator; the test writes them beside this file and holds to them."""

    def weight(self, w, p):
        places = torch.tensor(json.loads((HERE / "places.json").read_text()))
        spectrum = torch.zeros(w.numel(), dtype=w.dtype).index_add(0, places, p["coefficients"]).reshape(w.shape)
        return w + torch.fft.ifft2(spectrum.to(torch.complex128)).real * 150


class Ia3(Sites):
    def linear(self, name, layer, x):
        gain = self.p.get(f"sites.{name}.gain")
        if gain is None:
            return layer(x)
        return layer(x * gain) if name.endswith("fc2") else layer(x) * gain


class BitFit(Sites):
    def linear(self, name, layer, x):
        return layer(x) + self.p.get(f"linear.{name}.offset", 0)

    def norm(self, name, layer, x):
        return layer(x) + self.p[f"norms.{name}.offset"]


class LnTuning(Sites):
    def norm(self, name, layer, x):
        p = self.p
        normed = F.layer_norm(x, x.shape[-1:], eps=layer.eps)
        return normed * (layer.weight + p[f"norms.{name}.gain"]) + layer.bias + p[f"norms.{name}.offset"]


class TwoStage(LnTuning):
    def feature(self, tower, f):
        return f if tower == "image" else F.normalize(f, dim=-1) + self.p["residuals"]


class Ssf(Sites):
    def linear(self, name, layer, x):
        scale = self.p.get(f"linear.{name}.scale")
        return layer(x) if scale is None else layer(x) * scale + self.p[f"linear.{name}.shift"]

    def norm(self, name, layer, x):
        return layer(x) * self.p[f"norms.{name}.scale"] + self.p[f"norms.{name}.shift"]


class Bottleneck(Sites):
    act, beside, scale = staticmethod(torch.relu), False, 1.0

    def branch(self, name, x, y):
        p = {key.rsplit(".", 1)[1]: v for key, v in self.p.items() if key.startswith(f"sites.{name}.")}
        if not p:
            return y
        z = x if self.beside else y
        return y + self.scale * (self.act(z @ p["down"] + p["down_offset"]) @ p["up"] + p["up_offset"])


class Houlsby(Bottleneck):
    act = staticmethod(F.gelu)


class AdaptFormer(Bottleneck):
    beside, scale = True, 2.0


class MoeAdapters(L2p):
    """Two experiences, three open experts and two frozen ones; written image by image. The images are of both."""

    tokens = Sites.tokens

    def experience(self, q):
        left = []
        for mean, directions, slope in zip(self.p["means.fixed"], self.p["directions.fixed"], self.p["slopes.fixed"]):
            z = q - mean
            left.append(slope * (z.square().sum() - (directions @ z).square().sum()).clamp(min=1e-6))
        least = torch.stack(left).min(0)
        return None if least.values > 1 else least.indices.item()

    def branch(self, name, x, y):
        p = {key[len(f"sites.{name}."):]: v for key, v in self.p.items() if key.startswith(f"sites.{name}.")}
        if not p:
            return y
        both = lambda part: list(p[f"past.{part}.fixed"]) + list(p[f"open.{part}"])
        experts = list(zip(*(both(part) for part in ["down", "down_offset", "up", "up_offset"])))
        rows = []
        for stream, out, q in zip(x, y, self.query):
            at = self.experience(q)
            if at is not None:
                last = at == len(p["past.routers.fixed"])
                router = p["router"] if last else p["past.routers.fixed"][at]
                scores = stream[0] @ router + (0 if last else p["past.reach.fixed"][at])
                for gate, expert in zip(scores.topk(2).values.softmax(0), scores.topk(2).indices):
                    down, down_offset, up, up_offset = experts[expert]
                    out = out + gate * (torch.relu(stream @ down + down_offset) @ up + up_offset)
            rows.append(out)
        return torch.stack(rows)


class Compacter(Sites):
    def product(self, name, shared):
        p = self.p
        small = p[f"{name}.left"] @ p[f"{name}.right"]
        return sum(torch.kron(s, b) for s, b in zip(shared, small))

    def branch(self, name, x, y):
        p, at = self.p, f"sites.{name}"
        hidden = F.gelu(y @ self.product(f"{at}.down", p["shared_down"]) + p[f"{at}.down.offset"])
        return y + hidden @ self.product(f"{at}.up", p["shared_up"]) + p[f"{at}.up.offset"]


class Mma(Sites):
    def branch(self, name, x, y):
        tower, _, index, part = name.split(".")
        p, at = self.p, f"{tower}.{name}"
        if part != "mlp" or f"{at}.down" not in p:
            return y
        shared = p[f"shared.{DEPTH[tower] - 1 - int(index)}"]
        return y + torch.relu(torch.relu(x @ p[f"{at}.down"]) @ shared) @ p[f"{at}.up"]


class Prototypes(Sites):
    def feature(self, tower, f):
        return f if tower == "image" else self.p["prototypes"]


class ClipAdapter(Sites):
    def feature(self, tower, f):
        if f"{tower}.down" not in self.p:
            return f
        return 0.2 * torch.relu(torch.relu(f @ self.p[f"{tower}.down"]) @ self.p[f"{tower}.up"]) + 0.8 * f


class CrossModal(Sites):
    def logits(self, image, text, scores):
        return SCALE * image @ self.p["head"].T


class LpPlusPlus(Sites):
    def logits(self, image, text, scores):
        return image @ (self.p["prototypes"] + self.p["alpha"].reshape(-1, 1) * text).T


class ProLip(Sites):
    def linear(self, name, layer, x):
        return layer(x) + x @ self.p["change"] if name == "image.projection" else layer(x)


class TaskRes(Sites):
    def feature(self, tower, f):
        return f if tower == "image" else F.normalize(f, dim=-1) + 0.5 * self.p["residuals"]


class Temperature(Sites):
    def logits(self, image, text, scores):
        return scores * self.p["log_factor"].exp()


class VectorScaling(Sites):
    def logits(self, image, text, scores):
        return scores * self.p["factors"].T + self.p["offsets"].T


class LinearHead(Sites):
    def logits(self, image, text, scores):
        return self.raw @ self.p["weight"].T + self.p["bias"]


class TipAdapter(Sites):
    def logits(self, image, text, scores):
        keys = self.p.get("keys", self.p.get("keys.fixed"))
        votes = F.one_hot(torch.arange(8) // 2, len(CLASSES)).double()
        return scores + 20.0 * torch.exp(-5.5 * (1 - image @ keys.T)) @ votes


class Ridge(Sites):
    def logits(self, image, text, scores):
        h = torch.relu(image @ self.p["projection.fixed"])
        return 10 * h @ self.p["weights.fixed"].T


class Rail(Sites):
    def logits(self, image, text, scores):
        h = torch.cat([torch.ones(len(image), 1).double(), image, torch.relu(image @ self.p["projection.fixed"])], 1)
        return 10 * h @ self.p["weights.fixed"].T


class KernelRidge(Sites):
    def logits(self, image, text, scores):
        keys = self.p["keys.fixed"]
        squares = (keys ** 2).sum(1) + 1 - 2 * image @ keys.T
        return 10 * torch.exp(-0.1 * squares) @ self.p["votes.fixed"]


class Fecam(Sites):
    def logits(self, image, text, scores):
        apart = image[:, None] - self.p["means.fixed"]
        return -torch.einsum("ncd,cde,nce->nc", apart, self.p["precisions.fixed"], apart) / image.shape[1]


class Stack(Lora):
    def __init__(self, p=None):
        super().__init__({key.split(".", 3)[-1]: value for key, value in (p or {}).items()})

    feature = Prototypes.feature


class Fusion(Sites):
    """Two low-rank updates and the mixture of what they do, by block."""

    def linear(self, name, layer, x):
        p, y = self.p, layer(x)
        tower, _, *rest = name.split(".")
        if len(rest) != 2:
            return y
        weights = p[tower][int(rest[0])].softmax(0)
        for index, weight in enumerate(weights):
            key = f"members.{index}.Lora.sites.{name}"
            if f"{key}.a" in p:
                y = y + weight * (x @ p[f"{key}.a"] @ p[f"{key}.b"]) / math.sqrt(2)
        return y


def over_time(x, kernel):
    """A convolution of each channel over time by PyTorch: `[clips, frames, places, width]` with `[kernel, width]`."""
    clips, frames, places, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(clips * places, width, frames)
    y = F.conv1d(rows, kernel.T[:, None], padding=len(kernel) // 2, groups=width)
    return y.reshape(clips, places, width, frames).permute(0, 3, 1, 2)


class StAdapter(Sites):
    def branch(self, name, x, y):
        tower, _, index, part = name.split(".")
        p = {key.rsplit(".", 1)[1]: v for key, v in self.p.items() if key.startswith(f"blocks.{index}.{part}.")}
        if tower == "text" or not p:
            return y
        low = (x + y)[:, 1:] @ p["down"] + p["down_offset"]
        mixed = over_time(low.reshape(-1, self.frames, *low.shape[1:]), p["kernel"]).reshape(low.shape)
        change = (mixed + p["kernel_offset"]) @ p["up"] + p["up_offset"]
        return torch.cat([y[:, :1], y[:, 1:] + change], 1)


class TemporalHead(Sites):
    def positions(self, frames):
        """Rows for so many frames; PyTorch's linear interpolation has the same places."""
        table = self.p["positions.table"]
        return F.interpolate(table.T[None], size=frames, mode="linear", align_corners=False)[0].T


class VitaClip(Sites):
    """As in the authors' code: prompts stand behind the class token, those of the first block behind the normalisation."""

    def rows(self, name):
        return F.interpolate(self.p[name].T[None], size=self.frames, mode="linear", align_corners=False)[0].T

    def prompts(self, block, x):
        p = {key[len(f"blocks.{block}."):]: v for key, v in self.p.items() if key.startswith(f"blocks.{block}.")}
        found = []
        if "global" in p:
            found.append(p["global"].expand(len(x), -1, -1))
        z = (x[:, 0] @ p["projection.weight"] + p["projection.bias"]).unflatten(0, (-1, self.frames))
        if "local.table" in p:
            prompts = z + self.rows(f"blocks.{block}.local.table")
            found.append(prompts.repeat_interleave(self.frames, dim=0))
        if "summary.key" in p:
            n = F.layer_norm(z, z.shape[-1:], p["summary.norm.gain"], p["summary.norm.offset"])
            names = {"query": "summary.query", "value": "summary.value", "output": "summary.output"}
            weights = {part: (p[f"{name}.weight"].T, p[f"{name}.bias"]) for part, name in names.items()}
            offsets = torch.cat([weights["query"][1], torch.zeros_like(weights["query"][1]), weights["value"][1]])
            attended, _ = F.multi_head_attention_forward(
                *[n.transpose(0, 1)] * 3, n.shape[-1], HEADS, None, offsets, None, None, False, 0.0, *weights["output"],
                use_separate_proj_weight=True, need_weights=False, q_proj_weight=weights["query"][0],
                k_proj_weight=p["summary.key"].T, v_proj_weight=weights["value"][0])
            found.append((z + attended.transpose(0, 1)).flatten(0, 1)[:, None])
        return torch.cat(found, 1)

    def inserted(self, block, x):
        prompts = self.prompts(block, x)
        self.count = prompts.shape[1]
        return torch.cat([x[:, :1], prompts, x[:, 1:]], 1)

    def tokens(self, tower, block, x, ends):
        if tower == "text":
            return x
        if block == 0:
            clips = len(x) // self.frames
            return x + self.rows("time.table").repeat(clips, 1)[:, None] if "time.table" in self.p else x
        return self.inserted(block, torch.cat([x[:, :1], x[:, 1 + self.count:]], 1))

    def norm(self, name, layer, x):
        return self.inserted(0, layer(x)) if name == "image.pre_norm" else layer(x)


class Aim(Sites):
    """As in the authors' code (`check_aim`), whose skip connections stand outside of the adapters here."""

    scale = 0.5

    def adapt(self, block, name, z):
        own = [self.p[f"{block}.{name}.{part}"] for part in ["down", "down_offset", "up", "up_offset"]]
        return F.linear(F.gelu(F.linear(z, own[0].T, own[1])), own[2].T, own[3])

    def tokens(self, tower, block, x, ends):
        if tower == "text" or block > 0:
            return x
        rows = F.interpolate(self.p["time.table"].T[None], size=self.frames, mode="linear", align_corners=False)[0].T
        return (x.unflatten(0, (-1, self.frames)) + rows[:, None]).flatten(0, 1)

    def before(self, name, x, norm, attention):
        tower, block = name.split(".", 1)
        if tower == "text":
            return x
        n, tokens = norm(x), x.shape[1]
        if f"{block}.input.up" in self.p:
            n = n + self.adapt(block, "input", n)
        # [clips * tokens, frames, width]
        n = n.unflatten(0, (-1, self.frames)).permute(0, 2, 1, 3).flatten(0, 1)
        y = self.adapt(block, "time", attention(n))
        return x + y.unflatten(0, (-1, tokens)).permute(0, 2, 1, 3).flatten(0, 1)

    def branch(self, name, x, y):
        tower, _, index, part = name.split(".")
        return y if tower == "text" or part == "mlp" else y + self.adapt(f"blocks.{index}", "space", y)

    def parallel(self, name, z):
        tower, block = name.split(".", 1)
        return 0 if tower == "text" else self.scale * self.adapt(block, "joint", z)


class AimTwice(Aim):
    scale = 1.0


class TemporalShift(Sites):
    """The shift as a matrix over time (`check_shift` holds it against the slices of TSM's code)."""

    @staticmethod
    def mixed(z, gates):
        """`[clips, frames, tokens, width]`."""
        fold, frames = len(gates) // 2, z.shape[1]
        steps = torch.eye(frames, dtype=z.dtype).expand(z.shape[-1], -1, -1).clone()
        later, sooner = (torch.ones(frames - 1, dtype=z.dtype).diag(at) for at in [1, -1])
        mix = [(1 - g) * steps[0] + g * (later if c < fold else sooner) for c, g in enumerate(gates)]
        return torch.einsum("wst,ctnw->csnw", torch.cat([torch.stack(mix), steps[2 * fold:]]), z)

    def norm(self, name, layer, x):
        tower, *place = name.split(".")
        names = {"norm1": "attention", "norm2": "mlp"}
        gates = self.p.get(".".join(place[:2] + [names.get(place[-1], "")])) if tower == "image" else None
        n = layer(x)
        return n if gates is None else self.mixed(n.unflatten(0, (-1, self.frames)), gates).flatten(0, 1)


class AttentionPool(TemporalHead):
    def pool(self, f):
        p, length = self.p, f.norm(dim=-1, keepdim=True)
        z = F.normalize(f, dim=-1) @ p["down"] + self.positions(f.shape[1])
        a = torch.einsum("cth,qh->cqt", z, p["queries"]) / math.sqrt(z.shape[-1])
        s = torch.einsum("cqt,cth->cqh", a.softmax(-1), z).flatten(1)
        return f.mean(1) + length.mean(1) * (s @ p["up"])


class GatedPool(Sites):
    def pool(self, f):
        p, z = self.p, F.normalize(f, dim=-1)
        value = torch.tanh(F.linear(z, p["value"].T, p["value_offset"]))
        gate = torch.sigmoid(F.linear(z, p["gate"].T, p["gate_offset"]))
        weights = F.softmax((value * gate) @ p["weight"], dim=1)
        return torch.einsum("ct,ctd->cd", weights, f)


class TemporalConv(Sites):
    def pool(self, f):
        p = self.p
        z = over_time((F.normalize(f, dim=-1) @ p["down"])[:, :, None], p["kernel"])[:, :, 0]
        return (f + f.norm(dim=-1, keepdim=True) * (F.gelu(z + p["offset"]) @ p["up"])).mean(1)


class TemporalTransformer(TemporalHead):
    heads = 2

    def norm_of(self, name, z):
        return F.layer_norm(z, z.shape[-1:], self.p[f"{name}.gain"], self.p[f"{name}.offset"])

    def pool(self, f):
        p = self.p
        z = F.normalize(f, dim=-1) @ p["down"] + self.positions(f.shape[1])
        for layer in range(2):
            at = f"layers.{layer}"
            n = self.norm_of(f"{at}.norm1", z)
            split = lambda name: (n @ p[f"{at}.{name}"]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            seen = F.scaled_dot_product_attention(split("query"), split("key"), split("value"))
            z = z + seen.transpose(1, 2).flatten(2) @ p[f"{at}.output"]
            z = z + F.gelu(self.norm_of(f"{at}.norm2", z) @ p[f"{at}.wide"]) @ p[f"{at}.narrow"]
        return (f + f.norm(dim=-1, keepdim=True) * (self.norm_of("norm", z) @ p["up"])).mean(1)


# Methods that mix the frames of clips see two clips of so many frames; all others three images.
FRAMES = {"st-adapter": 3, "aim": 3, "temporal-shift": 3, "vita-clip": 3, "attention-pool": 3, "temporal-conv": 3,
          "temporal-transformer": 4}

# Parameters that no score depends on smoothly.
UNMOVED = {"l2p": ["keys"], "dual-prompt": ["keys"], "moe-adapters": ["noise"]}

# Method: reference, settings in TOML as in `contract/case.rs`, and shapes where `names.txt` has others.
CASES = [
    ("linear-probe", Prototypes, "", None),
    ("coop", Coop, "context = 4", None),
    ("coop", CoopSpecific, "context = 4\nclass_specific = true", {"context": [16, 32]}),
    ("coop", CoopMiddle, 'context = 5\nclass_position = "middle"', {"context": [5, 32]}),
    ("cocoop", CoCoop, "reduction = 4", None),
    ("kgcoop", KgCoop, "", None),
    ("prograd", KgCoop, "", None),
    ("biomedcoop", KgCoop, "", None),
    ("proda", ProDa, "prompts = 4\ncontext = 4", None),
    ("tcp", Tcp, "", None),
    ("vpt-shallow", Vpt, "", None),
    ("vpt-deep", Vpt, "", None),
    ("l2p", L2p, "", None),
    ("coda-prompt", CodaPrompt, "components = 7", None),
    ("coda-prompt", CodaPrompt, "experiences = 3\ncomponents = 2\ndepth = 2", {
        f"blocks.{block}.{before}{name}{end}": [count, *shape] for block in range(2)
        for before, end, count in [("", "", 2), ("past.", ".fixed", 4)]
        for name, shape in [("attention", [24]), ("keys", [24]), ("prompts", [8, 48])]}),
    ("dual-prompt", DualPrompt, "", None),
    ("s-prompts", SPrompts, "experiences = 3\ncentroids = 2", None),
    ("ivlp", Ivlp, "", None),
    ("maple", Maple, "", None),
    ("promptsrc", PromptSrc, "templates = 4", None),
    ("prefix-tuning", PrefixTuning, "", None),
    ("lora", Lora, "", None),
    ("sd-lora", SdLora, "experiences = 3\nrank = 4\ndropout = 0.25", None),
    ("dora", Dora, "", None),
    ("vera", Vera, "rank = 16", None),
    ("ia3", Ia3, "", None),
    ("bitfit", BitFit, "", None),
    ("ln-tuning", LnTuning, "", None),
    ("ssf", Ssf, "", None),
    ("loha", LoHa, "", None),
    ("lokr", LoKr, "", None),
    ("oft", Oft, "block = 8", None),
    ("boft", Boft, "", None),
    ("fourierft", FourierFt, 'coefficients = 20\ntargets = ["image.blocks.1.q_proj"]',
     {"sites.image.blocks.1.q_proj.coefficients": [20]}),
    ("houlsby", Houlsby, "", None),
    ("pfeiffer", Bottleneck, "", None),
    ("adaptformer", AdaptFormer, "scale = 2.0", None),
    ("compacter", Compacter, "", None),
    ("moe-adapters", MoeAdapters, "experiences = 2\nexperts = 3\nhidden = 8\nscale = 1.0\ncode = 1", None),
    ("mma", Mma, "hidden = 8\nscale = 1.0", None),
    ("st-adapter", StAdapter, "reduction = 6", None),
    ("aim", Aim, "reduction = 6\nframes = 4", None),
    ("aim", AimTwice, "reduction = 6\ntemporal_adapters = 2\nscale = 1.0\nframes = 3", {"time.table": [3, 48]} | {
        f"blocks.{block}.{name}.{part}": shape for block in range(3) for name in ["input", "time", "space", "joint"]
        for part, shape in [("down", [48, 8]), ("down_offset", [8]), ("up", [8, 48]), ("up_offset", [48])]}),
    ("temporal-shift", TemporalShift, "", None),
    ("temporal-shift", TemporalShift, "parts = 3\nattention = false\nfirst_block = 1", {
        "blocks.1.mlp": [32], "blocks.2.mlp": [32]}),
    ("vita-clip", VitaClip, "global_tokens = 2\nframes = 4", None),
    ("vita-clip", VitaClip, "global_tokens = 1\nsummary = false\ntime = false\nframes = 3", {
        f"blocks.{block}.{name}": shape for block in range(3) for name, shape in [
            ("global", [1, 48]), ("local.table", [3, 48]), ("projection.bias", [48]), ("projection.weight", [48, 48])]}),
    ("attention-pool", AttentionPool, "hidden = 8\nheads = 2\nframes = 4", None),
    ("gated-pool", GatedPool, "hidden = 8", None),
    ("temporal-conv", TemporalConv, "hidden = 8", None),
    ("temporal-transformer", TemporalTransformer, "hidden = 8\nheads = 2\nlayers = 2\nframes = 4", None),
    ("clap", Prototypes, "", None),
    ("clip-adapter", ClipAdapter, "", None),
    ("cross-modal", CrossModal, "", None),
    ("lp-plus-plus", LpPlusPlus, "", None),
    ("prolip", ProLip, "", None),
    ("2sfs", TwoStage, "", None),
    ("taskres", TaskRes, "", None),
    ("temperature", Temperature, "", None),
    ("vector-scaling", VectorScaling, "", None),
    ("linear-head", LinearHead, "", None),
    ("tip-adapter", TipAdapter, "alpha = 20.0", None),
    ("tip-adapter-f", TipAdapter, "alpha = 20.0", None),
    ("simple-cil", Prototypes, "", None),
    ("ranpac", Ridge, "projections = 24", None),
    ("acil", Ridge, "projections = 24", None),
    ("rail", Rail, "projections = 24", None),
    ("rail-dual", KernelRidge, "", None),
    ("fecam", Fecam, "", None),
    ("stack", Stack, "", None),
    ("fusion", Fusion, "", None),
]


def shapes(method):
    """Of the method's first form in `names.txt`."""
    found, started = {}, False
    for line in (HERE.parent.parent / "contract" / "names.txt").read_text().splitlines():
        name, tensor, shape = line.split(" ", 2)
        if name == method:
            started = True
            if tensor in found:
                break
            found[tensor] = json.loads(shape)
        elif started:
            break
    return found


def parameters(method, shapes):
    out = {}
    for index, name in enumerate(sorted(shapes)):
        if name == "cache.labels.fixed":
            continue
        value = values(index, shapes[name])
        out[name] = value.requires_grad_(not name.endswith(".fixed"))
    return out


def check_towers(pixels):
    """The towers above are those of transformers."""
    ids = torch.tensor([TOKENIZER.encode("a photo of a cat.").ids])
    with torch.no_grad():
        expected = MODEL(input_ids=ids, pixel_values=pixels)
        own = F.normalize(image_features(Sites(), pixels), dim=-1)
        torch.testing.assert_close(own, expected.image_embeds)
        own = F.normalize(text_rows(Sites(), ["a photo of a cat."]), dim=-1)
        torch.testing.assert_close(own, expected.text_embeds)


def check_peft():
    """The updates above are those of HF PEFT's layers; what differs is the layout, `[d_output, d_input]` there."""
    import peft

    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(48, 48)).double()
    w, x = base[0].weight.detach().clone().T, torch.randn(5, 48, dtype=torch.float64)
    bias = base[0].bias.detach().clone()

    def expected(config):
        model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(48, 48)).double(), config)
        layer = next(m for m in model.modules() if isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer))
        layer.base_layer.weight.data.copy_(w.T)
        layer.base_layer.bias.data.copy_(bias)
        for name, parameter in layer.named_parameters():
            if "base_layer" not in name:
                parameter.data = torch.randn_like(parameter.double()) * 0.2
        if config.peft_type == "VERA":
            for key in layer.vera_A:
                layer.vera_A[key].data, layer.vera_B[key].data = layer.vera_A[key].double(), layer.vera_B[key].double()
        model.eval()
        return layer, model(x).detach()

    def same(method, own, y):
        torch.testing.assert_close(x @ method.weight(w, own) + bias, y, rtol=1e-5, atol=1e-6)

    one = lambda d: d["default"].weight.detach() if hasattr(d["default"], "weight") else d["default"].detach()
    t = ["0"]
    layer, y = expected(peft.LoraConfig(r=2, lora_alpha=1, use_rslora=True, target_modules=t))
    same(Lora(), {"a": one(layer.lora_A).T, "b": one(layer.lora_B).T}, y)
    layer, y = expected(peft.LoraConfig(r=2, lora_alpha=1, use_rslora=True, use_dora=True, target_modules=t))
    own = {"factors.a": one(layer.lora_A).T, "factors.b": one(layer.lora_B).T,
           "magnitude": one(layer.lora_magnitude_vector)}
    same(Dora(), own, y)
    layer, y = expected(peft.VeraConfig(r=16, target_modules=t))
    shared = {"a.fixed": one(layer.vera_A).T, "b.fixed": one(layer.vera_B).T}
    same(Vera(shared), {"d": one(layer.vera_lambda_d), "e": one(layer.vera_lambda_b)}, y)
    layer, y = expected(peft.LoHaConfig(r=8, alpha=8, target_modules=t))
    own = {"a1": one(layer.hada_w1_b).T, "b1": one(layer.hada_w1_a).T,
           "a2": one(layer.hada_w2_b).T, "b2": one(layer.hada_w2_a).T}
    same(LoHa(), own, y)
    layer, y = expected(peft.LoKrConfig(r=8, alpha=8, target_modules=t))
    same(LoKr(), {"c": one(layer.lokr_w1).T, "d": one(layer.lokr_w2).T}, y)
    layer, y = expected(peft.IA3Config(target_modules=t, feedforward_modules=[]))
    gain = one(layer.ia3_l).reshape(-1)
    torch.testing.assert_close((x @ w + bias) * gain, y)
    print("equal to HF PEFT: lora, dora, vera, loha, lokr, ia3")


def check_shift():
    """With gates of 1 the shift is that of TSM, with gates of 0 nothing."""
    torch.manual_seed(0)
    z, fold = torch.randn(2, 4, 5, 16, dtype=torch.float64), 2
    expected = torch.zeros_like(z)
    expected[:, :3, :, :2], expected[:, 1:, :, 2:4], expected[..., 4:] = z[:, 1:, :, :2], z[:, :3, :, 2:4], z[..., 4:]
    torch.testing.assert_close(TemporalShift.mixed(z, torch.ones(2 * fold, dtype=z.dtype)), expected, rtol=0, atol=0)
    torch.testing.assert_close(TemporalShift.mixed(z, torch.zeros(2 * fold, dtype=z.dtype)), z, rtol=0, atol=0)


def check_aim():
    """A block is that of AIM in its authors' layout, `[tokens, clips * frames, width]`, run by PyTorch's own attention."""
    torch.manual_seed(0)
    clips, frames, tokens, layer = 2, 3, 5, MODEL.vision_model.encoder.layers[1]
    shapes = {"down": [48, 8], "down_offset": [8], "up": [8, 48], "up_offset": [48]}
    sites = AimTwice({f"blocks.1.{name}.{part}": 0.2 * torch.randn(shape, dtype=torch.float64)
                      for name in ["input", "time", "space", "joint"] for part, shape in shapes.items()})
    sites.frames, x = frames, torch.randn(clips * frames, tokens, 48, dtype=torch.float64)
    own, attention = layer.self_attn, torch.nn.MultiheadAttention(48, HEADS).double()
    projections = [own.q_proj, own.k_proj, own.v_proj]
    attention.in_proj_weight.data = torch.cat([projection.weight for projection in projections])
    attention.in_proj_bias.data = torch.cat([projection.bias for projection in projections])
    attention.out_proj.load_state_dict(own.out_proj.state_dict())
    run = lambda z: attention(z, z, z, need_weights=False)[0]
    adapt = lambda name, z: sites.adapt("blocks.1", name, z)
    y = x.transpose(0, 1)
    z = layer.layer_norm1(y).reshape(tokens, clips, frames, 48).transpose(0, 2).reshape(frames, clips * tokens, 48)
    z = adapt("time", run(z + adapt("input", z)))
    y = y + z.reshape(frames, clips, tokens, 48).transpose(0, 2).reshape(tokens, clips * frames, 48)
    z = run(layer.layer_norm1(y))
    y = y + z + adapt("space", z)
    z = layer.layer_norm2(y)
    y = y + layer.mlp(z) + adapt("joint", z)
    torch.testing.assert_close(block(sites, "image", 1, layer, x, False), y.transpose(0, 1))


def images(count):
    size = MODEL.config.vision_config.image_size
    i = torch.arange(1, count * 3 * size * size + 1, dtype=torch.float64)
    return torch.sin(0.37 * i).float().double().reshape(count, 3, size, size)


def main():
    pixels = images(3)
    check_towers(pixels)
    check_peft()
    check_shift()
    check_aim()
    L2p.query = F.normalize(image_features(Sites(), pixels), dim=1).detach()
    cases = []
    for method, reference, settings, own in CASES:
        p = parameters(method, own or shapes(method))
        sites, frames = reference(p), FRAMES.get(method, 1)
        sites.frames = frames
        logits = scores(sites, images(2 * frames) if frames > 1 else pixels)
        pattern = torch.sin(0.7 * torch.arange(1, logits.numel() + 1, dtype=torch.float64)).reshape(logits.shape)
        loss = (logits * pattern).sum()
        gradients = {}
        if loss.requires_grad:
            loss.backward()
        for name, value in p.items():
            # The choice of prompts has no gradient; keys learn from the loss alone, and noise is only added in training.
            if not value.requires_grad or name.split(".")[-1] in UNMOVED.get(method, []):
                continue
            g = value.grad.reshape(-1)
            weights = torch.cos(0.3 * torch.arange(1, len(g) + 1, dtype=torch.float64))
            gradients[name] = [g.norm().item(), g.sum().item(), (g * weights).sum().item()]
        clips = {"frames": frames} if frames > 1 else {}
        case = {"method": method, "settings": settings} | clips | {"logits": logits.detach().reshape(-1).tolist()}
        cases.append(case | {"gradients": gradients})
    round_all = lambda v: (
        float(f"{v:.9g}") if isinstance(v, float) else [round_all(x) for x in v] if isinstance(v, list)
        else {k: round_all(x) for k, x in v.items()} if isinstance(v, dict) else v)
    lines = ",\n".join(json.dumps(round_all(case)) for case in cases)
    (HERE / "expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
