"""What each stage of a fleet's judgement costs for one sample: to send it, to run it, to write it down, to judge it.

    python benchmarks/fleet.py --hosts 200 --samples 150

Processor time of one thread, on real samples of magika; and the bytes that leave and that are kept. docs/fleet.md has a
plan that is made of these figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import real_models

from otel_quantmon.evaluator.fleet.findings import findings_of, subject_of
from otel_quantmon.evaluator.fleet.judge import Judge
from otel_quantmon.evaluator.fleet.state import FleetState, Sighting
from otel_quantmon.fidelity.engines import open_engine
from otel_quantmon.fidelity.numerics.comparison import compare
from otel_quantmon.fidelity.remote.record import SampleRecord, decode, encode

KEY = ("magika_int8", "onnxruntime", "qdq", "CPUExecutionProvider")
AT_ONCE = 32


def calls(count: int) -> tuple[list[SampleRecord], list[Any], float]:
    """Real samples, their comparisons, and seconds of one run of the float model."""
    quantized, reference = (
        open_engine(str(real_models.magika_qdq())),
        open_engine(str(real_models.magika_float())),
    )
    facts = (*quantized.facts.inputs, *quantized.facts.outputs)
    by_name = {one.name: one for one in facts}
    records, comparisons, spent = [], [], 0.0
    for row in real_models.magika_inputs(count):
        inputs = {"bytes": row[None]}
        outputs = quantized.run(inputs)
        records.append(
            SampleRecord(
                id=uuid.uuid4().hex,
                model=KEY[0],
                runtime=KEY[1],
                scheme=KEY[2],
                provider=KEY[3],
                digest="sha256:1",
                version=None,
                host="here",
                service="files",
                instructions="x86_64+avx2",
                golden=False,
                time=1,
                trace_id=0,
                span_id=0,
                inputs=inputs,
                outputs=outputs,
                facts=facts,
            )
        )
        began = time.process_time()
        expected = reference.run(inputs)
        spent += time.process_time() - began
        comparisons.append(compare(outputs, expected, facts=by_name))
    return records, comparisons, spent / count


def each(job: Callable[[Any], object], given: list[Any]) -> float:
    """Seconds of processor time for one."""
    began = time.process_time()
    for one in given:
        job(one)
    return (time.process_time() - began) / len(given)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--samples", type=int, default=150, help="of each host")
    arguments = parser.parse_args()
    records, comparisons, float_run = calls(AT_ONCE)
    data = [encode(record) for record in records]
    found: dict[str, float] = {
        "bytes of a sample": sum(map(len, data)) / len(data),
        "encode, ms": 1e3 * each(encode, records * 4),
        "decode, ms": 1e3 * each(decode, data * 4),
        "float model, ms": 1e3 * float_run,
    }
    pairs = list(zip(records, comparisons, strict=True))
    found["findings, ms"] = 1e3 * each(lambda pair: findings_of(*pair), pairs * 4)
    said = [findings_of(*pair) for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.sqlite"
        state = FleetState(path)
        judge = Judge(state, "judge", 1.0)
        committed = judged = 0.0
        sent = 0
        for number in range(arguments.samples):
            for first in range(0, arguments.hosts, AT_ONCE):
                sightings = []
                for host in range(first, min(first + AT_ONCE, arguments.hosts)):
                    who = replace(subject_of(records[0]), host=f"node-{host}")
                    sightings.append(Sighting(str(sent), KEY, who, said[(number * 7 + host) % len(said)]))
                    sent += 1
                began = time.process_time()
                state.add(sightings)
                committed += time.process_time() - began
            began = time.process_time()
            judge.run()
            judged += time.process_time() - began
        state.close()
        size = path.stat().st_size
    found |= {
        "numbers of a sample": len(said[0]),
        "write down, ms": 1e3 * committed / sent,
        "judge, ms": 1e3 * judged / sent,
        "bytes kept of a host": size / arguments.hosts,
        "samples judged": sent,
    }
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
