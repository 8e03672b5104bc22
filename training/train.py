"""Trains a model on the examples that Overdrive logs, and writes it as ONNX with golden rows and a report.

    train.py {lr,lambdarank,deepfm} --log STATE_DIR/examples --out DIR [--for rank]
    train.py {twotower,sequence} --log STATE_DIR/examples --out DIR

The first are rankers; their report compares the model with what ranks without it on the examples held out, candidate for candidate. The
others are towers, which find candidates: theirs compares them, over all items, with what is popular and with what was taken soon after.
`overdrive train` runs this file; it prints one JSON object a line.

To add a ranker: a file here with a `train`, its name in RECIPES below, in src/training/script.rs, in src/model/serving.rs, and in the contracts
that tests/house.rs looks at. Towers: a file with what towers.py asks of it, its name in TOWERS, in src/training/script.rs and in src/training/towers.rs.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

from said import Refused, say

# Each is a file beside this one: rankers, and towers.
RECIPES = ["lr", "lambdarank", "deepfm"]
TOWERS = ["twotower", "sequence"]
GOLDEN = 64  # rows


def one_thread():
    os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"))


def stand_aside():
    """One thread, which goes with whoever started it, and first when memory runs out. (How nice it is, it has from them.)"""
    import threading
    import time

    one_thread()
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


def make(kind, where, log, out):
    """Trains, evaluates and writes. What needs more than Python itself is imported here: threads are counted when it is."""
    import examples
    import export
    import figures
    import report

    recipe = importlib.import_module(kind)
    data = examples.load(log, where)
    say(done=0.2, what="training")
    model = recipe.train(data)
    say(done=0.75, what="evaluating")
    found = figures.evaluate(data, model)
    out.mkdir(parents=True, exist_ok=True)
    name = kind if where == "slates" else f"{kind}-{where}"
    path = out / f"{name}.onnx"
    test = examples.part(data, examples.STOP, 1)["x"]
    rows = test[:: max(1, len(test) // GOLDEN)][:GOLDEN]
    golden = {"rows": rows[:, examples.columns(data, model["takes"])].tolist(), "scores": [float(score) for score in model["score"](rows)]}
    export.replace(path.with_suffix(".golden.json"), json.dumps(golden))
    export.replace(path.with_suffix(".report.json"), json.dumps(found, indent=1))
    export.replace(path.with_suffix(".report.html"), report.report(name, data["begins"], found))
    export.write_onnx(path, model)
    say(done=1.0, what="written", model=str(path), report=found)


def make_towers(kind, log, out):
    """The same for two towers, which stand in a folder of their own, all of one training."""
    import export
    import report
    import towers

    recipe = importlib.import_module(kind)
    data = towers.load(log)
    weights, items = towers.train(recipe, data)
    say(done=0.8, what="evaluating")
    found = towers.evaluate(recipe, weights, items, data)
    path, fresh = out / kind, out / f".{kind}.unfinished"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    export.replace(fresh / "golden.json", json.dumps(towers.golden(recipe, weights, items, data)))
    export.replace(fresh / "report.json", json.dumps(found, indent=1))
    export.replace(fresh / "report.html", report.report_towers(kind, found))
    towers.write(fresh, recipe, weights, items)
    export.replace_folder(path, fresh)
    say(done=1.0, what="written", model=str(path), report=found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=RECIPES + TOWERS)
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--for", dest="where", choices=["slates", "rank"], default="slates", help="where it will rank")
    parser.add_argument("--aside", action="store_true", help="stand back behind whatever else runs here, on one thread")
    args = parser.parse_args()
    if args.aside:
        stand_aside()
    if args.kind == "deepfm" or args.kind in TOWERS:
        one_thread()  # its matrices are small, and only sums in one order are the same bit by bit
    if args.kind in TOWERS:
        if args.where == "rank":
            raise Refused(f"{args.kind} finds candidates, and with --for rank callers bring them; leave out --for rank, or train lr, lambdarank "
                          "or deepfm")
        return make_towers(args.kind, args.log, args.out)
    make(args.kind, args.where, args.log, args.out)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(str(refused))
    except ImportError as missing:
        sys.exit(f"{missing}; install what training/requirements.txt lists: pip install lightgbm numpy onnx pyarrow scipy")
