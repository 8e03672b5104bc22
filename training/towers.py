"""What the recipes of two towers share: the lessons, the vectors of items, how both towers are learned, how good they are, and the files.

An item's vector is the sum of one of its own, of what its tokens say, and of one that is the same for all, made to be of length one; a user's
is made of those of the items they took last. Their product times `sharp` goes into a softmax over the catalogue. An item has a vector of its
own only where somebody took it while this was learned, and it is left out at random meanwhile: what is new leans on its tokens.

A recipe is the user's tower: `begin`, `forward` (vectors that are not of length one yet, and what slopes need), `slopes`, `graph`. The same
examples give the same towers, bit by bit, on one machine.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from onnx import TensorProto
from scipy import sparse

import export
import figures
from examples import KEYS, LEAST, STOP, TOWERS, TRAIN, newest, once, opened
from said import Refused, say

WIDTH, TOKENS, LAST = 64, 16, 50  # numbers of a vector, tokens of an item and items of a history that are looked at
MOST = 20_000_000  # rows, the newest: some 100,000 lessons
WHOLE, DRAWN = 10_000, 4_000  # items up to which the softmax is over all, and how many are drawn for a step where there are more
BATCH, ROUNDS, PATIENCE = 128, 16, 2
RATE, MEMORY = 3e-3, (0.9, 0.999)  # Adam's
KEPT = 0.99  # of the running mean, a step
SHARP = 10.0  # to begin with
FADING = 3.0  # of vectors, a step, by the rate: without it they learn the lessons by heart, those of tokens first
LEFT_OUT = 0.2  # of the items' own vectors, a step
HALF = 0.25  # of the time there is: a lesson that much older counts half
SEED = 7
SCORES = 8_000_000  # that are made at once


def load(folder):
    """The catalogue in the order of hashes, and the lessons in the order of time; items are named by their place in the catalogue."""
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise Refused(f"{folder} holds no examples; run the engine with learn.enabled = true and learn.logged above 0")
    files, earlier, taken, items = newest(files, MOST), 0, [], None
    for n, file in enumerate(files):
        try:
            table = opened(file, KEYS + TOWERS)
        except FileNotFoundError:
            continue  # an engine that runs makes room, or takes out whom it forgets
        if any(name not in table.column_names for name in TOWERS):
            earlier += 1
            continue
        if len(table):
            items = last_said(items, table["item"].to_numpy(), table["ts_ms"].to_numpy(), table["tokens"].combine_chunks())
        table = table.filter(table["taken"])
        taken.append(table.filter(compute.greater(compute.list_value_length(table["history"]), 0)).select(KEYS + TOWERS[::2]))
        say(done=0.1 * (n + 1) / len(files), what=f"reading {file.name}")
    if not taken and not earlier:
        raise Refused(f"the files in {folder} went away while they were read; try again")
    if not taken:
        raise Refused(f"the {earlier} files in {folder} lack what was taken before: they are of an earlier version, or impressions; towers learn "
                      "from what learn.logged has this version write to examples/")
    table = once(pa.concat_tables(taken))
    pasts = padded(table["history"].combine_chunks(), LAST)
    target, ts = table["item"].to_numpy(), table["ts_ms"].to_numpy()
    rows = np.flatnonzero((pasts != target[:, None]).all(1))  # who takes again what they took before finds it without this
    pasts, target, ts = pasts[rows], target[rows], ts[rows]
    if len(rows) < LEAST:
        raise Refused(f"{folder} holds {len(rows)} examples of users who took something before, at least {LEAST} are needed; log for longer, or "
                      "raise learn.logged")
    held = pasts != 0
    items = last_said(items, pasts[held], np.broadcast_to(ts[:, None], pasts.shape)[held], None)
    ids = items["id"]
    users = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()[rows]
    return items | {"target": np.searchsorted(ids, target), "past": np.where(held, np.searchsorted(ids, pasts), len(ids)), "ts": ts, "user": users}


def padded(lists, width):
    """The first so many of each list, with zeros after them."""
    starts, sizes = lists.offsets.to_numpy()[:-1], np.minimum(np.diff(lists.offsets.to_numpy()), width)
    values, made = lists.values.to_numpy(), np.zeros((len(lists), width), np.int64)
    row = np.repeat(np.arange(len(lists)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    made[row, place] = values[starts[row] + place]
    return made


def last_said(known, ids, times, tokens):
    """Each item once, with when it was seen first and the tokens that were said of it last."""
    order = np.lexsort((times, ids))
    ids, times = ids[order], times[order]
    ends = np.flatnonzero(np.append(ids[1:] != ids[:-1], True))
    starts = np.append(0, ends[:-1] + 1)
    said = padded(tokens.take(pa.array(order[ends])), TOKENS) if tokens is not None else np.zeros((len(ends), TOKENS), np.int64)
    # A history says nothing of an item but that there is one.
    new = {"id": ids[ends], "first": times[starts], "last": times[ends] if tokens is not None else np.full(len(ends), -1), "tokens": said}
    if known is None:
        return new
    both = {name: np.concatenate([known[name], new[name]]) for name in new}
    order = np.lexsort((both["last"], both["id"]))
    both = {name: value[order] for name, value in both.items()}
    ends = np.flatnonzero(np.append(both["id"][1:] != both["id"][:-1], True))
    first = np.minimum.reduceat(both["first"], np.append(0, ends[:-1] + 1))
    return {name: value[ends] for name, value in both.items()} | {"first": first}


# The tower of items.

def buckets(hashes, count):
    """0 for none, else 1 and more: what a graph can do too."""
    return np.where(hashes == 0, 0, 1 + hashes % count)


class Table:
    """Which row of the vectors a hash has: that of its bucket where anything was learned for it, else 0, which says nothing."""

    def __init__(self, hashes, first):
        hashes = hashes[hashes != 0]
        count = 4
        while count < 4 * len(hashes) or (count < 64 * len(hashes) and count < 1 << 22):
            count *= 2  # so that hardly two share a bucket; where there are very many, some do
        used = np.unique(buckets(hashes, count))
        self.count, self.rows = count, np.zeros(count + 1, np.int32)
        self.rows[used] = first + np.arange(len(used))
        self.end = first + len(used)

    def of(self, hashes):
        return self.rows[buckets(hashes, self.count)]


class Items:
    """Where the vectors stand that an item's is the sum of: row 0 is none, row 1 that of all, then their own, then those of tokens."""

    def __init__(self, data, end):
        """Knows what was taken up to a lesson, and what is said of it."""
        known = np.unique(np.append(data["target"][:end], data["past"][:end]))
        self.known = known[known < len(data["id"])]
        self.ids = Table(data["id"][self.known], 2)
        self.tokens = Table(np.unique(data["tokens"][self.known]), self.ids.end)
        self.size = self.tokens.end
        self.starts = [1, 2] + [self.ids.end] * (self.ids.end < self.size)

    def matrix(self, ids, tokens):
        """Sums, as a matrix: its own vector stands first in every row."""
        own, said = self.ids.of(ids), self.tokens.of(tokens)
        columns = np.column_stack([own, np.ones(len(ids), np.int32), said])
        share = 1 / np.sqrt(np.maximum((said > 0).sum(1), 1))
        values = np.column_stack([own > 0, np.ones(len(ids)), (said > 0) * share[:, None]]).astype(np.float32)
        stands = values != 0
        stands[:, 0] = True
        return sparse.csr_matrix((values[stands], columns[stands], np.append(0, np.cumsum(stands.sum(1)))), (len(ids), self.size))


def long_one(x):
    """Vectors of length one, and what they were divided by."""
    length = np.sqrt((x * x).sum(1, keepdims=True) + np.float32(1e-12))
    return x / length, length


def through(slope, vectors, length):
    """The slope before vectors were made to be of length one."""
    return (slope - vectors * (slope * vectors).sum(1, keepdims=True)) / length


# Learning.

def train(recipe, data):
    """Adam on the softmax. The part before the last says after how many rounds to stop; then both are trained on for as many."""
    count = len(data["ts"])
    fit, both = int(count * TRAIN), int(count * STOP)
    best, rounds = np.inf, 0
    items = Items(data, fit)
    for number, weights in enumerate(learned(recipe, data, items, fit, ROUNDS)):
        loss = lost(recipe, weights, items, data, fit, both)
        say(done=0.1 + 0.35 * (number + 1) / ROUNDS, what=f"round {number + 1}")
        if loss < best:
            best, rounds = loss, number + 1
        elif number + 1 - rounds >= PATIENCE:
            break
    if not rounds:
        raise Refused("what was learned is no number; please report this")
    items = Items(data, both)
    for number, weights in enumerate(learned(recipe, data, items, both, rounds)):
        say(done=0.45 + 0.35 * (number + 1) / rounds, what=f"round {number + 1} of {rounds} with the latest examples")
    return weights, items


def learned(recipe, data, items, end, rounds):
    """The running mean of the weights after each round over the lessons before `end`, which come in an order of the seed's."""
    draws, step = np.random.default_rng(SEED), 0
    weights = {"vectors": draws.normal(0, 0.1, (items.size, WIDTH)), "sharp": np.full(1, np.log(SHARP))} | recipe.begin(draws)
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    weights["vectors"][0] = 0
    kept = {name: value.copy() for name, value in weights.items()}
    speed, power = ({name: np.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    power["vectors"] = np.zeros((items.size, 1), np.float32)
    sums, often = items.matrix(data["id"], data["tokens"]), np.bincount(data["target"][:end], minlength=len(data["id"])) / end
    counts = weighed(data["ts"][:end])
    for _ in range(rounds):
        order = draws.permutation(end)
        for drawn in np.split(order, range(BATCH, end, BATCH)):
            among = pool(items.known, often, data["target"][drawn], draws)
            slope = slopes(recipe, weights, data, sums, drawn, counts[drawn], among, draws)
            step += 1
            rate = RATE * (1 - MEMORY[1] ** step) ** 0.5 / (1 - MEMORY[0] ** step)
            fades = max(1 - KEPT, 9 / (10 + step))
            for name, value in weights.items():
                square = slope[name] ** 2 if name != "vectors" else alike(slope[name], items.starts)
                speed[name] += (1 - MEMORY[0]) * (slope[name] - speed[name])
                power[name] += (1 - MEMORY[1]) * (square - power[name])
                value -= rate * speed[name] / (np.sqrt(power[name]) + 1e-8)
                if name == "vectors":
                    value[2:] *= 1 - RATE * FADING
                kept[name] += fades * (value - kept[name])
        yield {name: value.copy() for name, value in kept.items()}


def alike(slope, starts):
    """The mean square of each sort of vectors: by its own, what was taken once would move as far as what was taken a thousand times."""
    sizes = np.diff(starts + [len(slope)])
    means = np.add.reduceat((slope * slope).mean(1), starts) / sizes
    return np.append(np.zeros(starts[0]), np.repeat(means, sizes)).astype(np.float32)[:, None]


def weighed(ts):
    """What each lesson counts: late ones tell more of what is taken now."""
    value = 0.5 ** ((ts[-1] - ts) / max(1, ts[-1] - ts[0]) / HALF)
    return (value / value.mean()).astype(np.float32)


def pool(known, often, targets, draws):
    """The items a softmax is over, and the logarithm of how likely each is to be among them."""
    if len(known) <= WHOLE:
        return known, np.zeros(len(known), np.float32)
    among = np.union1d(targets, draws.choice(known, DRAWN, replace=False))
    return among, np.log(1 - (1 - DRAWN / len(known)) * (1 - often[among]) ** len(targets)).astype(np.float32)


def slopes(recipe, weights, data, sums, drawn, counts, among, draws):
    """Of the mean loss of the softmax, by each weight. What a user took before, and what was not there yet, is not in theirs."""
    among, chance = among
    past, target = data["past"][drawn], data["target"][drawn]
    used = np.union1d(among, past[past < len(data["id"])])
    place = np.full(len(data["id"]) + 1, len(used))  # the one after the last is none
    place[used] = np.arange(len(used))
    of = sums[used]
    of.data[of.indptr[:-1]] *= draws.random(len(used)) >= LEFT_OUT
    vectors, length = long_one(of @ weights["vectors"])
    vectors = np.concatenate([vectors, np.zeros((1, WIDTH), np.float32)])
    past, target, at, rows = place[past], place[target], place[among], np.arange(len(drawn))
    z, remembered = recipe.forward(weights, vectors[past])
    user, far = long_one(z)
    scale = np.exp(weights["sharp"])[0]
    odds = np.full((len(drawn), len(vectors)), -np.inf, np.float32)
    odds[:, at] = np.where(data["first"][among] > data["ts"][drawn, None], -np.inf, scale * (user @ vectors[at].T) - chance)
    odds[rows[:, None], past] = -np.inf
    odds[rows, target] = scale * (user * vectors[target]).sum(1)
    error = np.exp(odds - odds.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    error[rows, target] -= 1
    error *= (counts / len(drawn))[:, None]
    by_user = error @ vectors
    slope, by_history = recipe.slopes(weights, remembered, through(scale * by_user, user, far))
    spread = sparse.csr_matrix((np.ones(past.size, np.float32), past.ravel(), np.arange(past.size + 1)), (past.size, len(vectors)))
    by_vectors = scale * (error.T @ user) + spread.T @ by_history.reshape(-1, WIDTH)
    by_rows = of.T @ through(by_vectors[:-1], vectors[:-1], length)
    by_rows[0] = 0
    return slope | {"vectors": by_rows, "sharp": scale * (by_user * user).sum(keepdims=True)[0]}


def lost(recipe, weights, items, data, begin, end):
    """The mean loss over some lessons, the softmax being over all items that were there."""
    catalogue = vectors_of(items, weights, data["id"], data["tokens"])
    scale, total = np.exp(weights["sharp"])[0], 0.0
    for rows in chunks(begin, end, len(data["id"])):
        odds = scale * (users_of(recipe, weights, catalogue, data["past"][rows]) @ catalogue.T)
        odds[data["first"] > data["ts"][rows, None]] = -np.inf
        odds = without(odds, data["past"][rows])
        most = odds.max(1)
        taken = odds[np.arange(len(odds)), data["target"][rows]]
        total += float((np.log(np.exp(odds - most[:, None]).sum(1)) + most - taken).sum(dtype=np.float64))
    return total / (end - begin)


def chunks(begin, end, wide):
    size = max(1, SCORES // wide)
    return [slice(at, min(at + size, end)) for at in range(begin, end, size)]


def vectors_of(items, weights, ids, tokens):
    return long_one(items.matrix(ids, tokens) @ weights["vectors"])[0]


def users_of(recipe, weights, catalogue, past):
    with_none = np.concatenate([catalogue, np.zeros((1, WIDTH), np.float32)])
    return long_one(recipe.forward(weights, with_none[past])[0])[0]


def without(scores, past):
    """The scores, less those of what was taken before."""
    row, place = np.nonzero(past < scores.shape[1])
    scores[row, past[row, place]] = -np.inf
    return scores


# How good they are.

def ranks(data, begin, scores):
    """The place at which what was taken stands among all that were there and were not taken before; who is level with it is above it half of the time."""
    found = []
    for rows in chunks(begin, len(data["ts"]), len(data["id"])):
        these = without(scores(rows), data["past"][rows])
        these[data["first"] > data["ts"][rows, None]] = -np.inf  # not there yet
        taken = these[np.arange(len(these)), data["target"][rows]][:, None]
        found.append((these > taken).sum(1) + ((these == taken).sum(1) - 1) / 2)
    return np.concatenate(found)


def popular(data, end):
    often = np.bincount(data["target"][:end], minlength=len(data["id"])).astype(np.float32)
    return lambda rows: np.tile(often, (len(data["ts"][rows]), 1))


def near(data, end):
    """What was taken soon after the items that were taken last, the sooner the more; among equals what is popular."""
    items, reach, fades = len(data["id"]), 10, 0.8
    past, fade = data["past"][:, :reach], (fades ** np.arange(reach)).astype(np.float32)

    def matrix(rows):
        held = past[rows] < items
        ends = np.append(0, np.cumsum(held.sum(1)))
        return sparse.csr_matrix((np.broadcast_to(fade, held.shape)[held], past[rows][held], ends), (len(held), items))

    before = matrix(slice(0, end))
    target = sparse.csr_matrix((np.ones(end, np.float32), data["target"][:end], np.arange(end + 1)), (end, items))
    after = (before.T @ target).tocsr()
    often = np.bincount(data["target"][:end], minlength=items) / end
    usual = sparse.diags_array(1 / np.sqrt(1 + np.asarray(before.sum(0)).ravel()).astype(np.float32))
    after = (usual @ after).tocsr()
    return lambda rows: (matrix(rows) @ after).toarray() + (1e-3 * often).astype(np.float32)


def evaluate(recipe, weights, items, data):
    count = len(data["ts"])
    begin = int(count * STOP)
    catalogue = vectors_of(items, weights, data["id"], data["tokens"])
    ways = {"model": lambda rows: users_of(recipe, weights, catalogue, data["past"][rows]) @ catalogue.T, "popular": popular(data, begin),
            "near": near(data, begin)}
    found = {name: ranks(data, begin, scores) for name, scores in ways.items()}
    gains = {name: np.where(rank < 10, 1 / np.log2(rank + 2), 0) for name, rank in found.items()}
    tenths = np.array_split(np.arange(count - begin), 10)
    better = max(("popular", "near"), key=lambda name: gains[name].mean())
    return {
        "examples": {"earlier": begin, "held_out": count - begin}, "items": len(data["id"]),
        "from_ms": int(data["ts"][0]), "held_out_from_ms": int(data["ts"][begin]), "until_ms": int(data["ts"][-1]),
        "recall_50": {name: float((rank < 50).mean()) for name, rank in found.items()},
        "ndcg_10": {name: float(gain.mean()) for name, gain in gains.items()}
        | {"ahead": figures.bootstrap(gains["model"] - gains[better], data["user"][begin:])},
        "tenths": {name: [float(gain[t].mean()) for t in tenths] for name, gain in gains.items()},
    }


# The files.

def golden(recipe, weights, items, data):
    """Some items, known ones, new ones, and ones of which nothing is said; some histories of them; and what the towers make of them."""
    draws, count = np.random.default_rng(SEED), 32
    some = draws.choice(items.known, count)
    ids, tokens = data["id"][some], data["tokens"][some]
    ids[:8] = draws.integers(-(2 ** 62), 2 ** 62, 8)
    tokens[6:12] = 0
    histories = [draws.integers(0, count, size).tolist() for size in np.linspace(0, LAST, 16).astype(int)]
    vectors = vectors_of(items, weights, ids, tokens)
    past = np.array([history + [count] * (LAST - len(history)) for history in histories])
    return {"items": [{"item": int(item), "tokens": [int(token) for token in said if token]} for item, said in zip(ids, tokens)],
            "vectors": vectors.tolist(), "histories": histories, "users": users_of(recipe, weights, vectors, past).tolist()}


def write(path, recipe, weights, items):
    graph = export.Graph()
    of_items(graph, weights, items)
    integer = TensorProto.INT64
    export.write_tower(path / "item.onnx", graph, {"item": (integer, [1]), "tokens": (integer, [TOKENS])}, WIDTH)
    graph = export.Graph()
    unit(graph, recipe.graph(graph, weights))
    export.write_tower(path / "user.onnx", graph, {"history": (TensorProto.FLOAT, [LAST, WIDTH])}, WIDTH)


def of_items(graph, weights, items):
    """What `vectors_of` does."""
    own, said = looked_up(graph, "item", items.ids), looked_up(graph, "tokens", items.tokens)
    table, axis = graph.constant(weights["vectors"]), graph.constant(np.array([1]))
    number = graph.node("ReduceSum", graph.node("Cast", graph.node("Greater", said, graph.constant(np.int32(0))), to=1), axis, keepdims=1)
    spoken = graph.node("ReduceSum", graph.node("Gather", table, said), axis, keepdims=0)
    spoken = graph.node("Div", spoken, graph.node("Sqrt", graph.node("Max", number, graph.constant(np.float32(1)))))
    alone = graph.node("ReduceSum", graph.node("Gather", table, own), axis, keepdims=0)
    unit(graph, graph.node("Add", graph.node("Add", alone, spoken), graph.constant(weights["vectors"][1])))


def looked_up(graph, hashes, table):
    bucket = graph.node("Add", graph.node("Mod", hashes, graph.constant(np.int64(table.count))), graph.constant(np.int64(1)))
    zero = graph.constant(np.int64(0))
    bucket = graph.node("Where", graph.node("Equal", hashes, zero), zero, bucket)
    return graph.node("Gather", graph.constant(table.rows), bucket)


def unit(graph, x):
    square = graph.node("ReduceSumSquare", x, axes=[1], keepdims=1)
    graph.node("Div", x, graph.node("Sqrt", graph.node("Add", square, graph.constant(np.float32(1e-12)))), gives="vector")
