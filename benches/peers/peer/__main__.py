"""One work in one of two variants.

    python -m peer WORK official|optimised --backbone FOLDER [--data PATH] [--steps K] [--batch B] [--views V] [--count N]

`PEER_DEVICE` names the device, the processor by default.
"""

import argparse
import json
import os
from importlib import import_module
from pathlib import Path

from .task import Task

MODULES = {
    "copies": "copies",
    "encode-images": "encode",
    "encode-pixels": "encode",
    "encode-texts": "encode",
    "coop": "coop",
    "tip-adapter-f": "tip_adapter",
    "linear-probe": "linear_probe",
    "lora": "lora",
    "promptsrc": "promptsrc",
    "maple": "maple",
    "predict": "predict",
    "tpt": "tpt",
    "tpt-views": "tpt",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="peer", description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=MODULES)
    parser.add_argument("variant", choices=["official", "optimised"])
    parser.add_argument("--backbone", type=Path, required=True, help="a CLIP in the Hugging Face layout")
    parser.add_argument("--data", type=Path, default=Path(), help="a data set, a folder of images, a text file or an image")
    parser.add_argument("--steps", type=int, default=0, help="steps or epochs to measure; 0 for the whole run")
    parser.add_argument("--batch", type=int, default=0, help="images of a step; 0 for all")
    parser.add_argument("--views", type=int, default=0, help="random views of each image; 0 for the centre view")
    parser.add_argument("--count", type=int, default=0, help="pixels: rows; copies, tpt-views: images; lora: adapted blocks from the end, 0 for all")
    parser.add_argument("--classes", default="", help="classes of a prediction, separated by commas")
    given = vars(parser.parse_args())
    device, work = os.environ.get("PEER_DEVICE", "cpu"), given["work"]
    if device != "cpu":
        # Imported only here, since a prediction is timed from the start of the process on.
        import torch

        torch.set_default_device(device)
    module = import_module(f".{MODULES[work]}", __package__)
    run = module.write_views if work == "tpt-views" else module.run
    print(json.dumps(run(Task(**given))))


if __name__ == "__main__":
    main()
