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
# In an example this is the time up to the act it was made for; a slate is made right after one. A model would learn what is never so.
AFTER = ["user_pause"]
# Parts of the examples, by time: what is trained on, what says when to stop, what is held out.
TRAIN, STOP = 0.7, 0.8
LEAST = 200  # examples
MOST = 4_000_000  # rows, the newest: 0.7 GB of features
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
    files = newest(files, pq)
    for n, file in enumerate(files):
        try:
            table = pq.read_table(file)
        except FileNotFoundError:
            continue  # an engine that runs makes room, or takes out whom it forgets
        schema = (table.schema.metadata or {}).get(b"overdrive.schema", b"").decode()
        if schema != SCHEMA:
            raise Refused(f"{file} is of schema {schema or 'unknown'}, this program trains on {SCHEMA}; move the file away")
        if tables and table.column_names != tables[0].column_names:
            raise Refused(f"{file} has other columns than {files[0]}; they are of two versions, move the older ones away")
        tables.append(table)
        say(done=0.1 * (n + 1) / len(files), what=f"reading {file.name}")
    table = pa.concat_tables(tables)
    table = table.append_column("place", pa.array(np.arange(len(table))))
    order = [(key, "ascending") for key in ("ts_ms", "epoch", "user_id", "item_id", "place")]
    table = table.sort_by(order).drop_columns(["place"])
    whole = [table[key].combine_chunks() for key in ("ts_ms", "epoch", "user_id", "item_id")]
    again = np.ones(len(table), bool)
    for column in whole:  # a row is the one before again when nothing of its key differs
        codes = column.dictionary_encode().indices.to_numpy()
        again[1:] &= codes[1:] == codes[:-1]
    again[:1] = False
    table = table.filter(pa.array(~again))
    names = table.column_names[5:]
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float32)
    epochs, times = table["epoch"].to_numpy(), table["ts_ms"].to_numpy()
    users = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    new = np.ones(len(epochs), bool)
    new[1:] = (epochs[1:] != epochs[:-1]) | (times[1:] != times[:-1]) | (users[1:] != users[:-1])
    starts = np.flatnonzero(new)
    if len(starts) < LEAST:
        raise Refused(f"{folder} holds {len(starts)} examples, at least {LEAST} are needed; log for longer, or raise learn.logged")
    return {"names": names, "x": x, "y": table["taken"].to_numpy().astype(np.int8), "ts": times[starts],
            "user": users[starts], "ends": np.append(starts, len(epochs))}


def newest(files, pq):
    """As many of the newest files as hold so many rows; a file's name begins with its first epoch."""
    rows, first = 0, len(files)
    while first > 0 and rows < MOST:
        first -= 1
        try:
            rows += pq.read_metadata(files[first]).num_rows
        except FileNotFoundError:
            pass
    return files[first:]


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

    takes = [name for name in data["names"] if name not in AFTER]
    at, fit, stop = columns(data, takes), part(data, 0, TRAIN), part(data, TRAIN, STOP)
    train = lightgbm.Dataset(fit["x"][:, at], fit["y"], group=fit["sizes"], feature_name=takes)
    valid = lightgbm.Dataset(stop["x"][:, at], stop["y"], group=stop["sizes"], reference=train)
    settings = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "num_leaves": 31, "max_depth": 6, "learning_rate": 0.05,
                "min_data_in_leaf": 50, "feature_fraction": 0.8, "lambdarank_truncation_level": 20, "verbose": -1, "seed": 7,
                "deterministic": True, "force_row_wise": True, "num_threads": int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))}

    def progress(env):
        say(done=0.2 + 0.5 * (env.iteration + 1) / ROUNDS, what=f"tree {env.iteration + 1}")

    stopping = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, train, ROUNDS, valid_sets=[valid], callbacks=[progress, stopping])
    best = booster.best_iteration or booster.num_trees()
    gain = booster.feature_importance("gain", iteration=best)
    return {"takes": takes, "kind": "margin", "score": lambda rows: booster.predict(rows[:, at], num_iteration=best),
            "importance": dict(zip(takes, map(float, gain))),
            "graph": lambda: graph_trees(booster.dump_model(num_iteration=best), len(takes))}


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
    return float((ranks[taken > 0].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else None


def bootstrap(difference, users):
    """Where the mean of the difference lies in 95 of 100 draws of users."""
    import numpy as np

    _, which = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(which, difference), np.bincount(which)
    draws = np.random.default_rng(7)
    means = []
    for _ in range(DRAWS):
        drawn = draws.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return [float(value) for value in np.quantile(means, [0.025, 0.975])]


def evaluate(data, model):
    import numpy as np

    test = part(data, STOP, 1)
    scores, blend = model["score"](test["x"]), test["x"][:, data["names"].index("blend")]
    ours, theirs = ndcg(scores, test["y"], test["sizes"]), ndcg(blend, test["y"], test["sizes"])
    tenths = np.array_split(np.arange(len(ours)), 10)
    return {
        "examples": {"earlier": int((len(data["ends"]) - 1) * STOP), "held_out": len(ours)},
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
                   for what, key in (("NDCG@10", "ndcg_10"), ("AUC", "auc")) if found[key]["model"] is not None)
    low, high = figures["ahead"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{kind}</title>
<style>body{{font:16px/1.5 system-ui;max-width:46rem;margin:2rem auto;padding:0 1rem}}td,th{{padding:.2rem .8rem;text-align:left}}
td div{{background:#3465a4;height:.8rem}}svg{{width:100%;height:auto}}</style>
<h1>{kind}</h1><p>{found['examples']['earlier']} examples to train with, {found['examples']['held_out']} later ones held out.</p>
<table><tr><th></th><th>model</th><th>blend</th></tr>{rows}</table>
<p>NDCG@10 of the model is ahead by {low:.4f} to {high:.4f} in 95 of 100 draws of users.</p>
<h2>NDCG@10 along the held-out part</h2>
<svg viewBox="0 0 640 200" role="img" aria-label="NDCG@10 in tenths of the held-out part"><line x1="40" y1="170" x2="600" y2="170" stroke="#888"/>
<text x="2" y="24" font-size="12">{top:.3f}</text><text x="14" y="174" font-size="12">0</text>{line(tenths['blend'], '#888')}
{line(tenths['model'], '#3465a4')}</svg><p><span style="color:#3465a4">model</span>, <span style="color:#666">blend</span></p>
<h2>What it looks at</h2><table>{bars}</table></html>
"""


def stand_aside():
    """One thread, which goes with whoever started it, and first when memory runs out. (How nice it is, it has from them.)"""
    import threading
    import time

    os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"))
    parent = os.getppid()

    def follow():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    try:
        Path("/proc/self/oom_score_adj").write_text("800")
    except OSError:
        pass  # elsewhere than on Linux


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["lr", "lambdarank"])
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--aside", action="store_true", help="stand back behind whatever else runs here, on one thread")
    args = parser.parse_args()
    if args.aside:
        stand_aside()
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
