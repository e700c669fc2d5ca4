"""Makes the fixture of the test of medical images. Needs pydicom, nibabel, numpy and pillow.

    python generate.py

Every file is drawn from a fixed seed. `expected.json` holds, for each address (`file#frame;window`), the size and the RGB
values that pydicom's or nibabel's pixels give when windowed by numpy: `apply_modality_lut` and the formulas of DICOM PS3.3
C.11.2.1.2 and C.11.2.1.3, rounded to 8 bits. Each DICOM file names a patient, to see that the name goes nowhere.
"""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, convert_color_space
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

    images = {key: {"size": [int(v.shape[1]), int(v.shape[0])], "rgb": v.ravel().tolist()} for key, v in expected.items()}
    (HERE / "expected.json").write_text(json.dumps({"patient": PATIENT, "images": images}) + "\n")


if __name__ == "__main__":
    main()
