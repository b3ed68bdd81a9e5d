"""What a child after fork keeps of what its parent was finding out about a model: nothing."""

from __future__ import annotations

from lifecycle.programs import run

PROGRAM = """
import os, sys
import numpy as np, onnxruntime
from exported import Exported
from fidelity.waiting import pipeline_of, settle
from otel_quantmon import ONNXRuntimeInstrumentor, Settings
from otel_quantmon.fidelity.inquiry import Inquiry

exported = Exported()
settings = Settings(reference={"*": sys.argv[1]}, reference_budget=0.7, judgement_interval=3600.0)
ONNXRuntimeInstrumentor().instrument(settings=settings, **exported.providers)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((2, 3), np.float32)})
settle()
pipeline = pipeline_of(exported)
(series,) = pipeline.live_series()
((state,),) = (probe.calls() for probe in pipeline.probes())

def under_way():
    sampler = state.sampler
    return series.inquiry is not None, len(series.comparer._to_locate), sampler._left, sampler._closely > 0

series.inquiry = Inquiry(begun=0.0, until=1e12, open={"layer"})
assert series.comparer.locate(series.inquiry.located)
state.check_closely(64)
state.sampler._left = 3
child = os.fork()
if not child:
    print("child", *under_way(), state.sampler._checks, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", *under_way())
"""


def test_a_child_waits_for_nothing_that_its_parent_looks_for(reference: str) -> None:
    """Neither the cause of an anomaly nor checks that are to come: whoever would bring them is not in the child."""
    printed = run(PROGRAM, reference).stdout
    assert printed.splitlines() == ["child False 0 0 False 0", "parent True 1 3 True"]
