"""What a process is asked to do."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """The arguments of the command line."""

    work: str
    variant: str
    backbone: Path
    data: Path
    steps: int
    batch: int
    views: int
    count: int
    classes: str

    @property
    def official(self) -> bool:
        """Whether to do what the authors' code does."""
        return self.variant == "official"
