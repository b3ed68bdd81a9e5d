"""The metrics of one loaded model after one call, as `Exported.metrics` writes them: the only list of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def metrics_of_one_call(
    series: str,
    *,
    call: str,
    span: str,
    info: str,
    memory: Mapping[str, object],
    nodes: Collection[str] = (),
    batch: int | None = None,
    drift: bool = True,
    clipped: str | None = None,
    allocated: int | None = None,
    loaded: str | None = None,
) -> str:
    """Every metric of the model with its kind, unit and points, and no other.

    Args:
        series: the four attributes that tell the model's series from others, in brackets.
        call: value of ``quantmon.operation.name``.
        span: name of the span that the call's exemplar leads to.
        info: the attributes of ``quantmon.model.info``.
        memory: values by ``quantmon.memory.type``, but for what the operating system has a say in.
        nodes: the series that have nodes; without any there is no such metric.
        batch: size of the call's batch; None where the shapes of a call are fixed or not known.
        drift: False where the shapes of a call, by which it is compared with others, are not known.
        clipped: name of the quantized input whose values were checked.
        allocated: bytes of the call's outputs, None where they are not known.
        loaded: the series at the load, where that is another.
    """
    points: dict[str, list[str]] = {
        "quantmon.execution_provider.nodes (gauge, {node})": [
            f"{taker}: <{{node}}>" for taker in sorted(nodes)
        ],
        "quantmon.inference.active (updowncounter, {inference})": [f"{series}: 0"],
        "quantmon.inference.batch_size (histogram, {item})": (
            [] if batch is None else [f"{series}: count 1 sum {batch} min {batch} max {batch}"]
        ),
        "quantmon.inference.duration (histogram, s)": [
            f"{series} quantmon.operation.name='{call}': count 1 exemplars ['{span}']"
        ],
        "quantmon.inference.duration.drift (gauge, 1)": [f"{series}: <1>"] if drift else [],
        "quantmon.inference.window.duration (gauge, s)": [
            f"{series} quantmon.statistic='{statistic}': <s>" for statistic in ("mean", "p50", "p95", "p99")
        ],
        "quantmon.input.clip_ratio (gauge, 1)": (
            [] if clipped is None else [f"{series} quantmon.input.name='{clipped}': 0.0"]
        ),
        "quantmon.memory.allocated (counter, By)": [] if allocated is None else [f"{series}: {allocated}"],
        "quantmon.memory.usage (updowncounter, By)": [
            *sorted(
                f"{series} quantmon.memory.type='{kind}': {size}"
                for kind, size in {"load_rss": "<By>", **memory}.items()
            ),
            "quantmon.memory.type='process_rss': <By>",
        ],
        "quantmon.model.info (gauge, 1)": [f"{series} {info}: 1"],
        "quantmon.model.load.duration (histogram, s)": [f"{loaded or series}: count 1"],
        "quantmon.overhead.duration (counter, s)": [
            f"quantmon.overhead.phase='{phase}': <s>"
            for phase in ("call", "collect", "drain", "load", "worker")
        ],
    }
    return "\n".join(
        line for name, found in points.items() if found for line in (name, *(f"  {point}" for point in found))
    )
