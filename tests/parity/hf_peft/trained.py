"""Adapters that `inarch fit` trained, shown to PEFT.

    python trained.py INARCH        (the program; writes `trained/` beside this file)

Each method trains beside `pocket` for a few steps on the sample of the demo, `inarch convert --to peft` writes its folder, and
PEFT loads that folder into `transformers.CLIPModel` with the same weights. `trained/METHOD/` keeps our artifact,
`trained/expected.safetensors` the features that PEFT gave, and `trained/shown.json` the digests of the files that PEFT read.
Made with torch 2.9.1, transformers 5.24.0, peft 0.21.2.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from generate import BlockDiagonal
from peft import PeftModel
from peft.tuners.boft import layer as boft
from safetensors.torch import save_file
from transformers import CLIPModel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
POCKET = ROOT / "recipes" / "pocket"
OUT = HERE / "trained"
START, END = 4512, 4513

# Small ones, as they are kept here.
METHODS = {
    "lora": ["rank=2", "alpha=3.0"],
    "dora": ["rank=2"],
    "vera": ["rank=8"],
    "ia3": [],
    "loha": ["rank=1"],
    "lokr": [],
    "oft": ["block=8", 'targets=["*.q_proj"]'],
    "boft": ["block=4", 'targets=["*.q_proj"]'],
    "ln-tuning": [],
}


def inputs():
    i = torch.arange(1, 2 * 3 * 32 * 32 + 1, dtype=torch.float64)
    pixels = torch.sin(0.37 * i).float().reshape(2, 3, 32, 32)
    ids = torch.tensor([[START, 10, 200, 3010, END], [START, 44, 91, 77, END]])
    return pixels, ids


def frozen():
    return CLIPModel.from_pretrained(POCKET, dtype=torch.float32).eval()


def features(model):
    pixels, ids = inputs()
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
    return {"image": out.image_embeds, "text": out.text_embeds}


def main(program):
    program = Path(program).resolve()
    # Several butterfly factors, which PEFT refuses without CUDA.
    boft.get_fbd_cuda = lambda: True
    boft.FastBlockDiag = BlockDiagonal
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    expected, shown = {}, {}
    start = features(frozen())
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        with tarfile.open(ROOT / "cli" / "sample" / "sample.tar") as sample:
            sample.extractall(work / "sample", filter="data")
        environment = {**os.environ, "INARCH_HOME": str(work / "home")}

        def run(*arguments):
            subprocess.run([program, *map(str, arguments)], check=True, cwd=work, env=environment, stdout=subprocess.DEVNULL)

        for method, settings in METHODS.items():
            sets = [part for setting in settings for part in ("--set", f"method.{setting}")]
            budget = ["--set", "train.budget={ iterations = 12 }", "--set", "train.optimizer.lr=0.02"]
            run("fit", "-b", "pocket", "-d", "sample", "-m", method, "--shots", 4, *sets, *budget, "-o", work / method)
            peft = work / f"{method}-peft"
            run("convert", "--from", "inarch", "--to", "peft", "-b", "pocket", work / method, peft)
            (OUT / method).mkdir()
            for name in ["adapter.json", "adapter.safetensors"]:
                shutil.copy(work / method / name, OUT / method / name)
            names = ["adapter_config.json", "adapter_model.safetensors"]
            shown[method] = {name: "sha256:" + hashlib.sha256((peft / name).read_bytes()).hexdigest() for name in names}
            found = features(PeftModel.from_pretrained(frozen(), peft).eval())
            for tower, value in found.items():
                expected[f"{method}.{tower}"] = value.contiguous()
            moved = max(float((found[tower] - start[tower]).abs().max()) for tower in found)
            print(f"{method}: features moved by up to {moved:.3f}")
            assert math.isfinite(moved) and moved > 1e-3, method
    save_file(expected, OUT / "expected.safetensors")
    (OUT / "shown.json").write_text(json.dumps(shown, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
