"""LambdaRank: LightGBM's boosted trees on all columns there are.

They begin at the score of what ranks without them and are added to it, so that a model departs from it only where the examples say so.
"""

import os

import lightgbm
import numpy as np
from onnx import helper, numpy_helper

from examples import STOP, TRAIN, beginning, columns, part
from said import Refused, say

ROUNDS, PATIENCE = 400, 30


def train(data):
    """The part before the last says how many trees are best; then as many are grown on both."""
    takes, (first, slope) = data["takes"], beginning(data)
    at = columns(data, takes)
    settings = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "num_leaves": 31, "max_depth": 6, "learning_rate": 0.05,
                "min_data_in_leaf": 50, "feature_fraction": 0.8, "lambdarank_truncation_level": 20, "verbose": -1, "seed": 7,
                "deterministic": True, "force_row_wise": True, "num_threads": int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))}

    def begun(begin, end, **more):
        of = part(data, begin, end)
        return lightgbm.Dataset(of["x"][:, at], of["y"], group=of["sizes"], feature_name=takes, init_score=slope * of["x"][:, first], **more)

    def progress(since, share, most, what):
        return lambda env: say(done=since + share * (env.iteration + 1) / most, what=f"tree {env.iteration + 1}{what}")

    fit = begun(0, TRAIN)
    stopping = [progress(0.2, 0.3, ROUNDS, ""), lightgbm.early_stopping(PATIENCE, verbose=False)]
    tried = lightgbm.train(settings, fit, ROUNDS, valid_sets=[begun(TRAIN, STOP, reference=fit)], callbacks=stopping)
    best = tried.best_iteration or tried.num_trees()
    latest = [progress(0.5, 0.25, best, f" of {best} with the latest examples")]
    booster = lightgbm.train(settings, begun(0, STOP), best, callbacks=latest)
    gain = booster.feature_importance("gain")
    return {"takes": takes, "kind": "margin", "score": lambda rows: booster.predict(rows[:, at]) + slope * rows[:, first],
            "importance": dict(zip(takes, map(float, gain))),
            "graph": lambda: graph(booster.dump_model(), len(takes), takes.index(data["begins"]), slope)}


def graph(model, width, begins, slope):
    """The trees' sum and what they begin at."""
    nodes = [graph_trees(model), helper.make_node("Gather", ["features", "column"], ["first"], axis=1),
             helper.make_node("Mul", ["first", "slope"], ["begun"]), helper.make_node("Add", ["trees", "begun"], ["score"])]
    made = [numpy_helper.from_array(np.array([begins]), "column"), numpy_helper.from_array(np.array([slope], np.float32), "slope")]
    return nodes, made, width


def graph_trees(model):
    """LightGBM's trees as one TreeEnsembleRegressor. A threshold is rounded down to 32 bits: what is below it stays below it."""
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "truenodeids", "falsenodeids", "modes")}
    target = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}

    def threshold(value):
        near = np.float32(value)
        return float(np.nextafter(near, np.float32(-np.inf))) if float(near) > value else float(near)

    def add(tree, node, count):
        at = count[0]
        count[0] += 1
        leaf = "leaf_value" in node
        place = len(nodes["treeids"])
        row = (tree, at, 0 if leaf else node["split_feature"], 0.0 if leaf else threshold(node["threshold"]), 0, 0,
               "LEAF" if leaf else "BRANCH_LEQ")
        for key, value in zip(nodes, row):
            nodes[key].append(value)
        if leaf:
            for key, value in zip(target, (tree, at, 0, node["leaf_value"])):
                target[key].append(value)
        else:
            if node["decision_type"] != "<=":
                raise Refused(f"a tree splits by {node['decision_type']}, which is not written here")
            nodes["truenodeids"][place] = add(tree, node["left_child"], count)
            nodes["falsenodeids"][place] = add(tree, node["right_child"], count)
        return at

    for number, tree in enumerate(model["tree_info"]):
        add(number, tree["tree_structure"], [0])
    made = {f"nodes_{key}": value for key, value in nodes.items()} | {f"target_{key}": value for key, value in target.items()}
    return helper.make_node("TreeEnsembleRegressor", ["features"], ["trees"], domain="ai.onnx.ml", n_targets=1, aggregate_function="SUM",
                            post_transform="NONE", **made)
