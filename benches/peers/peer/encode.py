"""Features of images, pixels and texts, with the frozen towers."""

import torch

from .meter import Meter
from .photos import Loader, centre
from .task import Task
from .texts import Tokens, ends
from .towers import Towers

IMAGE_BATCH, TEXT_BATCH = 32, 64
SHOWN = 60


def run(task: Task) -> dict:
    """Encodes all of it, or `steps` batches as units; the first rows are in the report."""
    towers, meter = Towers.open(task.backbone, eager=task.official), Meter()
    found = []
    with torch.no_grad() if task.official else torch.inference_mode():
        match task.work:
            case "encode-images":
                paths = sorted(task.data.glob("*"))
                names = [path.name for path in paths]
                for pixels in Loader(centre, IMAGE_BATCH)(paths):
                    found.append(towers.image(pixels))
            case "encode-pixels":
                names = []
                pixels = torch.rand(task.count, 3, 224, 224) * 2 - 1
                for _ in range(task.steps):
                    with meter.unit():
                        found = [towers.image(batch) for batch in pixels.split(IMAGE_BATCH)]
            case _:
                tokens, names = Tokens(task.backbone, padded=task.official), task.data.read_text().splitlines()
                last = task.steps * TEXT_BATCH or len(names)
                for at in range(0, last, TEXT_BATCH):
                    with meter.unit():
                        rows = tokens.rows(names[at : at + TEXT_BATCH])
                        found.append(towers.text(rows, ends(rows)))
    values = torch.cat(found)
    return meter.report(names=names[:SHOWN], values=values[:SHOWN].tolist())
