"""Primal and dual RAIL beside zero-shot, over all ten classes, whatever has been learned: `zero_shot.safetensors`.

    python zero_shot.py        (torch, safetensors; reads features, words and the random projection of `order.json`)

Primal RAIL holds on to zero-shot: `argmin |Y - H V|^2 + lambda |V - V0|^2`, where `V0` scores a class by `k cos + b` and `k` and `b` are
the least-squares fit of these lines to the one-hot targets of what was learned. Here it is a plain least-squares problem of all that
has come, with a row for each weight. An image whose zero-shot class among all ten has not been learned keeps its zero-shot scores (Xu et
al., 2024, section 4.3); any other one is scored by the ridge.
"""

import torch
from safetensors.torch import load_file, save_file

from closed_form import LAMBDA, Dual, one_hot, unit
from generate import CLASSES, EXPERIENCES, HERE, Stream

SHARPNESS = 10.0


class Primal:
    name = "rail"

    def __init__(self, projection, words):
        self.projection, self.words = projection, words

    def expand(self, u):
        return torch.cat([torch.ones(len(u), 1).double(), u, torch.relu(u @ self.projection)], 1)

    def learn(self, stream, classes, rows):
        u, words = unit(stream.train[rows]), self.words[:classes]
        h, y = self.expand(u), one_hot(stream.labels[rows], classes)
        cosines = (u @ words.T).flatten()
        line = torch.stack([cosines, torch.ones_like(cosines)], 1)
        k, b = torch.linalg.lstsq(line, y.flatten()[:, None]).solution[:, 0]
        # Words that fit worse than chance would say nothing, and these do not.
        assert k > 0.1
        start = torch.cat([torch.full((1, classes), b.item()).double(), k * words.T,
                           torch.zeros(self.projection.shape[1], classes).double()])
        held = LAMBDA ** 0.5 * torch.eye(h.shape[1]).double()
        self.weights = torch.linalg.lstsq(torch.cat([h, held]), torch.cat([y, held @ start]), driver="gelsd").solution

    def scores(self, u):
        return self.expand(u) @ self.weights

    def values(self):
        return {"weights.fixed": self.weights.T}


class Kernel(Dual):
    def learn(self, stream, classes, rows):
        super().__init__()
        super().learn(unit(stream.train[rows]), stream.labels[rows], classes, rows)

    def scores(self, u):
        return self.answer(u)[1]

    def values(self):
        return {}


def main():
    torch.set_num_threads(1)
    stream, words = Stream(), load_file(HERE / "words.safetensors")
    projection = torch.tensor(stream.order["projection"]).double().reshape(stream.train.shape[1], -1)
    texts = unit(words["features"].double())
    u = unit(stream.test)
    zero_shot = words["scale"].double() * u @ texts.T
    tensors = {"zero-shot": zero_shot}
    for head in [Primal(projection, texts), Kernel()]:
        right, mixed = torch.zeros(EXPERIENCES, EXPERIENCES), []
        for experience, arrived, before in stream.arrivals():
            classes = before + CLASSES
            head.learn(stream, classes, list(range(arrived[-1] + 1)))
            chosen, own = zero_shot.argmax(1), SHARPNESS * head.scores(u)
            learned = chosen < classes
            what = f"{head.name}.{experience}"
            tensors.update({f"{what}.{name}": value for name, value in head.values().items()})
            tensors[f"{what}.scores"], tensors[f"{what}.learned"] = own, learned.float()
            answer = torch.where(learned, own.argmax(1), chosen)
            right[experience] = (answer == stream.truth).reshape(EXPERIENCES, -1).sum(1)
            # What the authors make of it: probabilities of zero-shot and scores of the ridge in one sum, over what has been learned.
            probabilities = (100 * u @ texts.T).softmax(1)[:, :classes]
            both = torch.where(learned, (0.2 * probabilities + 0.8 * own / SHARPNESS).argmax(1), chosen)
            mixed.append((both == stream.truth).sum().item())
        tensors[f"{head.name}.right"] = right
        print(head.name, right.sum(1).int().tolist(), "the authors' mix", mixed)
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, HERE / "zero_shot.safetensors")


if __name__ == "__main__":
    main()
