"""Evaluates samples that have left other processes: takes them from a source, runs float models, reports.

Runs in the process of ``quantmon evaluate`` alone. What is measured, reported and judged is what the process of an
application would have measured: `otel_quantmon.fidelity`, `recording` and `detection` do it. See docs/remote.md.
"""
