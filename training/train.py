"""Trains a ranker on the examples that Overdrive logs, and writes it as ONNX with golden rows and a report.

    train.py {lr,lambdarank} --log STATE_DIR/examples --out DIR

An example is all candidates a user had the moment before they took one. The last fifth of the examples, by time, is held out: the
report compares the model with the blend on it, candidate for candidate. `overdrive train` runs this file; it prints one JSON object a line.
"""

import argparse
import html
import json
import os
import sys
from pathlib import Path

SCHEMA = "1"
# What the logistic regression takes: fourteen columns of schemas/features.md.
FOURTEEN = ["pop_3h", "pop_2d", "pop_all", "trend_short", "age", "gap", "next", "near_3", "near_20", "with_50", "category", "text",
            "home", "like_2d"]
# Parts of the examples, by time: what is trained on, what says when to stop, what is held out.
TRAIN, STOP = 0.7, 0.8
LEAST = 200  # examples
DRAWS = 1000  # of the bootstrap
GOLDEN = 64  # rows
ROUNDS, PATIENCE = 400, 30


class Refused(Exception):
    """What is wrong, and what to do."""


def say(**what):
    print(json.dumps(what), flush=True)


def load(folder):
    """Every row once, in the order of time, with the number of its example."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise Refused(f"{folder} holds no examples; run the engine with learn.enabled = true and learn.logged above 0")
    tables = []
    for n, file in enumerate(files):
        table = pq.read_table(file)
        schema = (table.schema.metadata or {}).get(b"overdrive.schema", b"").decode()
        if schema != SCHEMA:
            raise Refused(f"{file} is of schema {schema or 'unknown'}, this program trains on {SCHEMA}; move the file away")
        tables.append(table)
        say(done=0.1 * (n + 1) / len(files), what=f"reading {file.name}")
    table = pa.concat_tables(tables)
    keys = table.select(["epoch", "user_id", "item_id"]).to_pydict()
    seen, keep = set(), []
    for n, key in enumerate(zip(keys["epoch"], keys["user_id"], keys["item_id"])):
        if key not in seen:
            seen.add(key)
            keep.append(n)
    table = table.take(pa.array(keep)).sort_by([("ts_ms", "ascending"), ("epoch", "ascending"), ("user_id", "ascending")])
    names = table.column_names[5:]
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float32)
    epochs, users = table["epoch"].to_numpy(), np.array(table["user_id"].to_pylist())
    new = np.ones(len(epochs), bool)
    new[1:] = (epochs[1:] != epochs[:-1]) | (users[1:] != users[:-1])
    starts = np.flatnonzero(new)
    if len(starts) < LEAST:
        raise Refused(f"{folder} holds {len(starts)} examples, at least {LEAST} are needed; log for longer, or raise learn.logged")
    return {"names": names, "x": x, "y": table["taken"].to_numpy().astype(np.int8), "ts": table["ts_ms"].to_numpy()[starts],
            "user": users[starts], "ends": np.append(starts, len(epochs))}


def part(data, begin, end):
    """The rows and the sizes of the examples from one share of all to another."""
    import numpy as np

    ends, count = data["ends"], len(data["ends"]) - 1
    first, last = int(count * begin), int(count * end)
    rows = slice(ends[first], ends[last])
    return {"x": data["x"][rows], "y": data["y"][rows], "sizes": np.diff(ends[first:last + 1]), "user": data["user"][first:last],
            "ts": data["ts"][first:last]}


def columns(data, names):
    return [data["names"].index(name) for name in names]


def train_lr(data):
    """Newton's method on the logistic loss with a little L2, on standardised columns; the scaling is folded into the weights."""
    import numpy as np

    at, fit = columns(data, FOURTEEN), part(data, 0, STOP)
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
    importance = {name: float(abs(value)) for name, value in zip(FOURTEEN, w[:-1])}

    def score(rows):
        return 1 / (1 + np.exp(-(rows[:, at].astype(np.float64) @ weights + bias)))

    return {"takes": FOURTEEN, "kind": "probability", "score": score, "importance": importance,
            "graph": lambda: graph_lr(weights, bias)}


def graph_lr(weights, bias):
    from onnx import helper, numpy_helper

    import numpy as np

    nodes = [helper.make_node("Gemm", ["features", "w", "b"], ["z"]), helper.make_node("Sigmoid", ["z"], ["score"])]
    made = [numpy_helper.from_array(weights.reshape(-1, 1), "w"), numpy_helper.from_array(np.array([bias]), "b")]
    return nodes, made, len(weights)


def train_lambdarank(data):
    import lightgbm

    fit, stop = part(data, 0, TRAIN), part(data, TRAIN, STOP)
    train = lightgbm.Dataset(fit["x"], fit["y"], group=fit["sizes"], feature_name=data["names"])
    valid = lightgbm.Dataset(stop["x"], stop["y"], group=stop["sizes"], reference=train)
    settings = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "num_leaves": 31, "max_depth": 6, "learning_rate": 0.05,
                "min_data_in_leaf": 50, "feature_fraction": 0.8, "lambdarank_truncation_level": 20, "verbose": -1, "seed": 7,
                "deterministic": True, "force_row_wise": True, "num_threads": os.cpu_count() or 1}

    def progress(env):
        say(done=0.2 + 0.5 * (env.iteration + 1) / ROUNDS, what=f"tree {env.iteration + 1}")

    stopping = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, train, ROUNDS, valid_sets=[valid], callbacks=[progress, stopping])
    best = booster.best_iteration or booster.num_trees()
    gain = booster.feature_importance("gain", iteration=best)
    return {"takes": data["names"], "kind": "margin", "score": lambda rows: booster.predict(rows, num_iteration=best),
            "importance": dict(zip(data["names"], map(float, gain))), "trees": best,
            "graph": lambda: graph_trees(booster.dump_model(num_iteration=best), len(data["names"]))}


def graph_trees(model, width):
    """LightGBM's trees as one TreeEnsembleRegressor. A threshold is rounded down to 32 bits: what is below it stays below it."""
    import numpy as np
    from onnx import helper

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
    node = helper.make_node("TreeEnsembleRegressor", ["features"], ["score"], domain="ai.onnx.ml", n_targets=1, aggregate_function="SUM",
                            post_transform="NONE", **made)
    return [node], [], width


def write_onnx(path, model):
    import onnx
    from onnx import TensorProto, helper

    nodes, made, width = model["graph"]()
    takes = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])
    gives = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])
    graph = helper.make_graph(nodes, path.stem, [takes], [gives], made)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="overdrive")
    said = {"overdrive.schema": SCHEMA, "overdrive.score": model["kind"], "overdrive.features": ",".join(model["takes"])}
    helper.set_model_props(proto, said)
    onnx.checker.check_model(proto)
    replace(path, proto.SerializeToString())


def replace(path, content):
    """The whole file or none of it."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(unfinished, path)


def ndcg(scores, taken, sizes):
    """NDCG@10 of each example; ties go to the row that came first."""
    import numpy as np

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
    import numpy as np

    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    values, counts = np.unique(scores[order], return_counts=True)
    ends = np.cumsum(counts)
    ranks[order] = np.repeat(ends - (counts - 1) / 2, counts)
    ones = int(taken.sum())
    zeros = len(taken) - ones
    return float((ranks[taken > 0].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else float("nan")


def bootstrap(difference, users):
    """Where the mean of the difference lies in 95 of 100 draws of users."""
    import numpy as np

    _, which = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(which, difference), np.bincount(which)
    draw = np.random.default_rng(7).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[draw].sum(1) / counts[draw].sum(1)
    return [float(value) for value in np.quantile(means, [0.025, 0.975])]


def evaluate(data, model):
    import numpy as np

    test = part(data, STOP, 1)
    scores, blend = model["score"](test["x"]), test["x"][:, data["names"].index("blend")]
    ours, theirs = ndcg(scores, test["y"], test["sizes"]), ndcg(blend, test["y"], test["sizes"])
    tenths = np.array_split(np.arange(len(ours)), 10)
    return {
        "examples": {"trained": int((len(data["ends"]) - 1) * STOP), "held_out": len(ours)},
        "from_ms": int(data["ts"][0]), "held_out_from_ms": int(test["ts"][0]), "until_ms": int(data["ts"][-1]),
        "ndcg_10": {"model": float(ours.mean()), "blend": float(theirs.mean()), "ahead": bootstrap(ours - theirs, test["user"])},
        "auc": {"model": auc(scores, test["y"]), "blend": auc(blend, test["y"])},
        "tenths": {"model": [float(ours[t].mean()) for t in tenths], "blend": [float(theirs[t].mean()) for t in tenths]},
        "importance": model["importance"],
    }


def report(kind, found):
    """One page without any script: the figures, NDCG@10 along the held-out part, and what the model looks at."""
    figures, tenths = found["ndcg_10"], found["tenths"]
    top = max(tenths["model"] + tenths["blend"]) or 1.0

    def line(values, colour):
        points = " ".join(f"{40 + 60 * n:.0f},{170 - 150 * value / top:.1f}" for n, value in enumerate(values))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    strongest = sorted(found["importance"].items(), key=lambda item: -item[1])[:15]
    most = strongest[0][1] or 1.0
    bars = "".join(
        f'<tr><td>{html.escape(name)}</td><td><div style="width:{300 * value / most:.0f}px"></div></td></tr>' for name, value in strongest)
    rows = "".join(f"<tr><td>{what}</td><td>{found[key]['model']:.4f}</td><td>{found[key]['blend']:.4f}</td></tr>"
                   for what, key in (("NDCG@10", "ndcg_10"), ("AUC", "auc")))
    low, high = figures["ahead"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{kind}</title>
<style>body{{font:16px/1.5 system-ui;max-width:46rem;margin:2rem auto;padding:0 1rem}}td,th{{padding:.2rem .8rem;text-align:left}}
td div{{background:#3465a4;height:.8rem}}svg{{width:100%;height:auto}}</style>
<h1>{kind}</h1><p>{found['examples']['trained']} examples trained on, {found['examples']['held_out']} later ones held out.</p>
<table><tr><th></th><th>model</th><th>blend</th></tr>{rows}</table>
<p>NDCG@10 of the model is ahead by {low:.4f} to {high:.4f} in 95 of 100 draws of users.</p>
<h2>NDCG@10 along the held-out part</h2>
<svg viewBox="0 0 640 200" role="img" aria-label="NDCG@10 in tenths of the held-out part"><line x1="40" y1="170" x2="600" y2="170" stroke="#888"/>
<text x="2" y="24" font-size="12">{top:.3f}</text><text x="14" y="174" font-size="12">0</text>{line(tenths['blend'], '#888')}
{line(tenths['model'], '#3465a4')}</svg><p><span style="color:#3465a4">model</span>, <span style="color:#666">blend</span></p>
<h2>What it looks at</h2><table>{bars}</table></html>
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["lr", "lambdarank"])
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    data = load(args.log)
    say(done=0.2, what="training")
    model = {"lr": train_lr, "lambdarank": train_lambdarank}[args.kind](data)
    say(done=0.75, what="evaluating")
    found = evaluate(data, model)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.kind}.onnx"
    test = part(data, STOP, 1)["x"]
    rows = test[:: max(1, len(test) // GOLDEN)][:GOLDEN]
    golden = {"rows": rows[:, columns(data, model["takes"])].tolist(), "scores": [float(score) for score in model["score"](rows)]}
    replace(path.with_suffix(".golden.json"), json.dumps(golden))
    replace(path.with_suffix(".report.json"), json.dumps(found, indent=1))
    replace(path.with_suffix(".report.html"), report(args.kind, found))
    write_onnx(path, model)
    say(done=1.0, what="written", model=str(path), report=found)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(str(refused))
    except ImportError as missing:
        sys.exit(f"{missing}; install what training/requirements.txt lists: pip install lightgbm numpy onnx pyarrow")
