"""Makes the fixture of the test of compressed DICOM files. Needs pydicom, numpy, pillow, imagecodecs, pylibjpeg,
pylibjpeg-openjpeg, pylibjpeg-libjpeg and pyjpegls.

    python generate.py

Every image is drawn from a fixed seed. `expected.json` holds, for each address (`file#frame;window`), the size and the
levels (or RGB values) of what pydicom reads with OpenJPEG, libjpeg or its own RLE, windowed by numpy as in
`../medical_images/generate.py`; for what is kept without loss, pydicom's values are checked against those drawn.
`refused` names the files that nothing here decodes.
"""

import io
import json
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import (JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless,
                         ExplicitVRLittleEndian, HTJ2KLossless, RLELossless)

HERE = Path(__file__).parent
DRAW = np.random.default_rng(11)
PATIENT = "Mustermann^Erika"


def dataset(pixels, photometric="MONOCHROME2", stored=None, **attributes):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4.5"
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT, "4711", "19640812"
    data.PhotometricInterpretation = photometric
    colour = pixels.shape[-1] == 3
    data.SamplesPerPixel = 3 if colour else 1
    frames = pixels.reshape((-1,) + pixels.shape[-3 if colour else -2:])
    if len(frames) > 1:
        data.NumberOfFrames = len(frames)
    data.Rows, data.Columns = frames.shape[1:3]
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = stored or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if colour:
        data.PlanarConfiguration = 0
    for key, value in attributes.items():
        setattr(data, key, value)
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    return data


def save(data, name):
    data.save_as(HERE / name, enforce_file_format=True)


def compressed(name, pixels, syntax, options=None, **attributes):
    """A file that pydicom compresses."""
    data = dataset(pixels, **attributes)
    data.compress(syntax, generate_instance_uid=False, **(options or {}))
    save(data, name)


def encapsulated(name, pixels, syntax, streams, fragments=1, **attributes):
    """A file around streams that are already there."""
    data = dataset(pixels, **attributes)
    data.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=True)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    save(data, name)


def read(name, frame=0, same_as=None):
    data = dcmread(HERE / name)
    pixels = data.pixel_array
    pixels = pixels[frame] if int(data.get("NumberOfFrames", 1)) > 1 else pixels
    if same_as is not None:
        assert np.array_equal(pixels, same_as), name
    return apply_modality_lut(pixels, data).astype(np.float64)


def linear(values, centre, width):
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def exact(values, centre, width):
    return (values - centre) / width + 0.5


def spread(values):
    return (values - values.min()) / (values.max() - values.min())


def levels(shares):
    return np.clip(np.rint(shares * 255), 0, 255).astype(np.uint8)


def rgb(grey):
    return np.repeat(levels(grey)[..., None], 3, -1)


def window_item(centre, width):
    item, shown = Dataset(), Dataset()
    shown.WindowCenter, shown.WindowWidth = centre, width
    item.FrameVOILUTSequence = Sequence([shown])
    return item


def smooth(rows, columns):
    """Waves that use all of 8 bits."""
    y, x = np.mgrid[:rows, :columns]
    return np.rint(127.5 + 127.5 * np.sin(x / 5.0 + 0.3) * np.cos(y / 7.0)).astype(np.uint8)


def main():
    expected = {}
    grey = DRAW.integers(0, 256, (33, 38)).astype(np.uint8)
    compressed("j2k-8.dcm", grey, JPEG2000Lossless)
    expected["j2k-8.dcm"] = rgb(spread(read("j2k-8.dcm", same_as=grey)))

    deep = DRAW.integers(0, 65536, (37, 33)).astype(np.uint16)
    compressed("j2k-16.dcm", deep, JPEG2000Lossless)
    expected["j2k-16.dcm"] = rgb(spread(read("j2k-16.dcm", same_as=deep)))
    # A window of 255 levels says whether the last bit of 16 is right.
    for centre in (20_000, 40_000):
        expected[f"j2k-16.dcm#1;{centre}:255"] = rgb(exact(deep.astype(np.float64), centre, 255))

    hounsfield = DRAW.integers(-1024, 2500, (34, 35)).astype(np.int16)
    compressed("j2k-signed.dcm", hounsfield, JPEG2000Lossless, stored=13, RescaleSlope=2, RescaleIntercept=-10,
               WindowCenter=40, WindowWidth=256)
    signed = read("j2k-signed.dcm", same_as=hounsfield)
    expected["j2k-signed.dcm"] = rgb(linear(signed, 40, 256))
    expected["j2k-signed.dcm#full"] = rgb(spread(signed))

    colours = DRAW.integers(0, 256, (32, 34, 3)).astype(np.uint8)
    compressed("j2k-rgb.dcm", colours, JPEG2000Lossless, photometric="YBR_RCT")
    read("j2k-rgb.dcm", same_as=colours)
    expected["j2k-rgb.dcm"] = colours

    waves = smooth(36, 40)
    compressed("j2k-lossy.dcm", waves, JPEG2000, options={"j2k_psnr": [45]})
    lossy = read("j2k-lossy.dcm")
    assert not np.array_equal(lossy, waves) and np.abs(lossy - waves).max() < 8
    expected["j2k-lossy.dcm#127.5:255"] = rgb(exact(lossy, 127.5, 255))

    # Tiles, precincts and layers, as archives write them; and a JP2 head, which does not belong there and occurs.
    tiled = DRAW.integers(0, 256, (40, 33)).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(tiled).save(file, "JPEG2000", no_jp2=True, tile_size=(16, 16), num_resolutions=3,
                                    precinct_size=(64, 64), codeblock_size=(16, 16), progression="RPCL",
                                    quality_mode="rates", quality_layers=[4, 0])
        stream = file.getvalue()
    encapsulated("j2k-tiled.dcm", tiled, JPEG2000Lossless, [stream])
    expected["j2k-tiled.dcm"] = rgb(spread(read("j2k-tiled.dcm", same_as=tiled)))
    jp2 = imagecodecs.jpeg2k_encode(grey, codecformat="jp2", reversible=True)
    encapsulated("j2k-boxed.dcm", grey, JPEG2000Lossless, [jp2])
    expected["j2k-boxed.dcm"] = rgb(spread(grey.astype(np.float64)))

    # Frames with windows of their own, each in two fragments.
    loop = DRAW.integers(0, 4096, (3, 32, 33)).astype(np.uint16)
    compressed("j2k-loop.dcm", loop, JPEG2000Lossless, stored=12)
    streams = list(generate_frames(dcmread(HERE / "j2k-loop.dcm").PixelData, number_of_frames=3))
    items = [window_item(*window) for window in [(1000, 900), (3000, 2500), (2000, 255)]]
    encapsulated("j2k-loop.dcm", loop, JPEG2000Lossless, streams, fragments=2, stored=12,
                 PerFrameFunctionalGroupsSequence=Sequence(items))
    for frame, window in enumerate([(1000, 900), (3000, 2500), (2000, 255)]):
        values = read("j2k-loop.dcm", frame, same_as=loop[frame])
        expected[f"j2k-loop.dcm#{frame + 1}"] = rgb(linear(values, *window))
    expected["j2k-loop.dcm"] = expected["j2k-loop.dcm#2"]

    # JPEG with loss in 8 bits, without loss in 16.
    with io.BytesIO() as file:
        Image.fromarray(waves).save(file, "JPEG", quality=95)
        encapsulated("jpeg-8.dcm", waves, JPEGBaseline8Bit, [file.getvalue()])
    expected["jpeg-8.dcm#127.5:255"] = rgb(exact(read("jpeg-8.dcm"), 127.5, 255))
    for name, syntax in [("jpeg-lossless.dcm", JPEGLossless), ("jpeg-lossless-sv1.dcm", JPEGLosslessSV1)]:
        encapsulated(name, deep, syntax, [imagecodecs.ljpeg_encode(deep)])
        expected[f"{name}#1;20000:255"] = rgb(exact(read(name, same_as=deep), 20_000, 255))
    compressed("rle-16.dcm", deep, RLELossless)
    expected["rle-16.dcm#1;20000:255"] = rgb(exact(read("rle-16.dcm", same_as=deep), 20_000, 255))

    # Whatever the stream of the second is: the transfer syntax is what is looked at.
    refused = {"jpeg-ls.dcm": str(JPEGLSLossless), "htj2k.dcm": str(HTJ2KLossless)}
    compressed("jpeg-ls.dcm", grey, JPEGLSLossless)
    encapsulated("htj2k.dcm", grey, HTJ2KLossless, [stream])

    images = {}
    for address, image in expected.items():
        grey = (image == image[..., :1]).all()
        kept = image[..., 0] if grey else image
        size = [int(image.shape[1]), int(image.shape[0])]
        images[address] = {"size": size, "grey": bool(grey), "levels": kept.ravel().tolist()}
    text = json.dumps({"patient": PATIENT, "refused": refused, "images": images}, separators=(",", ":"))
    (HERE / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
