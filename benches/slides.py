"""Slides of real handwritten digits: a slide is positive when a zero is somewhere on it (after MNIST-bags, arXiv 1802.04712).

    python benches/slides.py MNIST_FOLDER SLIDES [--train 100] [--test 100] [--side 4] [--digit 0] [--seed 1]
    inarch data tiles -d SLIDES -o TILES --side 32
    python benches/slides.py table --inarch BINARY --data TILES [--frames 12] [--seeds 1,2,3]

A slide is a grid of `side` x `side` places of 32 pixels: one place in four is bare glass, the others hold a digit each, inked in some
colour. A positive slide has one to three zeros (`--digit`), a negative one none. Training slides show the first half of the images,
test slides the second. Making slides needs numpy and pillow; `table` needs no package.
"""

import argparse
import gzip
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SIDE = 32
RUNS = {
    "mean of the tiles, `linear-probe`": ["-m", "linear-probe"],
    "`gated-pool`": ["-m", "gated-pool"],
    "`gated-pool` and `linear-probe`": [
        "-m", "gated-pool", "--set", 'method={ name = "stack", members = [{ name = "gated-pool" }, { name = "linear-probe" }] }',
    ],
    "`attention-pool` and `linear-probe`": [
        "-m", "attention-pool", "--set",
        'method={ name = "stack", members = [{ name = "attention-pool" }, { name = "linear-probe" }] }',
    ],
}


def main() -> None:
    if sys.argv[1:2] == ["table"]:
        parser = argparse.ArgumentParser(prog="slides.py table")
        parser.add_argument("--inarch", type=Path, required=True)
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--frames", default="12")
        parser.add_argument("--seeds", default="1,2,3")
        return table(parser.parse_args(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("--train", type=int, default=100, help="slides of each class")
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--side", type=int, default=4)
    parser.add_argument("--digit", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    make(parser.parse_args())


def make(given: argparse.Namespace) -> None:
    import numpy
    from PIL import Image

    draw = numpy.random.default_rng(given.seed)
    with gzip.open(given.mnist / "t10k-images-idx3-ubyte.gz") as file:
        _, count, height, width = struct.unpack(">4I", file.read(16))
        images = numpy.frombuffer(file.read(), numpy.uint8).reshape(count, height, width)
    with gzip.open(given.mnist / "t10k-labels-idx1-ubyte.gz") as file:
        labels = numpy.frombuffer(file.read()[8:], numpy.uint8)
    half = count // 2
    for split, slides, of in [("train", given.train, range(half)), ("test", given.test, range(half, count))]:
        of = numpy.array(of)
        wanted_ones, others = of[labels[of] == given.digit], of[labels[of] != given.digit]
        for name, positive in [("with", True), ("without", False)]:
            folder = given.slides / split / name
            folder.mkdir(parents=True)
            for number in range(slides):
                places = draw.permutation(given.side ** 2)[: given.side ** 2 * 3 // 4]
                wanted = int(draw.integers(1, 4)) if positive else 0
                digits = [draw.choice(wanted_ones) for _ in range(wanted)]
                digits += [draw.choice(others) for _ in range(len(places) - wanted)]
                slide = numpy.full((given.side * SIDE, given.side * SIDE, 3), 242.0)
                for place, digit in zip(places, digits):
                    top, left = (place // given.side) * SIDE, (place % given.side) * SIDE
                    y, x = top + draw.integers(0, SIDE - height + 1), left + draw.integers(0, SIDE - width + 1)
                    # Tissue is stained all over, ink more.
                    ground, ink = numpy.array([236.0, 205.0, 222.0]), draw.uniform(20, 110, 3)
                    slide[top : top + SIDE, left : left + SIDE] = ground
                    share = images[digit][:, :, None] / 255
                    slide[y : y + height, x : x + width] = ground * (1 - share) + ink * share
                Image.fromarray(slide.round().astype(numpy.uint8)).save(folder / f"{number:04d}.tif", compression="tiff_lzw")


def table(given: argparse.Namespace) -> None:
    print("| method | accuracy | AUROC | trained values |\n| --- | ---: | ---: | ---: |")
    for name, words in RUNS.items():
        found = []
        for seed in given.seeds.split(","):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                common = ["-b", "pocket", "-d", given.data, "--frames", given.frames]
                run([given.inarch, "fit", *common, *words, "--seed", seed, "-o", out, "--json"])
                seen = run([given.inarch, "eval", "-b", "pocket", "-d", given.data, "-a", out, "--json"])
                report = json.loads((out / "report.json").read_text())
                found.append((seen["accuracy"], seen["auroc"], report["trainable"]))
        cells = []
        for values, scale in [([row[0] for row in found], 100), ([row[1] for row in found], 1)]:
            mean = sum(values) / len(values)
            spread = (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5
            digits = 1 if scale == 100 else 3
            cells.append(f"{scale * mean:.{digits}f} ± {scale * spread:.{digits}f}")
        print(f"| {name} | {cells[0]} | {cells[1]} | {found[0][2]} |", flush=True)


def run(words: list) -> dict:
    done = subprocess.run([*map(str, words)], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
