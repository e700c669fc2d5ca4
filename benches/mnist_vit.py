"""The pretrained MNIST transformer of the test data: its own figure, then methods on hands that show digits.

    python3 benches/mnist_vit.py INARCH [DATA]

INARCH is the built program; DATA the folder of test data (default: `../shared/data`). Needs Pillow and numpy. Prints the accuracy of the
checkpoint's own classes on the 10,000 MNIST test images (97.21 % is published with it) and of some methods at 16 images
a class on `sign-digits`.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


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


def main(program, data):
    run = lambda *arguments: json.loads(subprocess.run(
        [program, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE).stdout)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        backbone(data, folder / "vit")
        digits(data, folder / "mnist")
        found = run("eval", "-b", folder / "vit", "-d", folder / "mnist")
        print(f"mnist, its own classes: {100 * found['accuracy']:.2f} % of {found['n']}")
        signs = data / "sign-digits"
        for method in ("linear-head", "linear-probe", "tip-adapter-f", "ranpac", "vpt-deep", "lora"):
            run("fit", "-b", folder / "vit", "-d", signs, "-m", method, "--shots", 16, "--seed", 1, "-o", folder / method)
            found = run("eval", "-b", folder / "vit", "-d", signs, "-a", folder / method)
            print(f"sign digits, {method}: {100 * found['accuracy']:.1f} % of {found['n']}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) == 3 else Path(__file__).resolve().parents[2] / "shared" / "data"))
