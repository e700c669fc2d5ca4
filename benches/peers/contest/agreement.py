"""Whether both sides computed the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FEATURES, LOSSES, SCORES = 1e-3, 1e-2, 1e-3


@dataclass(frozen=True)
class Agreement:
    """The greatest difference that was found and the one that is allowed; no difference where nothing was compared."""

    what: str
    difference: float | None = None
    allowed: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether what was compared agrees."""
        return self.difference is None or self.difference <= self.allowed

    def __str__(self) -> str:
        if self.difference is None:
            return self.what
        return f"{self.what} {self.difference:.0e}{'' if self.holds else ' DIFFER'}"


def of_features(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Agreement:
    """Relative error of rows, the greatest one."""
    return Agreement("features", furthest(ours, theirs), FEATURES)


def of_photos(
    files: Mapping[str, Sequence[float]], pixels: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]
) -> Agreement:
    """The same where both sides were given the same pixels; two decoders of JPEGs differ, by how much is said beside it."""
    # Names are those of the files, which the copies share but for the ending.
    stems = {name.partition(".")[0]: row for name, row in theirs.items()}
    copies = {name.partition(".")[0]: row for name, row in pixels.items()}
    what = f"features of the same pixels (of JPEGs {furthest(files, theirs):.0e})"
    return Agreement(what, furthest(copies, stems), FEATURES)


def furthest(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> float:
    """The greatest relative error of a row."""
    return max(math.dist(ours[name], row) / math.hypot(*row) for name, row in theirs.items())


def of_losses(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Relative error of the losses that both have."""
    pairs = list(zip(ours, theirs))
    what = "first loss" if len(pairs) == 1 else f"{len(pairs)} losses"
    return Agreement(what, max(abs(left - right) / abs(right) for left, right in pairs), LOSSES)


def of_scores(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Agreement:
    """Difference of probabilities."""
    return Agreement("scores", max(abs(ours[name] - score) for name, score in theirs.items()), SCORES)


def worst(found: Sequence[Agreement]) -> Agreement:
    """The one that is furthest off."""
    return max(found, key=lambda one: -1.0 if one.difference is None else one.difference / one.allowed)
