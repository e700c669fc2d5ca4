"""Both sides of a comparison as command lines."""

import array
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .child import Cost, run

# Tells the processes of the package `peer` where to run.
TORCH_DEVICE = "PEER_DEVICE"
CENTRE = 'augment={ crop = "centre", flip = 0.0 }'


@dataclass(frozen=True)
class Fit:
    """A training by `inarch fit` with its report."""

    cost: Cost
    report: dict

    @property
    def encode(self) -> float:
        """Seconds in which image features were computed once."""
        return self.report["seconds"]["encode"]

    @property
    def train(self) -> float:
        """Seconds of the steps."""
        return self.report["seconds"]["train"]

    @property
    def losses(self) -> list[float]:
        """The loss of each step, or means of equal stretches."""
        return self.report["losses"]


@dataclass(frozen=True)
class Inarch:
    """The command `inarch`."""

    binary: Path
    backbone: Path
    folder: Path
    device: str = "cpu"

    def fit(self, method: str, data: Path, settings: Mapping[str, str], centre: bool = False) -> Fit:
        """Trains without a test; `centre` sees every image in its one centre view."""
        output = self.folder / f"run-{len(list(self.folder.glob('run-*')))}"
        command = ["fit", "-b", str(self.backbone), "-d", str(data), "-m", method, "-o", str(output), "--json"]
        changes = [f"{key}={value}" for key, value in settings.items()]
        if centre:
            changes += ["views=1", CENTRE]
        for change in changes:
            command += ["--set", change]
        cost = run([str(self.binary), *command, "--device", self.device])
        return Fit(cost, json.loads((output / "report.json").read_text()))

    def encode(self, kind: str, path: Path) -> tuple[Cost, dict[str, list[float]]]:
        """Features by file name or text; `kind` is `images` or `texts`."""
        output = self.folder / f"{kind}.safetensors"
        command = ["encode", "-b", str(self.backbone), f"--{kind}", str(path), "-o", str(output), "--json"]
        cost = run([str(self.binary), *command, "--device", self.device])
        return cost, features(output)

    def predict(self, images: list[Path], classes: list[str], *words: str) -> tuple[Cost, dict, dict[str, float]]:
        """What is reported, and the last image's probabilities by class."""
        words = ["--classes", ",".join(classes), "--top-k", str(len(classes)), "--json", "--device", self.device, *words]
        cost = run([str(self.binary), "predict", "-b", str(self.backbone), *words, *map(str, images)])
        found = json.loads(cost.output)
        return cost, found, {entry["label"]: entry["score"] for entry in found["images"][-1]["predictions"]}


def features(path: Path) -> dict[str, list[float]]:
    """The rows of a features file by their ids."""
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:header])
    start, end = table["features"]["data_offsets"]
    values = array.array("f", data[header + start : header + end])
    dim = table["features"]["shape"][1]
    ids = json.loads(table["__metadata__"]["ids"])
    return {name: list(values[at * dim : (at + 1) * dim]) for at, name in enumerate(ids)}


def peer(work: str, variant: str, backbone: Path, **arguments: object) -> tuple[Cost, dict]:
    """A work of the package `peer` in a fresh process, with what it reports."""
    command = [sys.executable, "-m", "peer", work, variant, "--backbone", str(backbone)]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    cost = run(command, {"PYTHONPATH": str(Path(__file__).parent.parent), "TOKENIZERS_PARALLELISM": "true"})
    return cost, json.loads(cost.output.splitlines()[-1])
