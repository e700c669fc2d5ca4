"""Makes the fixture of the test of tiled slides. Needs numpy and pillow (made with numpy 2 and pillow 12.0).

    python generate.py

`picture.png` is the picture; `plain.tif` and `deflate.tif` hold its pixels in tiles of 32 x 32, `jpeg.tif` in JPEG tiles with half
the chroma and tables in common, as scanners of slides store them. The last tiles of a row and of a column reach beyond the picture.
Pillow, which cannot write tiles, reads all three back here: the files are what another program takes them for.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT, SIDE = 83, 53, 32
SHORT, LONG, BYTES = 3, 4, 7


def picture():
    """Slow waves, so that JPEG loses little; no two places look alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    red = 128 + 100 * np.sin(x / 19) * np.cos(y / 31)
    green = 40 + 2 * x + y / 2
    blue = 220 - x - 1.5 * y
    return np.stack([red, green, blue], -1).clip(0, 255).round().astype(np.uint8)


def tiles(pixels):
    """The tiles row by row; what is beyond the picture repeats its edge."""
    padding = [(0, -HEIGHT % SIDE), (0, -WIDTH % SIDE), (0, 0)]
    padded = np.pad(pixels, padding, mode="edge")
    for top in range(0, HEIGHT, SIDE):
        for left in range(0, WIDTH, SIDE):
            yield padded[top : top + SIDE, left : left + SIDE]


def jpeg(tile, stream):
    """Pillow's stream types: 1 is the tables alone, 2 the image without them."""
    out = io.BytesIO()
    Image.fromarray(tile).save(out, "JPEG", quality=95, subsampling=2, streamtype=stream)
    return out.getvalue()


def write(name, compression, photometric, parts, more=()):
    """A little-endian TIFF of one page: the header, the tiles, long values, the directory."""
    body = bytearray(b"II*\0\0\0\0\0")

    def placed(data):
        body.extend(b"\0" * (len(body) % 2))
        body.extend(data)
        return len(body) - len(data)

    offsets = [placed(part) for part in parts]
    entries = [
        (256, SHORT, [WIDTH]),
        (257, SHORT, [HEIGHT]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [compression]),
        (262, SHORT, [photometric]),
        (277, SHORT, [3]),
        (284, SHORT, [1]),
        (322, SHORT, [SIDE]),
        (323, SHORT, [SIDE]),
        (324, LONG, offsets),
        (325, LONG, [len(part) for part in parts]),
        *more,
    ]
    rows = []
    for tag, kind, values in sorted(entries):
        data = bytes(values) if kind == BYTES else struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", placed(data))
        rows.append(struct.pack("<HHI", tag, kind, len(values)) + value)
    start = placed(struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4))
    body[4:8] = struct.pack("<I", start)
    (HERE / name).write_bytes(body)
    return np.asarray(Image.open(HERE / name).convert("RGB")).astype(int)


def main():
    pixels = picture()
    Image.fromarray(pixels).save(HERE / "picture.png", optimize=True)
    raw = [tile.tobytes() for tile in tiles(pixels)]
    assert (write("plain.tif", 1, 2, raw) == pixels).all()
    assert (write("deflate.tif", 8, 2, [zlib.compress(tile, 9) for tile in raw]) == pixels).all()
    tables = jpeg(next(tiles(pixels)), 1)
    parts = [jpeg(tile, 2) for tile in tiles(pixels)]
    found = write("jpeg.tif", 7, 6, parts, [(347, BYTES, tables), (530, SHORT, [2, 2])])
    distances = np.abs(found - pixels)
    assert distances.max() <= 6 and distances.mean() < 1.0, (distances.max(), distances.mean())
    print("jpeg.tif is off by", distances.max(), "at most and", distances.mean().round(3), "in the mean")


if __name__ == "__main__":
    main()
