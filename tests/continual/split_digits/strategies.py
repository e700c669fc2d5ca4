"""Strategies around the training of one linear head."""

import copy
import itertools

import torch
import torch.nn.functional as F

EWC, ONLINE, DECAY, SI, DAMPING, MAS, LWF, TEMPERATURE = 50.0, 50.0, 0.9, 0.5, 1e-3, 0.5, 4.0, 2.0
ALPHA, BETA, MARGIN, MIR, HOLD = 0.3, 0.5, 0.5, 4, 1e-3
# An even number is kept of two classes, whose changes are opposites of one another and so equal in size.
WISE, EMA, DENSITY = 0.6, 0.9, 0.32


class Head:
    """`W f + b` for the classes known, from zero."""

    def __init__(self, dim):
        self.values = {"weight": torch.zeros(0, dim).double(), "bias": torch.zeros(0).double()}

    def grow(self, classes):
        for name, value in self.values.items():
            new = torch.zeros(classes - len(value), *value.shape[1:]).double()
            self.set(name, torch.cat([value.detach(), new]))

    def set(self, name, value):
        self.values[name] = value.detach().clone().requires_grad_(True)

    def __call__(self, x):
        return x @ self.values["weight"].T + self.values["bias"]

    def copied(self):
        return {name: value.detach().clone() for name, value in self.values.items()}


def scores(values, x):
    return x @ values["weight"].T + values["bias"]


class Naive:
    name = "naive"
    # Which draws it goes through, and which it rehearses.
    batches, rehearses = "batches", ()
    # Whether what is trained is not what answers.
    trains_another = False
    # How close a decision between two ways came to the other one, where it takes any.
    narrowest = None

    def close(self, margin):
        self.narrowest = min(float(margin), self.narrowest or 1.0)

    def begin(self, head, stream, arrived, before):
        self.before = before

    def fresh(self, arrived, batch):
        """Positions of a batch among all examples."""
        return [arrived[at] for at in batch]

    def held(self, drawn):
        """Positions of rehearsed samples among all examples."""
        return drawn

    def entropy(self, head, stream, rows):
        return F.cross_entropy(head(stream.train[rows]), stream.labels[rows])

    def loss(self, head, stream, fresh, again):
        return self.entropy(head, stream, fresh)

    def of(self, head, loss):
        return dict(zip(head.values, torch.autograd.grad(loss, list(head.values.values()))))

    def gradients(self, head, stream, fresh, again, optimizer):
        return self.of(head, self.loss(head, stream, fresh, again))

    def stepped(self, gradients, before, after):
        pass

    def end(self, head, stream, arrived):
        pass

    def answer(self, head, stream):
        values = head.copied()
        return values, scores(values, stream.test)


def apart(head, importance, centre):
    """`sum F (theta - centre)^2` over what was there then."""
    return sum((f * (head.values[name][: len(f)] - centre[name]) ** 2).sum() for name, f in importance.items())


def mean_over(head, stream, arrived, of):
    """The mean over examples of what is made of each one's gradients."""
    sums = {name: torch.zeros_like(value) for name, value in head.copied().items()}
    for row in arrived:
        loss, change = of(head(stream.train[[row]]), stream.labels[[row]])
        for name, gradient in zip(sums, torch.autograd.grad(loss, list(head.values.values()))):
            sums[name] += change(gradient) / len(arrived)
    return sums


def squared_gradients(head, stream, arrived):
    return mean_over(head, stream, arrived, lambda z, y: (F.cross_entropy(z, y), torch.square))


class Ewc(Naive):
    """A term for each past experience (Kirkpatrick et al., 2017), without the factor 1/2."""

    name = "ewc"

    def __init__(self):
        self.terms = []

    def loss(self, head, stream, fresh, again):
        held = sum(apart(head, importance, centre) for importance, centre in self.terms)
        return self.entropy(head, stream, fresh) + EWC * held

    def end(self, head, stream, arrived):
        self.terms.append((squared_gradients(head, stream, arrived), head.copied()))


class OnlineEwc(Naive):
    """One fading sum around the latest values (Schwarz et al., 2018)."""

    name, weight = "online-ewc", ONLINE

    def __init__(self):
        self.sum, self.centre = {}, {}

    def loss(self, head, stream, fresh, again):
        return self.entropy(head, stream, fresh) + self.weight * apart(head, self.sum, self.centre)

    def end(self, head, stream, arrived):
        fresh = squared_gradients(head, stream, arrived)
        for name, value in self.sum.items():
            fresh[name][: len(value)] += DECAY * value
        self.sum, self.centre = fresh, head.copied()


class Averaged(OnlineEwc):
    """Importance brought to a greatest value of 1 and averaged over experiences."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def end(self, head, stream, arrived):
        self.count += 1
        own = self.importance(head, stream, arrived)
        greatest = max(value.max().item() for value in own.values())
        for name, value in own.items():
            value /= greatest * self.count
            if name in self.sum:
                value[: len(self.sum[name])] += self.sum[name] * (self.count - 1) / self.count
        self.sum, self.centre = own, head.copied()


class Si(Averaged):
    """Contributions along the way (Zenke et al., 2017)."""

    name, weight = "si", SI

    def begin(self, head, stream, arrived, before):
        self.start, self.path = head.copied(), {name: torch.zeros_like(v) for name, v in head.copied().items()}

    def stepped(self, gradients, before, after):
        for name, path in self.path.items():
            path -= gradients[name] * (after[name] - before[name])

    def importance(self, head, stream, arrived):
        now = head.copied()
        return {n: (p / ((now[n] - self.start[n]) ** 2 + DAMPING)).clamp(min=0) for n, p in self.path.items()}


class Mas(Averaged):
    """How much the squared length of the scores would change (Aljundi et al., 2018)."""

    name, weight = "mas", MAS

    def importance(self, head, stream, arrived):
        return mean_over(head, stream, arrived, lambda z, y: (z.square().sum(), torch.abs))


class Lwf(Naive):
    """What arrives is scored for the old classes as before (Li and Hoiem, 2016), with the factor T^2."""

    name = "lwf"

    def begin(self, head, stream, arrived, before):
        self.teacher = scores(head.copied(), stream.train)[:, :before]

    def distance(self, head, stream, rows):
        teacher = (self.teacher[rows] / TEMPERATURE).log_softmax(1)
        own = (head(stream.train[rows])[:, : teacher.shape[1]] / TEMPERATURE).log_softmax(1)
        return TEMPERATURE ** 2 * F.kl_div(own, teacher, log_target=True, reduction="batchmean")

    def loss(self, head, stream, fresh, again):
        own = self.entropy(head, stream, fresh)
        return own + LWF * self.distance(head, stream, fresh) if self.teacher.shape[1] else own


class Er(Naive):
    """One mean over what arrives and what is rehearsed (Chaudhry et al., 2019)."""

    name, rehearses = "er", ("rehearsed",)

    def loss(self, head, stream, fresh, again):
        return self.entropy(head, stream, fresh + again)


class ErAce(Er):
    """What arrives competes among its own classes, and among all where the memory that holds it already is rehearsed
    (Caccia et al., 2022)."""

    name, rehearses = "er-ace", ("joined",)

    def loss(self, head, stream, fresh, again):
        if not again:
            return self.entropy(head, stream, fresh)
        own = F.cross_entropy(head(stream.train[fresh])[:, self.before:], stream.labels[fresh] - self.before)
        return own + self.entropy(head, stream, again)


class AGem(Er):
    """The part of the gradient that works against the memory's is taken out (Chaudhry et al., 2019)."""

    name = "a-gem"

    def gradients(self, head, stream, fresh, again, optimizer):
        own = self.of(head, self.entropy(head, stream, fresh))
        if again:
            guide = self.of(head, self.entropy(head, stream, again))
            dot = lambda left, right: sum((left[name] * right[name]).sum() for name in left)
            product = dot(own, guide)
            if product < 0:
                own = {name: g - product / dot(guide, guide) * guide[name] for name, g in own.items()}
        return own


def shortest(guides, own, margin):
    """The `v >= margin` that make `own + guides^T v` shortest: the best of the solutions over all sets of free weights."""
    best = None
    for size in range(len(guides) + 1):
        for free in itertools.combinations(range(len(guides)), size):
            v = torch.full((len(guides),), margin).double()
            if free:
                rest = own + guides.T @ v - guides[list(free)].T @ v[list(free)]
                v[list(free)] = torch.linalg.lstsq(guides[list(free)].T, -rest[:, None]).solution[:, 0]
            length = (own + guides.T @ v).norm()
            if (v >= margin - 1e-12).all() and (best is None or length < best[0]):
                best = (length, v)
    return best[1]


class Gem(Naive):
    """A step works against no past experience (Lopez-Paz and Ranzato, 2017): the quadratic programme over the gradients of all
    that is remembered of each."""

    name = "gem"

    def begin(self, head, stream, arrived, before):
        self.past = [list(range(at, at + len(arrived))) for at in range(0, arrived[0], len(arrived))]

    def gradients(self, head, stream, fresh, again, optimizer):
        flat = lambda gradients: torch.cat([gradient.flatten() for gradient in gradients.values()])
        own = flat(self.of(head, self.entropy(head, stream, fresh)))
        if self.past:
            guides = torch.stack([flat(self.of(head, self.entropy(head, stream, rows))) for rows in self.past])
            products = guides @ own
            self.close(products.min().abs() / products.abs().max())
            if (products < 0).any():
                own = own + guides.T @ shortest(guides, own, MARGIN)
        parts = own.split([value.numel() for value in head.values.values()])
        return {name: part.reshape(value.shape) for (name, value), part in zip(head.values.items(), parts)}


class Der(Er):
    """Remembered scores are to be given again (Buzzega et al., 2020): their mean squared difference, over the classes known
    when they were remembered. They are kept in half precision."""

    name = "der"

    def __init__(self):
        self.remembered = {}

    def difference(self, head, stream, rows):
        own = head(stream.train[rows])
        squares = [(z[: len(self.remembered[row])] - self.remembered[row]) ** 2 for z, row in zip(own, rows)]
        return torch.cat(squares).mean()

    def loss(self, head, stream, fresh, again):
        own = self.entropy(head, stream, fresh)
        return own + ALPHA * self.difference(head, stream, again) if again else own

    def end(self, head, stream, arrived):
        for row, z in zip(arrived, head(stream.train[arrived]).detach()):
            self.remembered[row] = z.half().double()


class DerPlusPlus(Der):
    """And the cross entropy of a second, independent draw."""

    name, rehearses = "der-plus-plus", ("rehearsed", "second")

    def loss(self, head, stream, fresh, again):
        half = len(again) // 2
        own = super().loss(head, stream, fresh, again[:half])
        return own + BETA * self.entropy(head, stream, again[half:]) if again else own


class Mir(Er):
    """Rehearsed are those of the candidates whose loss a step on what arrives alone would raise most (Aljundi et al., 2019);
    the step is the optimizer's."""

    name, rehearses = "mir", ("candidates",)

    def gradients(self, head, stream, fresh, again, optimizer):
        if again:
            ahead = Head(stream.train.shape[1])
            for name, value in head.values.items():
                ahead.set(name, value)
            step = torch.optim.SGD(list(ahead.values.values()), lr=1.0)
            step.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for name, gradient in self.of(head, self.entropy(head, stream, fresh)).items():
                ahead.values[name].grad = gradient
            step.step()
            x, y = stream.train[again], stream.labels[again]
            rise = lambda one: F.cross_entropy(one(x), y, reduction="none").detach()
            rises = rise(ahead) - rise(head)
            most = rises.sort(descending=True, stable=True)
            self.close(most.values[MIR - 1] - most.values[MIR])
            again = [again[at] for at in most.indices[:MIR].tolist()]
        return super().gradients(head, stream, fresh, again, optimizer)


class Bic(Lwf):
    """Rehearsal with distillation, then a factor and an offset for the scores of the latest classes that are fitted to samples
    which are never trained on (Wu et al., 2019); classes count alike, and `hold` keeps the two close to 1 and 0."""

    name, batches, rehearses, trains_another = "bic", "open", ("open_rehearsed",), True

    def __init__(self):
        self.factors, self.offsets = torch.ones(0).double(), torch.zeros(0).double()

    def begin(self, head, stream, arrived, before):
        self.before, self.known = before, len(head.values["bias"])
        self.teacher = scores(head.copied(), stream.train)[:, :before] * self.factors + self.offsets

    def loss(self, head, stream, fresh, again):
        rows, share = fresh + again, self.before / self.known
        own = (1 - share) * self.entropy(head, stream, rows)
        return own + share * self.distance(head, stream, rows) if self.before else own

    def end(self, head, stream, arrived):
        new = self.known - self.before
        self.factors = torch.cat([self.factors, torch.ones(new).double()])
        self.offsets = torch.cat([self.offsets, torch.zeros(new).double()])
        if not self.before:
            return
        rows = [row for row in stream.order["held_out"] if row <= arrived[-1]]
        z, y = scores(head.copied(), stream.train[rows]) * self.factors + self.offsets, stream.labels[rows]
        counts = torch.bincount(y, minlength=self.known).double()
        weights = 1 / (counts[y] * (counts > 0).sum())
        latest = torch.arange(self.known) >= self.before

        def loss(both):
            corrected = torch.where(latest, both[0] * z + both[1], z)
            fit = (weights * F.cross_entropy(corrected, y, reduction="none")).sum()
            return fit + HOLD * ((both[0] - 1) ** 2 + both[1] ** 2)

        # Convex; a step that would go up is halved.
        both = torch.tensor([1.0, 0.0]).double()
        gradient, bend = torch.func.grad(loss), torch.func.hessian(loss)
        for step in range(60):
            towards = torch.linalg.solve(bend(both), gradient(both))
            while loss(both - towards) > loss(both) and towards.norm() > 1e-12:
                towards = towards / 2
            both = both - towards
        assert gradient(both).abs().max() < 1e-9
        self.factors[self.before:], self.offsets[self.before:] = both

    def answer(self, head, stream):
        values = {f"members.0.LinearHead.{name}": value for name, value in head.copied().items()}
        values["members.1.VectorScaling.factors"] = self.factors[:, None]
        values["members.1.VectorScaling.offsets"] = self.offsets[:, None]
        return values, scores(head.copied(), stream.test) * self.factors + self.offsets


class WiseFt(Naive):
    """The values lie between those before and those after (Wortsman et al., 2022)."""

    name = "wise-ft"

    def begin(self, head, stream, arrived, before):
        self.start = head.copied()

    def end(self, head, stream, arrived):
        for name, value in head.copied().items():
            head.set(name, (1 - WISE) * self.start[name] + WISE * value)


class Ema(Naive):
    """A fading mean of the values along the way, which begins with those before the first step."""

    name = "ema"

    def begin(self, head, stream, arrived, before):
        self.mean = head.copied()

    def stepped(self, gradients, before, after):
        self.mean = {name: EMA * value + (1 - EMA) * after[name] for name, value in self.mean.items()}

    def end(self, head, stream, arrived):
        for name, value in self.mean.items():
            head.set(name, value)


class MagMax(Naive):
    """Of the changes that each experience leaves, the greatest of each value (Marczak et al., 2024). All begin at zero."""

    name, trains_another = "magmax", True

    def __init__(self):
        self.changes = []

    def end(self, head, stream, arrived):
        self.changes.append(head.copied())

    def stacked(self):
        """`[experiences, values]`, with zeros where a class was not there yet."""
        shapes = {name: value.shape for name, value in self.changes[-1].items()}
        grown = lambda name, value: torch.cat([value, torch.zeros(shapes[name][0] - len(value), *shapes[name][1:])])
        rows = [torch.cat([grown(name, change[name]).flatten() for name in shapes]) for change in self.changes]
        return torch.stack(rows), shapes

    def merged(self):
        changes, shapes = self.stacked()
        return changes.gather(0, changes.abs().argmax(0, keepdim=True))[0], shapes

    def answer(self, head, stream):
        merged, shapes = self.merged()
        parts = merged.split([shape.numel() for shape in shapes.values()])
        values = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts)}
        return values, scores(values, stream.test)


class Ties(MagMax):
    """Trimmed to the greatest by size, a sign is elected, and the mean taken of those that agree (Yadav et al., 2023)."""

    name = "ties"

    def merged(self):
        rows, shapes = [], None
        # What is trimmed is what there was to change then.
        for change in self.changes:
            flat = torch.cat([value.flatten() for value in change.values()])
            least = flat.abs().sort(descending=True).values[round(DENSITY * len(flat)) - 1]
            rows.append({name: torch.where(value.abs() >= least, value, 0.0) for name, value in change.items()})
        self.changes, all_changes = rows, self.changes
        trimmed, shapes = self.stacked()
        self.changes = all_changes
        agree = (trimmed * trimmed.sum(0).sign()) > 0
        return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1), shapes
