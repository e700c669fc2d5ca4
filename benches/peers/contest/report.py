"""Medians, ratios, the table and the JSON."""

from dataclasses import dataclass
from statistics import median

from .agreement import Agreement
from .works import VARIANTS, Sample, Work

SIDES = ("ours", *VARIANTS)
DISTURBED = 0.1


@dataclass(frozen=True)
class Row:
    """All measurements of a work on a backbone."""

    work: Work
    backbone: str
    samples: dict[str, list[Sample]]
    agreement: Agreement

    def seconds(self, side: str) -> float:
        """The median."""
        return median(sample.seconds for sample in self.samples[side])

    def peak_mib(self, side: str) -> float:
        """The median."""
        return median(sample.peak_mib for sample in self.samples[side])

    @property
    def disturbed(self) -> float:
        """The greatest share of the machine that others had."""
        return max(sample.disturbed for side in SIDES for sample in self.samples[side])

    def ratios(self, of: str) -> dict[str, float]:
        """Theirs divided by ours; more than 1 is in our favour."""
        value = self.seconds if of == "seconds" else self.peak_mib
        return {variant: value(variant) / value("ours") for variant in VARIANTS}

    def json(self) -> dict:
        """Everything that was measured."""
        sides = {
            side: {
                "seconds": self.seconds(side),
                "peak_mib": self.peak_mib(side),
                "all_seconds": [sample.seconds for sample in self.samples[side]],
                "parts": [dict(sample.parts) for sample in self.samples[side] if sample.parts],
            }
            for side in SIDES
        }
        return {
            "work": self.work.name,
            "backbone": self.backbone,
            "unit": self.work.unit,
            "note": self.work.note,
            **sides,
            "seconds_ratios": self.ratios("seconds"),
            "peak_mib_ratios": self.ratios("peak_mib"),
            "agreement": {
                "what": self.agreement.what,
                "difference": self.agreement.difference,
                "allowed": self.agreement.allowed,
                "holds": self.agreement.holds,
            },
            "disturbed": self.disturbed,
        }

    def cells(self) -> list[str]:
        """The row of the table."""
        ratios, peaks = self.ratios("seconds"), self.ratios("peak_mib")
        notes = [self.work.note] if self.work.note else []
        if self.disturbed > DISTURBED:
            notes.append(f"others had {self.disturbed:.0%} of the machine")
        return [
            self.work.name,
            self.backbone,
            self.work.unit,
            *(f"{self.seconds(side):.3g}" for side in SIDES),
            *(f"{ratios[variant]:.2f}" for variant in VARIANTS),
            *(f"{self.peak_mib(side):.0f}" for side in SIDES),
            *(f"{peaks[variant]:.2f}" for variant in VARIANTS),
            str(self.agreement),
            "; ".join(notes),
        ]


HEAD = [
    "work", "backbone", "unit", "ours", "official", "optimised", "official / ours", "optimised / ours",
    "MiB ours", "MiB official", "MiB optimised", "MiB official / ours", "MiB optimised / ours", "agreement", "notes",
]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
