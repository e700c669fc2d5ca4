"""Heads in closed form, each by the way its paper goes: recursions where ours keeps sums."""

import torch
import torch.nn.functional as F

LAMBDA, DUAL_LAMBDA, GAMMA = 0.1, 1e-3, 1.0
CANDIDATES = [10.0 ** power for power in range(-6, 2)]


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def one_hot(labels, classes):
    return F.one_hot(labels, classes).double()


def least_squares(h, y, weight):
    """`argmin |Y - H W|^2 + weight |W|^2` as a plain least-squares problem with rows added."""
    width = h.shape[1]
    rows = torch.cat([h, weight ** 0.5 * torch.eye(width).double()])
    return torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(width, y.shape[1]).double()]), driver="gelsd").solution


class Prototypes:
    """SimpleCIL (Zhou et al., 2023): class means of normalised features, compared by their cosine."""

    name = "simple-cil"

    def learn(self, u, y, classes, rows):
        own = [u[y == label].mean(0) for label in y.unique()]
        self.means = torch.cat([getattr(self, "means", u[:0]), torch.stack(own)])

    def answer(self, u):
        return {"prototypes": self.means}, u @ unit(self.means).T


class Recursive:
    """Recursive least squares, block by block: ACIL (Zhuang et al., 2022) and primal RAIL (Xu et al., 2024)."""

    def __init__(self, name, raw, projection):
        self.name, self.raw, self.projection = name, raw, projection
        width = projection.shape[1] + (1 + projection.shape[0] if raw else 0)
        self.inverse, self.weights = torch.eye(width).double() / LAMBDA, torch.zeros(width, 0).double()

    def expand(self, u):
        random = torch.relu(u @ self.projection)
        return torch.cat([torch.ones(len(u), 1).double(), u, random], 1) if self.raw else random

    def learn(self, u, y, classes, rows):
        h = self.expand(u)
        gain = torch.linalg.inv(torch.eye(len(h)).double() + h @ self.inverse @ h.T)
        self.inverse = self.inverse - self.inverse @ h.T @ gain @ h @ self.inverse
        new = torch.zeros(len(self.weights), classes - self.weights.shape[1]).double()
        self.weights = torch.cat([self.weights, new], 1)
        self.weights = self.weights + self.inverse @ h.T @ (one_hot(y, classes) - h @ self.weights)

    def answer(self, u):
        return {"weights.fixed": self.weights.T}, self.expand(u) @ self.weights


class RanPac:
    """RanPAC (McDonnell et al., 2023); the weight of the ridge is chosen, of multiples of the mean squared feature, by the squared
    error on samples that are held apart."""

    name = "ranpac"

    def __init__(self, projection, apart):
        self.projection, self.apart = projection, set(apart)
        self.h, self.y, self.rows = projection[:0], torch.zeros(0).long(), []

    def learn(self, u, y, classes, rows):
        self.h = torch.cat([self.h, torch.relu(u @ self.projection)])
        self.y, self.rows = torch.cat([self.y, y]), self.rows + rows
        apart = torch.tensor([row in self.apart for row in self.rows])
        targets = one_hot(self.y, classes)
        mean_square = lambda h: (h ** 2).sum() / h.shape[1]

        def error(factor):
            fitted = least_squares(self.h[~apart], targets[~apart], factor * mean_square(self.h[~apart]))
            return ((targets[apart] - self.h[apart] @ fitted) ** 2).sum().item()

        errors = [error(factor) for factor in CANDIDATES]
        best = CANDIDATES[errors.index(min(errors))]
        self.weights = least_squares(self.h, targets, best * mean_square(self.h))

    def answer(self, u):
        scores = torch.relu(u @ self.projection) @ self.weights
        return {"weights.fixed": self.weights.T}, scores


class Dual:
    """Dual RAIL (Xu et al., 2024): kernel ridge regression over all samples."""

    name = "rail-dual"

    def __init__(self):
        self.keys, self.y = torch.zeros(0, 24).double(), torch.zeros(0).long()

    def kernel(self, left, right):
        return torch.exp(-GAMMA * ((left[:, None] - right) ** 2).sum(-1))

    def learn(self, u, y, classes, rows):
        self.keys, self.y = torch.cat([self.keys, u]), torch.cat([self.y, y])
        ridge = DUAL_LAMBDA * torch.eye(len(self.keys)).double()
        # Keys are stored in single precision.
        keys = self.keys.float().double()
        self.votes = torch.linalg.solve(self.kernel(keys, keys) + ridge, one_hot(self.y, classes))

    def answer(self, u):
        return {"keys.fixed": self.keys, "votes.fixed": self.votes}, self.kernel(u, self.keys) @ self.votes


class FeCam:
    """FeCAM (Goswami et al., 2023): distances under the class's own covariance, shrunk and brought to a unit diagonal."""

    name = "fecam"

    def __init__(self):
        self.means, self.precisions = [], []

    def learn(self, u, y, classes, rows):
        for label in y.unique():
            own = u[y == label]
            covariance = torch.cov(own.T, correction=0)
            diagonal = torch.eye(len(covariance)).bool()
            shrunk = covariance + covariance[diagonal].mean() * diagonal + covariance[~diagonal].mean() * ~diagonal
            spread = shrunk.diagonal().sqrt()
            self.means.append(own.mean(0))
            self.precisions.append(torch.linalg.pinv(shrunk / torch.outer(spread, spread)))

    def answer(self, u):
        means, precisions = torch.stack(self.means), torch.stack(self.precisions)
        apart = u[:, None] - means
        distances = torch.einsum("ncd,cde,nce->nc", apart, precisions, apart)
        return {"means.fixed": means, "precisions.fixed": precisions}, -distances


def heads(stream):
    projection = torch.tensor(stream.order["projection"]).double().reshape(stream.train.shape[1], -1)
    all_heads = [Prototypes(), RanPac(projection, stream.order["apart"]), Recursive("acil", False, projection),
                 Recursive("rail", True, projection), Dual(), FeCam()]
    for head in all_heads:
        tensors, matrix = {}, []
        for experience, arrived, before in stream.arrivals():
            head.learn(unit(stream.train[arrived]), stream.labels[arrived], before + 2, arrived)
            values, scores = head.answer(unit(stream.test))
            # What only grows is there in the end.
            if not isinstance(head, (Dual, FeCam)) or len(arrived) + arrived[0] == len(stream.train):
                tensors.update({f"{experience}.{name}": value.float() for name, value in values.items()})
            matrix.append(stream.right(scores, experience))
        yield head.name, (tensors, matrix)
