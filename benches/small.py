"""Small figures: what precisions, shards, features without weights, medical files, slides and kept features take.

    python3 benches/small.py INARCH [DATA [PART,PART]]

INARCH is the built program; DATA the folder of test data (default: `../shared/data`); a PART is one of `precision`,
`training`, `shards`, `embeddings`, `texts`, `medical`, `slide`, `store` and `remote` (default: all; `remote` only where
the program was built with it). Prints one table. Each row is some seconds of work on two idle cores. Seconds are wall
clock of whole commands, start included, and medians of three, where nothing else is said. `medical` and `slide` make
their files, which needs numpy and Pillow. Nothing outside of a temporary folder is written.
"""

import array
import gzip
import io
import json
import math
import os
import shlex
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINILM = ROOT / "tests" / "parity" / "families" / "minilm"
TIMES = 3
SHARDS = 4
TEXTS = 5000
# Frames of each kind of medical file, and their sides: those of a slice of a computed tomography.
FRAMES, FRAME = 16, 512
# Sides of the slide and of its own tiles, in pixels.
SLIDE, TILE = 20480, 256
# Names that DICOM gives: of a picture of any origin, and of how its values are stored.
SECONDARY_CAPTURE = b"1.2.840.10008.5.1.4.1.1.7"
EXPLICIT, JPEG_2000 = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.4.90"


class Bench:
    """The program, run in a temporary folder that is its home as well."""

    def __init__(self, program, data, work):
        self.program, self.data, self.work = program, data, work

    def environment(self, home="home"):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INARCH_")}
        return kept | {"INARCH_HOME": str(self.work / home)}

    def run(self, *words, home="home", **more):
        """What a command says, the seconds it took and the most MiB that it had."""
        command = [str(self.program), *map(str, words), "--json"]
        with tempfile.TemporaryFile("w+") as said:
            began = time.perf_counter()
            child = subprocess.Popen(command, cwd=self.work, env=self.environment(home) | more, stdout=said)
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                raise subprocess.CalledProcessError(child.returncode, command)
            said.seek(0)
            # Linux counts in KiB, macOS in bytes.
            return json.load(said), seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    def timed(self, *words, **more):
        """Runs of a command, in which `{run}` is their number: what the last one said, median seconds, most MiB."""
        filled = lambda run: [str(word).replace("{run}", str(run)) for word in words]
        done = [self.run(*filled(run), **more) for run in range(TIMES)]
        return done[-1][0], statistics.median(one[1] for one in done), max(one[2] for one in done)

    def shown(self, *words):
        """A command as it is typed, from the root of the repository, with the data beside it."""
        text = shlex.join(["inarch", *(str(word).replace("-{run}", "") for word in words)])
        return text.replace(f"{self.data}/", "").replace(f"{ROOT}/", "")

    def features(self, name):
        """The values of a features file."""
        data = (self.work / name).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        begin, end = json.loads(data[8 : 8 + length])["features"]["data_offsets"]
        values = array.array("f", data[8 + length + begin : 8 + length + end])
        if sys.byteorder == "big":
            values.byteswap()
        return values


def row(what, figure, command):
    print(f"| {what} | {figure} | `{command}` |", flush=True)


def apart(left, right):
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


def precision(bench):
    """Frozen features in single and half precision."""
    exact = None
    for kind in ("f32", "f16", "bf16"):
        words = ["encode", "-b", "pocket", "--images", bench.data / "clothing" / "test", "--precision", kind]
        words += ["-o", f"{kind}-{{run}}.safetensors"]
        said, seconds, _ = bench.timed(*words)
        found = bench.features(f"{kind}-0.safetensors")
        exact = exact or found
        figure = f"{said['rows'] / seconds:.0f} images/s"
        if kind != "f32":
            greatest = max(map(abs, exact))
            figure += f"; values at most {apart(exact, found):.4f} from those in f32, which reach {greatest:.2f}"
        row(f"features of {said['rows']} photos in {kind}", figure, bench.shown(*words))


def training(bench):
    """A training in single and in mixed precision."""
    exact = None
    for kind in ("f32", "bf16"):
        words = ["fit", "-b", "pocket", "-d", bench.data / "clothing", "-m", "lora", "--shots", 16, "--seed", 1,
                 "--set", "train.budget={ iterations = 20 }", "--set", f'train.precision="{kind}"',
                 "-o", f"{kind}-fit-{{run}}"]
        bench.timed(*words)
        reports = [json.loads((bench.work / f"{kind}-fit-{run}" / "report.json").read_text()) for run in range(TIMES)]
        # One value a step, up to 200 steps.
        losses = reports[0]["losses"]
        seconds = statistics.median(report["seconds"]["train"] for report in reports)
        figure = f"{seconds:.1f} s of training; loss of the last step {losses[-1]:.4f}"
        if exact is None:
            exact = losses
        else:
            first = abs(losses[0] - exact[0])
            figure += f"; losses at most {apart(exact, losses):.1e} from those in f32, the first {first:.1e}"
        row(f"`lora`, {len(losses)} steps, in {kind}", figure, bench.shown(*words))


def shards(bench):
    """One list in one run, and in shards that are joined."""
    words = ["encode", "-b", "pocket", "--images", bench.data / "clothing"]
    whole = [*words, "-o", "whole-{run}.safetensors"]
    said, seconds, _ = bench.timed(*whole)
    row(f"features of {said['rows']} photos in one run", f"{seconds:.1f} s", bench.shown(*whole))
    part = lambda index: [*words, "--shard", f"{index}/{SHARDS}", "-o", f"part-{index}-{{run}}.safetensors"]
    longest = max(bench.timed(*part(index))[1] for index in range(SHARDS))
    row(f"the longest of {SHARDS} shards", f"{longest:.1f} s", bench.shown(*part(0)))
    parts = [f"part-{index}-0.safetensors" for index in range(SHARDS)]
    join = ["data", "join", *parts, "-o", "joined-{run}.safetensors"]
    _, seconds, _ = bench.timed(*join)
    same = (bench.work / "joined-0.safetensors").read_bytes() == (bench.work / "whole-0.safetensors").read_bytes()
    figure = f"{1000 * seconds:.0f} ms; {'the same bytes as' if same else 'other bytes than'} in one run"
    row("joining them", figure, "inarch data join part-*.safetensors -o joined.safetensors")


def embeddings(bench):
    """A classifier on images beside a backbone, and on features without one."""
    classes = sorted(folder.name for folder in (bench.data / "clothing" / "train").iterdir())
    (bench.work / "texts.txt").write_text("".join(f"a photo of a {name}.\n" for name in classes))
    bench.run("encode", "-b", "pocket", "--images", bench.data / "clothing", "-o", "images.safetensors")
    bench.run("encode", "-b", "pocket", "--texts", "texts.txt", "-o", "texts.safetensors")
    for what, backbone, data in (
        ("`linear-probe` on photos, three seeds", "pocket", bench.data / "clothing"),
        ("the same on their features, without a backbone", "embeddings:texts.safetensors", "images.safetensors"),
    ):
        words = ["fit", "-b", backbone, "-d", data, "-m", "linear-probe", "--shots", 16, "--seed", "1,2,3"]
        words += ["-o", f"{Path(data).stem}-fit"]
        said, _, peak = bench.run(*words)
        seconds = statistics.median(run["seconds"] for run in said["runs"])
        mean, spread = (100 * said["accuracy"][key] for key in ("mean", "std"))
        row(what, f"{seconds:.1f} s a run, {peak:.0f} MiB; {mean:.2f} ± {spread:.2f} %", bench.shown(*words))


def texts(bench):
    """A text tower without an image tower."""
    # Words that the random tokenizer knows.
    names = ("cat", "dog", "mat")
    sentences = [f"a {size}{one} on a {other}\n" for size in ("", "small ") for one in names for other in names]
    (bench.work / "sentences.txt").write_text("".join(sentences[at % len(sentences)] for at in range(TEXTS)))
    config = json.loads((MINILM / "config.json").read_text())
    words = ["encode", "-b", MINILM, "--texts", "sentences.txt", "-o", "sentences-{run}.safetensors"]
    said, seconds, _ = bench.timed(*words)
    shape = f"{config['num_hidden_layers']} blocks of width {config['hidden_size']}, random weights"
    what = f"{said['rows']} texts by a tiny MiniLM ({shape})"
    row(what, f"{said['rows'] / seconds:.0f} texts/s", bench.shown(*words))


def pictures(count):
    """Waves under noise, 16 bits, from a fixed seed: neither flat nor without any order, as slices are."""
    import numpy

    draw = numpy.random.default_rng(7)
    y, x = numpy.mgrid[:FRAME, :FRAME].astype(float)
    for number in range(count):
        waves = numpy.sin(x / (19 + number)) * numpy.cos(y / 31) + 0.5 * numpy.sin((x + y) / 7)
        yield (32768 + 18000 * waves + draw.normal(0, 300, waves.shape)).round().clip(0, 65535).astype("<u2")


def element(group, number, kind, value):
    """An element of a DICOM file with explicit types, little endian."""
    value += (b" " if kind == b"CS" else b"\0") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in (b"OB", b"OW") else struct.pack("<H", len(value))
    return struct.pack("<HH2s", group, number, kind) + length + value


def dicom(path, syntax, pixels):
    """A frame of 16 bits: its values, or, for another syntax, the stream that holds them."""
    short = lambda value: struct.pack("<H", value)
    meta = element(2, 1, b"OB", b"\0\1") + element(2, 2, b"UI", SECONDARY_CAPTURE) + element(2, 3, b"UI", b"1.2.3.4.5")
    meta += element(2, 0x10, b"UI", syntax) + element(2, 0x12, b"UI", b"1.2.3.4")
    body = element(8, 0x16, b"UI", SECONDARY_CAPTURE) + element(8, 0x18, b"UI", b"1.2.3.4.5")
    body += element(0x28, 2, b"US", short(1)) + element(0x28, 4, b"CS", b"MONOCHROME2")
    body += element(0x28, 0x10, b"US", short(FRAME)) + element(0x28, 0x11, b"US", short(FRAME))
    for number, value in ((0x100, 16), (0x101, 16), (0x102, 15), (0x103, 0)):
        body += element(0x28, number, b"US", short(value))
    if syntax == EXPLICIT:
        body += element(0x7FE0, 0x10, b"OW", pixels)
    else:
        # An empty table of offsets, the one fragment, the end.
        pixels += b"\0" * (len(pixels) % 2)
        item = lambda number, length: struct.pack("<HHI", 0xFFFE, number, length)
        body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
        body += item(0xE000, 0) + item(0xE000, len(pixels)) + pixels + item(0xE0DD, 0)
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body)


def nifti(path, frames):
    """A volume with these frames as its slices: the first axis runs fastest and the second upwards."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, FRAME, FRAME, len(frames), 1, 1, 1, 1)
    # Unsigned, 16 bits.
    struct.pack_into("<2h", header, 70, 512, 16)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    # Where values begin, and that they are what they say.
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + b"".join(frame[::-1].tobytes() for frame in frames), 6))


def medical(bench):
    """The same frames in the files that hospitals have."""
    from PIL import Image

    frames = list(pictures(FRAMES))
    kinds = {"PNG of 8 bits": "png-8", "PNG of 16 bits": "png-16", "DICOM": "dicom",
             "DICOM, JPEG 2000 without loss": "dicom-j2k", "slices of a NIfTI volume, `.nii.gz`": "nifti"}
    for name in (*kinds.values(), "start"):
        (bench.work / name).mkdir()
    Image.new("RGB", (8, 8)).save(bench.work / "start" / "0.png")
    for number, frame in enumerate(frames):
        Image.fromarray((frame >> 8).astype("u1")).save(bench.work / "png-8" / f"{number:02}.png")
        Image.fromarray(frame).save(bench.work / "png-16" / f"{number:02}.png")
        dicom(bench.work / "dicom" / f"{number:02}.dcm", EXPLICIT, frame.tobytes())
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        dicom(bench.work / "dicom-j2k" / f"{number:02}.dcm", JPEG_2000, stream.getvalue())
    nifti(bench.work / "nifti" / "volume.nii.gz", frames)
    _, start, _ = bench.timed("encode", "-b", "pocket", "--images", "start", "-o", "start-{run}.safetensors")
    deep = None
    for what, name in kinds.items():
        words = ["encode", "-b", "pocket", "--images", name]
        words += ["--slices", "all"] if name == "nifti" else []
        words += ["--window", "32768:65536"] if name != "png-8" else []
        words += ["-o", f"{name}-{{run}}.safetensors"]
        said, seconds, _ = bench.timed(*words)
        each = 1000 * (seconds - start) / said["rows"]
        # The start of the program varies by more than that.
        figure = f"{f'{each:.1f}' if each >= 2 else 'less than 2'} ms a frame of {FRAME} x {FRAME}"
        if name != "png-8":
            found = bench.features(f"{name}-0.safetensors")
            deep = deep or found
            if name != "png-16":
                figure += f"; features at most {apart(deep, found):.1e} from those of the PNG of 16 bits"
        row(f"{said['rows']} frames, {what}", figure, bench.shown(*words))


def tissue():
    """Tiles as JPEG: 64 of stained waves under noise, and one of glass."""
    import numpy
    from PIL import Image

    def jpeg(pixels):
        out = io.BytesIO()
        Image.fromarray(pixels.round().clip(0, 255).astype("u1")).save(out, "JPEG", quality=80, subsampling=2)
        return out.getvalue()

    draw = numpy.random.default_rng(11)
    y, x = numpy.mgrid[:TILE, :TILE].astype(float)
    for number in range(64):
        waves = numpy.sin(x / (9 + number % 8)) * numpy.cos(y / (11 + number // 8))
        stained = numpy.array([200.0, 120.0, 170.0]) + waves[..., None] * numpy.array([30.0, 45.0, 25.0])
        yield jpeg(stained + draw.normal(0, 6, stained.shape))
    yield jpeg(numpy.full((TILE, TILE, 3), 242.0))


def tiff(path, pixels):
    """A tiled TIFF of one page, as scanners write it: tissue in a disc, glass around it."""
    kinds, side = list(tissue()), pixels // TILE
    offsets, lengths = [], []
    with path.open("wb") as file:
        file.write(b"II*\0\0\0\0\0")
        for at in range(side * side):
            top, left = divmod(at, side)
            inside = math.hypot(top - side / 2, left - side / 2) < side / 2.5
            tile = kinds[(7 * top + left) % 64 if inside else 64]
            offsets.append(file.tell())
            lengths.append(len(tile))
            file.write(tile + b"\0" * (len(tile) % 2))
        entries = []
        for tag, kind, values in (
            (256, 4, [pixels]), (257, 4, [pixels]), (258, 3, [8, 8, 8]), (259, 3, [7]), (262, 3, [6]), (277, 3, [3]),
            (284, 3, [1]), (322, 3, [TILE]), (323, 3, [TILE]), (324, 4, offsets), (325, 4, lengths), (530, 3, [2, 2]),
        ):
            value = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
            if len(value) > 4:
                place = file.tell()
                file.write(value + b"\0" * (len(value) % 2))
                value = struct.pack("<I", place)
            entries.append(struct.pack("<HHI", tag, kind, len(values)) + value.ljust(4, b"\0"))
        start = file.tell()
        file.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
        file.seek(4)
        file.write(struct.pack("<I", start))


def slide(bench):
    """A slide of a microscope, cut into tiles."""
    # A set has two classes: the second slide is a twentieth as wide.
    for name, pixels in (("large", SLIDE), ("small", SLIDE // 20)):
        path = bench.work / "slides" / "test" / name / "0.tif"
        path.parent.mkdir(parents=True)
        tiff(path, pixels)
    words = ["data", "tiles", "-d", "slides", "--side", 224, "--shrink", 4, "-o", "tiles-{run}"]
    said, seconds, peak = bench.timed(*words)
    stored = (bench.work / "slides" / "test" / "large" / "0.tif").stat().st_size
    figure = f"{seconds:.1f} s, {peak:.0f} MiB at most (decoded it has {3 * SLIDE * SLIDE / 2**20:.0f} MiB)"
    figure += f"; {said['tiles']} tiles, {said['empty']} of glass left out"
    what = f"a slide of {SLIDE} x {SLIDE} in JPEG tiles, {stored / 2**20:.0f} MiB"
    row(what, figure, bench.shown(*words))


def store(bench):
    """The same training without kept features, with them for the first time, and again."""
    words = ["fit", "-b", "pocket", "-d", bench.data / "clothing", "-m", "linear-probe", "--shots", 16, "--seed", 1]
    kept = [*words, "--store", "1GiB"]
    _, without, _ = bench.timed(*words, "-o", "without-{run}")
    with_store = lambda what, run: bench.run(*kept, "-o", f"{what}-{run}", home=f"store-{run}")[1]
    first, again = (statistics.median(with_store(what, run) for run in range(TIMES)) for what in ("first", "again"))
    adapter = lambda what: (bench.work / f"{what}-0" / "adapter.safetensors").read_bytes()
    same = adapter("without") == adapter("first") == adapter("again")
    row("`linear-probe` without kept features", f"{without:.2f} s", bench.shown(*words, "-o", "run"))
    figure = f"{first:.2f} s first, {again:.2f} s again; {'the same' if same else 'another'} adapter"
    row("the same with a store", figure, bench.shown(*kept, "-o", "run"))


def remote(bench):
    """Features by a device of another process, over loopback."""
    words = ["encode", "-b", "pocket", "--images", bench.data / "clothing" / "test"]
    _, here, _ = bench.timed(*words, "-o", "here-{run}.safetensors")
    command = [str(bench.program), "lend", "--listen", "127.0.0.1:0", "--json"]
    silent = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    lender = subprocess.Popen(command, cwd=bench.work, env=bench.environment(), **silent)
    try:
        lent = json.loads(lender.stdout.readline())
        borrowed = [*words, "--device", f"remote:{lent['address']}", "-o", "there-{run}.safetensors"]
        said, there, _ = bench.timed(*borrowed, INARCH_DEVICE_TOKEN=lent["token"])
    finally:
        lender.kill()
        lender.wait()
    figure = f"{said['rows'] / there:.0f} images/s, {said['rows'] / here:.0f} without; values at most "
    figure += f"{apart(bench.features('here-0.safetensors'), bench.features('there-0.safetensors')):.1e} apart"
    command = bench.shown(*words, "--device", "remote:HOST:PORT", "-o", "there.safetensors")
    row(f"features of {said['rows']} photos on a borrowed processor", figure, command)


PARTS = {"precision": precision, "training": training, "shards": shards, "embeddings": embeddings, "texts": texts,
         "medical": medical, "slide": slide, "store": store, "remote": remote}


def main(program, data, parts):
    program = Path(shutil.which(program) or program).resolve()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(program, Path(data).resolve(), Path(work))
        devices = bench.run("doctor")[0]["devices"]
        if not any(device["name"] == "remote" and device["compiled_in"] for device in devices):
            parts = [part for part in parts if part != "remote"]
        print("| what | figure | command |\n|---|---|---|", flush=True)
        for part in parts:
            PARTS[part](bench)


if __name__ == "__main__":
    given = sys.argv[1:]
    parts = given[2].split(",") if len(given) == 3 else list(PARTS)
    if len(given) not in (1, 2, 3) or not set(parts) <= set(PARTS):
        sys.exit(__doc__)
    main(given[0], given[1] if len(given) > 1 else ROOT.parent / "shared" / "data", parts)
