"""Data sets of the works, made of any photographs. What the labels say is without meaning."""

import shutil
from itertools import cycle, islice
from pathlib import Path

COLOURS = "amber azure black blue brown coral cream crimson golden green grey indigo ivory lilac olive orange pink purple red white"
THINGS = (
    "apple arrow badge basket bell bird boat book boot bottle bowl box bridge brush bucket button cake camera candle car "
    "carpet chair clock cloud coat coin cup desk dish door dress drum engine flag flower fork glove hammer hat house "
    "kettle key kite knife ladder lamp leaf lock"
)
TEMPLATES = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
]


def names(count: int) -> list[str]:
    """Up to 1000 names of two words."""
    words = [f"{colour} {thing}" for thing in THINGS.split() for colour in COLOURS.split()]
    words += [f"old {word}" for word in words]
    return words[:count]


def texts(count: int) -> list[str]:
    """The seven templates of ImageNet, filled with `count` names."""
    return [template.format(name) for name in names(count) for template in TEMPLATES]


class Photos:
    """A folder of photographs at any depth."""

    def __init__(self, source: Path, target: Path) -> None:
        found = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg"}]
        # From all over the folder, in an order that depends on nothing but the names.
        self.paths = sorted(found, key=lambda path: path.stem[::-1])
        self.target = target
        if not found:
            raise SystemExit(f"{source} holds no JPEG")

    def loose(self, count: int) -> Path:
        """A folder of `count` images, each file at most once."""
        folder = self.target / f"loose-{count}"
        if not folder.exists():
            folder.mkdir(parents=True)
            for at, path in enumerate(self.paths[:count]):
                shutil.copy(path, folder / f"{at:05}.jpg")
        return folder

    def labelled(self, classes: int, images: int) -> Path:
        """A data set of `images` training images, dealt to the classes one by one."""
        folder = self.target / f"set-{classes}-{images}"
        if folder.exists():
            return folder
        labels = [name.replace(" ", "_") for name in names(classes)]
        for at, (name, path) in enumerate(zip(islice(cycle(labels), images), cycle(self.paths))):
            (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "train" / name / f"{at:05}.jpg")
        return folder
