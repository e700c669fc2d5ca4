"""Makes `groups.json`, intervals over patients, with numpy alone.

    python groups.py

Forty patients with one to six images each; what a patient has in common moves all of its scores. A resample draws patients
with replacement, as many as there are of those with positive images only, with negative ones only and with both. Ends are
percentiles 2.5 and 97.5 over 20,000 resamples; areas are counted pair by pair.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DRAW = np.random.default_rng(23)
RESAMPLES = 20_000


def auroc(scores, positive):
    pairs = scores[positive][:, None] - scores[~positive][None]
    return ((pairs > 0) + 0.5 * (pairs == 0)).mean()


def average_precision(scores, positive):
    at_least = scores[positive][:, None] <= scores[None]
    return ((at_least & positive).sum(1) / at_least.sum(1)).mean()


def main():
    scores, positive, groups = [], [], []
    for patient in range(40):
        ill = patient % 2 == 0
        common = DRAW.normal(0.9 * ill, 1.0)
        for _ in range(DRAW.integers(1, 7)):
            # An image in ten is unlike its patient's others.
            positive.append(bool(ill ^ (DRAW.random() < 0.1)))
            scores.append(round(float(common + DRAW.normal(0, 0.3)), 2))
            groups.append(patient)
    scores, positive, groups = np.array(scores), np.array(positive), np.array(groups)
    members = [np.flatnonzero(groups == patient) for patient in range(40)]
    kinds = [tuple(np.unique(positive[own])) for own in members]
    strata = [[own for own, kind in zip(members, kinds) if kind == wanted] for wanted in sorted(set(kinds))]
    assert len(strata) == 3
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([own for own_kind in strata for own in
                                [own_kind[at] for at in DRAW.integers(0, len(own_kind), len(own_kind))]])
        found.append([auroc(scores[drawn], positive[drawn]), average_precision(scores[drawn], positive[drawn])])
    ends = np.percentile(found, [2.5, 97.5], axis=0).T
    result = {"scores": scores.tolist(), "positive": positive.astype(int).tolist(), "groups": groups.tolist()}
    for name, measure, pair in zip(["auroc", "average_precision"], [auroc, average_precision], ends):
        result[name] = {"value": float(measure(scores, positive)), "interval": pair.tolist()}
    (HERE / "groups.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
