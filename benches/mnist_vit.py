"""The pretrained MNIST transformer of the test data: its own figure, then methods on hands that show digits and on characters.

    python3 benches/mnist_vit.py INARCH [DATA [PART,PART]]

INARCH is the built program; DATA the folder of test data (default: `../shared/data`); a PART is one of `mnist`, `signs` and `omniglot`
(default: all). Needs Pillow and numpy. Prints the accuracy of the checkpoint's own classes on the 10,000 MNIST test images (97.21 % is
published with it), of some methods at 16 images a class on `sign-digits`, and of the same on Omniglot's 136 characters at 14 drawings each.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

METHODS = ("linear-head", "linear-probe", "tip-adapter-f", "ranpac", "vpt-deep", "lora")
PARTS = ("mnist", "signs", "omniglot")


def backbone(data, folder):
    """The checkpoint with what its tensors do not tell."""
    folder.mkdir()
    shutil.copy(data / "weights" / "vit-mnist" / "vit_mnist_gpu.pt", folder / "model.pt")
    labels = {str(digit): str(digit) for digit in range(10)}
    config = {"model_type": "vit-pytorch", "image_size": 28, "num_channels": 1, "hidden_act": "relu", "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}, "resample": 2,
                 "image_mean": [0.1307] * 3, "image_std": [0.3081] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def digits(data, folder):
    """The MNIST test images as a folder of class folders."""
    read = lambda name, skip: np.frombuffer(gzip.open(data / "mnist" / name).read(), np.uint8)[skip:]
    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    for index, (image, label) in enumerate(zip(images, read("t10k-labels-idx1-ubyte.gz", 8))):
        place = folder / "test" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:05}.png")


def characters(data, folder):
    """Omniglot's characters as a folder of class folders, in white on black as MNIST's digits are: drawings 1 to 14 to learn, 15 to 20 to test."""
    with zipfile.ZipFile(data / "omniglot-small1" / "images_background_small1.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
            _, alphabet, character, drawing = name.split("/")
            number = int(Path(drawing).stem.split("_")[1])
            place = folder / ("train" if number <= 14 else "test") / f"{alphabet} {character}"
            place.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as file:
                ImageOps.invert(Image.open(file).convert("L")).save(place / f"{number:02}.png")


def compared(run, vit, data, shots, what, folder):
    """Prints what some methods learn from so many images of each class."""
    for method in METHODS:
        output = folder / f"{data.name}-{method}"
        run("fit", "-b", vit, "-d", data, "-m", method, "--shots", shots, "--seed", 1, "-o", output)
        found = run("eval", "-b", vit, "-d", data, "-a", output)
        print(f"{what}, {method}: {100 * found['accuracy']:.1f} % of {found['n']}", flush=True)


def main(program, data, parts):
    run = lambda *arguments: json.loads(subprocess.run(
        [program, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE).stdout)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        vit = folder / "vit"
        backbone(data, vit)
        if "mnist" in parts:
            digits(data, folder / "mnist")
            found = run("eval", "-b", vit, "-d", folder / "mnist")
            print(f"mnist, its own classes: {100 * found['accuracy']:.2f} % of {found['n']}", flush=True)
        if "signs" in parts:
            compared(run, vit, data / "sign-digits", 16, "sign digits", folder)
        if "omniglot" in parts:
            characters(data, folder / "omniglot")
            compared(run, vit, folder / "omniglot", 14, "omniglot", folder)


if __name__ == "__main__":
    given = sys.argv[1:]
    parts = given[2].split(",") if len(given) == 3 else PARTS
    if len(given) not in (1, 2, 3) or not set(parts) <= set(PARTS):
        sys.exit(__doc__)
    data = Path(given[1]) if len(given) > 1 else Path(__file__).resolve().parents[2] / "shared" / "data"
    main(given[0], data, parts)
