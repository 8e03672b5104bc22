"""DeepFM on all columns there are: how likely a candidate is taken.

    z = b + w·x + sum over f < g of (v_f·v_g) x_f x_g + MLP(v_1 x_1, v_2 x_2, …)      score = 1 / (1 + e^-z)

`x` is a row, standardised and cut off at six deviations; every feature f has a vector v_f; the MLP has 64 and 16 hidden units. It is handed
the vectors side by side, not summed: a sum is all the factorisation machine sees already. Because each of them is v_f times a number,
its first layer is one matrix of features by units, made of v and w1, and is written as such.

The score of what ranks without it is one of the features. What is learned begins as that score alone, so that it departs from it only where
the examples say so, and what is kept is the running mean of all weights. The same examples give the same model, bit by bit, on one machine.
"""

import numpy as np
from examples import STOP, TRAIN, beginning, columns, part
from export import Graph
from said import Refused, say

FACTORS, HIDDEN = 8, (64, 16)
FARTHEST = 6.0  # deviations
BATCH = 32  # examples
ROUNDS, PATIENCE = 14, 2
RATE, MEMORY = 1e-3, (0.9, 0.999)  # Adam's
KEPT = 0.999  # of the running mean, a step
SEED = 7
CHUNK = 65_536  # rows that are scored at once


def train(data):
    """Adam on the logistic loss. The part before the last says after how many rounds to stop; then both are trained on for as many."""
    takes, begins, (_, slope) = data["takes"], data["takes"].index(data["begins"]), beginning(data)
    at = columns(data, takes)
    both, fit, stop = part(data, 0, STOP), part(data, 0, TRAIN), part(data, TRAIN, STOP)
    mean = both["x"].mean(0, dtype=np.float64)[at].astype(np.float32)
    scale = (1 / (both["x"].std(0, dtype=np.float64)[at] + 1e-6)).astype(np.float32)

    def standardised(rows):
        x = rows[:, at]
        x -= mean
        x *= scale
        return np.clip(x, -FARTHEST, FARTHEST, out=x)

    taken = both["y"].mean()
    if not 0 < taken < 1:
        raise Refused("all or none of the candidates were taken: there is nothing to tell apart; log more examples")
    x = standardised(both["x"])
    first = begin(len(at), begins, slope / scale[begins], taken)
    best, rounds = np.inf, 0
    for number, weights in enumerate(learned(first, x, fit, ROUNDS)):
        loss = logistic(margins(weights, x[len(fit["y"]):]), stop["y"])
        say(done=0.2 + 0.3 * (number + 1) / ROUNDS, what=f"round {number + 1}")
        if loss < best:
            best, rounds = loss, number + 1
        elif number + 1 - rounds >= PATIENCE:
            break
    if not rounds:
        raise Refused("the examples hold what is no number; leave out the files that do")
    for number, weights in enumerate(learned(first, x, both, rounds)):
        say(done=0.5 + 0.25 * (number + 1) / rounds, what=f"round {number + 1} of {rounds} with the latest examples")
    importance = np.abs(weights["w"]) + np.sqrt((mixed(weights) ** 2).sum(1))
    return {"takes": takes, "kind": "probability", "score": lambda rows: odds(margins(weights, standardised(rows))),
            "importance": dict(zip(takes, map(float, importance))), "graph": lambda: graph(weights, mean, scale)}


def begin(width, begins, rises, taken):
    """The score it begins at and how often anything is taken; the rest says nothing yet, for the last layer is zero and vectors are short."""
    draws, short = np.random.default_rng(SEED), 0.05

    def normal(size, deviation):
        return draws.normal(0, deviation, size).astype(np.float32)

    weights = {
        "b": np.full(1, np.log(taken / (1 - taken))), "w": np.zeros(width), "v": normal((width, FACTORS), short),
        "w1": normal((width, FACTORS, HIDDEN[0]), np.sqrt(2 / width / FACTORS) / short), "b1": np.zeros(HIDDEN[0]),
        "w2": normal(HIDDEN, np.sqrt(2 / HIDDEN[0])), "b2": np.zeros(HIDDEN[1]), "w3": np.zeros(HIDDEN[1]),
    }
    weights["w"][begins] = rises
    return {name: value.astype(np.float32) for name, value in weights.items()}


def mixed(weights):
    """The MLP's first layer, by features."""
    return np.einsum("fd,fdh->fh", weights["v"], weights["w1"])


def forward(weights, mix, x):
    """The margins of rows, and what their slopes are made of."""
    sums, squares = x @ weights["v"], x * x
    first = np.maximum(x @ mix + weights["b1"], 0)
    second = np.maximum(first @ weights["w2"] + weights["b2"], 0)
    pairs = 0.5 * ((sums * sums).sum(1) - squares @ (weights["v"] ** 2).sum(1))
    return x @ weights["w"] + pairs + second @ weights["w3"] + weights["b"], sums, squares, first, second


def slopes(weights, x, taken):
    """Of the mean logistic loss, by each weight."""
    mix = mixed(weights)
    z, sums, squares, first, second = forward(weights, mix, x)
    error = ((odds(z) - taken) / len(taken)).astype(np.float32)
    by_second = np.outer(error, weights["w3"]) * (second > 0)
    by_first = (by_second @ weights["w2"].T) * (first > 0)
    by_mix = x.T @ by_first
    by_pairs = x.T @ (error[:, None] * sums) - (error @ squares)[:, None] * weights["v"]
    return {
        "b": error.sum(keepdims=True), "w": error @ x, "v": by_pairs + np.einsum("fh,fdh->fd", by_mix, weights["w1"]),
        "w1": by_mix[:, None, :] * weights["v"][:, :, None], "b1": by_first.sum(0),
        "w2": first.T @ by_second, "b2": by_second.sum(0), "w3": error @ second,
    }


def learned(first, x, examples, rounds):
    """The running mean of the weights after each round over all examples, which come in an order of the seed's."""
    weights, kept = ({name: value.copy() for name, value in first.items()} for _ in range(2))
    speed, power = ({name: np.zeros_like(value) for name, value in first.items()} for _ in range(2))
    ends, draws, step = np.append(0, np.cumsum(examples["sizes"])), np.random.default_rng(SEED), 0
    for _ in range(rounds):
        order = draws.permutation(len(ends) - 1)
        for drawn in np.split(order, range(BATCH, len(order), BATCH)):
            rows = [slice(ends[n], ends[n + 1]) for n in drawn]
            slope = slopes(weights, np.concatenate([x[r] for r in rows]), np.concatenate([examples["y"][r] for r in rows]))
            step += 1
            rate = RATE * np.sqrt(1 - MEMORY[1] ** step) / (1 - MEMORY[0] ** step)
            fades = max(1 - KEPT, 9 / (10 + step))
            for name, value in weights.items():
                speed[name] += (1 - MEMORY[0]) * (slope[name] - speed[name])
                power[name] += (1 - MEMORY[1]) * (slope[name] ** 2 - power[name])
                value -= (rate * speed[name] / (np.sqrt(power[name]) + 1e-8)).astype(np.float32)
                kept[name] += np.float32(fades) * (value - kept[name])
        yield {name: value.copy() for name, value in kept.items()}


def margins(weights, x):
    mix = mixed(weights)
    return np.concatenate([forward(weights, mix, x[n:n + CHUNK])[0] for n in range(0, len(x), CHUNK)])


def odds(z):
    return 1 / (1 + np.exp(-z))


def logistic(z, taken):
    return float(np.mean(np.logaddexp(0, z) - taken * z, dtype=np.float64))


def graph(weights, mean, scale):
    to = Graph()
    apart = to.node("Mul", to.node("Sub", "features", to.constant(mean)), to.constant(scale))
    x = to.node("Clip", apart, to.constant(np.float32(-FARTHEST)), to.constant(np.float32(FARTHEST)))
    linear = to.layer(x, weights["w"][:, None], weights["b"])
    sums = to.node("MatMul", x, to.constant(weights["v"]))
    whole = to.node("ReduceSum", to.node("Mul", sums, sums), to.constant(np.array([1])), keepdims=1)
    alone = to.node("MatMul", to.node("Mul", x, x), to.constant((weights["v"] ** 2).sum(1, keepdims=True)))
    pairs = to.node("Mul", to.node("Sub", whole, alone), to.constant(np.float32(0.5)))
    first = to.node("Relu", to.layer(x, mixed(weights), weights["b1"]))
    second = to.node("Relu", to.layer(first, weights["w2"], weights["b2"]))
    deep = to.node("MatMul", second, to.constant(weights["w3"][:, None]))
    to.node("Sigmoid", to.node("Add", to.node("Add", linear, pairs), deep), gives="score")
    return to.nodes, to.made, len(mean)
