"""What an ONNX graph from elsewhere may hold: known operators, and weights in plain files of its own folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from embedmill.base.errors import ModelError
from embedmill.model.names import is_plain

# The domains whose operators are the runtime's own; an operator of another one comes with a library, which is code.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# What a device compiled, as bytes or in a file: nobody can say what it computes.
_COMPILED = "EPContext"


def load_graph(source: Path) -> onnx.ModelProto:
    """A graph without its external weights, inspected.

    Raises ModelError where it cannot be read, has operators of an unknown domain or compiled for some device, or keeps
    weights elsewhere than in plain files of its own folder.
    """
    try:
        model = onnx.load_model(source, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(f"{source} is not a readable ONNX file ({error}); export it again") from error
    own = {(function.domain, function.name) for function in model.functions}
    for message in _messages(model):
        if isinstance(message, onnx.NodeProto) and (message.domain, message.op_type) not in own:
            _check_operator(message, source)
    for place in weight_files(model):
        _check_place(place, source)
    return model


def weight_files(model: onnx.ModelProto) -> list[str]:
    """The files beside a graph in which it says that its weights are, in whatever part of it."""
    return sorted(
        {
            entry.value
            for message in _messages(model)
            if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL
            for entry in message.external_data
            if entry.key == "location"
        }
    )


def _messages(message: Message) -> Iterator[Message]:
    """A message and all that are in it: initializers, attributes, subgraphs, functions."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else list(value)


def _check_operator(node: onnx.NodeProto, source: Path) -> None:
    if node.domain not in DOMAINS:
        raise ModelError(
            f"{source} has the operator {node.op_type!r} of the unknown domain {node.domain!r}, which needs a library"
            " of its own; libraries of operators are not loaded, so export it with standard operators"
        )
    if node.op_type == _COMPILED:
        raise ModelError(
            f"{source} holds a graph compiled for some device (EPContext), which cannot be checked; that is refused,"
            " so add the model that it was compiled from"
        )


def _check_place(place: str, source: Path) -> None:
    if not is_plain(place):
        raise ModelError(f"{source} keeps weights in {place!r}, outside its folder; that is refused")
    file = source.parent / place
    if file.is_symlink() and not _is_of_model(file, source.parent):
        raise ModelError(
            f"{source} keeps weights in {place!r}, a link out of its folder; that is refused, so copy them"
        )
    if not file.is_file():
        raise ModelError(f"{file} is missing: {source.name} keeps its weights there; fetch the model again")


def _is_of_model(file: Path, folder: Path) -> bool:
    """Whether a file lies below a folder, or in the blobs of the Hugging Face cache that the folder is part of."""
    # Path.resolve raises on links in a circle, which realpath leaves to who opens them.
    real, folder = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if real.is_relative_to(folder):
        return True
    roots = [parent.parent for parent in folder.parents if parent.name == "snapshots"]
    return any(real.is_relative_to(root / "blobs") for root in roots)
