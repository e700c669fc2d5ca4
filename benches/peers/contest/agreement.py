"""Whether both sides computed the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FEATURES, LOSSES, SCORES = 1e-3, 1e-2, 1e-3
# Two decoders give pixels of a JPEG that differ by a level or two; from the same pixels features agree to 1e-5.
JPEG_FEATURES = 1e-2


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


def of_features(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], allowed: float) -> Agreement:
    """Relative error of rows, the greatest one."""
    def error(left: Sequence[float], right: Sequence[float]) -> float:
        return math.dist(left, right) / math.hypot(*right)

    return Agreement("features", max(error(ours[name], row) for name, row in theirs.items()), allowed)


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
