"""Frozen features of the views of training images."""

import torch
from torch import Tensor

from .meter import Meter
from .photos import SIDE, Loader, Photos, varied, views
from .task import Task
from .towers import Towers

BATCH = 32


def stored(towers: Towers, photos: Photos, count: int, meter: Meter) -> Tensor:
    """Features `[images, views, dim]` of `count` random views, or of the centre view, each image decoded once."""
    per_image = max(count, 1)
    found, waiting = [], torch.empty(0, 3, SIDE, SIDE)
    with torch.inference_mode(), meter.encoding(len(photos.paths) * per_image):
        for pixels in views(photos.paths, count):
            waiting = torch.cat([waiting, pixels])
            while len(waiting) >= BATCH:
                found.append(towers.image(waiting[:BATCH]))
                waiting = waiting[BATCH:]
        if len(waiting):
            found.append(towers.image(waiting))
    return torch.cat(found).view(len(photos.paths), per_image, -1).clone()


def by_view(task: Task, towers: Towers, photos: Photos, meter: Meter) -> Tensor:
    """Features `[images, views, dim]`: the official way makes a pass over the files for each, `steps` of them as units."""
    if not task.official:
        return stored(towers, photos, task.views, meter)
    passes = []
    for _ in range(task.steps):
        with meter.unit():
            passes.append(fresh(towers, photos))
    return torch.stack(passes, 1)


def fresh(towers: Towers, photos: Photos) -> Tensor:
    """Features `[images, dim]` of one pass over the files, as a data loader of the authors' code gives them."""
    loader = Loader(varied, BATCH)
    with torch.no_grad():
        return torch.cat([towers.image(pixels) for pixels in loader(photos.paths)])
