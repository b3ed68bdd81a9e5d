"""The Kubernetes resources, against the published schemas: built-in kinds by version, custom ones by their CRD."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from stack.backends import SHIPPED
from stack.programs import TOOLS, binary

KUBERNETES = SHIPPED / "kubernetes"
VERSION = "1.34.0"
CRDS = {
    "Instrumentation": (
        "github.com/open-telemetry/opentelemetry-operator",
        "config/crd/bases/opentelemetry.io_instrumentations.yaml",
    ),
    "PrometheusRule": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
"""Where each custom resource's definition is: Go module (pinned in tools/crds) and file."""


def resources() -> list[Any]:
    """Every resource of every file, as test parameters."""
    listed = yaml.safe_load((SHIPPED / "kustomization.yaml").read_text())["resources"]
    return [
        pytest.param(document, id=f"{document['kind']}-{document['metadata']['name']}")
        for file in listed
        for document in yaml.safe_load_all((SHIPPED / file).read_text())
    ]


@cache
def module_directory(module: str) -> Path:
    """Where Go keeps the pinned version of a module, fetching it first if need be."""
    command = ["go", "mod", "download", "-json", module]
    finished = subprocess.run(command, cwd=TOOLS / "crds", capture_output=True, text=True, check=True)
    return Path(json.loads(finished.stdout)["Dir"])


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, which an API server would drop without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Go's regular expressions put a flag anywhere, Python's only at the start.
    result = {
        key: closed(value) for key, value in schema.items() if "(?i)" not in str(value) or key != "pattern"
    }
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@pytest.mark.parametrize("resource", resources())
def test_the_resource_follows_its_schema(resource: dict[str, Any]) -> None:
    """No field misspelt, misplaced or of the wrong type."""
    if resource["kind"] not in CRDS:
        kubernetes_validate.validate(resource, VERSION, strict=True)
        return
    module, file = CRDS[resource["kind"]]
    definition = yaml.safe_load((module_directory(module) / file).read_text())
    version = resource["apiVersion"].rpartition("/")[2]
    schema = next(item for item in definition["spec"]["versions"] if item["name"] == version)["schema"]
    strict = closed(schema["openAPIV3Schema"])
    strict["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(resource, strict)


def test_kustomize_makes_everything_with_its_configuration() -> None:
    """`kubectl apply -k` gets every resource in one namespace, and each Collector the ConfigMap of its own file."""
    command = [binary("kustomize"), "build", SHIPPED]
    built = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = list(yaml.safe_load_all(built))
    assert {item["metadata"]["namespace"] for item in made} == {"observability"}
    maps = {item["metadata"]["name"]: item["data"] for item in made if item["kind"] == "ConfigMap"}
    assert len(made) == len(resources()) + len(maps)
    for kind, name in (("DaemonSet", "agent"), ("Deployment", "gateway")):
        (workload,) = (item for item in made if item["kind"] == kind)
        pod = workload["spec"]["template"]["spec"]
        (volume,) = (item for item in pod["volumes"] if item["name"] == "config")
        data = maps[volume["configMap"]["name"]]
        assert data[f"{name}.yaml"] == (SHIPPED / f"{name}.yaml").read_text()
        files = [argument.rpartition("/")[2] for argument in pod["containers"][0]["args"]]
        assert set(files) == data.keys()


def test_a_misspelt_field_is_found() -> None:
    """The check above does check: a wrong name in a custom resource is an error."""
    (monitor,) = (item.values[0] for item in resources() if item.id == "ServiceMonitor-otelcol")
    with pytest.raises(jsonschema.ValidationError):
        test_the_resource_follows_its_schema({**monitor, "spec": {**monitor["spec"], "endpoint": []}})


def test_the_rules_are_those_that_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PrometheusRule holds the rules of prometheus/rules/, no others."""
    monkeypatch.syspath_prepend(KUBERNETES)
    import prometheusrule

    written = (KUBERNETES / "prometheusrule.yaml").read_text()
    assert written == prometheusrule.rendered()
    files = sorted((SHIPPED / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert yaml.safe_load(written)["spec"]["groups"] == groups


def test_the_collector_accepts_the_agents_merged_files() -> None:
    """What the DaemonSet's arguments name, merged in that order, is a valid configuration."""
    merged = [f"--config={SHIPPED / 'agent.yaml'}", f"--config={KUBERNETES / 'agent-resolver.yaml'}"]
    subprocess.run([binary("otelcol"), "validate", *merged], check=True, capture_output=True)


def test_the_collector_is_everywhere_of_the_version_that_is_tested() -> None:
    """Images and the Collector that these tests build are one release."""
    version = yaml.safe_load((TOOLS / "collector" / "manifest.yaml").read_text())["dist"]["version"]
    named = {
        tag
        for file in [*KUBERNETES.glob("*.yaml"), SHIPPED / "compose.yaml"]
        for tag in re.findall(r"opentelemetry-collector-contrib:(\S+)", file.read_text())
    }
    assert named == {version}
