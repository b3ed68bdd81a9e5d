"""Share groups of a real broker: more workers than partitions, what one holds, and brokers that have none."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evaluator.conftest import calls, made  # noqa: F401  fixtures

from otel_quantmon.evaluator.share import ShareSource
from otel_quantmon.evaluator.source import Claimed
from otel_quantmon.fidelity.remote.record import encode
from stack.evaluating import (
    SECONDS,
    TOPIC,
    broker_with_topics,
    counted,
    counted_by,
    lag,
    send,
    worker,
)
from stack.running import until


def test_three_workers_share_one_partition_and_none_waits_for_another(
    made: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Each of three has some of it. What a stopped worker holds is others' after its lock, and delays nothing else."""
    sent: list[bytes] = []
    with broker_with_topics(tmp_path / "kafka", 1) as broker, ExitStack() as running:

        def more(count: int) -> None:
            sent.extend(encode(made(number)) for number in range(count))
            send(broker, sent[-count:], 1)

        workers = [
            running.enter_context(worker(broker, tmp_path, name, group="share")) for name in ("a", "b", "c")
        ]

        def all_three() -> bool | None:
            by_worker = counted_by(tmp_path)
            if sum(by_worker.values()) == len(sent):
                more(20)
            return True if len(by_worker) == 3 else None

        until(all_three, "samples that each worker has counted", SECONDS)
        more(30)
        workers[0].send_signal(signal.SIGSTOP)
        more(30)
        until(
            lambda: True if counted(tmp_path) == {"evaluated": len(sent)} else None,
            "all samples counted by the other two",
            SECONDS,
        )
        workers[0].send_signal(signal.SIGCONT)
        for one in workers:
            one.send_signal(signal.SIGTERM)
        assert [one.wait(SECONDS) for one in workers] == [0, 0, 0]
        assert counted(tmp_path) == {"evaluated": len(sent)}


def test_what_is_given_back_again_and_again_is_not_lost(tmp_path: Path) -> None:
    """The broker gives a record out five times, and would drop it then: it is written again before."""

    def claimed(source: ShareSource) -> Claimed:
        return until(lambda: next(iter(source.claim(1, 1.0)), None), "the sample", SECONDS)

    with broker_with_topics(tmp_path / "kafka", 1) as broker:
        send(broker, [b"the sample"], 1)
        source = ShareSource(broker.address, TOPIC, {})
        names = set()
        for _ in range(8):
            one = claimed(source)
            assert one.data == b"the sample"
            names.add(one.name)
            source.settle(one, "release")
        assert len(names) == 3, "it was written twice more"
        source.settle(claimed(source), "accept")
        assert source.claim(1, 5.0) == []
        source.close()


def test_where_the_broker_has_no_share_groups_an_ordinary_one_is_used(
    made: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Without being asked: the worker finds out, says so, and evaluates; asked for a share group, it ends with 2."""
    with broker_with_topics(tmp_path / "kafka", shares=False) as broker:
        send(broker, [encode(made(number)) for number in range(4)])
        with worker(broker, tmp_path, "a", "--until-empty", group="auto") as one:
            assert one.wait(SECONDS) == 0
        assert counted(tmp_path) == {"evaluated": 4}
        assert lag(broker) == 0
        assert "an ordinary group is used" in (tmp_path / "a.log").read_text()
        with worker(broker, tmp_path, "b", group="share") as refused:
            assert refused.wait(SECONDS) == 2
        assert "the broker has no share groups" in (tmp_path / "b.log").read_text()
