"""Copies of photographs without loss, so that both sides can be given the same pixels."""

from pathlib import Path

from .photos import decoded
from .task import Task


def run(task: Task) -> dict:
    """Writes the first `count` images of a folder beside it as PNG."""
    folder = Path(f"{task.data}-png")
    folder.mkdir(exist_ok=True)
    for path in sorted(task.data.glob("*"))[: task.count]:
        decoded(path).save(folder / f"{path.stem}.png")
    return {"folder": str(folder)}
