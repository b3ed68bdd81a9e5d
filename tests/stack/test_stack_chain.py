"""Services, Collector, broker and workers, each gone for a while: what was accepted is counted once, all of it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluator.conftest import calls, made  # noqa: F401  fixtures

from otel_quantmon.fidelity.remote.record import encode
from stack.chain import SERVICES, Chain, chain
from stack.evaluating import SECONDS, TOPIC, counted, dead_letters, records, send
from stack.running import until
from stack.test_stack_samples import points


def wait(condition: Callable[[], bool], what: str) -> None:
    until(lambda: True if condition() else None, what, SECONDS)


def ask_until_sent(running: Chain, more: int) -> None:
    """Ask both services until each says that it has sent so many samples more."""
    before = running.sent()

    def enough() -> bool:
        running.ask(3)
        now = running.sent()
        return all(now.get(name, 0) >= before.get(name, 0) + more for name in SERVICES)

    wait(enough, f"{more} samples more of each service; before {before}")


def is_all_counted(running: Chain) -> bool:
    """Whether each sample that a service has sent was given up by its SDK or is evaluated.

    Raises:
        ValueError: not yet; the message has the counts.
    """
    sent, exported, failed = running.sent(), running.exported(failed=False), running.exported(failed=True)
    settled = {name: exported.get(name, 0) + failed.get(name, 0) for name in SERVICES}
    totals = counted(running.folder)
    if settled != sent or totals.get("evaluated") != sum(exported.values()):
        raise ValueError(f"sent {sent}, exported {exported}, given up {failed}, counted {totals}")
    return True


@pytest.mark.parametrize(
    "away", [pytest.param(3.0, id="shortly"), pytest.param(60.0, id="a-minute", marks=pytest.mark.slow)]
)
def test_every_accepted_sample_is_counted_once_whatever_is_gone(
    tmp_path: Path,
    made: Any,  # noqa: F811
    away: float,
) -> None:
    """Counts of services, SDKs, topic, workers and their metrics reconcile, to the last sample.

    A worker is killed and comes again, the broker is killed under it, the Collector is away; records of the topic are
    written again in reverse, with a damaged one, one of another version, and noise among them.
    """
    old = bytearray(encode(made()))
    old[8:10] = (9).to_bytes(2, "little")
    damaged = encode(made())[:-1]
    with chain(tmp_path) as running:
        ask_until_sent(running, 5)
        wait(lambda: bool(counted(tmp_path)), "first sample")

        written = [message.value() or b"" for message in records(running.broker, TOPIC)]
        send(running.broker, [damaged, *reversed(written), bytes(old), b"noise", damaged], 1)
        running.workers["a"].kill()
        running.broker.process.kill()
        ask_until_sent(running, 5)
        running.broker.process.restart()
        running.broker.process.wait_ready(f"tcp://{running.broker.address}")
        running.workers["a"].wait()
        running.start("a")
        wait(lambda: is_all_counted(running), "samples of before, of the outage and after it")

        # Nothing is on its way: what is asked for from here on finds nobody who takes it.
        running.collector.process.kill()
        back_at = time.monotonic() + away
        while time.monotonic() < back_at:
            running.ask(1)
            # Some calls a second: the SDK's queue is to hold what comes meanwhile.
            time.sleep(0.5)
        running.collector.process.restart()
        running.collector.process.wait_ready(f"tcp://{running.collector.otlp_grpc}")
        ask_until_sent(running, 5)
        wait(lambda: is_all_counted(running), "all that the SDKs did not give up")

        if away > 30:
            assert sum(running.exported(failed=True).values()) > 0, "a minute is longer than an SDK tries"
        wait(lambda: counted(tmp_path).get("rejected") == 3, "three dead letters")
        for one in running.workers.values():
            one.send_signal(signal.SIGTERM)
        assert [one.wait(SECONDS) for one in running.workers.values()] == [0, 0, 0]
        totals = counted(tmp_path)
        assert totals == {"evaluated": sum(running.exported(failed=False).values()), "rejected": 3}
        wait(
            lambda: {name: running.reported(name) for name in totals} == totals,
            f"the same in the workers' metrics: {totals}",
        )
        assert {data for _, data in dead_letters(running.broker)} == {damaged, bytes(old), b"noise"}


def ask_for(running: Chain, more: int, texts: dict[str, Callable[[], bytes]]) -> None:
    """Ask each service with texts of its own until each has sent so many samples more, and all are evaluated."""
    before = running.sent()

    def enough() -> bool:
        for _ in range(10):
            for name, service in running.services.items():
                service.classify(texts[name]())
        now = running.sent()
        return all(now.get(name, 0) >= before.get(name, 0) + more for name in SERVICES)

    wait(enough, f"{more} samples more of each service; before {before}")
    # Their SDKs export events of their own too, since a service notices a fault itself.
    wait(lambda: counted(running.folder).get("evaluated", 0) >= sum(running.sent().values()), "all of them")


def places(running: Chain) -> set[tuple[str, str]]:
    """Scope and host of what the judge says is on, in the last metrics of the workers."""
    found: set[tuple[str, str]] = set()
    series = points(running.state, "quantmon.fleet.anomaly.active")
    last = max((int(one[-1]["timeUnixNano"]) for one in series.values()), default=0)
    for (_, attributes), one in series.items():
        if int(one[-1]["timeUnixNano"]) == last and float(one[-1].get("asDouble", 0.0)) == 1.0:
            known = json.loads(attributes)
            found.add((known["quantmon.fleet.scope"], known.get("quantmon.fleet.host", "")))
    return found


def test_a_fault_of_one_service_is_its_hosts_and_of_both_the_datas(tmp_path: Path) -> None:
    """Through Collector, broker and three workers that judge together: the metrics name it as what it is."""
    chance = random.Random(0)

    def code() -> bytes:
        return "".join(
            f"def f{chance.randrange(999)}(x):\n    return x\n" for _ in range(chance.randint(3, 40))
        ).encode()

    def noise() -> bytes:
        return bytes(chance.randrange(128, 160) for _ in range(chance.randint(600, 900)))

    east, west = SERVICES
    with chain(tmp_path, "--fleet", str(tmp_path / "fleet.sqlite")) as running:
        ask_for(running, 160, {east: code, west: code})
        assert places(running) == set()
        ask_for(running, 40, {east: noise, west: code})
        wait(lambda: places(running) == {("host", f"host-{east}")}, "the host of the one that is fed noise")
        ask_for(running, 40, {east: noise, west: noise})
        wait(lambda: places(running) == {("everywhere", "")}, "everywhere")
