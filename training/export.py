"""Writes what was trained: the ONNX model with what it says of itself, and every file whole or not at all."""

import os
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from said import SCHEMA


class Graph:
    """Nodes and constants, as they are written one after the other."""

    def __init__(self):
        self.nodes, self.made = [], []

    def constant(self, value):
        self.made.append(numpy_helper.from_array(np.asarray(value), f"constant_{len(self.made)}"))
        return self.made[-1].name

    def node(self, kind, *takes, **settings):
        gives = settings.pop("gives", f"{kind.lower()}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, list(takes), [gives], **settings))
        return gives

    def layer(self, takes, matrix, bias):
        return self.node("Gemm", takes, self.constant(matrix), self.constant(bias))


def write_onnx(path, model):
    nodes, made, width = model["graph"]()
    takes = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])
    gives = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])
    said = {"overdrive.score": model["kind"], "overdrive.features": ",".join(model["takes"])}
    write_graph(path, helper.make_graph(nodes, path.stem, [takes], [gives], made), said)


def write_tower(path, graph, takes, width):
    """`takes` is of each input the type and the shape of a row; what it gives is vectors of so many numbers."""
    takes = [helper.make_tensor_value_info(name, kind, ["rows", *shape]) for name, (kind, shape) in takes.items()]
    gives = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["rows", width])
    write_graph(path, helper.make_graph(graph.nodes, path.stem, takes, [gives], graph.made), {"overdrive.tower": path.stem})


def write_graph(path, graph, said):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="overdrive")
    helper.set_model_props(proto, {"overdrive.schema": SCHEMA} | said)
    onnx.checker.check_model(proto)
    replace(path, proto.SerializeToString())


def replace(path, content):
    """The whole file or none of it."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(unfinished, path)


def replace_folder(path, fresh):
    """A folder by another, whole; who dies in between leaves the one before beside it."""
    before = path.with_name(f".{path.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if path.exists():
        path.rename(before)
    fresh.rename(path)
    shutil.rmtree(before, ignore_errors=True)
