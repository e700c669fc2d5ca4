"""Linear probe that starts as zero-shot (ZS-LP), trained by SGD on features of random views."""

import torch
from torch.nn import functional as F

from .features import by_view
from .meter import Meter
from .photos import Photos
from .schedules import sgd_factor, warm_cosine
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

EPOCHS, VIEWS = 300, 20
RATE, LENGTH = 0.1, 10.0


def run(task: Task) -> dict:
    """The whole run. Units of the official way are passes over the files, `steps` of the twenty that it makes."""
    towers, meter, photos = Towers.open(task.backbone, eager=task.official), Meter(), Photos.open(task.data)
    rows = Tokens(task.backbone, padded=task.official).rows(photos.prompts())
    with torch.no_grad():
        prototypes = LENGTH * unit(towers.text(rows, ends(rows)))
    features = by_view(task, towers, photos, meter)
    scale, labels = towers.scale, photos.labels
    prototypes.requires_grad_(True)
    optimizer = torch.optim.SGD([prototypes], RATE, momentum=0.9)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = warm_cosine(RATE, epoch, EPOCHS) * sgd_factor(scale)
        image = unit(features[:, epoch % features.shape[1]])
        loss = F.cross_entropy(scale * image @ unit(prototypes).T, labels)
        meter.learn(optimizer, loss)
    return meter.report(passes=VIEWS)
