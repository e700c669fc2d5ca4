"""A process and what it cost."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Cost:
    """What a process printed and took."""

    output: str
    seconds: float
    peak_mib: float
    disturbed: float
    """Share of the machine that other processes had meanwhile."""


def run(command: list[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Runs a command to its end.

    The peak is the child's `ru_maxrss`. It counts the caller's own pages at the time of the start, so the caller must be
    smaller than whatever it measures.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        busy, began = busy_seconds(), time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env={**os.environ, **(environment or {})})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}:\n{errors.read()[-2000:]}")
        return Cost(output.read(), seconds, usage.ru_maxrss / 1024, max(others, 0.0) / (seconds * CORES))


def busy_seconds() -> float:
    """Processor seconds that all processes of the machine have used."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, interrupts, soft, *_ = map(int, fields)
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
