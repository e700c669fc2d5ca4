"""Learning rates of step `at` of `steps`, where an epoch is one step."""

import math


def cosine(rate: float, at: int, steps: int) -> float:
    """Down to 1e-6."""
    return 1e-6 + (rate - 1e-6) * 0.5 * (1 + math.cos(math.pi * at / steps))


def warm_cosine(rate: float, at: int, steps: int) -> float:
    """The first epoch at 1e-5, then the cosine, counted from the second epoch on."""
    return 1e-5 if at == 0 and steps > 1 else rate * 0.5 * (1 + math.cos(math.pi * (max(at, 1) - 1) / steps))


def sgd_factor(scale: float) -> float:
    """What a rate found at a logit scale of 100 is multiplied with at a milder one, as `inarch` does."""
    return 100 / min(max(scale, 1), 100)
