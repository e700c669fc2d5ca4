"""A stream of five experiences of two digits each, learned in PyTorch by a linear head under many strategies, and by heads in closed form.

    python generate.py features DATA      (writes features.safetensors; DATA holds mnist/, see the data's own README)
    python generate.py                    (writes expected.safetensors and expected.json)

Both write beside this file; torch, safetensors. In between the test writes `order.json` (`INARCH_WRITE_FIXTURES=1`), which is all that is
drawn: the examples that each step goes through and those that it rehearses, who is held out, whose hash comes first. Of the 10,000
test digits of MNIST the first 20 of each class are learned and the next 10 tested. A feature is the mean grey of 24 fields of 6
by 4 pixels. Everything here is written from the papers' formulas in double precision, one term for each past experience where the
papers have that; it shares nothing with ours but the settings. `strategies.py`: what a training does; `exemplars.py`: what depends on
which samples a small memory keeps; `closed_form.py`: heads that are solved.
"""

import gzip
import json
import struct
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from closed_form import heads
from exemplars import Gdumb, Gss, Icarl, Nme
from strategies import (AGem, Bic, Der, DerPlusPlus, Ema, Er, ErAce, Ewc, Gem, Head, Lwf, MagMax, Mas, Mir, Naive,
                        OnlineEwc, Si, Ties, WiseFt)

HERE = Path(__file__).resolve().parent
EXPERIENCES, CLASSES, TRAIN, TEST, DIM = 5, 2, 20, 10, 24
RATE, MOMENTUM = 0.2, 0.9


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


class Stream:
    """What arrives, all labels, and the draws."""

    def __init__(self):
        data = load_file(HERE / "features.safetensors")
        self.train, self.test = data["train"].double(), data["test"].double()
        self.labels = torch.arange(10).repeat_interleave(TRAIN)
        self.truth = torch.arange(10).repeat_interleave(TEST)
        self.order = json.loads((HERE / "order.json").read_text())

    def arrivals(self):
        """Number, positions of the examples, classes known before."""
        each = CLASSES * TRAIN
        for experience in range(EXPERIENCES):
            yield experience, list(range(each * experience, each * (experience + 1))), CLASSES * experience

    def right(self, scores, experience):
        """Right answers of each experience so far."""
        right = (scores.argmax(1) == self.truth).reshape(EXPERIENCES, -1)[: experience + 1]
        return [count.item() for count in right.sum(1)]


def run(strategy, stream):
    head, tensors, matrix = Head(DIM), {}, []
    for experience, arrived, before in stream.arrivals():
        head.grow(before + CLASSES)
        strategy.begin(head, stream, arrived, before)
        optimizer = torch.optim.SGD(list(head.values.values()), lr=RATE, momentum=MOMENTUM)
        for step, batch in enumerate(stream.order[strategy.batches][experience]):
            fresh = strategy.fresh(arrived, batch)
            again = [row for draw in strategy.rehearses for row in stream.order[draw][experience][step]]
            again = strategy.held(again)
            gradients, start = strategy.gradients(head, stream, fresh, again, optimizer), head.copied()
            for name, value in head.values.items():
                value.grad = gradients[name]
            optimizer.step()
            strategy.stepped(gradients, start, head.copied())
        strategy.end(head, stream, arrived)
        values, scores = strategy.answer(head, stream)
        tensors.update({f"{experience}.{name}": value.float() for name, value in values.items()})
        if strategy.trains_another:
            tensors.update({f"{experience}.trained.{name}": value.float() for name, value in head.copied().items()})
        matrix.append(stream.right(scores, experience))
    return tensors, matrix


def main():
    # Sums in one order on every machine, and small matrices without threads that wait.
    torch.set_num_threads(1)
    stream = Stream()
    strategies = [Naive(), Ewc(), OnlineEwc(), Si(), Mas(), Lwf(), Er(), ErAce(), AGem(), Gem(), Der(), DerPlusPlus(),
                  Mir(), Bic(), WiseFt(), Ema(), MagMax(), Ties(), Gss(), Icarl(), Gdumb()]
    tensors, right = {}, {}
    for name, (own, matrix) in [*((one.name, run(one, stream)) for one in strategies), ("nme", Nme().run(stream)),
                                *heads(stream)]:
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in own.items()})
        right[name] = matrix
        print(name, matrix[-1], sum(matrix[-1]))
    for strategy in strategies:
        if strategy.narrowest is not None:
            print(f"{strategy.name}: the closest decision was {strategy.narrowest:.1e} from the other one")
    save_file(tensors, HERE / "expected.safetensors")
    lines = ",\n".join(f'"{name}": {json.dumps(rows)}' for name, rows in right.items())
    (HERE / "expected.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    features(Path(sys.argv[2])) if sys.argv[1:2] == ["features"] else main()
