"""ZSCL on the stream of digits: a linear head that is to score what arrives as zero-shot does: `frozen_teacher.safetensors`.

    python frozen_teacher.py        (torch, safetensors; reads features, words and the draws)

From the paper (Zheng et al., 2023, sections 3.2 to 3.4), in double precision, with ours in three places: the reference images are those
that arrive, classes are compared and not images, and the running mean takes up every step. The teacher is the frozen model over all
classes known, the distillation has the factor T^2, the squared distance to the values before the experience is a sum, and the mean
answers and is trained on from. Training goes through the steps of `order.json`; nothing is shared with ours but the settings.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from closed_form import unit
from generate import EXPERIENCES, HERE, Stream, run
from strategies import Naive

WEIGHT, TEMPERATURE, HOLD = 0.7, 2.0, 0.02


class Zscl(Naive):
    name = "zscl"

    def __init__(self, words, weight=WEIGHT, temperature=TEMPERATURE, hold=HOLD):
        self.texts, self.scale = unit(words["features"].double()), words["scale"].double()
        self.weight, self.temperature, self.hold = weight, temperature, hold

    def begin(self, head, stream, arrived, before):
        self.start = head.copied()
        self.along = [self.start]
        known = self.texts[: len(self.start["bias"])]
        self.teacher = (self.scale * unit(stream.train) @ known.T / self.temperature).softmax(1)

    def loss(self, head, stream, fresh, again):
        wanted = self.teacher[fresh]
        own = (head(stream.train[fresh]) / self.temperature).log_softmax(1)
        distance = (wanted * (wanted.log() - own)).sum(1).mean()
        held = sum(((value - self.start[name]) ** 2).sum() for name, value in head.values.items())
        return self.entropy(head, stream, fresh) + self.weight * self.temperature ** 2 * distance + self.hold * held

    def stepped(self, gradients, before, after):
        self.along.append(after)

    def end(self, head, stream, arrived):
        for name in self.start:
            head.set(name, torch.stack([values[name] for values in self.along]).mean(0))


def main():
    torch.set_num_threads(1)
    stream, words = Stream(), load_file(HERE / "words.safetensors")
    tensors, right = run(Zscl(words), stream)
    # Every part matters: without it the values are others.
    for without in [{"weight": 0.0}, {"temperature": 1.0}, {"hold": 0.0}]:
        other, answers = run(Zscl(words, **without), stream)
        apart = {name: ((other[name] - value).abs().max() / value.abs().max()).item() for name, value in tensors.items()}
        print(without, f"at least {min(apart.values()):.1e}", answers[-1])
    print("zscl", right)
    out = {f"zscl.{name}": value for name, value in tensors.items()}
    out["right"] = torch.tensor([row + [0] * (EXPERIENCES - len(row)) for row in right]).float()
    save_file({name: value.float().contiguous() for name, value in out.items()}, HERE / "frozen_teacher.safetensors")


if __name__ == "__main__":
    main()
