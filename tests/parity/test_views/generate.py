"""AugMix's operations by Pillow, and how the views of test-time prompt tuning are distributed in the reference.

    python generate.py        (writes operations.png, operations.json and statistics.json beside this file)

Made with pillow 13.0.0, torch 2.9.1, torchvision 0.24.1, numpy 2.4.6. The source is `preprocess/dress.png`. The reference of the views is
torchvision's RandomResizedCrop and RandomHorizontalFlip, then AugMix after its paper, with the strengths of the authors of
test-time prompt tuning (github.com/azshue/TPT): severity 1, three chains, Dirichlet(1, 1, 1) and Beta(1, 1).
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import RandomHorizontalFlip, RandomResizedCrop

HERE = Path(__file__).resolve().parent
SOURCE = Image.open(HERE.parent / "preprocess" / "dress.png").convert("RGB")
SIDE, DRAWS = 48, 20000


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


APPLY = {
    "auto-contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, bits),
    "rotate": lambda image, degrees: image.rotate(degrees, resample=Image.Resampling.BILINEAR),
    "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
    "shear-x": lambda image, level: affine(image, 1, level, 0, 0, 1, 0),
    "shear-y": lambda image, level: affine(image, 1, 0, 0, level, 1, 0),
    "translate-x": lambda image, pixels: affine(image, 1, 0, pixels, 0, 1, 0),
    "translate-y": lambda image, pixels: affine(image, 1, 0, 0, 0, 1, pixels),
}


def operations():
    image = SOURCE.resize((72, 64))
    listed = [("auto-contrast", 0), ("equalize", 0), ("posterize", 4), ("posterize", 1), ("rotate", 2),
              ("rotate", -27), ("rotate", 90), ("solarize", 128), ("solarize", 250), ("shear-x", 0.021), ("shear-x", -0.3),
              ("shear-y", 0.25), ("translate-x", 7), ("translate-x", -20), ("translate-y", -3)]
    sheet = Image.new("RGB", (72, 64 * (len(listed) + 1)))
    sheet.paste(image, (0, 0))
    for place, (name, level) in enumerate(listed, 1):
        sheet.paste(APPLY[name](image, level), (0, 64 * place))
    sheet.save(HERE / "operations.png", optimize=True)
    (HERE / "operations.json").write_text(json.dumps(listed) + "\n")


def random_operation(image, rng):
    name = rng.choice(list(APPLY))
    level = rng.uniform(0.1, 1.0)
    sign = -1 if rng.uniform() > 0.5 else 1
    whole = lambda most: int(level * most / 10)
    value = {
        "posterize": lambda: 4 - whole(4), "rotate": lambda: sign * whole(30), "solarize": lambda: 256 - whole(256),
        "shear-x": lambda: sign * level * 0.03, "shear-y": lambda: sign * level * 0.03,
        "translate-x": lambda: sign * whole(SIDE / 3), "translate-y": lambda: sign * whole(SIDE / 3),
    }.get(name, lambda: 0)()
    return APPLY[name](image, value)


def measures(levels):
    """Of one view: mean and spread of each channel, and how its halves differ."""
    x = np.asarray(levels, np.float64)
    half = SIDE // 2
    halves = [x[:, :half].mean() - x[:, half:].mean(), x[:half].mean() - x[half:].mean()]
    return [*x.mean((0, 1)), *x.std((0, 1)), *halves, np.abs(halves[0])]


def statistics():
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    crop, flip = RandomResizedCrop(SIDE), RandomHorizontalFlip()
    found = {"crop": [], "augmix": []}
    for _ in range(DRAWS):
        view = flip(crop(SOURCE))
        found["crop"].append(measures(view))
        weights, original = rng.dirichlet([1, 1, 1]), rng.beta(1, 1)
        mixed = np.zeros((SIDE, SIDE, 3))
        for weight in weights:
            changed = view
            for _ in range(rng.integers(1, 4)):
                changed = random_operation(changed, rng)
            mixed += weight * np.asarray(changed, np.float64)
        found["augmix"].append(measures(original * np.asarray(view, np.float64) + (1 - original) * mixed))
    summary = lambda rows: {"mean": np.mean(rows, 0).tolist(), "std": np.std(rows, 0).tolist(),
                            "quartiles": np.quantile(rows, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0).T.tolist()}
    result = {"draws": DRAWS, "side": SIDE, **{name: summary(rows) for name, rows in found.items()}}
    (HERE / "statistics.json").write_text(json.dumps(result, indent=1) + "\n")


operations()
statistics()
