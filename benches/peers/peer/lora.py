"""CLIP-LoRA: low-rank updates of q, k and v in both towers, rank 2, trained by AdamW."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .meter import Meter
from .photos import Loader, Photos, centre
from .task import Task
from .texts import Tokens, ends
from .towers import Encoder, Towers, unit

RANK, ALPHA, DROPOUT, RATE = 2, 1.0, 0.25, 2e-4


class Lora(nn.Module):
    """A frozen linear layer and its update, its two factors multiplied first (`dense`) as the authors do, or not."""

    def __init__(self, base: nn.Linear, dense: bool) -> None:
        super().__init__()
        self.base, self.dense = base, dense
        self.down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(RANK, base.in_features), a=math.sqrt(5)))
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))
        self.drop, self.scale = nn.Dropout(DROPOUT), ALPHA / math.sqrt(RANK)

    def forward(self, x: Tensor) -> Tensor:
        y, x = self.base(x), self.drop(x)
        change = x @ (self.up @ self.down).T if self.dense else (x @ self.down.T) @ self.up.T
        return y + change * self.scale


def adapt(encoder: Encoder, first: int, dense: bool) -> list[nn.Parameter]:
    """Wraps the projections of the blocks from `first` on."""
    trained: list[nn.Parameter] = []
    for block in encoder.layers[first:]:
        for name in ["q_proj", "k_proj", "v_proj"]:
            lora = Lora(getattr(block.self_attn, name), dense)
            setattr(block.self_attn, name, lora)
            trained += [lora.down, lora.up]
    return trained


def run(task: Task) -> dict:
    """`steps` steps; `count` blocks at the end of each tower are adapted, all for 0.

    The official code has fused attention of its own, so both variants have it.
    """
    torch.manual_seed(1)
    towers, meter, photos = Towers.open(task.backbone, eager=False), Meter(), Photos.open(task.data)
    depth = len(towers.vision_model.encoder.layers)
    first = depth - task.count if task.count else 0
    trained = [
        parameter
        for encoder in [towers.vision_model.encoder, towers.text_model.encoder]
        for parameter in adapt(encoder, first, dense=task.official)
    ]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=0.01)
    tokens, scale = Tokens(task.backbone, padded=task.official), towers.scale
    prompts = photos.prompts()
    loader = Loader(centre, 32)
    if not task.official:
        rows = tokens.rows(prompts)
        last = ends(rows)
        with torch.no_grad():
            images = towers.start_image(loader.all(photos.paths), first)
            texts = towers.start_text(towers.embed_text(rows), first)
    for step in range(task.steps):
        with meter.unit():
            turn = photos.turn(step, task.batch)
            paths, labels = [photos.paths[at] for at in turn], photos.labels[turn]
            if task.official:
                rows = tokens.rows(prompts)
                text = towers.text(rows, ends(rows))
                image = towers.image(loader.all(paths))
            else:
                text = towers.text_from(texts, last, first)
                image = towers.image_from(images[turn], first)
            loss = F.cross_entropy(scale * unit(image) @ unit(text).T, labels)
            meter.learn(optimizer, loss)
    return meter.report()
