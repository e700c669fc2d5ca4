"""`inarch` beside PyTorch: seconds and peak memory of the same works on the same cores with the same weights and images.

    python speed.py --setup ENV
    ENV/bin/python speed.py --inarch BINARY --backbone b32 --images PHOTOS [--only WORK,WORK] [--runs N] [--json OUT]

Both sides run in fresh processes by turns, and their results are compared. Exit code 1: some results differ.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from contest.agreement import worst
from contest.data import Photos
from contest.halves import TORCH_DEVICE, Inarch
from contest.report import SIDES, Row, table
from contest.works import BY_NAME, VARIANTS, Place, Sample, Work


def main() -> int:
    arguments = parsed()
    if arguments.setup:
        setup(arguments.setup)
        return 0
    os.environ[TORCH_DEVICE] = arguments.torch_device
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone in arguments.backbone:
            here = Path(folder, backbone.name)
            here.mkdir()
            inarch = Inarch(arguments.inarch.resolve(), backbone.resolve(), here, arguments.device)
            place = Place(inarch, Photos(arguments.images, Path(folder, "photos")), arguments.bench_work)
            for name in arguments.only:
                rows.append(measured(BY_NAME[name], place, backbone.name, arguments.runs))
                if arguments.json:
                    devices = {"device": arguments.device, "torch_device": arguments.torch_device}
                    found = {**machine(), **devices, "rows": [row.json() for row in rows]}
                    arguments.json.write_text(json.dumps(found, indent=2))
    print(table(rows))
    return 0 if all(row.agreement.holds for row in rows) else 1


def measured(work: Work, place: Place, backbone: str, runs: int | None) -> Row:
    """Ours and theirs by turns, `runs` times."""
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    for turn in range(runs or work.runs):
        for side in SIDES:
            sample = work.ours(place) if side == "ours" else work.theirs(place, side)
            samples[side].append(sample)
            say(f"{backbone} {work.name} {turn + 1} {side}: {sample.seconds:.3g} {work.unit}, {sample.peak_mib:.0f} MiB")
    ours = samples["ours"][0]
    found = worst([work.agree(ours, samples[variant][0]) for variant in VARIANTS])
    return Row(work, backbone, samples, found)


def setup(folder: Path) -> None:
    """Makes the environment of the peers."""
    venv.create(folder, with_pip=True)
    requirements = Path(__file__).with_name("requirements.txt")
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-r", requirements], check=True)


def machine() -> dict:
    """Where this was measured."""
    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {"processor": models[0] if models else platform.processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", type=Path, metavar="ENV", help="make a virtual environment for the peers and end")
    parser.add_argument("--inarch", type=Path, help="the program, built for release")
    parser.add_argument("--backbone", type=Path, action="append", default=[], help="a CLIP in the Hugging Face layout")
    parser.add_argument("--images", type=Path, help="a folder of JPEG photographs, at any depth")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(BY_NAME)}")
    parser.add_argument("--runs", type=int, help="measurements of each side; each work has its own number otherwise")
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--device", default="cpu", help="where ours runs, as in `inarch --device`")
    parser.add_argument("--torch-device", default="cpu", help="where PyTorch runs: cpu, cuda, cuda:1, ..")
    parser.add_argument("--bench-work", type=Path, help="program for encode-pixels, which is left out without it")
    arguments = parser.parse_args()
    if arguments.setup:
        return arguments
    if not (arguments.inarch and arguments.backbone and arguments.images):
        parser.error("--inarch, --backbone and --images are needed")
    unknown = set(arguments.only or []) - set(BY_NAME)
    if unknown:
        parser.error(f"unknown work {', '.join(sorted(unknown))}; one of {', '.join(BY_NAME)}")
    arguments.only = arguments.only or list(BY_NAME)
    if "encode-pixels" in arguments.only and not arguments.bench_work:
        arguments.only.remove("encode-pixels")
        say("encode-pixels is left out: `inarch` has no command for it; give --bench-work BINARY")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
