"""Every family of backbones at a tiny shape with random weights: what methods do through its sites on real images.

    python3 benches/families.py INARCH [DATA]

INARCH is the built program; DATA the folder of test data (default: `../shared/data`). The backbones are those of `tests/parity`, whose
features equal the reference implementations'. They have learned nothing, so the accuracies say that a method learns through a family's
sites, and not how good such a model is. First table: `sign-digits`, ten classes, 16 images of each, three seeds. Second: images of
`clothing` with captions, the loss of the family's own objective after 1 and after STEPS steps of LoRA.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = {
    "CLIP, ViT": "clip_tiny/quick", "CLIP, ResNet": "families/resnet", "SigLIP": "families/siglip", "ALIGN": "families/align",
    "ViT beside a BERT": "families/biomed", "ViT": "families/vit", "DeiT": "families/deit", "DINOv2": "families/dinov2",
    "`vit-pytorch`": "families/vit_pytorch", "ViLT, matching": "crossing/vilt", "ViLT, masked words": "crossing/vilt_words",
    "BLIP": "crossing/blip",
}
METHODS = {"linear-probe": "feature", "coop": "text tokens", "vpt-deep": "image tokens", "ln-tuning": "norms", "lora": "linear layers"}
SEEDS = "1,2,3"
PAIRED = ("CLIP, ViT", "CLIP, ResNet", "SigLIP", "ALIGN", "ViT beside a BERT", "ViLT, matching", "ViLT, masked words", "BLIP")
STEPS = 60
BUDGET = ["--set", "train.budget={ iterations = 150 }", "--set", "train.batch=32"]


def main(program, data):
    program, data = Path(program).resolve(), Path(data).resolve()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)

        def run(*arguments):
            command = [program, *map(str, arguments), "--json"]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip().splitlines()[0]

        print(f"| family | zero-shot | {' | '.join(f'`{name}`' for name in METHODS)} |")
        print("|---" * (2 + len(METHODS)) + "|")
        for family, folder in FAMILIES.items():
            backbone = ROOT / "tests" / "parity" / folder
            start = run("eval", "-b", backbone, "-d", data / "sign-digits")
            cells = [f"{100 * start['accuracy']:.1f}" if isinstance(start, dict) else "–"]
            for method in METHODS:
                found = run("fit", "-b", backbone, "-d", data / "sign-digits", "-m", method, "--shots", 16, "--seed", SEEDS, *BUDGET,
                            "-o", work / f"{folder.replace('/', '-')}-{method}")
                if isinstance(found, str):
                    print(f"{family}, {method}: {found}", file=sys.stderr)
                    cells.append("–")
                    continue
                accuracies = [100 * one["accuracy"] for one in found["runs"]]
                cells.append(f"{statistics.mean(accuracies):.1f} ± {statistics.pstdev(accuracies):.1f}")
            print(f"| {family} | {' | '.join(cells)} |", flush=True)

        captions = work / "captions.csv"
        with captions.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "caption"])
            for folder in sorted((data / "clothing" / "train").iterdir()):
                for image in sorted(folder.iterdir())[:12]:
                    rows.writerow([image, f"a photo of a {folder.name}"])
        print("\n| family | loss after 1 step | after", STEPS, "steps |")
        print("|---|---|---|")
        for family in PAIRED:
            backbone = ROOT / "tests" / "parity" / FAMILIES[family]
            losses = []
            for steps in (1, STEPS):
                found = run("pretrain", "-b", backbone, "-d", captions, "-m", "lora", "--set", "method.targets=[\"*\"]", "--set", "train.batch=16",
                            "--set", f"train.budget={{ iterations = {steps} }}", "--set", "train.optimizer.lr=0.01",
                            "-o", work / f"pairs-{FAMILIES[family].replace('/', '-')}-{steps}")
                if isinstance(found, str):
                    print(f"{family}: {found}", file=sys.stderr)
                losses.append(f"{found['loss']:.3f}" if isinstance(found, dict) else "–")
            print(f"| {family} | {' | '.join(losses)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ROOT.parent / "shared" / "data")
