"""Every family of backbones at a tiny shape with random weights: what is learned through its sites from real images.

    python3 benches/families.py INARCH [DATA]

INARCH is the built program; DATA the folder of test data (default: `../shared/data`). The backbones are those of `tests/parity`, whose
features equal the reference implementations'. They have learned nothing and know few words, so the figures say that adapters learn through a
family's sites, and not how good such a model is. First table: `sign-digits`, ten classes, 16 images of each, three seeds: a classifier
over frozen features, and the same over a tower with LoRA. Second: photos of `clothing` with ten captions, 200 steps of LoRA under the
family's own objective: its mean loss over the first and the last 20 steps, and how often the right one of the ten captions is picked
for photos that were held out, before and after, under the scores of the family (chance is 10 %).
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "tests" / "parity"
IMAGES = {
    "CLIP, ViT": "clip_tiny/quick", "CLIP, ResNet": "families/resnet", "SigLIP": "families/siglip", "ALIGN": "families/align",
    "ViT beside a BERT": "families/biomed", "ViT": "families/vit", "DeiT": "families/deit", "DINOv2": "families/dinov2",
    "`vit-pytorch`": "families/vit_pytorch",
}
PAIRS = {
    "CLIP, ViT": "contrastive", "SigLIP": "sigmoid", "ALIGN": "contrastive", "ViT beside a BERT": "contrastive",
    "ViLT, matching": "matching", "ViLT, masked words": "masked words", "BLIP": "next word",
}
FOLDERS = IMAGES | {"ViLT, matching": "crossing/vilt", "ViLT, masked words": "crossing/vilt_words", "BLIP": "crossing/blip"}
HEAD = '{ name = "linear-head" }'
METHODS = {
    "linear-head": ["-m", "linear-head", "--set", "train.optimizer.lr=0.02"],
    "lora": ["-m", "stack", "--set", f'method.members=[{{ name = "lora", rank = RANK, targets = ["image.*"] }}, {HEAD}]',
             "--set", "train.optimizer.lr=0.02"],
}
# Convolutions of these have few channels.
RANK = {"CLIP, ResNet": 4, "ALIGN": 4}
SEEDS = "1,2,3"
STEPS = 200
# Steps that a loss is the mean of: that of one step is mostly the luck of its batch.
MEANED = 20
# Photos of each class to learn from, and at most to try it on.
LEARNED, TRIED = 24, 20
# The words that the random tokenizers know.
CAPTIONS = [
    "a cat", "a dog", "a mat", "a small cat", "a small dog", "a small mat", "a cat on a mat", "a dog on a mat", "a small cat on a mat",
    "a small dog on a mat",
]


def main(program, data):
    program, data = Path(program).resolve(), Path(data).resolve()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)

        def run(*arguments):
            command = [program, *map(str, arguments), "--json"]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip().splitlines()[0]

        print("| family | classifier alone | with LoRA |\n|---|---|---|")
        for family, folder in IMAGES.items():
            cells = []
            for method, settings in METHODS.items():
                output = work / f"{folder.replace('/', '-')}-{method}"
                settings = [word.replace("RANK", str(RANK.get(family, 8))) for word in settings]
                found = run("fit", "-b", PARITY / folder, "-d", data / "sign-digits", *settings, "--shots", 16, "--seed", SEEDS,
                            "--set", "train.budget={ iterations = 300 }", "--set", "views=1", "-o", output)
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
            rows.writerow(["path", "label", "split"])
            classes = sorted((data / "clothing" / "train").iterdir())
            for folder, caption in zip(classes, CAPTIONS, strict=True):
                held_out = data / "clothing" / "test" / folder.name
                for split, source, count in (("train", folder, LEARNED), ("test", held_out, TRIED)):
                    rows.writerows([image, caption, split] for image in sorted(source.iterdir())[:count])
        print(f"\n| family | objective | loss, first {MEANED} steps | last {MEANED} of {STEPS} | right caption before | after |")
        print("|---|---|---:|---:|---:|---:|")
        for family, objective in PAIRS.items():
            backbone, output = PARITY / FOLDERS[family], work / f"pairs-{FOLDERS[family].replace('/', '-')}"
            before = run("eval", "-b", backbone, "-d", captions, "--templates", "{}")
            after = run("pretrain", "-b", backbone, "-d", captions, "-m", "lora", "--set", "method.targets=[\"*\"]",
                        "--set", 'templates="{}"', "--set", "train.batch=8", "--set", f"train.budget={{ iterations = {STEPS} }}",
                        "--set", "train.optimizer.lr=0.02", "-o", output)
            for failed in (found for found in (before, after) if isinstance(found, str)):
                print(f"{family}: {failed}", file=sys.stderr)
            if isinstance(before, str) or isinstance(after, str):
                print(f"| {family} | {objective} | – | – | – | – |", flush=True)
                continue
            # One value a step, up to 200 steps.
            losses = json.loads((output / "report.json").read_text())["losses"]
            assert len(losses) == STEPS, len(losses)
            means = [f"{statistics.mean(part):.3f}" for part in (losses[:MEANED], losses[-MEANED:])]
            shares = [f"{100 * found['accuracy']:.1f} %" for found in (before, after)]
            print(f"| {family} | {objective} | {' | '.join(means + shares)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ROOT.parent / "shared" / "data")
