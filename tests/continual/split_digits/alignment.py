"""SLCA on the stream of digits: a bottleneck and class rows, trained slowly and quickly, then rows aligned with Gaussians.

    python alignment.py        (torch, safetensors; reads features, words and the draws; writes alignment.safetensors)

From the paper (Zhang et al., 2023, sections 3.2 and 3.3), in double precision. The test writes all that is drawn into `alignment.json`
(`INARCH_WRITE_FIXTURES=1`): the first values of the bottleneck, normal numbers for the features that are drawn, and which of these make
a step. Training goes through the steps of `order.json`. Of it all nothing is shared with ours but the settings.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from generate import CLASSES, DIM, HERE, MOMENTUM, RATE, Stream

SLOW, TEMPERATURE, RATIO, LENGTH = 0.1, 0.1, 0.6, 10.0


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


class Model(torch.nn.Module):
    """CLIP-Adapter on the features, and one row for each class, compared by the cosine."""

    def __init__(self, down, up, rows, scale):
        super().__init__()
        self.down, self.up, self.rows = map(torch.nn.Parameter, (down, up, rows))
        self.scale = scale

    def features(self, x):
        return RATIO * F.relu(F.relu(x @ self.down) @ self.up) + (1 - RATIO) * x

    def scores(self, features):
        return self.scale * unit(features) @ unit(self.rows).T

    def values(self):
        named = {"members.0.ClipAdapter.image.down": self.down, "members.0.ClipAdapter.image.up": self.up,
                 "members.1.LinearProbe.prototypes": self.rows}
        return {name: value.detach().clone() for name, value in named.items()}


def train(groups, steps, loss):
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    for step in steps:
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


def separate(model, stream, arrived, before, steps):
    """Cross entropy among the classes that arrive; the representation moves slowly."""

    def loss(batch):
        rows = [arrived[at] for at in batch]
        scores = model.scores(model.features(stream.train[rows]))
        return F.cross_entropy(scores[:, before:], stream.labels[rows] - before)

    slow = {"params": [model.down, model.up], "lr": SLOW * RATE}
    train([{"params": [model.rows]}, slow], steps, loss)


def aligned(model, gaussians, experience, normals, steps):
    """The rows trained further on draws from the Gaussians of all classes; the means of old ones have shrunk."""
    drawn, labels = [], []
    for (label, (first, mean, covariance)), noise in zip(gaussians.items(), normals):
        factor = torch.linalg.cholesky(covariance + 1e-4 * torch.eye(DIM).double())
        shrunk = mean * (0.9 + 0.1 * (first + 1) / (experience + 1))
        drawn.append(shrunk + torch.tensor(noise).double().reshape(-1, DIM) @ factor.T)
        labels += [label] * len(drawn[-1])
    drawn, labels = torch.cat(drawn), torch.tensor(labels)
    head = Model(model.down.detach(), model.up.detach(), model.rows.detach().clone(), model.scale)

    def loss(rows):
        scores = head.scores(drawn[rows])
        return F.cross_entropy(scores / (scores.norm(dim=1, keepdim=True) * TEMPERATURE), labels[rows])

    train([{"params": [head.rows]}], steps, loss)
    return head


def main():
    torch.set_num_threads(1)
    stream, words = Stream(), load_file(HERE / "words.safetensors")
    draws = json.loads((HERE / "alignment.json").read_text())
    texts, scale = LENGTH * unit(words["features"].double()), words["scale"].double()
    square = lambda name: torch.tensor(draws[name]).double()
    model = Model(square("down").reshape(DIM, -1), square("up").reshape(-1, DIM), texts[:0], scale)
    tensors, gaussians, right = {}, {}, []
    for experience, arrived, before in stream.arrivals():
        model.rows = torch.nn.Parameter(torch.cat([model.rows.detach(), texts[before:before + CLASSES]]))
        separate(model, stream, arrived, before, stream.order["batches"][experience])
        with torch.no_grad():
            features = model.features(stream.train)
        for label in range(before, before + CLASSES):
            own = features[stream.labels == label]
            gaussians[label] = (experience, own.mean(0), torch.cov(own.T))
            tensors[f"gaussian-{label:06}.mean"] = own.mean(0)
            tensors[f"gaussian-{label:06}.scatter"] = torch.cov(own.T) * (len(own) - 1)
        head = model
        if before:
            head = aligned(model, gaussians, experience, draws["normals"][experience], draws["steps"][experience])
        tensors.update({f"slca.{experience}.{name}": value for name, value in head.values().items()})
        tensors.update({f"slca.{experience}.trained.{name}": value for name, value in model.values().items()})
        with torch.no_grad():
            right.append(stream.right(head.scores(model.features(stream.test)), experience))
            unaligned = stream.right(model.scores(model.features(stream.test)), experience)
        print(right[-1], "without alignment", unaligned)
    counts = [row + [0] * (len(right) - len(row)) for row in right]
    tensors["right"] = torch.tensor(counts).double()
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, HERE / "alignment.safetensors")


if __name__ == "__main__":
    main()
