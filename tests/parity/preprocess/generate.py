"""Makes the fixture of the preprocessing parity test. Needs pillow, numpy and transformers.

    python generate.py CLOTHING

CLOTHING is the folder of the CC0 set "clothing-dataset-small" with `train/ validation/ test/`; photos are taken from it
once and stored as PNG, so that the test compares resizing and not JPEG decoders. `cases.json` names for each case the
source, the settings and the expected image; the expected images are what Hugging Face's CLIP image processor gives on
its Pillow path, before the normalisation; `pixels.bin` holds the normalised values of one case (f32, little endian).
"""

import json
import sys
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = Path(__file__).parent
CLOTHING = Path(sys.argv[1])
BICUBIC, BILINEAR, NEAREST, LANCZOS = 3, 2, 0, 1


def photo(kind, place):
    return Image.open(sorted((CLOTHING / "test" / kind).glob("*.jpg"))[place]).convert("RGB")


def sources():
    dress, shoes, hat = photo("dress", 0), photo("shoes", 3), photo("hat", 2)
    # Black and white stripes in three directions: overshoot is clipped between the two passes, so their order shows.
    rows, columns = np.indices((67, 90))
    edges = np.stack([plane // 5 % 2 * 255 for plane in (rows + columns, rows + 90 - columns, rows * 2)], -1)
    return {
        "dress": dress,
        "shoes": shoes.transpose(Image.Transpose.ROTATE_90),
        "tiny": hat.resize((23, 31)),
        "flat": dress.crop((0, 60, 150, 64)),
        "tall": shoes.crop((70, 0, 73, 150)),
        "column": hat.crop((80, 20, 81, 120)),
        "row": hat.crop((20, 80, 121, 81)),
        "dot": hat.crop((80, 80, 81, 81)),
        "edges": Image.fromarray(edges.astype(np.uint8)),
    }


def cases():
    edge = lambda n: {"shortest_edge": n}
    size = lambda h, w: {"height": h, "width": w}
    for source in ["dress", "shoes", "edges"]:
        yield source, edge(96), size(96, 96), BICUBIC
        yield source, edge(33), size(32, 32), BICUBIC
    for source in ["tiny", "flat", "tall", "column", "row", "dot"]:
        yield source, edge(48), size(48, 48), BICUBIC
    # Not a tall image: since Pillow 13 the vertical pass comes first where height shrinks much more than width, which
    # no version did with which the backbones were trained.
    yield "shoes", size(50, 61), None, BICUBIC
    yield "dress", edge(160), size(111, 200), BICUBIC
    yield "tiny", edge(20), size(33, 28), BICUBIC
    yield "shoes", edge(64), size(64, 64), BILINEAR
    yield "edges", edge(40), size(40, 40), LANCZOS
    yield "edges", edge(41), size(40, 40), NEAREST


def main():
    for name, image in sources().items():
        image.save(HERE / f"{name}.png", optimize=True)
    listed = []
    for number, (source, size, crop, resample) in enumerate(cases()):
        settings = {"do_resize": True, "size": size, "do_center_crop": crop is not None, "resample": resample}
        if crop is not None:
            settings["crop_size"] = crop
        processor = CLIPImageProcessorPil(**settings)
        image = Image.open(HERE / f"{source}.png").convert("RGB")
        raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        assert raw.min() >= 0 and raw.max() <= 255 and (raw == raw.round()).all()
        expected = f"expected-{number:02}-{source}.png"
        Image.fromarray(raw.transpose(1, 2, 0).astype(np.uint8)).save(HERE / expected, optimize=True)
        listed.append({"source": f"{source}.png", "expected": expected, "settings": settings})
        if number == 1:
            processor(image, return_tensors="np")["pixel_values"][0].astype("<f4").tofile(HERE / "pixels.bin")
    made_with = {"pillow": PIL.__version__, "transformers": transformers.__version__}
    (HERE / "cases.json").write_text(json.dumps({"made_with": made_with, "cases": listed}, indent=1) + "\n")


main()
