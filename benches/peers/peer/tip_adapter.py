"""Tip-Adapter-F: a cache of training features whose keys are trained by AdamW."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .features import by_view
from .meter import Meter
from .photos import Photos
from .schedules import cosine
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

EPOCHS, KEY_VIEWS = 20, 10
ALPHA, BETA, RATE = 1.0, 5.5, 1e-3


def run(task: Task) -> dict:
    """The whole run. Units of the official way are passes over the files, `steps` of the thirty that it makes."""
    towers, meter, photos = Towers.open(task.backbone, eager=task.official), Meter(), Photos.open(task.data)
    rows = Tokens(task.backbone, padded=task.official).rows(photos.prompts())
    with torch.no_grad():
        text = unit(towers.text(rows, ends(rows)))
    features = by_view(task, towers, photos, meter)
    train(features, text, photos.labels, towers.scale, meter)
    return meter.report(passes=KEY_VIEWS + EPOCHS)


def train(features: Tensor, text: Tensor, labels: Tensor, scale: float, meter: Meter) -> None:
    """Trains the keys on one view of all images in each epoch."""
    keys = unit(unit(features).mean(1)).requires_grad_(True)
    values = F.one_hot(labels, len(text)).float()
    optimizer = torch.optim.AdamW([keys], RATE, eps=1e-4, weight_decay=0.01)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = cosine(RATE, epoch, EPOCHS)
        image = unit(features[:, epoch % features.shape[1]])
        votes = (BETA * (image @ keys.T - 1)).exp() @ values
        loss = F.cross_entropy(scale * image @ text.T + ALPHA * votes, labels)
        meter.learn(optimizer, loss)
