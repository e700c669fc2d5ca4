"""Makes the sample that `inarch demo` carries: `sample.tar` beside this file.

    python make_sample.py FOLDER      FOLDER holds `train/<class>/*.jpg` and `test/<class>/*.jpg`

Needs Pillow. The choice depends on file names only: of each class, the files with the smallest SHA-256 of
`<split>/<class>/<name>`. The archive is plain ustar, sorted, without times and owners, so that the same photos and the
same Pillow give the same bytes.
"""

import hashlib
import io
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageOps

SHOTS = {"train": 16, "test": 20}
SHORT_SIDE = 64
QUALITY = 85


def chosen(folder: Path, split: str, count: int) -> list[Path]:
    """The `count` photos of a class folder with the smallest hash, in the order of their names."""
    photos = [path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"}]
    photos.sort(key=lambda path: hashlib.sha256(f"{split}/{folder.name}/{path.name}".encode()).digest())
    return sorted(photos[:count])


def shrunk(path: Path) -> bytes:
    """A photo with its short side at `SHORT_SIDE` pixels, upright, without any metadata."""
    with Image.open(path) as photo:
        photo = ImageOps.exif_transpose(photo).convert("RGB")
    scale = SHORT_SIDE / min(photo.size)
    size = tuple(max(SHORT_SIDE, round(side * scale)) for side in photo.size)
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    # A fresh image carries no EXIF, no colour profile and no comment.
    clean = Image.frombytes("RGB", photo.size, photo.tobytes())
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = Path(sys.argv[1])
    target = Path(__file__).with_name("sample.tar")
    members: dict[str, bytes] = {}
    for split, count in SHOTS.items():
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            for photo in chosen(folder, split, count):
                members[f"{split}/{folder.name}/{photo.stem}.jpg"] = shrunk(photo)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    print(f"{len(members)} photos, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
