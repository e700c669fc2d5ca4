"""Seconds of the parts of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor
from torch.optim import Optimizer


def settle() -> None:
    """Waits for what a device still computes."""
    device = torch.get_default_device()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Meter:
    """What a run took: image features encoded once, and the units (steps, epochs or batches) that repeat."""

    def __init__(self) -> None:
        self.encode = 0.0
        self.encoded = 0
        self.units: list[float] = []
        self.losses: list[float] = []

    @contextmanager
    def encoding(self, images: int) -> Iterator[None]:
        """Times the encoding of `images` views."""
        began = perf_counter()
        yield
        settle()
        self.encode += perf_counter() - began
        self.encoded += images

    @contextmanager
    def unit(self) -> Iterator[None]:
        """Times one unit."""
        began = perf_counter()
        yield
        settle()
        self.units.append(perf_counter() - began)

    def learn(self, optimizer: Optimizer, loss: Tensor) -> None:
        """A step of the optimizer down the loss, which is noted."""
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.losses.append(loss.item())

    def report(self, **more: object) -> dict:
        """All of it as JSON."""
        return {**vars(self), **more}
