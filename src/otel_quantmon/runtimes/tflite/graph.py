"""What the TensorFlow Lite interpreter made of a graph."""

from __future__ import annotations

from typing import Any

from otel_quantmon.models.graph_health import GraphHealth
from otel_quantmon.models.identity import Model

__all__ = ["inspect"]


def inspect(interpreter: Any, model: Model) -> GraphHealth:
    """Count the nodes that a delegate took, and those left to the interpreter's own kernels.

    On the caller's thread, since an interpreter is for one thread; about 1 µs a node and tensor.
    """
    provider = model.loaded.provider
    # Used and let go at once: the interpreter counts the references to its wrapper before a run.
    try:
        names = [interpreter._interpreter.NodeName(i) for i in range(interpreter._interpreter.NumNodes())]
        total = sum(name != "DELEGATE" for name in names)
        taken = sum(_taken(interpreter, names, i) for i, name in enumerate(names) if name == "DELEGATE")
    except AttributeError:
        return GraphHealth({})
    nodes = {provider: taken, "CPU": total - taken} if taken else {"CPU": total}
    return GraphHealth({name: count for name, count in nodes.items() if count})


def _taken(interpreter: Any, names: list[str], delegate: int) -> int:
    """How many nodes stand between the inputs and the outputs of a delegate's node: those that it replaces."""
    producers: dict[int, int] = {}
    for index, name in enumerate(names):
        if name != "DELEGATE":
            for tensor in interpreter._interpreter.NodeOutputs(index):
                producers[int(tensor)] = index
    borders = {int(tensor) for tensor in interpreter._interpreter.NodeInputs(delegate)}
    wanted = [int(tensor) for tensor in interpreter._interpreter.NodeOutputs(delegate)]
    inside: set[int] = set()
    while wanted:
        node = producers.get(wanted.pop())
        if node is None or node in inside:
            continue
        inside.add(node)
        inputs = (int(tensor) for tensor in interpreter._interpreter.NodeInputs(node))
        wanted += [tensor for tensor in inputs if tensor not in borders]
    return len(inside)
