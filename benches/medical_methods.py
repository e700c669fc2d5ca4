"""What the medical methods give on real images: sentences of each class, several findings an image, abstention, rare classes.

    python benches/medical_methods.py --inarch BINARY --bccd BCCD --pneumonia pneumoniamnist.npz [--sentences JSON]
        [--work FOLDER] [--backbone pocket] [--seeds 1,2,3] [--only sentences,findings,abstention,imbalance]

`--bccd` is the blood-cell set in Pascal VOC form, `--pneumonia` the X-rays of MedMNIST v2, `--sentences` the file that
BiomedCoOp publishes (arXiv 2411.15232). Data are made in the work folder, once: X-rays and crops of cells as class
folders, and windows of 160 x 160 pixels of the blood photographs, each with the kinds of cells whose centres lie in it.
A photograph is never in two splits. Needs numpy and pillow; prints Markdown.
"""

import argparse
import csv
import hashlib
import json
import statistics
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from medical import pneumonia, run, with_interval

KINDS = ["RBC", "WBC", "Platelets"]
SIDE = 160
COVERAGES = [1.0, 0.9, 0.8, 0.5]
LIFT = Path(__file__).resolve().parents[1] / "recipes" / "examples" / "long-tailed.toml"

# The published sentences know nucleated red cells only.
RED_CELLS = [
    "a microscopic image of red blood cells, pink discs with a paler middle.",
    "a stained blood smear showing a round red cell without a nucleus.",
    "an erythrocyte, evenly pink, about seven micrometres wide.",
    "a blood smear with overlapping pale pink discs.",
    "a red cell with a smooth edge and central pallor.",
]
WHITE_CELLS = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("inarch", "bccd", "pneumonia"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, help="needed by the part `sentences`")
    parser.add_argument("--work", type=Path, default=Path("medical-methods"))
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="sentences,findings,abstention,imbalance")
    given = parser.parse_args()
    chosen = given.only.split(",")
    sets = prepared(given)
    if "sentences" in chosen:
        if given.sentences is None:
            parser.error("the part `sentences` needs --sentences")
        described(given)
    parts = {"sentences": sentences, "findings": findings, "abstention": abstention, "imbalance": imbalance}
    for part in chosen:
        parts[part](given, sets)


def prepared(given: argparse.Namespace) -> dict[str, Path]:
    """The data sets, made where they are not there yet."""
    sets = {name: given.work / name for name in ("x-rays", "cells", "windows")}
    given.work.mkdir(parents=True, exist_ok=True)
    if not sets["x-rays"].is_dir():
        pneumonia(given.pneumonia, sets["x-rays"])
    if not sets["cells"].is_dir():
        words = ["data", "crop", given.bccd, "-o", sets["cells"], "--square", "--margin", 0.1, "--smallest", 8]
        subprocess.run([given.inarch, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    if not sets["windows"].is_dir():
        windows(given.bccd, sets["windows"])
    return sets


def described(given: argparse.Namespace) -> None:
    """The sentences of the classes of each set, as files beside it."""
    known = json.loads(given.sentences.read_text())["BIOMEDCOOP_TEMPLATES"]
    own = {
        "x-rays": {"normal": known["normal lungs"], "pneumonia": known["viral pneumonia lungs"]},
        "cells": {
            "RBC": RED_CELLS,
            "WBC": [sentence for kind in WHITE_CELLS for sentence in known[kind][:10]],
            "Platelets": known["platelet"],
        },
    }
    for name, classes in own.items():
        (given.work / f"{name}.json").write_text(json.dumps(classes, indent=1))


def windows(bccd: Path, folder: Path) -> None:
    """Windows of the photographs as files and a list of `path,label,split,group`; a hash of the photograph splits."""
    from PIL import Image

    rows = []
    for annotation in sorted((bccd / "Annotations").glob("*.xml")):
        tree = ElementTree.parse(annotation)
        name = annotation.stem
        share = hashlib.sha256(name.encode()).digest()[0] / 256
        split = "train" if share < 0.5 else "val" if share < 0.7 else "test"
        found: dict[tuple[int, int], set[str]] = {}
        for thing in tree.iter("object"):
            edges = [int(thing.find("bndbox").findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = edges
            at = ((left + right) // 2 // SIDE, (top + bottom) // 2 // SIDE)
            found.setdefault(at, set()).add(thing.findtext("name"))
        with Image.open(bccd / "JPEGImages" / f"{name}.jpg") as photo:
            for column in range(photo.width // SIDE):
                for row in range(photo.height // SIDE):
                    path = folder / split / f"{name}-{column}-{row}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    corner = (SIDE * column, SIDE * row)
                    photo.crop((*corner, corner[0] + SIDE, corner[1] + SIDE)).save(path)
                    kinds = [kind for kind in KINDS if kind in found.get((column, row), ())]
                    rows.append([path.relative_to(folder).as_posix(), ";".join(kinds), split, name])
    with (folder / "windows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "group"], *rows])


def fitted(given: argparse.Namespace, data: Path, name: str, *words: object) -> list[dict]:
    """One run for each seed, kept in the work folder."""
    folder = given.work / "runs" / name
    place = ["-b", given.backbone, "-d", data, "--seed", given.seeds, "-o", folder]
    return run(given.inarch, "fit", *place, *words)["runs"]


def spread(values: list[float], scale: float = 1.0, digits: int = 3) -> str:
    """Mean and standard deviation over the seeds, as `compare` has them."""
    return f"{scale * statistics.mean(values):.{digits}f} ± {scale * statistics.pstdev(values):.{digits}f}"


def heading(cells: list[str]) -> None:
    print(f"\n| {' | '.join(cells)} |\n| --- |{' ---: |' * (len(cells) - 1)}", flush=True)


def line(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def sentences(given: argparse.Namespace, sets: dict[str, Path]) -> None:
    """Prompts with and without sentences of the classes, 16 images of each."""
    for name, positive in (("x-rays", "pneumonia"), ("cells", "Platelets")):
        data, described = sets[name], ["--descriptions", given.work / f"{name}.json"]
        heading([name, "accuracy", "balanced accuracy", "AUROC", f"sensitivity for `{positive}` at 90 % specificity"])
        for title, words in (("zero-shot, one template", []), ("zero-shot, sentences", described)):
            found = run(given.inarch, "eval", "-b", given.backbone, "-d", data, *words)
            own = found["ranking"][found["classes"].index(positive)]
            auroc = with_interval(own["auroc"]) if len(found["classes"]) == 2 else f"{found['auroc']:.3f}"
            accuracy, balanced = f"{100 * found['accuracy']:.1f}", f"{100 * found['balanced_accuracy']:.1f}"
            line([title, accuracy, balanced, auroc, with_interval(own["sensitivity"])])
            classes = found["classes"]
        for title, method, words in (
            ("`coop`", "coop", []),
            ("`kgcoop`, sentences as prior", "kgcoop", described),
            ("`biomedcoop`, sentences", "biomedcoop", described),
            ("`linear-probe`, sentences", "linear-probe", described),
        ):
            place = f"{name}-{method}{'-sentences' if words else ''}"
            runs = fitted(given, data, place, "-m", method, "--shots", 16, *words)
            of = lambda measure: [measure(each["detail"]) for each in runs]
            line([
                title,
                spread([each["accuracy"] for each in runs], 100, 1),
                spread(of(lambda detail: detail["balanced_accuracy"]), 100, 1),
                spread(of(lambda detail: detail["auroc"])),
                spread(of(lambda detail: detail["ranking"][classes.index(positive)]["sensitivity"]["value"])),
            ])


def findings(given: argparse.Namespace, sets: dict[str, Path]) -> None:
    """Kinds of cells in windows of blood photographs, of which any number may be there."""
    data = sets["windows"] / "windows.csv"
    zero_shot = run(given.inarch, "eval", "-b", given.backbone, "-d", data)
    classes = zero_shot["classes"]
    shares = [own["positives"] / zero_shot["n"] for own in zero_shot["ranking"]]
    heading(["windows", "mAP"] + [f"`{kind}`: AUROC, AP" for kind in classes])
    line(["share of the windows", f"{statistics.mean(shares):.3f}"] + [f"–, {share:.3f}" for share in shares])
    pair = lambda own: f"{own['auroc']['value']:.3f}, {own['average_precision']['value']:.3f}"
    line(["zero-shot", f"{zero_shot['mean_average_precision']:.3f}"] + [pair(own) for own in zero_shot["ranking"]])
    for imbalance in ("none", "class-weights"):
        words = ["-m", "linear-probe", "--set", "train.budget={ epochs = 20 }", "--set", "views=1"]
        words += ["--set", f'train.imbalance="{imbalance}"']
        details = [each["detail"] for each in fitted(given, data, f"windows-{imbalance}", *words)]
        cells = [spread([detail["mean_average_precision"] for detail in details])]
        for at in range(len(classes)):
            own = [detail["ranking"][at] for detail in details]
            measures = [spread([one[key]["value"] for one in own]) for key in ("auroc", "average_precision")]
            cells.append(", ".join(measures))
        line([f"`linear-probe`, imbalance `{imbalance}`"] + cells)


def abstention(given: argparse.Namespace, sets: dict[str, Path]) -> None:
    """Accuracy of the surest answers, and calibration with and without a temperature from the validation images."""
    for name in ("x-rays", "cells"):
        shares = [f"accuracy of the surest {100 * share:.0f} %" for share in COVERAGES]
        heading([name, *shares, "ECE", "NLL"])
        for method in ("linear-probe", "tip-adapter-f"):
            runs = fitted(given, sets[name], f"{name}-{method}-16", "-m", method, "--shots", 16)
            for title, calibrated in ((f"`{method}`", False), (f"`{method}`, temperature", True)):
                found = []
                for each in runs:
                    words = ["eval", "-b", given.backbone, "-d", sets[name], "-a", each["adapter"]]
                    folder = Path(each["adapter"]).with_name(f"{Path(each['adapter']).name}-calibrated")
                    words += ["--calibrate", folder] if calibrated else []
                    found.append(run(given.inarch, *words))
                cells = []
                for share in COVERAGES:
                    points = [point for one in found for point in one["selective"]["surest"] if point["share"] == share]
                    cells.append(spread([100 * point["accuracy"] for point in points], digits=1))
                line([title, *cells, spread([one["ece"] for one in found]), spread([one["nll"] for one in found])])


def imbalance(given: argparse.Namespace, sets: dict[str, Path]) -> None:
    """All training crops of cells, of which five in six are red: what helps the rare classes, LIFT among it."""
    heading(["cells", "accuracy", "balanced accuracy", "ECE"])
    probe = ["-m", "linear-probe", "--set", "train.budget={ epochs = 20 }", "--set", "views=1"]
    adjusted = "{ logit-adjustment = 1.0 }"
    for title, place, words in (
        ("`linear-probe`, `none`", "none", [*probe, "--set", 'train.imbalance="none"']),
        ("`linear-probe`, `balanced-sampling`", "balanced", [*probe, "--set", 'train.imbalance="balanced-sampling"']),
        ("`linear-probe`, `class-weights`", "weights", [*probe, "--set", 'train.imbalance="class-weights"']),
        ("`linear-probe`, `logit-adjustment`", "adjusted", [*probe, "--set", f"train.imbalance={adjusted}"]),
        ("LIFT's adapter and classifier, `none`", "lift-none", [LIFT, "--set", 'train.imbalance="none"']),
        ("LIFT (`recipes/examples/long-tailed.toml`)", "lift", [LIFT]),
    ):
        runs = fitted(given, sets["cells"], f"cells-imbalance-{place}", *words)
        line([
            title,
            spread([each["accuracy"] for each in runs], 100, 1),
            spread([each["detail"]["balanced_accuracy"] for each in runs], 100, 1),
            spread([each["ece"] for each in runs]),
        ])


if __name__ == "__main__":
    main()
