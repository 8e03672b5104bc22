"""Writes what was trained: the ONNX model with what it says of itself, and every file whole or not at all."""

import os

import onnx
from onnx import TensorProto, helper

from said import SCHEMA


def write_onnx(path, model):
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
