"""Reads the examples that Overdrive logs: every row once, in the order of time, and the parts that training cuts them into.

An example is all candidates a user had the moment before they took one, or what they were shown at once, of which something followed or nothing.
The last fifth, by time, is held out. What a model may look at
depends on where it will rank: at a refresh the engine knows every column, where a caller brings the candidates (`/v1/rank`) only those that
stand behind the blend's score are at hand.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from said import SCHEMA, Refused, say

# In an example this is the time up to the act it was made for; a slate is made right after one. A model would learn what is never so.
AFTER = ["user_pause"]
# Parts of the examples, by time: what is trained on, what says when to stop, what is held out.
TRAIN, STOP = 0.7, 0.8
LEAST = 200  # examples
KEYS = ["epoch", "ts_ms", "user_id", "item_id", "taken"]
ALIKE = ("alike_most", "alike_mean", "tower")  # the engine alone knows them; examples of an earlier version lack them
TOWERS = ["item", "tokens", "history"]  # what the towers learn from; examples of an earlier version lack them
FOLLOWED = ["shown_ms", "followed", "after_ms", "values"]  # behind what was shown
MOST = 4_000_000  # rows, the newest: 0.7 GB of features


def load(folder, where="slates"):
    """Every row once, in the order of time, with the number of its example, and what a model that ranks there takes and begins at."""
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise Refused(f"{folder} holds no examples; run the engine with learn.enabled = true and learn.logged (or learn.impressions) above 0")
    tables, earlier = [], 0
    files = newest(files)
    for n, file in enumerate(files):
        try:
            table = opened(file)
        except FileNotFoundError:
            continue  # an engine that runs makes room, or takes out whom it forgets
        known = looked_at(table)
        wanted = known[:known.index("blend") + 1] if where == "slates" else known[known.index("blend") + 1:]
        if not wanted:
            earlier += 1
            continue
        if tables and wanted != looked_at(tables[0]):
            raise Refused(f"{file} has other columns than {files[0]}; they are of two versions, move the older ones away")
        alike = [name for name in ALIKE if where == "slates" and name in table.column_names]
        tables.append(table.select(KEYS + wanted + alike))
        say(done=0.1 * (n + 1) / len(files), what=f"reading {file.name}")
    if not tables:
        raise Refused(f"the {earlier} files in {folder} were logged by an earlier version, without the columns that are at hand where callers bring "
                      "the candidates; log for longer with this one")
    common = [name for name in tables[0].column_names if all(name in table.column_names for table in tables)]
    table = pa.concat_tables([table.select(common) for table in tables])
    table = table.drop_columns([name for name in ALIKE if name in common and not table[name].to_numpy().any()])  # content is not looked at
    table = once(table)
    names = table.column_names[len(KEYS):]
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float32)
    epochs, times = table["epoch"].to_numpy(), table["ts_ms"].to_numpy()
    users = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    new = np.ones(len(epochs), bool)
    new[1:] = (epochs[1:] != epochs[:-1]) | (times[1:] != times[:-1]) | (users[1:] != users[:-1])
    starts = np.flatnonzero(new)
    if len(starts) < LEAST:
        raise Refused(f"{folder} holds {len(starts)} examples, at least {LEAST} are needed; log for longer, or raise learn.logged")
    return {"takes": [name for name in names if name not in AFTER], "begins": "blend" if where == "slates" else "fixed", "names": names, "x": x, "y": table["taken"].to_numpy().astype(np.int8), "ts": times[starts],
            "user": users[starts], "ends": np.append(starts, len(epochs))}


def opened(file, only=None):
    """A file's table, or of it the columns named, those that it has."""
    schema = pq.read_schema(file)
    version = (schema.metadata or {}).get(b"overdrive.schema", b"").decode()
    if version != SCHEMA:
        raise Refused(f"{file} is of schema {version or 'unknown'}, this program trains on {SCHEMA}; move the file away")
    return pq.read_table(file, columns=[name for name in schema.names if (name in only if only else name not in TOWERS + FOLLOWED)])


def looked_at(table):
    return [name for name in table.column_names if name not in KEYS and name not in ALIKE]


def once(table):
    """Every row once, in the order of time."""
    table = table.append_column("place", pa.array(np.arange(len(table))))
    keys = ("ts_ms", "epoch", "user_id", "item_id")
    table = table.sort_by([(key, "ascending") for key in (*keys, "place")]).drop_columns(["place"])
    again = np.ones(len(table), bool)
    for key in keys:  # a row is the one before again when nothing of its key differs
        codes = table[key].combine_chunks().dictionary_encode().indices.to_numpy()
        again[1:] &= codes[1:] == codes[:-1]
    again[:1] = False
    return table.filter(pa.array(~again))


def beginning(data):
    """The column that ranks until a model does, and by how much the odds of being taken rise with it within an example."""
    at = data["names"].index(data["begins"])
    if data["begins"] == "blend":
        return at, 1.0  # the odds themselves
    of = part(data, 0, TRAIN)
    x, y = of["x"][:, at].astype(np.float64), of["y"].astype(np.float64)
    starts = np.append(0, np.cumsum(of["sizes"])[:-1])
    x -= np.repeat(np.add.reduceat(x, starts) / of["sizes"], of["sizes"])
    scale = x.std() + 1e-9
    x, w = np.column_stack([x / scale, np.ones(len(x))]), np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-(x @ w)))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(2), x.T @ (y - p) - w)
    if not np.isfinite(w).all():
        raise Refused("the examples hold what is no number; leave out the files that do")
    return at, float(np.float32(max(0.0, w[0] / scale)))


def newest(files, most=MOST):
    """As many of the newest files as hold so many rows; a file's name begins with its first epoch."""
    rows, first = 0, len(files)
    while first > 0 and rows < most:
        first -= 1
        try:
            rows += pq.read_metadata(files[first]).num_rows
        except FileNotFoundError:
            pass
    return files[first:]


def part(data, begin, end):
    """The rows and the sizes of the examples from one share of all to another."""
    ends, count = data["ends"], len(data["ends"]) - 1
    first, last = int(count * begin), int(count * end)
    rows = slice(ends[first], ends[last])
    return {"x": data["x"][rows], "y": data["y"][rows], "sizes": np.diff(ends[first:last + 1]), "user": data["user"][first:last],
            "ts": data["ts"][first:last]}


def columns(data, names):
    return [data["names"].index(name) for name in names]
