"""How good a model is on the examples held out, beside what ranks without it, which the figures call the blend: NDCG@10, AUC, and how sure the difference is."""

import numpy as np

from examples import STOP, part
from said import Refused

DRAWS = 1000  # of the bootstrap
LEAST = 20  # examples held out of which something was taken


def ndcg(scores, taken, sizes):
    """NDCG@10 of each example; ties go to the row that came first."""
    result, at = np.zeros(len(sizes)), 0
    discount = 1 / np.log2(np.arange(2, 12))
    for n, size in enumerate(sizes):
        order = np.argsort(-scores[at:at + size], kind="stable")[:10]
        hits = taken[at:at + size][order]
        ideal = discount[:min(10, int(taken[at:at + size].sum()))].sum()
        result[n] = (hits * discount[:len(hits)]).sum() / ideal if ideal else 0.0
        at += size
    return result


def auc(scores, taken):
    """The share of pairs of a taken and another row that are in the right order."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    values, counts = np.unique(scores[order], return_counts=True)
    ends = np.cumsum(counts)
    ranks[order] = np.repeat(ends - (counts - 1) / 2, counts)
    ones = int(taken.sum())
    zeros = len(taken) - ones
    return float((ranks[taken > 0].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else None


def bootstrap(difference, users):
    """Where the mean of the difference lies in 95 of 100 draws of users."""
    _, which = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(which, difference), np.bincount(which)
    draws = np.random.default_rng(7)
    means = []
    for _ in range(DRAWS):
        drawn = draws.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return [float(value) for value in np.quantile(means, [0.025, 0.975])]


def with_taken(of):
    """Of which examples something was taken."""
    return np.maximum.reduceat(of["y"], np.append(0, np.cumsum(of["sizes"])[:-1])) > 0


def evaluate(data, model):
    earlier, test = part(data, 0, STOP), part(data, STOP, 1)
    scores, blend = model["score"](test["x"]), test["x"][:, data["names"].index(data["begins"])]
    some = with_taken(test)  # where nothing was taken no order is better
    if some.sum() < LEAST:
        raise Refused(f"of the {len(some)} examples held out {some.sum()} have something taken, at least {LEAST} must; log for longer")
    ours, theirs = (ndcg(by, test["y"], test["sizes"])[some] for by in (scores, blend))
    tenths = np.array_split(np.arange(len(ours)), 10)
    return {
        "examples": {"earlier": int(with_taken(earlier).sum()), "held_out": len(ours)},
        "from_ms": int(data["ts"][0]), "held_out_from_ms": int(test["ts"][0]), "until_ms": int(data["ts"][-1]),
        "ndcg_10": {"model": float(ours.mean()), "blend": float(theirs.mean()), "ahead": bootstrap(ours - theirs, test["user"][some])},
        "auc": {"model": auc(scores, test["y"]), "blend": auc(blend, test["y"])},
        "tenths": {"model": [float(ours[t].mean()) for t in tenths], "blend": [float(theirs[t].mean()) for t in tenths]},
        "importance": model["importance"],
    }
