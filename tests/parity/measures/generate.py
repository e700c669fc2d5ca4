"""Makes the fixture of the measures' parity test. Needs scikit-learn and numpy.

    python generate.py

Cases are random logits of few and many classes, with ties and rare classes, and images with several labels. Expected values
are scikit-learn's: `roc_auc_score` (one against the rest, macro), `average_precision_score`, `balanced_accuracy_score`,
`f1_score` (macro) and, for sensitivity, the greatest true positive rate of `roc_curve` at a false positive rate of at most
one minus the specificity.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score, roc_curve

HERE = Path(__file__).parent
DRAW = np.random.default_rng(11)
SPECIFICITY = 0.9


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    # In single precision at last, so that equal rows tie whatever the order of their sums.
    return (shifted - np.log(np.exp(shifted).sum(1, keepdims=True))).astype(np.float32)


def classes_of(scores, truth):
    found = []
    for score, positive in zip(scores.T, truth.T):
        wrong, right, _ = roc_curve(positive, score, drop_intermediate=False)
        found.append({
            "auroc": roc_auc_score(positive, score),
            "average_precision": average_precision_score(positive, score),
            "sensitivity": right[wrong <= 1 - SPECIFICITY + 1e-9].max(),
        })
    return found


def single(examples, classes, step, shares):
    labels = DRAW.choice(classes, examples, p=shares)
    labels[:classes] = np.arange(classes)
    logits = DRAW.normal(size=(examples, classes)) + 1.2 * np.eye(classes)[labels]
    # Coarse steps make ties.
    logits = (np.rint(logits / step) * step).astype(np.float32)
    scores, truth = log_softmax(logits), np.eye(classes, dtype=int)[labels]
    predicted = logits.argmax(1)
    return {
        "several": False, "classes": classes, "logits": logits.ravel().tolist(), "labels": labels.tolist(),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "auroc": roc_auc_score(truth, scores, average="macro") if classes > 2 else roc_auc_score(labels, scores[:, 1]),
        "per_class": classes_of(scores, truth),
    }


def several(examples, classes):
    truth = (DRAW.random((examples, classes)) < np.linspace(0.05, 0.5, classes)).astype(int)
    truth[0], truth[1] = 1, 0
    scores = (np.rint((DRAW.normal(size=truth.shape) + truth) * 4) / 4).astype(np.float32)
    return {
        "several": True, "classes": classes, "logits": scores.ravel().tolist(), "labels": truth.ravel().tolist(),
        "auroc": roc_auc_score(truth, scores, average="macro"),
        "map": average_precision_score(truth, scores, average="macro"),
        "per_class": classes_of(scores, truth),
    }


cases = [
    single(120, 2, 0.01, [0.8, 0.2]),
    single(90, 2, 0.5, [0.5, 0.5]),
    single(150, 5, 0.25, [0.5, 0.3, 0.1, 0.06, 0.04]),
    several(100, 4),
]
(HERE / "expected.json").write_text(json.dumps({"specificity": SPECIFICITY, "cases": cases}) + "\n")
