"""The works: what each side runs, how its seconds are counted, and what must agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from . import agreement, data
from .agreement import Agreement
from .child import Cost, run
from .halves import Fit, Inarch, peer

VARIANTS = ("official", "optimised")
SHORT = 3
# Photographs whose features are compared, as many as the peer shows.
COMPARED = 60


@dataclass(frozen=True)
class Sample:
    """One measurement of one side, and what it computed."""

    seconds: float
    peak_mib: float
    disturbed: float
    values: object = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where the works find everything."""

    inarch: Inarch
    photos: data.Photos
    bench_work: Path | None


class Work(Protocol):
    """Something that both sides can do."""

    name: str
    unit: str
    runs: int
    note: str

    def ours(self, place: Place) -> Sample: ...

    def theirs(self, place: Place, variant: str) -> Sample: ...

    def agree(self, ours: Sample, theirs: Sample) -> Agreement: ...


def sample(costs: list[Cost], seconds: float, values: object = None, **parts: float) -> Sample:
    """A sample of one or several processes."""
    peak, disturbed = max(cost.peak_mib for cost in costs), max(cost.disturbed for cost in costs)
    return Sample(seconds, peak, disturbed, values, parts)


def typical(units: list[float]) -> float:
    """The median without the first, which warms up."""
    return median(units[1:] or units)


@dataclass(frozen=True)
class Encode:
    """Features of many images or texts, the whole command."""

    name: str
    kind: str
    rows: int
    unit: str
    official_batches: int = 0
    batch: int = 64
    runs: int = 2
    note: str = ""

    def input(self, place: Place) -> Path:
        """What is encoded."""
        if self.kind == "images":
            return place.photos.loose(self.rows)
        path = place.photos.target / "texts.txt"
        path.write_text("\n".join(data.texts(self.rows // len(data.TEMPLATES))) + "\n")
        return path

    def ours(self, place: Place) -> Sample:
        cost, rows = place.inarch.encode(self.kind, self.input(place))
        if self.kind == "images":
            # Not timed: what both sides must agree on.
            _, made = peer("copies", "optimised", place.inarch.backbone, data=self.input(place), count=COMPARED)
            _, pixels = place.inarch.encode(self.kind, Path(made["folder"]))
            return sample([cost], cost.seconds, (rows, pixels))
        return sample([cost], cost.seconds, rows)

    def theirs(self, place: Place, variant: str) -> Sample:
        steps = self.official_batches if variant == "official" else 0
        cost, found = peer(self.name, variant, place.inarch.backbone, data=self.input(place), steps=steps)
        seconds = cost.seconds
        if steps:
            seconds += typical(found["units"]) * self.rows / self.batch - sum(found["units"])
        return sample([cost], seconds, dict(zip(found["names"], found["values"])))

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        if self.kind == "images":
            return agreement.of_photos(*ours.values, theirs.values)
        return agreement.of_features(ours.values, theirs.values)


@dataclass(frozen=True)
class Pixels:
    """Features of images in memory, through a program of the Rust side: `BINARY BACKBONE image ROWS RUNS`."""

    name: str = "encode-pixels"
    rows: int = 32
    unit: str = "s for 32 images"
    repeats: int = 5
    runs: int = 2
    note: str = "in memory"

    def ours(self, place: Place) -> Sample:
        words = [str(place.inarch.backbone), "image", str(self.rows), str(self.repeats), "--device", place.inarch.device]
        cost = run([str(place.bench_work), *words])
        # Lines like `image 32 0.512s value 1.5`.
        lines = [line.split() for line in cost.output.splitlines() if line.startswith("image ")]
        return sample([cost], median(float(line[2].removesuffix("s")) for line in lines))

    def theirs(self, place: Place, variant: str) -> Sample:
        cost, found = peer(self.name, variant, place.inarch.backbone, steps=self.repeats, count=self.rows)
        return sample([cost], typical(found["units"]))

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        return Agreement("not compared")


@dataclass(frozen=True)
class Steps:
    """Steps of a training: their median alone or, with `total`, the whole run that they make up.

    Both sides run few steps over a data set of one batch, or of one image for each class if those are more. Ours is the
    difference of a short and a longer run, since the report has the sum alone. A whole run is what is done once, plus the
    encoding of all views at the measured rate, plus `total` steps. Losses are compared where all images are one batch.
    """

    name: str
    method: str
    classes: int
    batch: int
    ours_steps: int
    peer_steps: Mapping[str, int]
    settings: Mapping[str, str]
    unit: str = "s a step"
    count: int = 0
    total: int = 0
    images: int = 0
    views: int = 0
    compared: int = SHORT
    runs: int = 2
    note: str = ""

    @property
    def stored(self) -> int:
        """Images in the data set."""
        return max(self.batch, self.classes)

    @property
    def apart(self) -> bool:
        """Whether losses are compared in runs of their own, over all images in one batch."""
        return self.compared > 0 and self.stored > self.batch

    def ours(self, place: Place) -> Sample:
        folder = place.photos.labelled(self.classes, self.stored)

        def fit(steps: int, batch: int, centre: bool) -> Fit:
            settings = {"train.budget": f"{{ iterations = {steps} }}", "train.batch": str(batch), **self.settings}
            return place.inarch.fit(self.method, folder, settings, centre)

        short = fit(SHORT, self.batch, True)
        long = fit(SHORT + self.ours_steps, self.batch, self.views == 0)
        losses = fit(self.compared, self.stored, True).losses if self.apart else short.losses
        step = max(long.train - short.train, 0.0) / self.ours_steps
        once = long.cost.seconds - long.encode - long.train
        return self.summed([short.cost, long.cost], step, once, long.encode, self.stored * self.views, losses)

    def theirs(self, place: Place, variant: str) -> Sample:
        backbone, folder = place.inarch.backbone, place.photos.labelled(self.classes, self.stored)
        cost, found = peer(
            self.method, variant, backbone,
            data=folder, steps=self.peer_steps[variant], batch=self.batch, views=self.views, count=self.count,
        )
        losses = found["losses"]
        if self.apart:
            again = variant == "optimised"
            losses = peer(self.method, variant, backbone, data=folder, steps=self.compared)[1]["losses"] if again else None
        step = typical(found["units"])
        once = cost.seconds - found["encode"] - sum(found["units"])
        return self.summed([cost], step, once, found["encode"], found["encoded"], losses)

    def summed(
        self, costs: list[Cost], step: float, once: float, encode: float, encoded: int, losses: list[float] | None
    ) -> Sample:
        """Seconds of a step or of the whole run."""
        if not self.total:
            return sample(costs, step, losses)
        view = encode / encoded if encoded else 0.0
        seconds = once + view * self.images * self.views + step * self.total
        return sample(costs, seconds, losses, once=once, view=view, step=step)

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        if not self.compared:
            return Agreement("random start")
        if theirs.values is None:
            return Agreement("not compared")
        return agreement.of_losses(ours.values[: self.compared], theirs.values[: self.compared])


@dataclass(frozen=True)
class Whole:
    """A training that is short enough to be run whole. The official way is extrapolated from some passes over the files.

    What must agree is measured apart, in the centre view, since random views differ.
    """

    name: str
    views: int
    official_passes: int
    classes: int = 10
    shots: int = 16
    unit: str = "s"
    runs: int = 1
    note: str = ""

    def folder(self, place: Place) -> Path:
        """The training images."""
        return place.photos.labelled(self.classes, self.classes * self.shots)

    def ours(self, place: Place) -> Sample:
        fitted = place.inarch.fit(self.name, self.folder(place), {})
        centre = place.inarch.fit(self.name, self.folder(place), {}, centre=True)
        return sample([fitted.cost], fitted.cost.seconds, (centre.losses[0], centre.losses[-1]))

    def theirs(self, place: Place, variant: str) -> Sample:
        backbone, folder = place.inarch.backbone, self.folder(place)
        if variant == "official":
            cost, found = peer(self.name, variant, backbone, data=folder, steps=self.official_passes, views=self.views)
            seconds = cost.seconds + typical(found["units"]) * found["passes"] - sum(found["units"])
            return sample([cost], seconds)
        cost, _ = peer(self.name, variant, backbone, data=folder, views=self.views)
        _, found = peer(self.name, variant, backbone, data=folder)
        return sample([cost], cost.seconds, (found["losses"][0], found["losses"][-1]))

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        if theirs.values is None:
            return Agreement("not compared")
        return agreement.of_losses(ours.values, theirs.values)


@dataclass(frozen=True)
class Predict:
    """One image, from the start of the process to the answer."""

    name: str = "predict"
    unit: str = "s"
    classes: int = 10
    runs: int = 5
    note: str = ""

    def arguments(self, place: Place) -> tuple[Path, list[str]]:
        """The image and the classes."""
        return place.photos.loose(1) / "00000.jpg", data.names(self.classes)

    def ours(self, place: Place) -> Sample:
        image, classes = self.arguments(place)
        cost, _, scores = place.inarch.predict([image], classes)
        return sample([cost], cost.seconds, scores)

    def theirs(self, place: Place, variant: str) -> Sample:
        image, classes = self.arguments(place)
        cost, found = peer("predict", variant, place.inarch.backbone, data=image, classes=",".join(classes))
        return sample([cost], cost.seconds, found["scores"])

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        return agreement.of_scores(ours.values, theirs.values)


@dataclass(frozen=True)
class TestTimeTuning:
    """TPT of some images, views included, weights and the class texts before any step not.

    What must agree is measured apart, on one image with views from files.
    """

    name: str
    classes: int
    ours_images: int
    peer_images: Mapping[str, int]
    unit: str = "s an image"
    runs: int = 1
    note: str = ""

    def predict(self, place: Place, images: list[Path], *settings: str) -> tuple[Cost, dict, dict[str, float]]:
        """Ours, with crops as views."""
        changes = [word for setting in ("recipe=crop", *settings) for word in ("--set", f"test-time.{setting}")]
        return place.inarch.predict(images, data.names(self.classes), "--test-time", "tpt", *changes)

    def ours(self, place: Place) -> Sample:
        images = sorted(place.photos.loose(self.ours_images).glob("*"))
        cost, found, _ = self.predict(place, images)
        _, made = peer("tpt-views", "optimised", place.inarch.backbone, data=place.photos.loose(1), count=1)
        folder = Path(made["folder"])
        _, _, scores = self.predict(place, [folder / "00000.png"], f"views_from={folder}")
        return sample([cost], found["test_time"]["seconds_per_image"], scores)

    def theirs(self, place: Place, variant: str) -> Sample:
        backbone, images = place.inarch.backbone, self.peer_images[variant]
        classes = ",".join(data.names(self.classes))
        cost, found = peer("tpt", variant, backbone, data=place.photos.loose(images), steps=images, classes=classes)
        if variant == "official":
            return sample([cost], typical(found["units"]))
        same = place.photos.target / "loose-1-views"
        _, apart = peer("tpt", variant, backbone, data=same, steps=1, classes=classes)
        return sample([cost], typical(found["units"]), apart["scores"])

    def agree(self, ours: Sample, theirs: Sample) -> Agreement:
        if theirs.values is None:
            return Agreement("not compared")
        return agreement.of_scores(ours.values, theirs.values)


# The authors' rates without their schedules, which a few steps do not show.
CONSTANT = {"train.schedule": "constant"}


def sgd(rate: float) -> dict[str, str]:
    """The optimizer of CoOp's descendants."""
    return {**CONSTANT, "train.optimizer": f'{{ name = "sgd", lr = {rate}, momentum = 0.9, weight_decay = 0.0005 }}'}


LORA = {**CONSTANT, "train.optimizer": '{ name = "adamw", lr = 0.0002, weight_decay = 0.01 }'}
LAST4 = [f"*.blocks.{block}.{name}_proj" for block in range(8, 12) for name in "qkv"]
EPOCHS, SHOTS = 50, 16


def coop(classes: int, ours: int, official: int, optimised: int) -> Steps:
    """CoOp's whole run of 50 epochs for 16 shots, with the context "a photo of a"."""
    return Steps(
        f"coop-{classes}", "coop", classes, 32, ours, {"official": official, "optimised": optimised}, sgd(0.002),
        unit="s", total=EPOCHS * SHOTS * classes // 32, images=SHOTS * classes, views=8, runs=1, note="extrapolated",
    )


WORKS: list[Work] = [
    Predict(),
    Encode("encode-images", "images", 512, "s for 512 images"),
    Pixels(),
    Encode("encode-texts", "texts", 7000, "s for 7000 texts", official_batches=5, runs=1, note="official extrapolated"),
    coop(10, 20, 5, 15),
    coop(100, 5, 3, 6),
    Whole("tip-adapter-f", 10, 4, note="official extrapolated"),
    Whole("linear-probe", 20, 4, note="official extrapolated"),
    Steps("lora-step", "lora", 10, 32, 4, {"official": 4, "optimised": 5}, LORA, compared=1),
    Steps(
        "lora-step-last4", "lora", 10, 32, 6, {"official": 4, "optimised": 6}, {**LORA, "method.targets": str(LAST4)},
        count=4, compared=1,
    ),
    Steps("promptsrc-step", "promptsrc", 10, 4, 8, {"official": 5, "optimised": 8}, sgd(0.0025), compared=0),
    TestTimeTuning("tpt-10", 10, 16, {"official": 2, "optimised": 3}),
    TestTimeTuning("tpt-1000", 1000, 4, {"official": 1, "optimised": 2}, note="official texts extrapolated"),
    Steps("maple-step", "maple", 10, 4, 8, {"official": 5, "optimised": 8}, sgd(0.0035), compared=0),
]
BY_NAME: dict[str, Work] = {work.name: work for work in WORKS}
