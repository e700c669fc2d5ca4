"""Photographs: decoding, the centre view, random views, several threads."""

import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 224
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], device="cpu").view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], device="cpu").view(3, 1, 1)

View = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Photos:
    """Training images and classes of a data set of class folders."""

    paths: list[Path]
    labels: Tensor
    classes: list[str]

    @classmethod
    def open(cls, folder: Path) -> "Photos":
        """Reads `folder/train`; classes are those of all splits."""
        names = sorted({path.name for split in folder.iterdir() for path in split.iterdir()})
        paths = [path for name in names for path in sorted((folder / "train" / name).glob("*"))]
        return cls(paths, torch.tensor([names.index(path.parent.name) for path in paths]), names)

    def turn(self, step: int, batch: int) -> list[int]:
        """Positions of the images of a step, all of them for a batch of 0."""
        count = len(self.paths)
        return [(step * batch + at) % count for at in range(batch or count)]

    def prompts(self, template: str = "a photo of a {}.") -> list[str]:
        """The template filled with each class."""
        return [template.format(name.replace("_", " ")) for name in self.classes]


def here(pixels: Tensor) -> Tensor:
    """On the device of the process; images are decoded on the processor."""
    return pixels.to(torch.get_default_device())


def decoded(path: Path) -> Image.Image:
    """The image in RGB."""
    return Image.open(path).convert("RGB")


def normalised(image: Image.Image) -> Tensor:
    """Pixels `[3, side, side]`."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return pixels.div_(255).sub_(MEAN).div_(STD)


def centre(image: Image.Image) -> Tensor:
    """The view of evaluation: the short side resized, the middle cut out."""
    width, height = image.size
    short = min(width, height)
    image = image.resize((SIDE * width // short, SIDE * height // short), Image.Resampling.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return normalised(image.crop((left, top, left + SIDE, top + SIDE)))


def varied(image: Image.Image) -> Tensor:
    """A random view: 8 to 100 % of the area, mirrored half of the time."""
    width, height = image.size
    for _ in range(10):
        area = random.uniform(0.08, 1.0) * width * height
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < across <= width and 0 < down <= height:
            break
    else:
        across = down = min(width, height)
    left, top = random.randint(0, width - across), random.randint(0, height - down)
    box = (left, top, left + across, top + down)
    view = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return normalised(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else view)


class Loader:
    """Decodes batches on all cores while the caller computes."""

    def __init__(self, view: View, batch: int, ahead: int = 2) -> None:
        self.view, self.batch, self.ahead = view, batch, ahead

    def __call__(self, paths: list[Path]) -> Iterator[Tensor]:
        """Batches `[images, 3, side, side]` in order."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting: deque[list[Future]] = deque()
            for start in range(0, len(paths), self.batch):
                waiting.append([pool.submit(self.load, path) for path in paths[start : start + self.batch]])
                if len(waiting) > self.ahead:
                    yield here(torch.stack([future.result() for future in waiting.popleft()]))
            for batch in waiting:
                yield here(torch.stack([future.result() for future in batch]))

    def all(self, paths: list[Path]) -> Tensor:
        """All files in one batch."""
        return torch.cat(list(self(paths)))

    def load(self, path: Path) -> Tensor:
        """One view of one file."""
        return self.view(decoded(path))


def views(paths: list[Path], count: int) -> Iterator[Tensor]:
    """`count` random views `[count, 3, side, side]` of each image, decoded once; the centre view for 0."""
    def load(path: Path) -> Tensor:
        image = decoded(path)
        return torch.stack([varied(image) for _ in range(count)] if count else [centre(image)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[Future] = deque()
        for path in paths:
            waiting.append(pool.submit(load, path))
            if len(waiting) > max(64 // max(count, 1), 2):
                yield here(waiting.popleft().result())
        while waiting:
            yield here(waiting.popleft().result())
