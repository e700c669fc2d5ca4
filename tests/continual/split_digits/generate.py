"""A stream of five experiences of two digits each, learned by a linear head under eight strategies in PyTorch.

    python generate.py features DATA      (writes features.safetensors; DATA holds mnist/, see the data's own README)
    python generate.py                    (writes expected.safetensors and expected.json)

Both write beside this file; torch, safetensors. In between the test writes `order.json` (`INARCH_WRITE_FIXTURES=1`): which
examples each step goes through and which it rehearses, of what came before or (`joined`) of that and what arrives. Of the
10,000 test digits of MNIST the first 20 of each class are learned and the next 10 tested. A feature is the mean grey of
24 fields of 6 by 4 pixels. Everything here is written from the papers' formulas in double precision, one term for each
past experience where the papers have that; it shares nothing with ours but the settings.
"""

import gzip
import json
import struct
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
EXPERIENCES, CLASSES, TRAIN, TEST, DIM = 5, 2, 20, 10, 24
RATE, MOMENTUM = 0.2, 0.9
EWC, ONLINE, DECAY, SI, DAMPING, LWF, TEMPERATURE = 50.0, 50.0, 0.9, 0.5, 1e-3, 4.0, 2.0


def features(data):
    images = gzip.decompress((data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((data / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    count, rows, columns = struct.unpack(">III", images[4:16])
    pixels = torch.frombuffer(bytearray(images[16:]), dtype=torch.uint8).reshape(count, rows, columns)
    labels = torch.frombuffer(bytearray(labels[8:]), dtype=torch.uint8).long()
    fields = pixels[:, 2:26, 2:26].double().div(255).reshape(count, 4, 6, 6, 4).mean((2, 4)).reshape(count, DIM)
    of = lambda digit: fields[labels == digit]
    train = torch.cat([of(digit)[:TRAIN] for digit in range(10)])
    test = torch.cat([of(digit)[TRAIN:TRAIN + TEST] for digit in range(10)])
    save_file({"train": train.float(), "test": test.float()}, HERE / "features.safetensors")


class Head:
    """`W f + b` for the classes known, from zero, with what a strategy keeps beside it."""

    def __init__(self):
        self.values = {"weight": torch.zeros(0, DIM).double(), "bias": torch.zeros(0).double()}

    def grow(self, classes):
        for name, value in self.values.items():
            new = torch.zeros(classes - len(value), *value.shape[1:]).double()
            self.values[name] = torch.cat([value.detach(), new]).requires_grad_(True)

    def __call__(self, x):
        return x @ self.values["weight"].T + self.values["bias"]

    def copied(self):
        return {name: value.detach().clone() for name, value in self.values.items()}


class Naive:
    rehearses = None

    def begin(self, head, x, y, before):
        pass

    def loss(self, head, x, y, again):
        return F.cross_entropy(head(x), y)

    def gradients(self, head, x, y, again):
        loss = self.loss(head, x, y, again)
        return dict(zip(head.values, torch.autograd.grad(loss, list(head.values.values()))))

    def stepped(self, gradients, before, after):
        pass

    def end(self, head, x, y):
        pass


def squared_gradients(head, x, y):
    """The mean over examples of the squared gradient of each one's own loss."""
    sums = {name: torch.zeros_like(value) for name, value in head.copied().items()}
    for row, label in zip(x, y):
        loss = F.cross_entropy(head(row[None]), label[None])
        for name, gradient in zip(sums, torch.autograd.grad(loss, list(head.values.values()))):
            sums[name] += gradient ** 2 / len(x)
    return sums


def apart(head, importance, centre):
    """`sum F (theta - centre)^2` over what was there then."""
    return sum((f * (head.values[name][: len(f)] - centre[name]) ** 2).sum() for name, f in importance.items())


class Ewc(Naive):
    """A term for each past experience (Kirkpatrick et al., 2017), without the factor 1/2."""

    def __init__(self):
        self.terms = []

    def loss(self, head, x, y, again):
        return super().loss(head, x, y, again) + EWC * sum(apart(head, f, centre) for f, centre in self.terms)

    def end(self, head, x, y):
        self.terms.append((squared_gradients(head, x, y), head.copied()))


class OnlineEwc(Naive):
    """One fading sum around the latest values (Schwarz et al., 2018)."""

    def __init__(self):
        self.sum, self.centre = {}, {}

    def loss(self, head, x, y, again):
        return super().loss(head, x, y, again) + ONLINE * apart(head, self.sum, self.centre)

    def end(self, head, x, y):
        fresh = squared_gradients(head, x, y)
        for name, value in self.sum.items():
            fresh[name][: len(value)] += DECAY * value
        self.sum, self.centre = fresh, head.copied()


class Si(OnlineEwc):
    """Contributions along the way (Zenke et al., 2017), brought to a greatest value of 1 and averaged over experiences."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def begin(self, head, x, y, before):
        self.start, self.path = head.copied(), {name: torch.zeros_like(v) for name, v in head.copied().items()}

    def loss(self, head, x, y, again):
        return F.cross_entropy(head(x), y) + SI * apart(head, self.sum, self.centre)

    def stepped(self, gradients, before, after):
        for name, path in self.path.items():
            path -= gradients[name] * (after[name] - before[name])

    def end(self, head, x, y):
        now = head.copied()
        self.count += 1
        own = {n: (p / ((now[n] - self.start[n]) ** 2 + DAMPING)).clamp(min=0) for n, p in self.path.items()}
        greatest = max(value.max().item() for value in own.values())
        for name, value in own.items():
            value /= greatest * self.count
            if name in self.sum:
                value[: len(self.sum[name])] += self.sum[name] * (self.count - 1) / self.count
        self.sum, self.centre = own, now


class Lwf(Naive):
    """What arrives is scored for the old classes as before (Li and Hoiem, 2016), with the factor T^2."""

    def begin(self, head, x, y, before):
        self.old, self.known = head.copied(), before

    def loss(self, head, x, y, again):
        own = head(x)
        loss = F.cross_entropy(own, y)
        if self.known == 0:
            return loss
        teacher = (x @ self.old["weight"].T + self.old["bias"])[:, : self.known] / TEMPERATURE
        own = (own[:, : self.known] / TEMPERATURE).log_softmax(1)
        distance = F.kl_div(own, teacher.log_softmax(1), log_target=True, reduction="batchmean")
        return loss + LWF * TEMPERATURE ** 2 * distance


class Er(Naive):
    rehearses = "rehearsed"

    def loss(self, head, x, y, again):
        if again is None:
            return F.cross_entropy(head(x), y)
        return F.cross_entropy(head(torch.cat([x, again[0]])), torch.cat([y, again[1]]))


class ErAce(Er):
    """What arrives competes among its own classes, and among all where the memory that holds it already is rehearsed
    (Caccia et al., 2022)."""

    rehearses = "joined"

    def begin(self, head, x, y, before):
        self.before = before

    def loss(self, head, x, y, again):
        if again is None:
            return F.cross_entropy(head(x), y)
        own = F.cross_entropy(head(x)[:, self.before:], y - self.before)
        return own + F.cross_entropy(head(again[0]), again[1])


class AGem(Er):
    """The part of the gradient that works against the memory's is taken out (Chaudhry et al., 2019)."""

    def gradients(self, head, x, y, again):
        of = lambda x, y: torch.autograd.grad(F.cross_entropy(head(x), y), list(head.values.values()))
        own = of(x, y)
        if again is not None:
            guide = of(*again)
            dot = lambda left, right: sum((a * b).sum() for a, b in zip(left, right))
            product = dot(own, guide)
            if product < 0:
                own = [a - product / dot(guide, guide) * b for a, b in zip(own, guide)]
        return dict(zip(head.values, own))


def run(strategy, data, order):
    labels = torch.arange(10).repeat_interleave(TRAIN)
    train, test = data["train"].double(), data["test"].double()
    truth = torch.arange(10).repeat_interleave(TEST)
    head, each, tensors, matrix = Head(), CLASSES * TRAIN, {}, []
    for experience in range(EXPERIENCES):
        before = CLASSES * experience
        rows = slice(each * experience, each * (experience + 1))
        x, y = train[rows], labels[rows]
        head.grow(before + CLASSES)
        strategy.begin(head, x, y, before)
        optimizer = torch.optim.SGD(list(head.values.values()), lr=RATE, momentum=MOMENTUM)
        for step, batch in enumerate(order["batches"][experience]):
            drawn = order[strategy.rehearses][experience][step] if strategy.rehearses else []
            again = (train[drawn], labels[drawn]) if drawn else None
            gradients, start = strategy.gradients(head, x[batch], y[batch], again), head.copied()
            for name, value in head.values.items():
                value.grad = gradients[name]
            optimizer.step()
            strategy.stepped(gradients, start, head.copied())
        strategy.end(head, x, y)
        for name, value in head.copied().items():
            tensors[f"{experience}.{name}"] = value.float()
        right = head(test).argmax(1) == truth
        seen = right.reshape(EXPERIENCES, -1)[: experience + 1]
        matrix.append([count.item() for count in seen.sum(1)])
    return tensors, matrix


def main():
    data, order = load_file(HERE / "features.safetensors"), json.loads((HERE / "order.json").read_text())
    strategies = {"naive": Naive(), "ewc": Ewc(), "online-ewc": OnlineEwc(), "si": Si(), "lwf": Lwf(), "er": Er(),
                  "er-ace": ErAce(), "a-gem": AGem()}
    tensors, right = {}, {}
    for name, strategy in strategies.items():
        own, right[name] = run(strategy, data, order)
        tensors.update({f"{name}.{key}": value for key, value in own.items()})
        print(name, right[name][-1], sum(right[name][-1]))
    save_file(tensors, HERE / "expected.safetensors")
    lines = ",\n".join(f'"{name}": {json.dumps(rows)}' for name, rows in right.items())
    (HERE / "expected.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    features(Path(sys.argv[2])) if sys.argv[1:2] == ["features"] else main()
