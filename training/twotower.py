"""Two towers, the user's a small network: sums of what they took last, by weights that are learned by place, and the last item on its own.

    z = s_1 + c h_1 + W_2 relu(W_1 [s_1, s_2, h_1] + b_1) + b_2

A sum s is divided by the weights of the places that are taken. The last layer begins as zero: what is learned begins as a mean of the items.
"""

import numpy as np

from towers import LAST, WIDTH

FADES, HIDDEN = (0.95, 0.7), 128
SUMS = len(FADES)


def begin(draws):
    wide = (SUMS + 1) * WIDTH
    return {"fades": np.log(FADES)[:, None] * np.arange(LAST), "last": np.full(1, 0.5),
            "w1": draws.normal(0, np.sqrt(2 / (SUMS + 1)), (wide, HIDDEN)), "b1": np.zeros(HIDDEN),
            "w2": np.zeros((HIDDEN, WIDTH)), "b2": np.zeros(WIDTH)}


def forward(weights, history):
    held = (history != 0).any(2).astype(np.float32)
    places = np.exp(weights["fades"])
    shares = held[:, None] * places
    shares /= shares.sum(2, keepdims=True) + np.float32(1e-6)
    sums = shares @ history
    x = np.concatenate([sums.reshape(len(history), -1), history[:, 0]], 1)
    first = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    z = sums[:, 0] + weights["last"] * history[:, 0] + first @ weights["w2"] + weights["b2"]
    return z, (history, shares, sums, x, first)


def slopes(weights, remembered, by_z):
    history, shares, sums, x, first = remembered
    by_first = (by_z @ weights["w2"].T) * (first > 0)
    by_x = by_first @ weights["w1"].T
    by_sums = by_x[:, :SUMS * WIDTH].reshape(-1, SUMS, WIDTH).copy()
    by_sums[:, 0] += by_z
    by_shares = by_sums @ history.transpose(0, 2, 1)
    by_fades = (shares * (by_shares - (by_shares * shares).sum(2, keepdims=True))).sum(0)
    by_history = shares.transpose(0, 2, 1) @ by_sums
    by_history[:, 0] += by_x[:, SUMS * WIDTH:] + weights["last"] * by_z
    return {"fades": by_fades, "w1": x.T @ by_first, "b1": by_first.sum(0), "w2": first.T @ by_z, "b2": by_z.sum(0),
            "last": (by_z * history[:, 0]).sum(keepdims=True)[0]}, by_history


def graph(to, weights):
    """What `forward` does."""
    held = to.node("Sign", to.node("ReduceSumSquare", "history", axes=[2], keepdims=0))
    held = to.node("Unsqueeze", held, to.constant(np.array([1])))
    shares = to.node("Mul", held, to.constant(np.exp(weights["fades"])))
    total = to.node("Add", to.node("ReduceSum", shares, to.constant(np.array([2])), keepdims=1), to.constant(np.float32(1e-6)))
    sums = to.node("MatMul", to.node("Div", shares, total), "history")
    first_of = to.constant(np.int64(0))
    last = to.node("Gather", "history", first_of, axis=1)
    x = to.node("Concat", to.node("Flatten", sums), last, axis=1)
    first = to.node("Relu", to.layer(x, weights["w1"], weights["b1"]))
    plain = to.node("Add", to.node("Gather", sums, first_of, axis=1), to.node("Mul", last, to.constant(weights["last"])))
    return to.node("Add", plain, to.layer(first, weights["w2"], weights["b2"]))
