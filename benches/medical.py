"""Medical runs from public data to a table: zero-shot, linear-probe, tip-adapter-f and lora, with AUROC and sensitivity.

    python benches/medical.py pneumonia pneumoniamnist.npz FOLDER
    python benches/medical.py table --inarch BINARY --data FOLDER --positive CLASS [--backbone pocket] [--shots 16] [--seed 1]

`pneumonia` writes the X-rays of PneumoniaMNIST (MedMNIST v2, CC BY 4.0) as `split/class/number.png`; it needs numpy and
pillow. `table` trains and evaluates with the binary and prints Markdown; it needs no package.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

METHODS = ["linear-probe", "tip-adapter-f", "lora"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    convert = commands.add_parser("pneumonia")
    convert.add_argument("source", type=Path)
    convert.add_argument("folder", type=Path)
    runs = commands.add_parser("table")
    runs.add_argument("--inarch", type=Path, required=True)
    runs.add_argument("--data", type=Path, required=True)
    runs.add_argument("--positive", required=True, help="the class whose sensitivity is shown")
    runs.add_argument("--backbone", default="pocket")
    runs.add_argument("--shots", help="all images when absent")
    runs.add_argument("--seed", default="1")
    runs.add_argument("--set", action="append", default=[], help="for all methods, e.g. train.imbalance=class-weights")
    given = parser.parse_args()
    if given.command == "pneumonia":
        pneumonia(given.source, given.folder)
    else:
        table(given)


def pneumonia(source: Path, folder: Path) -> None:
    import numpy
    from PIL import Image

    arrays = numpy.load(source)
    for split in ("train", "val", "test"):
        labels = arrays[f"{split}_labels"].ravel()
        for number, (image, label) in enumerate(zip(arrays[f"{split}_images"], labels)):
            path = folder / split / ("pneumonia" if label else "normal") / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def run(binary: Path, *words: object) -> dict:
    """What a command says as JSON."""
    done = subprocess.run([binary, *map(str, words), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def table(given: argparse.Namespace) -> None:
    head = ["method", "accuracy", "balanced accuracy", "AUROC", f"sensitivity for `{given.positive}` at 90 % specificity",
            "ECE", "trained values", "seconds"]
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    place = ["-b", given.backbone, "-d", given.data]
    zero_shot = run(given.inarch, "eval", *place)
    print(row("zero-shot", zero_shot, given.positive, "", zero_shot["seconds"]))
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", method, "--seed", given.seed, "-o", Path(folder, "run")]
            words += ["--shots", given.shots] if given.shots else []
            words += [part for setting in given.set for part in ("--set", setting)]
            fitted = run(given.inarch, "fit", *place, *words)["runs"][0]
            found = run(given.inarch, "eval", *place, "-a", Path(folder, "run"))
        print(row(f"`{method}`", found, given.positive, fitted["trainable"], fitted["seconds"]), flush=True)


def row(name: str, found: dict, positive: str, trained: object, seconds: float) -> str:
    own = found["ranking"][found["classes"].index(positive)]
    cells = [f"{100 * found['accuracy']:.1f} %", f"{100 * found['balanced_accuracy']:.1f} %", f"{found['auroc']:.3f}"]
    if len(found["classes"]) == 2:
        cells[2] = with_interval(own["auroc"])
    cells += [with_interval(own["sensitivity"]), f"{found['ece']:.3f}", str(trained), f"{seconds:.1f}"]
    return f"| {name} | {' | '.join(cells)} |"


def with_interval(estimate: dict) -> str:
    low, high = estimate["interval"]
    return f"{estimate['value']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
