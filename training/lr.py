"""Logistic regression on fourteen columns of schemas/features.md; at /v1/rank on the fourteen facts of who asks and what is offered."""

import numpy as np
from onnx import helper, numpy_helper

from examples import STOP, columns, part
from said import say

FOURTEEN = ["pop_3h", "pop_2d", "pop_all", "trend_short", "age", "gap", "next", "near_3", "near_20", "with_50", "category", "text",
            "home", "like_2d"]


def train(data):
    """Newton's method on the logistic loss with a little L2, on standardised columns; the scaling is folded into the weights."""
    takes = FOURTEEN if data["begins"] == "blend" else data["takes"][-14:]
    at, fit = columns(data, takes), part(data, 0, STOP)
    x = fit["x"][:, at].astype(np.float64)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = np.column_stack([(x - mean) / scale, np.ones(len(x))])
    y, w = fit["y"].astype(np.float64), np.zeros(x.shape[1])
    penalty = np.append(np.full(len(at), 1.0), 0.0)
    for step in range(25):
        p = 1 / (1 + np.exp(-(x @ w)))
        move = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9), x.T @ (y - p) - penalty * w)
        w += move
        say(done=0.2 + 0.5 * (step + 1) / 25, what=f"step {step + 1}")
        if np.abs(move).max() < 1e-8:
            break
    weights = (w[:-1] / scale).astype(np.float32)
    bias = np.float32(w[-1] - (w[:-1] * mean / scale).sum())
    importance = {name: float(abs(value)) for name, value in zip(takes, w[:-1])}

    def score(rows):
        return 1 / (1 + np.exp(-(rows[:, at].astype(np.float64) @ weights + bias)))

    return {"takes": takes, "kind": "probability", "score": score, "importance": importance,
            "graph": lambda: graph(weights, bias)}


def graph(weights, bias):
    nodes = [helper.make_node("Gemm", ["features", "w", "b"], ["z"]), helper.make_node("Sigmoid", ["z"], ["score"])]
    made = [numpy_helper.from_array(weights.reshape(-1, 1), "w"), numpy_helper.from_array(np.array([bias]), "b")]
    return nodes, made, len(weights)
