"""Check ONNX graphs from elsewhere before a runtime loads one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from embedmill.base.errors import ModelError
from embedmill.model.contents import stand_in
from embedmill.model.names import holds_weights, is_plain

# Operators of these domains are built into the runtime; any other needs a library, which would run as code.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# The limit of protobuf, which ONNX files are written in.
MOST_BYTES = 2**31 - 1


def load_graph(source: Path) -> onnx.ModelProto:
    """Load and check a graph without external weights.

    Raises ModelError for an unreadable file, operators of an unknown domain or compiled for some device, and weights
    elsewhere than in plain files of the graph's folder.
    """
    model = _read_graph(source)
    # A function defined in the file may be called: its nodes are checked too.
    functions = {(function.domain, function.name) for function in model.functions}
    for message in messages_of(model):
        if isinstance(message, onnx.NodeProto) and (message.domain, message.op_type) not in functions:
            _check_operator(message, source)
    for location, needed_bytes in _external(model).items():
        _check_location(location, needed_bytes, source)
    return model


def _read_graph(source: Path) -> onnx.ModelProto:
    try:
        if (reason := stand_in(source)) is not None:
            raise ModelError(f"{source} is not a readable ONNX file: {reason}")
        if source.stat().st_size > MOST_BYTES:
            raise ModelError(
                f"{source} is larger than 2 GiB, which no ONNX file can be; export it with its weights in a file"
                " beside it (external data)"
            )
        return onnx.load_model(source, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{source} is not a readable ONNX file ({error}): incomplete, or of another kind; compare its size and"
            " sha256 with the source's"
        ) from error


def weight_files(model: onnx.ModelProto) -> list[str]:
    """List the external weight files of a graph."""
    return sorted(_external(model))


def _external(model: onnx.ModelProto) -> dict[str, int]:
    """Map external weight files to the bytes needed."""
    files: dict[str, int] = {}
    for message in messages_of(model):
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in message.external_data}
            numbers = [entries.get(key, "0") for key in ("offset", "length")]
            end = sum(int(number) for number in numbers if number.isdecimal())
            location = entries.get("location", "")
            files[location] = max(files.get(location, 0), end)
    return files


def messages_of(message: Message) -> Iterator[Message]:
    """Walk a message: initializers, attributes, subgraphs, functions."""
    stack = [message]
    while stack:
        current = stack.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                stack += [value] if isinstance(value, Message) else list(value)


def _check_operator(node: onnx.NodeProto, source: Path) -> None:
    if node.domain not in DOMAINS:
        raise ModelError(
            f"{source} has the operator {node.op_type!r} of the unknown domain {node.domain!r}, which needs a library"
            " of its own; operator libraries are not loaded, so export it with standard operators"
        )
    # A graph compiled for a device is opaque: its operators cannot be checked.
    if node.op_type == "EPContext":
        raise ModelError(
            f"{source} holds a graph compiled for some device (EPContext), which cannot be checked; that is refused,"
            " so add the model from before compilation"
        )


def _check_location(location: str, needed_bytes: int, source: Path) -> None:
    if not is_plain(location):
        raise ModelError(f"{source} keeps weights in {location!r}, outside its folder; that is refused")
    if not holds_weights(location):
        raise ModelError(f"{source} keeps weights in {location!r}, a name of another file; export it with another one")
    file = source.parent / location
    if file.is_symlink() and not _belongs_to(file, source.parent):
        raise ModelError(
            f"{source} keeps weights in {location!r}, a link out of its folder; that is refused, so copy them"
        )
    if not file.is_file():
        raise ModelError(f"{file} is missing: {source.name} keeps its weights there; copy it to the same folder")
    if (reason := stand_in(file)) is not None:
        raise ModelError(f"{file} does not hold the weights of {source.name}: {reason}")
    if file.stat().st_size < needed_bytes:
        raise ModelError(
            f"{file} has {file.stat().st_size:,} bytes, and {source.name} keeps weights up to byte {needed_bytes:,}"
            " there: it is cut short, or of another export; copy both again"
        )


def _belongs_to(file: Path, folder: Path) -> bool:
    # Path.resolve raises on circular links, realpath does not; opening such a file then fails.
    real, folder = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if real.is_relative_to(folder):
        return True
    # In the Hugging Face cache a snapshot's files are links into `blobs` beside `snapshots`.
    roots = [parent.parent for parent in folder.parents if parent.name == "snapshots"]
    return any(real.is_relative_to(root / "blobs") for root in roots)
