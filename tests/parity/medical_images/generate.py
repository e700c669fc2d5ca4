"""Makes the fixture of the test of medical images. Needs pydicom, nibabel, numpy and pillow.

    python generate.py

Every file is drawn from a fixed seed. `expected.json` holds, for each address (`file#frame;window`), the size and the RGB
values that pydicom's or nibabel's pixels give when windowed by numpy: `apply_modality_lut` and the formulas of DICOM PS3.3
C.11.2.1.2 and C.11.2.1.3, rounded to 8 bits; with lookup tables, what `apply_voi` and `apply_color_lut` give. Each DICOM
file names a patient, to see that the name goes nowhere.
"""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

HERE = Path(__file__).parent
DRAW = np.random.default_rng(7)
PATIENT = "Mustermann^Erika"


def dicom(name, pixels, photometric="MONOCHROME2", stored=None, syntax=ExplicitVRLittleEndian, rle=False, **attributes):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4.5"
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.file_meta.TransferSyntaxUID = syntax
    data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT, "4711", "19640812"
    data.ReferencedStudySequence = Sequence([Dataset()])
    data.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "1.2.3"
    data.PhotometricInterpretation = photometric
    colour = photometric in ("RGB", "YBR_FULL")
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
        data.PlanarConfiguration = attributes.pop("planar", 0)
        if data.PlanarConfiguration:
            frames = frames.transpose(0, 3, 1, 2)
    for key, value in attributes.items():
        setattr(data, key, value)
    data.PixelData = np.ascontiguousarray(frames).tobytes()
    if rle:
        data.compress(RLELossless, np.ascontiguousarray(pixels))
    data.save_as(HERE / name, enforce_file_format=True)


def window_item(centre, width, slope, intercept):
    item, shown, rescaled = Dataset(), Dataset(), Dataset()
    shown.WindowCenter, shown.WindowWidth = centre, width
    rescaled.RescaleSlope, rescaled.RescaleIntercept, rescaled.RescaleType = slope, intercept, "US"
    item.FrameVOILUTSequence = Sequence([shown])
    item.PixelValueTransformationSequence = Sequence([rescaled])
    return item


def table_item(entries, first, bits, kind):
    item = Dataset()
    item.add_new("LUTDescriptor", kind, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US" if kind == "US" else "OW", entries.tolist() if kind == "US" else entries.astype("<u2").tobytes())
    return item


def palette(entries, first, bits, segmented=False):
    """The attributes of three tables; of segments, `entries` are the cells."""
    attributes = {}
    for colour, column in zip(["Red", "Green", "Blue"], entries):
        count = segmented or len(column)
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [count % 65536, first, bits]
        data = np.asarray(column, dtype="u1" if bits == 8 else "<u2").tobytes()
        name = f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData"
        attributes[name] = data + b"\0" * (len(data) % 2)
    return attributes


def linear(values, centre, width):
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def exact(values, centre, width):
    return (values - centre) / width + 0.5


def spread(values, low=None, high=None):
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return (values - low) / (high - low)


def levels(shares):
    return np.clip(np.rint(shares * 255), 0, 255).astype(np.uint8)


def rgb(grey):
    return np.repeat(levels(grey)[..., None], 3, -1)


def read(name, frame=0):
    data = dcmread(HERE / name)
    pixels = data.pixel_array
    pixels = pixels[frame] if int(data.get("NumberOfFrames", 1)) > 1 else pixels
    return apply_modality_lut(pixels, data).astype(np.float64)


def main():
    expected = {}
    hounsfield = DRAW.integers(-1024, 2500, (6, 8)).astype(np.int16)
    dicom("ct.dcm", hounsfield + 1024, stored=13, RescaleSlope=1, RescaleIntercept=-1024,
          WindowCenter=[40, -600], WindowWidth=[400, 1500])
    ct = read("ct.dcm")
    expected["ct.dcm"] = rgb(linear(ct, 40, 400))
    expected["ct.dcm#-600:1500"] = rgb(exact(ct, -600, 1500))
    expected["ct.dcm#p5:95"] = rgb(spread(ct, *np.percentile(ct, [5, 95])))
    expected["ct.dcm#1;full"] = rgb(spread(ct))

    signed = DRAW.integers(-2048, 2048, (5, 7)).astype(np.int16)
    dicom("signed12.dcm", signed, stored=12, syntax=ImplicitVRLittleEndian, RescaleSlope="0.5", RescaleIntercept="10")
    expected["signed12.dcm"] = rgb(spread(read("signed12.dcm")))

    plate = DRAW.integers(0, 4096, (6, 6)).astype(np.uint16)
    plate[0, :2] = 65535 & 4095
    dicom("plate.dcm", plate, photometric="MONOCHROME1", stored=12, PixelPaddingValue=4095)
    kept = plate[plate != 4095].astype(np.float64)
    expected["plate.dcm"] = 255 - rgb(spread(plate.astype(np.float64), kept.min(), kept.max()))

    for curve, name in [("LINEAR_EXACT", "exact.dcm"), ("SIGMOID", "sigmoid.dcm")]:
        dicom(name, plate, stored=12, WindowCenter=1800, WindowWidth=2500, VOILUTFunction=curve)
        values = read(name)
        shares = exact(values, 1800, 2500) if "exact" in name else 1 / (1 + np.exp(-4 * (values - 1800) / 2500))
        expected[name] = rgb(shares)

    loop = DRAW.integers(0, 256, (5, 6, 4)).astype(np.uint8)
    dicom("loop.dcm", loop)
    dicom("loop-rle.dcm", loop, rle=True)
    for name in ["loop.dcm", "loop-rle.dcm"]:
        for frame, part in [(2, ""), (0, "#1"), (4, "#5")]:
            expected[name + part] = rgb(spread(read(name, frame)))

    enhanced = DRAW.integers(0, 4096, (2, 4, 4)).astype(np.uint16)
    items = [window_item(1000, 900, 1, 0), window_item(3000, 2500, 2, -100)]
    dicom("enhanced.dcm", enhanced, stored=12, PerFrameFunctionalGroupsSequence=Sequence(items))
    expected["enhanced.dcm#1"] = rgb(linear(enhanced[0].astype(np.float64), 1000, 900))
    expected["enhanced.dcm#2"] = rgb(linear(enhanced[1] * 2.0 - 100, 3000, 2500))

    colours = DRAW.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    for name, planar in [("rgb.dcm", 0), ("rgb-planar.dcm", 1)]:
        dicom(name, colours, photometric="RGB", planar=planar)
        expected[name] = dcmread(HERE / name).pixel_array
    dicom("ybr.dcm", colours, photometric="YBR_FULL")
    expected["ybr.dcm"] = convert_color_space(colours, "YBR_FULL", "RGB")

    volume = DRAW.normal(100, 40, (7, 5, 3, 2))
    shifted = np.rint(volume).astype(np.int16)
    image = nibabel.Nifti1Image(shifted, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, HERE / "short.nii.gz")
    stored = np.asarray(nibabel.load(HERE / "short.nii.gz").dataobj)
    float_image = nibabel.Nifti2Image(volume.astype(np.float32)[..., 0], np.eye(4))
    float_image.header["cal_min"], float_image.header["cal_max"] = 60, 160
    nibabel.save(float_image, HERE / "float.nii")
    floats = np.asarray(nibabel.load(HERE / "float.nii").dataobj)
    for frame, (name, data) in enumerate([("short.nii.gz", stored), ("float.nii", floats)]):
        slices = data.reshape(data.shape[:2] + (-1,), order="F")
        turned = [np.flipud(slices[:, :, at].T).astype(np.float64) for at in range(slices.shape[2])]
        expected[f"{name}#p10:90"] = rgb(spread(turned[len(turned) // 2], *np.percentile(turned[len(turned) // 2], [10, 90])))
        own = (lambda values: spread(values, 60, 160)) if "float" in name else spread
        for at in (0, len(turned) - 1):
            expected[f"{name}#{at + 1}"] = rgb(own(turned[at]))

    deep = DRAW.integers(0, 65536, (4, 6)).astype(np.uint16)
    Image.fromarray(deep).save(HERE / "deep.png")
    Image.fromarray(deep).save(HERE / "deep.tif")
    for name in ["deep.png", "deep.tif"]:
        expected[name] = rgb(deep / 65535)
        expected[f"{name}#30000:20000"] = rgb(exact(deep.astype(np.float64), 30000, 20000))

    grey = DRAW.integers(0, 256, (6, 7)).astype(np.uint8)
    wide = DRAW.integers(0, 65536, (3, 200)).astype(np.uint16)
    dicom("palette.dcm", grey, photometric="PALETTE COLOR", **palette(wide, 20, 16))
    dicom("palette-rle.dcm", grey, photometric="PALETTE COLOR", rle=True, **palette(wide >> 8, 0, 8))
    # As they are, on a line, again from the beginning, on a line to black.
    cells = [[0, 4, *DRAW.integers(0, 256, 4), 1, 90, int(end), 2, 2, 0, 0, 0, 0, 1, 68, 0] for end in (255, 40, 130)]
    dicom("palette-segments.dcm", grey, photometric="PALETTE COLOR", **palette(cells, 0, 8, segmented=256))
    cells = [[0, 2, *DRAW.integers(0, 65536, 2), 1, 4094, int(end)] for end in (65535, 4000, 3)]
    indices = DRAW.integers(0, 4096, (5, 6)).astype(np.uint16)
    dicom("palette-16.dcm", indices, photometric="PALETTE COLOR", stored=12, syntax=ImplicitVRLittleEndian,
          **palette(cells, 0, 16, segmented=4096))
    for name in ["palette.dcm", "palette-rle.dcm", "palette-segments.dcm", "palette-16.dcm"]:
        data = dcmread(HERE / name)
        colours = apply_color_lut(data.pixel_array, data)
        expected[name] = levels(colours / np.iinfo(colours.dtype).max)
    assert len(np.unique(expected["palette-segments.dcm"])) > 30

    # Below 0 in a file without types.
    rising = np.sort(DRAW.integers(0, 65536, 900)).astype(np.uint16)
    dicom("modality.dcm", DRAW.integers(-500, 500, (5, 7)).astype(np.int16), stored=12, syntax=ImplicitVRLittleEndian,
          ModalityLUTSequence=Sequence([table_item(rising, -400, 16, "SS")]))
    expected["modality.dcm"] = rgb(spread(read("modality.dcm")))
    expected["modality.dcm#20000:9000"] = rgb(exact(read("modality.dcm"), 20000, 9000))

    shown = [np.sort(DRAW.integers(0, 4096, 700)).astype(np.uint16) for _ in range(2)]
    dicom("voi.dcm", hounsfield + 1024, stored=13, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400,
          VOILUTSequence=Sequence([table_item(entries, -300, 12, "SS") for entries in shown]))
    expected["voi.dcm"] = rgb(apply_voi(read("voi.dcm").astype(np.int64), dcmread(HERE / "voi.dcm")) / 4095)
    expected["voi.dcm#40:400"] = rgb(exact(read("voi.dcm"), 40, 400))

    dicom("tables.dcm", plate, photometric="MONOCHROME1", stored=12,
          ModalityLUTSequence=Sequence([table_item(rising >> 4, 100, 16, "US")]),
          VOILUTSequence=Sequence([table_item(shown[0] >> 4, 1000, 8, "US")]))
    # Not by `apply_voi`, whose index wraps round at 256 where entries have 8 bits.
    values = apply_modality_lut(plate, dcmread(HERE / "tables.dcm")).astype(np.int64)
    expected["tables.dcm"] = 255 - rgb((shown[0] >> 4)[np.clip(values - 1000, 0, len(shown[0]) - 1)] / 255)

    images = {key: {"size": [int(v.shape[1]), int(v.shape[0])], "rgb": v.ravel().tolist()} for key, v in expected.items()}
    (HERE / "expected.json").write_text(json.dumps({"patient": PATIENT, "images": images}) + "\n")


if __name__ == "__main__":
    main()
