"""What a model file says of itself, read without any runtime and with the standard library alone.

A reader touches the structure of a file and skips its weights: a file of gigabytes is read in
milliseconds. Damaged and hostile files end in :class:`~otel_quantmon.errors.ModelFormatError`, within seconds
and without memory in proportion to what they claim.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from otel_quantmon.errors import ModelFormatError
from otel_quantmon.models.formats.facts import ModelFacts, QuantizationParameters, TensorFacts
from otel_quantmon.models.formats.source import Data, contents, open_regular

__all__ = ["ModelFacts", "ModelSource", "QuantizationParameters", "TensorFacts", "read_digest", "read_facts"]

ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview
"""A file's path, or the contents of one."""

_CHUNK = 1 << 20

_FOREIGN = {
    b"version https://git-lfs": "it is a Git LFS pointer; fetch the model itself with 'git lfs pull'",
    b"PK\x03\x04": "it is a zip archive (a Keras or PyTorch file, or a bundle); export or unpack the model",
    b"\x89HDF\r\n": "it is an HDF5 file; convert the Keras model to ONNX or TFLite",
    b"\x80\x02": "it is a Python pickle; export the model to ONNX or TFLite",
    b"<": "it is a web page or XML; check where it was downloaded from",
}


def read_facts(source: ModelSource) -> ModelFacts:
    """Read the facts of an ONNX, ONNX Runtime (ORT) format or TFLite model, whichever the contents show.

    Args:
        source: A path, or the model's bytes. External data of an ONNX model is looked for beside the file; of
            bytes it cannot be, and the facts' ``unknown`` says so.

    Raises:
        ModelFormatError: The contents are none of these formats, or damaged. The message says what to do.
        OSError: The file cannot be read, is not a regular file, or was changed meanwhile.
    """
    name = "the model in memory"
    try:
        if not isinstance(source, (str, os.PathLike)):
            return _read(_bytes_of(source), None)
        name = repr(os.fspath(source))
        with open_regular(source) as file:
            return _read(contents(file), Path(source).parent)
    except ModelFormatError as error:
        raise ModelFormatError(f"cannot read {name}: {error}") from error


def _read(data: Data, folder: Path | None) -> ModelFacts:
    if not len(data):
        raise ModelFormatError("it is empty; export or download it again")
    head = data[:32].tobytes()
    for start, problem in _FOREIGN.items():
        if head.startswith(start):
            raise ModelFormatError(problem)
    identifier = head[4:8]
    try:
        # A process has models of one format as a rule: only that format's reader is loaded, and not at start.
        if identifier == b"TFL3":
            from otel_quantmon.models.formats.tflite import read_tflite

            return read_tflite(data)
        if identifier == b"ORTM":
            from otel_quantmon.models.formats.ort import read_ort

            return read_ort(data)
        from otel_quantmon.models.formats.onnx import read_onnx

        return read_onnx(data, folder)
    except ModelFormatError as error:
        form = {b"TFL3": "a TFLite", b"ORTM": "an ORT format"}.get(identifier, "an ONNX")
        raise ModelFormatError(
            f"as {form} model it is damaged or cut off ({error}); compare its size and checksum with the"
            " original's, and export or download it again"
        ) from error


def read_digest(source: ModelSource) -> str:
    """``"sha256:<hex>"`` of a model's bytes; of an ONNX model with external data, of the main file only.

    A file is read in pieces of 1 MiB, and other threads run meanwhile.

    Raises:
        OSError: As for `read_facts`.
    """
    digest = hashlib.sha256()
    if not isinstance(source, (str, os.PathLike)):
        digest.update(_bytes_of(source))
        return f"sha256:{digest.hexdigest()}"
    with open_regular(source) as file:
        for offset in range(0, file.size, _CHUNK):
            digest.update(file.read(offset, min(_CHUNK, file.size - offset)))
    return f"sha256:{digest.hexdigest()}"


def _bytes_of(source: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(source)
    return (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")
