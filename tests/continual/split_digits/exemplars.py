"""Strategies whose small memory decides: of `CAPACITY` samples, whatever the classes."""

import torch
import torch.nn.functional as F

from strategies import Er, Lwf, Naive

CAPACITY, ICARL = 40, 1.0


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def herding(rows):
    """The order of exemplars (Rebuffi et al., 2017, algorithm 4): each brings their mean closest to that of all."""
    mean, chosen, left = rows.mean(0), [], list(range(len(rows)))
    while left:
        distance = [(mean - rows[chosen + [at]].mean(0)).norm().item() for at in left]
        chosen.append(left.pop(distance.index(min(distance))))
    return chosen


class Balanced:
    """A list for each class, the most wanted first: by hash. Each class has as many places as the others, as far as that goes; the
    last round goes by hash."""

    def __init__(self, stream):
        self.stream, self.of_class = stream, {}
        self.hashed = {row: place for place, row in enumerate(stream.order["ranks"])}

    def ordered(self, rows):
        return sorted(rows, key=self.hashed.get)

    def add(self, arrived):
        for row in self.ordered(arrived):
            self.of_class.setdefault(self.stream.labels[row].item(), []).append(row)
        places = [(place, self.hashed[row], row) for rows in self.of_class.values() for place, row in enumerate(rows)]
        kept = {row for _, _, row in sorted(places)[:CAPACITY]}
        self.of_class = {label: [row for row in rows if row in kept] for label, rows in self.of_class.items()}

    def rows(self):
        return sorted(row for rows in self.of_class.values() for row in rows)


class Herded(Balanced):
    """Classes shrink to the first exemplars that were chosen among all samples (algorithm 5)."""

    def ordered(self, rows):
        ordered = []
        for label in self.stream.labels[rows].unique():
            own = [row for row in rows if self.stream.labels[row] == label]
            ordered += [own[at] for at in herding(unit(self.stream.train[own]))]
        return ordered

    def means(self, classes):
        """The mean of normalised exemplars of each class."""
        return torch.stack([unit(self.stream.train[self.of_class[label]]).mean(0) for label in range(classes)])


class Icarl(Lwf):
    """Cross entropy and distillation over what arrives and exemplars; the nearest mean of these answers. On a head alone the features
    are those that are given, so that what is trained does not answer."""

    name, rehearses, trains_another = "icarl", ("exemplars",), True

    def begin(self, head, stream, arrived, before):
        super().begin(head, stream, arrived, before)
        if not before:
            self.memory = Herded(stream)
        self.places = self.memory.rows()

    def held(self, drawn):
        return [self.places[place] for place in drawn]

    def loss(self, head, stream, fresh, again):
        own = self.entropy(head, stream, fresh + again)
        return own + ICARL * self.distance(head, stream, fresh + again) if self.teacher.shape[1] else own

    def end(self, head, stream, arrived):
        self.memory.add(arrived)

    def answer(self, head, stream):
        means = unit(self.memory.means(len(head.values["bias"])))
        return {"members.0.LinearProbe.prototypes": means}, -torch.cdist(unit(stream.test), means)


class Nme:
    """The nearest mean of exemplars alone."""

    def run(self, stream):
        memory, tensors, matrix = Herded(stream), {}, []
        for experience, arrived, before in stream.arrivals():
            memory.add(arrived)
            means = memory.means(before + 2)
            tensors[f"{experience}.prototypes"] = means.float()
            matrix.append(stream.right(-torch.cdist(unit(stream.test), unit(means)), experience))
        return tensors, matrix


class Gdumb(Naive):
    """A balanced memory, and a head that is trained on it from zero (Prabhu et al., 2020)."""

    name = "gdumb"

    def begin(self, head, stream, arrived, before):
        if not before:
            self.memory = Balanced(stream)
        self.memory.add(arrived)
        self.places = self.memory.rows()
        for name, value in head.copied().items():
            head.set(name, torch.zeros_like(value))

    def fresh(self, arrived, batch):
        return [self.places[place] for place in batch]


class Gss(Er):
    """Samples whose gradients point elsewhere stay (Aljundi et al., 2019, algorithm 2), after each training; ER."""

    name, rehearses = "gss-greedy", ("exemplars",)

    def __init__(self):
        self.score = {}
        self.replaced = 0

    def begin(self, head, stream, arrived, before):
        self.places = sorted(self.score)

    def held(self, drawn):
        return [self.places[place] for place in drawn]

    def direction(self, head, stream, row):
        gradients = self.of(head, self.entropy(head, stream, [row]))
        return F.normalize(torch.cat([gradient.flatten() for gradient in gradients.values()]), dim=0)

    def end(self, head, stream, arrived):
        draws, experience = stream.order["gss"], arrived[0] // len(arrived)
        chance = lambda name, row: (draws[name][row] + 0.5) / 2 ** 32
        order = draws["orders"][experience]
        for part in range(4):
            held, new = sorted(self.score), [arrived[at] for at in order[10 * part:10 * part + 10]]
            others = [self.direction(head, stream, held[at]) for at in draws["compared"][experience][part]]
            # Scores of a batch are found together.
            found = [max([(self.direction(head, stream, row) @ one).item() for one in others], default=0.0) + 1
                     for row in new]
            for row, score in zip(new, found):
                if len(self.score) < CAPACITY:
                    self.score[row] = score
                    continue
                self.close(abs(score - 1))
                if score >= 1:
                    continue
                left, rows = chance("victims", row) * sum(self.score.values()), sorted(self.score)
                for drawn in rows:
                    self.close(abs(left - self.score[drawn]))
                    left -= self.score[drawn]
                    if left < 0:
                        break
                own, limit = self.score[drawn], chance("chances", row)
                self.close(abs(limit - own / (own + score)))
                if limit < own / (own + score):
                    del self.score[drawn]
                    self.score[row] = score
                    self.replaced += 1
