"""Makes the fixture of the test of video files. Needs numpy, pillow and imageio-ffmpeg, which brings FFmpeg with x264
and x265.

    python generate.py

A moving square on moving waves is drawn, coded in several ways, and decoded by FFmpeg. `expected.json` has, for each
file that is read, how many frames a player shows and which of them `NAME.png` has, FFmpeg's own, one below the other
and turned upright; and the files that are not read, each with what the reason must say. Coding with one thread and
without the encoder's note of its version keeps the bytes the same for one version of FFmpeg.
"""

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-threads", "1"]
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
FRAMES = 12


def drawn(width, height, frames=FRAMES):
    y, x = np.mgrid[:height, :width]
    shown = []
    for t in range(frames):
        red, green, blue = np.sin((x + 3 * t) / 9), np.cos((y - 2 * t) / 7), 0.8 * np.sin((x + y + t) / 5)
        frame = 128 + 100 * np.stack([red, green, blue], -1)
        left = 2 * t
        frame[6:14, left:left + 8] = [250, 20, 20]
        frame[14:20, left:left + 8] = [20, 30, 240]
        shown.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(shown)


def encode(name, settings, size=(48, 32), colours=("bt470bg", "bt601", "tv"), pixels="yuv420p", more=(), coder="x264"):
    width, height = size
    matrix, out_matrix, levels = colours
    scale = f"scale=out_color_matrix={out_matrix}:out_range={levels}:flags=accurate_rnd+bicubic"
    # The encoder writes its version and settings into units of this kind.
    bare = ["-bsf:v", "filter_units=remove_types=6"] if coder == "x264" else []
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "8", "-i", "-"]
    coded = ["-c:v", f"lib{coder}", "-crf", "20", "-threads", "1", f"-{coder}-params", settings]
    command = [*FFMPEG, *given, "-vf", scale, "-pix_fmt", pixels, *coded, "-colorspace", matrix, "-color_range", levels,
               *bare, *EXACT, *more, str(HERE / name)]
    subprocess.run(command, input=drawn(width, height).tobytes(), check=True)


def copied(source, name, before=(), more=()):
    command = [*FFMPEG, *before, "-i", str(HERE / source), "-c", "copy", *EXACT, *more, str(HERE / name)]
    subprocess.run(command, check=True)


def reference(name, kept):
    """FFmpeg's frames. Colours are not smoothed between pixels, as a plain conversion does not."""
    path = HERE / name
    flags = ["-vf", "scale=flags=neighbor+accurate_rnd+full_chroma_int+full_chroma_inp", "-fps_mode", "passthrough"]
    raw = subprocess.run([*FFMPEG, "-i", str(path), *flags, "-f", "image2pipe", "-c:v", "ppm", "-"], check=True,
                         capture_output=True).stdout
    frames = []
    while raw:
        _, size, _, rest = raw.split(b"\n", 3)
        width, height = map(int, size.split())
        length = 3 * width * height
        frames.append(np.frombuffer(rest[:length], np.uint8).reshape(height, width, 3))
        raw = rest[length:]
    kept = [frame for frame in kept if frame < len(frames)]
    Image.fromarray(np.concatenate([frames[frame] for frame in kept])).save(path.with_suffix(".png"), optimize=True)
    return {"frames": len(frames), "shown": kept}


def main():
    plain = "keyint=12"
    encode("plain.mp4", plain, more=["-profile:v", "baseline"])
    reordered = "bframes=3:b-adapt=0:b-pyramid=normal:keyint=5:scenecut=0"
    encode("b-frames.mp4", reordered, colours=("bt709", "bt709", "tv"))
    encode("open.mov", "bframes=2:b-adapt=0:open-gop=1:keyint=5:scenecut=0")
    encode("full.m4v", "bframes=2:b-adapt=0", size=(44, 26), colours=("bt470bg", "bt601", "pc"),
           more=["-movflags", "+faststart"])
    copied("plain.mp4", "turned.mp4", before=["-display_rotation:v:0", "90"])
    copied("b-frames.mp4", "cut.mp4", before=["-ss", "0.9"])
    kept = {"plain.mp4": [0, 5, 11], "b-frames.mp4": range(FRAMES), "open.mov": [0, 3, 4, 5, 6, 9], "full.m4v": [1, 10],
            "turned.mp4": [3], "cut.mp4": range(FRAMES)}
    read = {name: reference(name, frames) for name, frames in kept.items()}

    encode("deep.mp4", plain, pixels="yuv422p")
    encode("hevc.mp4", "info=0:log-level=none", coder="x265")
    copied("plain.mp4", "fragments.mp4", more=["-movflags", "frag_keyframe+empty_moov"])
    refused = {"deep.mp4": "4:2:2", "hevc.mp4": "`hev1`", "fragments.mp4": "fragments"}
    text = json.dumps({"read": read, "refused": refused}, indent=1)
    (HERE / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
