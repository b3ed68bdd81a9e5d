"""TLS and a password between Collector, broker and workers, by the files that are shipped for Kubernetes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from evaluator.conftest import calls, made  # noqa: F401  fixtures

from otel_quantmon.fidelity.remote.record import encode
from stack.backends import SHIPPED, Kafka, Login, collector
from stack.evaluating import SECONDS, broker_with_topics, counted, lag, worker
from stack.running import until
from stack.test_stack_samples import event, export

USER, PASSWORD = "quantmon-evaluate", "of-the-test"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of who signed the broker's, which is in broker.pem beside it."""
    signer = trustme.CA()
    issued = signer.issue_cert("127.0.0.1")
    # Kafka reads keys in PKCS #8 alone.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "broker.pem").write_bytes(text + b"".join(one.bytes() for one in issued.cert_chain_pems))
    signer.cert_pem.write_to_path(tmp_path / "ca.crt")
    return tmp_path / "ca.crt"


@pytest.fixture
def broker(authority: Path) -> Iterator[Kafka]:
    login = Login(authority.with_name("broker.pem"), USER, PASSWORD)
    with broker_with_topics(authority.with_name("kafka"), 1, login=login) as running:
        yield running


def properties(authority: Path, **changed: str) -> Path:
    """The shipped client.properties with what is this test's: the authority's place and the password."""
    text = (SHIPPED / "kubernetes" / "evaluator" / "client.properties").read_text()
    text = text.replace("/etc/quantmon/kafka/ca.crt", str(authority)).replace("change-me", PASSWORD)
    for name, value in changed.items():
        key = name.replace("_", ".")
        text, count = re.subn(rf"^{re.escape(key)}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1
    path = authority.with_name("client.properties")
    path.write_text(text)
    return path


@pytest.mark.parametrize("group", ["ordinary", "share"])
def test_samples_go_over_tls_with_a_password(
    broker: Kafka,
    authority: Path,
    made: Any,  # noqa: F811
    group: str,
    tmp_path: Path,
) -> None:
    """Collector with samples-tls.yaml, and a worker with client.properties, for both kinds of group."""
    environment = {
        "KAFKA_BROKERS": f"[{broker.secured}]",
        "KAFKA_CA": str(authority),
        "KAFKA_USERNAME": USER,
        "KAFKA_PASSWORD": PASSWORD,
    }
    files = ("otelcol.yaml", "samples.yaml", "samples-tls.yaml")
    with collector(tmp_path / "otelcol", *files, environment=environment) as server:
        export(server, event(encode(made(0))), event(b"noise"))
        with worker(broker, tmp_path, "a", group=group, secured=properties(authority)) as one:
            until(
                lambda: True if counted(tmp_path) == {"evaluated": 1, "rejected": 1} else None,
                "both samples",
                SECONDS,
            )
            one.send_signal(signal.SIGTERM)
            assert one.wait(SECONDS) == 0
    if group == "ordinary":
        assert lag(broker, 1) == 0


def test_the_page_shows_the_file_that_is_tested() -> None:
    """The properties in docs/remote.md are those of the shipped file."""
    page = (SHIPPED.parent / "docs" / "remote.md").read_text("utf-8")
    (shown,) = re.findall(r"^```properties\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shipped = (SHIPPED / "kubernetes" / "evaluator" / "client.properties").read_text()
    assert shown == "".join(line for line in shipped.splitlines(keepends=True) if not line.startswith("#"))


def test_a_wrong_password_is_no_silence(broker: Kafka, authority: Path, tmp_path: Path) -> None:
    """What the broker says of it is in the worker's log."""
    wrong = properties(authority, sasl_password="another")
    with worker(broker, tmp_path, "a", secured=wrong):
        log = tmp_path / "a.log"
        until(lambda: True if "uthentication failed" in log.read_text() else None, "what is wrong", SECONDS)
