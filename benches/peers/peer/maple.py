"""MaPLe: text prompts, and image prompts that are linear maps of them."""

import torch
from torch import nn
from torch.nn import functional as F

from . import prompts
from .meter import Meter
from .photos import Loader, Photos, centre
from .schedules import sgd_factor
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

TOKENS, DEPTH, RATE = 2, 9, 0.0035


def run(task: Task) -> dict:
    """`steps` steps; the official way decodes the images in each."""
    torch.manual_seed(1)
    towers, meter, photos = Towers.open(task.backbone, eager=task.official), Meter(), Photos.open(task.data)
    scale = towers.scale
    rows = Tokens(task.backbone, padded=task.official).rows(photos.prompts())
    with torch.no_grad():
        embedded, last = towers.embed_text(rows), ends(rows)
    text_width, image_width = embedded.shape[-1], towers.vision_model.pre_layrnorm.weight.shape[0]
    text_prompts = [embedded[0, 1 : 1 + TOKENS].clone(), *(prompts.drawn(TOKENS, text_width) for _ in range(DEPTH - 1))]
    maps = nn.ModuleList(nn.Linear(text_width, image_width) for _ in range(DEPTH))
    trained = [*(prompt.requires_grad_(True) for prompt in text_prompts), *maps.parameters()]
    optimizer = torch.optim.SGD(trained, RATE * sgd_factor(scale), momentum=0.9, weight_decay=5e-4)
    loader = Loader(centre, 32)
    if not task.official:
        all_patches = towers.vision_model.embed(loader.all(photos.paths))
    for step in range(task.steps):
        with meter.unit():
            turn = photos.turn(step, task.batch)
            paths, labels = [photos.paths[at] for at in turn], photos.labels[turn]
            patches = towers.vision_model.embed(loader.all(paths)) if task.official else all_patches[turn]
            mapped = [own(prompt) for own, prompt in zip(maps, text_prompts)]
            image = unit(prompts.image(towers, patches, mapped))
            text = unit(prompts.text(towers, embedded, last, text_prompts))
            loss = F.cross_entropy(scale * image @ text.T, labels)
            meter.learn(optimizer, loss)
    return meter.report()
