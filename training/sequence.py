"""Two towers, the user's an attention: the item taken last asks all that were taken, in four ways, and a small network follows.

    s_k = q·(h_k + p_k) + b_k    q = W_q h_1        y = W_o [sum of softmax(s)_k h_k, each way] + c h_1        z = y + W_2 relu(W_1 y + b_1)

Places p_k and b_k are learned; where nothing was taken is not asked. What is learned begins as a mean of the items, four of them, the first with
the longest memory: W_q and W_2 are zero.
"""

import numpy as np

from towers import LAST, WIDTH

FADES, HIDDEN = (1.0, 0.95, 0.8, 0.5), 128
WAYS = len(FADES)


def begin(draws):
    alike = np.tile(np.eye(WIDTH) / WAYS, (WAYS, 1))
    return {"ask": draws.normal(0, 0.02, (WIDTH, WAYS * WIDTH)), "place": np.zeros((LAST, WIDTH)),
            "fade": np.arange(LAST)[:, None] * np.log(FADES), "out": alike + draws.normal(0, 0.02, (WAYS * WIDTH, WIDTH)),
            "last": np.full(1, 0.25), "w1": draws.normal(0, 1, (WIDTH, HIDDEN)), "b1": np.zeros(HIDDEN), "w2": np.zeros((HIDDEN, WIDTH)),
            "b2": np.zeros(WIDTH)}


def forward(weights, history):
    held = (history != 0).any(2, keepdims=True)
    last = history[:, 0]
    asks = (last @ weights["ask"]).reshape(-1, WAYS, WIDTH)
    keys = history + weights["place"]
    scores = keys @ asks.transpose(0, 2, 1) + weights["fade"]
    scores = np.where(held, scores, np.float32(-1e4))
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares = (shares / shares.sum(1, keepdims=True)).transpose(0, 2, 1)
    found = (shares @ history).reshape(len(history), -1)
    y = found @ weights["out"] + weights["last"] * last
    first = np.maximum(y @ weights["w1"] + weights["b1"], 0)
    return y + first @ weights["w2"] + weights["b2"], (history, held, last, asks, keys, shares, found, y, first)


def slopes(weights, remembered, by_z):
    history, held, last, asks, keys, shares, found, y, first = remembered
    by_first = (by_z @ weights["w2"].T) * (first > 0)
    by_y = by_z + by_first @ weights["w1"].T
    by_found = (by_y @ weights["out"].T).reshape(-1, WAYS, WIDTH)
    by_shares = by_found @ history.transpose(0, 2, 1)
    by_scores = (shares * (by_shares - (by_shares * shares).sum(2, keepdims=True))).transpose(0, 2, 1) * held
    by_keys = by_scores @ asks
    by_asks = (by_scores.transpose(0, 2, 1) @ keys).reshape(len(history), -1)
    by_history = shares.transpose(0, 2, 1) @ by_found + by_keys
    by_history[:, 0] += by_asks @ weights["ask"].T + weights["last"] * by_y
    return {"ask": last.T @ by_asks, "place": by_keys.sum(0), "fade": by_scores.sum(0), "out": found.T @ by_y,
            "last": (by_y * last).sum(keepdims=True)[0], "w1": y.T @ by_first, "b1": by_first.sum(0), "w2": first.T @ by_z,
            "b2": by_z.sum(0)}, by_history


def graph(to, weights):
    """What `forward` does."""
    held = to.node("Sign", to.node("ReduceSumSquare", "history", axes=[2], keepdims=1))
    last = to.node("Gather", "history", to.constant(np.int64(0)), axis=1)
    asks = to.node("Reshape", to.node("MatMul", last, to.constant(weights["ask"])), to.constant(np.array([-1, WAYS, WIDTH])))
    keys = to.node("Add", "history", to.constant(weights["place"]))
    scores = to.node("MatMul", keys, to.node("Transpose", asks, perm=[0, 2, 1]))
    scores = to.node("Add", scores, to.constant(weights["fade"]))
    none = to.node("Mul", to.node("Sub", held, to.constant(np.float32(1))), to.constant(np.float32(1e4)))
    shares = to.node("Softmax", to.node("Transpose", to.node("Add", scores, none), perm=[0, 2, 1]), axis=2)
    found = to.node("Flatten", to.node("MatMul", shares, "history"))
    y = to.node("Add", to.node("MatMul", found, to.constant(weights["out"])), to.node("Mul", last, to.constant(weights["last"])))
    first = to.node("Relu", to.layer(y, weights["w1"], weights["b1"]))
    return to.node("Add", y, to.layer(first, weights["w2"], weights["b2"]))
