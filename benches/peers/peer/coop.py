"""CoOp: the context "a photo of a" in front of all class names, trained by SGD."""

import torch
from torch.nn import functional as F

from .features import stored
from .meter import Meter
from .photos import Loader, Photos, centre
from .schedules import sgd_factor
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

CONTEXT = 4
RATE = 0.002


def run(task: Task) -> dict:
    """`steps` steps; the official way decodes and encodes the images in each.

    The other way encodes `views` views of each image once, which is timed, and then trains on the centre view, so that
    losses can be compared; no step costs more or less for that.
    """
    towers, meter, photos = Towers.open(task.backbone, eager=task.official), Meter(), Photos.open(task.data)
    rows = Tokens(task.backbone, padded=task.official).rows(photos.prompts())
    embedded, last = towers.embed_text(rows), ends(rows)
    context = embedded[0, 1 : 1 + CONTEXT].clone().requires_grad_(True)
    scale = towers.scale
    optimizer = torch.optim.SGD([context], RATE * sgd_factor(scale), momentum=0.9, weight_decay=5e-4)
    features = None
    if not task.official:
        stored(towers, photos, task.views, meter)
        features = stored(towers, photos, 0, Meter())[:, 0]
    loader = Loader(centre, 32)
    for step in range(task.steps):
        with meter.unit():
            turn = photos.turn(step, task.batch)
            paths, labels = [photos.paths[at] for at in turn], photos.labels[turn]
            if task.official:
                image = towers.image(loader.all(paths))
            else:
                image = features[turn]
            prompts = torch.cat([embedded[:, :1], context.expand(len(rows), -1, -1), embedded[:, 1 + CONTEXT :]], 1)
            text = towers.text_from(towers.start_text(prompts), last)
            loss = F.cross_entropy(scale * unit(image) @ unit(text).T, labels)
            meter.learn(optimizer, loss)
    return meter.report()
