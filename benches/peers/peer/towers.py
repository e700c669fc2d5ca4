"""CLIP's two transformers, open at every place where adapters enter. Modules are named as in Hugging Face's files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

Insert = Callable[[int, Tensor], Tensor]


class Attention(nn.Module):
    """Self-attention, its products written out (`eager`) or fused."""

    def __init__(self, width: int, heads: int, causal: bool, eager: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.eager = heads, causal, eager
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        split = lambda y: y.view(rows, tokens, self.heads, -1).transpose(1, 2)
        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        if self.eager:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            if self.causal:
                scores = scores + torch.full((tokens, tokens), -torch.inf).triu(1)
            mixed = scores.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(rows, tokens, width))


class Mlp(nn.Module):
    """Two layers with CLIP's quick GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool, eager: bool) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(width, heads, causal, eager), Mlp(width, hidden)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The blocks of a tower."""

    def __init__(self, shape: dict, causal: bool, eager: bool) -> None:
        super().__init__()
        width, heads, hidden = shape["hidden_size"], shape["num_attention_heads"], shape["intermediate_size"]
        self.layers = nn.ModuleList(Block(width, heads, hidden, causal, eager) for _ in range(shape["num_hidden_layers"]))

    def forward(self, x: Tensor, start: int = 0, end: int | None = None, insert: Insert | None = None) -> Tensor:
        """Blocks `start` to `end`; `insert` changes the stream in front of each."""
        for at, layer in list(enumerate(self.layers))[start:end]:
            x = layer(insert(at, x) if insert else x)
        return x


class Embeddings(nn.Module):
    """Input tables of a tower."""

    def __init__(self, shape: dict, text: bool) -> None:
        super().__init__()
        width = shape["hidden_size"]
        if text:
            self.token_embedding = nn.Embedding(shape["vocab_size"], width)
            self.position_embedding = nn.Embedding(shape["max_position_embeddings"], width)
        else:
            patch = shape["patch_size"]
            self.class_embedding = nn.Parameter(torch.empty(width))
            self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
            self.position_embedding = nn.Embedding((shape["image_size"] // patch) ** 2 + 1, width)


class VisionModel(nn.Module):
    """Pixels to the pooled class token."""

    def __init__(self, shape: dict, eager: bool) -> None:
        super().__init__()
        width = shape["hidden_size"]
        self.embeddings, self.encoder = Embeddings(shape, False), Encoder(shape, False, eager)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(width), nn.LayerNorm(width)

    def embed(self, pixels: Tensor) -> Tensor:
        """Patches and class token with positions, before the first normalisation."""
        table = self.embeddings
        patches = table.patch_embedding(pixels).flatten(2).transpose(1, 2)
        start = table.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([start, patches], 1) + table.position_embedding.weight


class TextModel(nn.Module):
    """Tokens to the pooled end token."""

    def __init__(self, shape: dict, eager: bool) -> None:
        super().__init__()
        self.embeddings, self.encoder = Embeddings(shape, True), Encoder(shape, True, eager)
        self.final_layer_norm = nn.LayerNorm(shape["hidden_size"])


class Towers(nn.Module):
    """A frozen CLIP."""

    def __init__(self, config: dict, eager: bool) -> None:
        super().__init__()
        image, text, dim = config["vision_config"], config["text_config"], config["projection_dim"]
        self.vision_model, self.text_model = VisionModel(image, eager), TextModel(text, eager)
        self.visual_projection = nn.Linear(image["hidden_size"], dim, bias=False)
        self.text_projection = nn.Linear(text["hidden_size"], dim, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))

    @classmethod
    def open(cls, folder: Path, eager: bool) -> "Towers":
        """Reads a folder without copying its weights, on all cores."""
        torch.set_num_threads(os.cpu_count() or 1)
        with torch.device("meta"):
            towers = cls(json.loads((folder / "config.json").read_text()), eager)
        tensors = load_file(folder / "model.safetensors", device=str(torch.get_default_device()))
        towers.load_state_dict(tensors, strict=False, assign=True)
        return towers.requires_grad_(False)

    @property
    def scale(self) -> float:
        """The logit scale."""
        return self.logit_scale.exp().item()

    def image(self, pixels: Tensor) -> Tensor:
        """Features `[images, dim]`, not normalised."""
        return self.image_from(self.start_image(pixels))

    def start_image(self, pixels: Tensor, blocks: int = 0) -> Tensor:
        """The stream behind the first blocks."""
        vision = self.vision_model
        return vision.encoder(vision.pre_layrnorm(vision.embed(pixels)), 0, blocks)

    def image_from(self, stream: Tensor, start: int = 0, insert: Insert | None = None) -> Tensor:
        """The rest of the way, from block `start` on."""
        stream = self.vision_model.encoder(stream, start, insert=insert)
        return self.visual_projection(self.vision_model.post_layernorm(stream[:, 0]))

    def embed_text(self, rows: Tensor) -> Tensor:
        """Token embeddings without positions."""
        return self.text_model.embeddings.token_embedding(rows)

    def start_text(self, embedded: Tensor, blocks: int = 0) -> Tensor:
        """Positions added, and the first blocks."""
        positions = self.text_model.embeddings.position_embedding.weight[: embedded.shape[1]]
        return self.text_model.encoder(embedded + positions, 0, blocks)

    def text_from(self, stream: Tensor, ends: Tensor, start: int = 0, insert: Insert | None = None) -> Tensor:
        """Features `[texts, dim]`, not normalised, from block `start` on."""
        stream = self.text_model.encoder(stream, start, insert=insert)
        pooled = stream[torch.arange(len(ends)), ends]
        return self.text_projection(self.text_model.final_layer_norm(pooled))

    def text(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Features of token rows."""
        return self.text_from(self.start_text(self.embed_text(rows)), ends)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    return x / x.norm(dim=-1, keepdim=True)
