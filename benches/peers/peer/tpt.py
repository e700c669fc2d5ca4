"""Test-time prompt tuning (Shu et al., 2022, arXiv 2209.07511): 64 views, the surest tenth, one step of AdamW on the context."""

import math
from pathlib import Path
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor

from .meter import settle
from .photos import centre, decoded, here, varied
from .task import Task
from .texts import Tokens, ends
from .towers import Towers, unit

VIEWS, KEPT, RATE, CONTEXT = 64, 6, 5e-3, 4
SIDE = 224
# More classes than these, each of 77 tokens, need more memory than machines without a GPU have.
MOST = 200


def run(task: Task) -> dict:
    """Seconds of each image, views included and weights not, and the probabilities of the last one."""
    towers = Towers.open(task.backbone, eager=task.official)
    classes = task.classes.split(",")
    shown = classes[:MOST] if task.official else classes
    tune = Tuner(towers, Tokens(task.backbone, padded=task.official), shown, task.official)
    units, scores = [], None
    for path in sorted(path for path in task.data.iterdir() if path.is_file())[: task.steps]:
        began = perf_counter()
        pixels = here(views(path))
        with torch.no_grad():
            features = unit(towers.image(pixels))
        settle()
        seen = perf_counter()
        scores = tune(features, pixels[:1])
        # Texts cost in proportion to the classes.
        units.append(seen - began + (perf_counter() - seen) * len(classes) / len(shown))
    return {"units": units, "scores": dict(zip(classes, scores)) if len(shown) == len(classes) else None}


def views(path: Path) -> Tensor:
    """The centre view and random ones, or those in the folder of the image's name."""
    image, folder = decoded(path), path.with_suffix("")
    if folder.is_dir():
        return torch.stack([centre(image)] + [centre(decoded(view)) for view in sorted(folder.iterdir())])
    # Crops only: the authors' AugMix would add the same to both sides.
    return torch.stack([centre(image)] + [varied(image) for _ in range(VIEWS - 1)])


def write_views(task: Task) -> dict:
    """Copies of the first photographs without loss, and 63 crops of each in a folder of its name."""
    target = Path(f"{task.data}-views")
    torch.manual_seed(0)
    for path in sorted(task.data.glob("*"))[: task.count]:
        folder = target / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        image = decoded(path)
        image.save(target / f"{path.stem}.png")
        for at in range(VIEWS - 1):
            across = int(torch.randint(SIDE // 4, min(image.size), ()))
            left, top = (int(torch.randint(0, side - across + 1, ())) for side in image.size)
            view = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + across, top + across))
            view.save(folder / f"{at:02}.png")
    return {"folder": str(target)}


class Tuner:
    """The context "a photo of a", started anew for each image."""

    def __init__(self, towers: Towers, tokens: Tokens, classes: list[str], official: bool) -> None:
        rows = tokens.rows([f"a photo of a {name}." for name in classes])
        self.towers, self.ends, self.official = towers, ends(rows), official
        self.embedded = towers.embed_text(rows)
        self.start = self.embedded[0, 1 : 1 + CONTEXT].clone()
        with torch.no_grad():
            self.before = self.text(self.start)

    def text(self, context: Tensor) -> Tensor:
        """Class features under a context."""
        rows = len(self.ends)
        words = [self.embedded[:, :1], context.expand(rows, -1, -1), self.embedded[:, 1 + CONTEXT :]]
        return unit(self.towers.text_from(self.towers.start_text(torch.cat(words, 1)), self.ends))

    def __call__(self, features: Tensor, pixels: Tensor) -> list[float]:
        """Probabilities of the first view after the step."""
        scale = self.towers.scale
        context = self.start.clone().requires_grad_(True)
        optimizer = torch.optim.AdamW([context], RATE)
        texts = self.text(context)
        logits = scale * features @ (texts.detach() if self.official else self.before).T
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        sure = features[entropy.argsort()[:KEPT]]
        mean = (scale * sure @ texts.T).log_softmax(1).logsumexp(0) - math.log(KEPT)
        (-(mean * mean.exp()).sum()).backward()
        optimizer.step()
        with torch.no_grad():
            # The authors run the image once more.
            first = unit(self.towers.image(pixels)) if self.official else features[:1]
            return (scale * first @ self.text(context).T).softmax(1)[0].tolist()
