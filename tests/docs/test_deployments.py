"""What collector-config/ and the guides set up fits together: addresses, settings, files that are read again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_quantmon.settings.table import OTEL_PREFIX, PREFIX, Place, settings_at

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "collector-config"
KUBERNETES = SHIPPED / "kubernetes"
OF_TESTS = {f"{PREFIX}TEST_CACHE", f"{PREFIX}TEST_GUARD"}


def documents(file: Path) -> dict[str, dict[str, Any]]:
    """The resources of a file, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(file.read_text())}


def guide() -> str:
    """Where the guide has a container send to."""
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/guides/kubernetes.md").read_text(), re.MULTILINE | re.DOTALL
    )
    variables = {one["name"]: one.get("value", "") for one in yaml.safe_load(block)["env"]}
    return str(variables["OTEL_EXPORTER_OTLP_ENDPOINT"])


def operator() -> str:
    """Where the operator's `Instrumentation` has pods send to."""
    resource = documents(KUBERNETES / "instrumentation.yaml")["Instrumentation"]
    return str(resource["spec"]["exporter"]["endpoint"])


@pytest.mark.parametrize(("endpoint", "port"), [(guide(), "otlp-grpc"), (operator(), "otlp-http")])
def test_pods_send_to_the_agents_service(endpoint: str, port: str) -> None:
    """The address is that of the Service, with the port of the protocol that is spoken, which the agent listens at."""
    made = documents(KUBERNETES / "agent.yaml")
    service = made["Service"]
    namespace = yaml.safe_load((SHIPPED / "kustomization.yaml").read_text())["namespace"]
    ports = {one["name"]: one for one in service["spec"]["ports"]}
    assert endpoint == f"http://{service['metadata']['name']}.{namespace}:{ports[port]['port']}"
    (container,) = made["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    listening = {one["name"]: one["containerPort"] for one in container["ports"]}
    address = f"$(POD_IP):{listening[ports[port]['targetPort']]}"
    assert {"name": f"OTELCOL_{port.upper().replace('-', '_')}", "value": address} in container["env"]


@pytest.mark.parametrize("name", ["agent", "gateway"])
def test_a_token_that_is_replaced_is_read_again(name: str) -> None:
    """Kubernetes never updates what is mounted by `subPath`, and the Collector reads the file of the mounted folder."""
    made = documents(KUBERNETES / f"{name}.yaml")
    pod = next(one for kind, one in made.items() if kind in {"DaemonSet", "Deployment"})["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount
    (folder,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "token")
    # The key of the secret that kustomization.yaml says how to make.
    assert "otelcol-token --from-literal=token=" in (SHIPPED / "kustomization.yaml").read_text()
    assert {"name": "OTELCOL_TOKEN_FILE", "value": f"{folder}/token"} in container["env"]


def written() -> Iterator[Path]:
    """What users read and copy."""
    for top in (SHIPPED, ROOT / "docs", ROOT / "examples"):
        for file in top.rglob("*"):
            if file.is_file() and file.suffix not in {".png", ".pyc"}:
                yield file
    yield from ROOT.glob("README*.md")


def test_every_variable_of_ours_that_is_named_is_a_setting() -> None:
    """No file has a reader set a variable that no code reads."""
    known = {PREFIX + name.upper() for name in settings_at(Place.ENVIRONMENT)} | OF_TESTS
    named = {
        name: file
        for file in written()
        for name in re.findall(
            rf"\b(?:OTEL_PYTHON_)?{PREFIX}[A-Z_]*[A-Z]\b", file.read_text("utf-8", "replace")
        )
    }
    plain = {name.replace(OTEL_PREFIX, PREFIX): file for name, file in named.items()}
    assert {name: file for name, file in plain.items() if name not in known} == {}
    assert f"{PREFIX}TIMEOUT" in plain


def test_the_image_of_compose_holds_the_model_that_its_service_reads(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """What the Dockerfile runs as root leaves the model under its own folder, for the user without a home to read.

    Without a home and without the right to write, the service would otherwise end at its start.
    """
    image = (SHIPPED / "compose" / "service.Dockerfile").read_text()
    variables = dict(re.findall(r"^ENV (\w+)=(/app/\S+)$", image, re.MULTILINE))
    # pytest makes its folders for one user alone.
    application = tmp_path / "app"
    given = {name: place.replace("/app", str(application), 1) for name, place in variables.items()}
    (command,) = re.findall(r"^RUN python (-c .+)$", image, re.MULTILINE)
    kept = {name: value for name, value in environment.items() if name != "XDG_CACHE_HOME"}
    subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT / "examples" / "zero-code",
        env={**kept, "HOME": str(tmp_path / "root"), **given},
        umask=0o022,
        check=True,
    )
    (model,) = tmp_path.rglob("*.onnx")
    assert application in model.parents
    assert model.stat().st_mode & 0o004
    for folder in model.relative_to(application).parents:
        assert (application / folder).stat().st_mode & 0o005 == 0o005, folder
