"""The Kubernetes resources, against the published schemas: built-in kinds by version, custom ones by their CRD."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from otel_quantmon.cli.command import make_parser
from otel_quantmon.evaluator.kafka import GROUP
from otel_quantmon.settings import read_settings
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
    "ScaledObject": ("github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "TriggerAuthentication": (
        "github.com/kedacore/keda/v2",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
"""Where each custom resource's definition is: Go module (pinned in tools/crds) and file."""


# Of an application that is not here, so not among what Kustomize makes.
EXAMPLES = ("kubernetes/certified.yaml", "kubernetes/readiness.yaml")


EVALUATOR = KUBERNETES / "evaluator"


def listed(directory: Path = SHIPPED) -> list[str]:
    """The files that Kustomize takes a directory's resources from, from `SHIPPED`."""
    files: list[str] = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]
    return [str((directory / file).relative_to(SHIPPED)) for file in files]


def resources(files: Iterable[str]) -> list[Any]:
    """Every resource of every file, as test parameters."""
    return [
        pytest.param(document, id=f"{document['kind']}-{document['metadata']['name']}")
        for file in files
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


@pytest.mark.parametrize("resource", resources((*listed(), *listed(EVALUATOR), *EXAMPLES)))
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
    assert len(made) == len(resources(listed())) + len(maps)
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
    (monitor,) = (item.values[0] for item in resources(listed()) if item.id == "ServiceMonitor-otelcol")
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


def evaluator() -> dict[str, dict[str, Any]]:
    """What Kustomize makes of the evaluator's directory, by kind."""
    built = subprocess.run(
        [binary("kustomize"), "build", EVALUATOR], check=True, capture_output=True, text=True
    )
    return {item["kind"]: item for item in yaml.safe_load_all(built.stdout)}


def test_the_evaluators_are_made_whole() -> None:
    """Each resource once in the namespace, and the worker's files where its arguments look for them."""
    made = evaluator()
    assert set(made) == {
        *("ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"),
        *("ScaledObject", "TriggerAuthentication"),
    }
    assert {item["metadata"]["namespace"] for item in made.values()} == {"observability"}
    pod = made["Deployment"]["spec"]["template"]["spec"]
    (volume,) = (item for item in pod["volumes"] if item["name"] == "models-file")
    assert volume["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    (container,) = pod["containers"]
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    named = re.findall(r"=(/[\w./-]+)", " ".join(container["command"]))
    assert named
    for place in named:
        assert any(place == mounted or place.startswith(f"{mounted}/") for mounted in places), place


def test_the_worker_takes_its_arguments() -> None:
    """The command of the Deployment is one that `quantmon` knows, and models.toml a file that it reads."""
    (container,) = evaluator()["Deployment"]["spec"]["template"]["spec"]["containers"]
    program, *arguments = container["command"]
    assert program == "quantmon"
    parsed = make_parser().parse_args(arguments)
    assert (parsed.group, parsed.source) == ("ordinary", "kafka://$(KAFKA_BROKERS)/quantmon-samples")
    models = read_settings(str(EVALUATOR / "models.toml")).models
    assert {section["reference"] for section in models.values()} == {"/models/classifier.onnx"}


def test_keda_asks_for_the_group_that_the_workers_are() -> None:
    """Group, topic, broker and secret are those of the Deployment, by parameters that KEDA's scaler reads."""
    made = evaluator()
    (trigger,) = made["ScaledObject"]["spec"]["triggers"]
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    brokers = next(one["value"] for one in container["env"] if one["name"] == "KAFKA_BROKERS")
    assert trigger["metadata"]["bootstrapServers"] == brokers
    assert trigger["metadata"]["consumerGroup"] == GROUP
    assert f"/{trigger['metadata']['topic']}" in " ".join(container["command"])
    assert made["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == made["Deployment"]["metadata"]["name"]
    authentication = made["TriggerAuthentication"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    source = (module_directory("github.com/kedacore/keda/v2") / "pkg/scalers/kafka_scaler.go").read_text()
    constants = dict(re.findall(r'^\s*(\w+MetricName)\s*= "(\w+)"', source, re.MULTILINE))
    read = set(re.findall(r'TriggerMetadata\["(\w+)"\]', source)) | set(constants.values())
    assert trigger["metadata"].keys() <= read
    parameters = {one["parameter"] for one in authentication["spec"]["secretTargetRef"]}
    assert parameters <= set(re.findall(r'AuthParams\["(\w+)"\]', source))


def test_nobody_comes_to_the_workers_and_they_go_to_three() -> None:
    """Samples hold what users sent: the policy covers the workers' pods, and names every way out."""
    made = evaluator()
    policy = made["NetworkPolicy"]["spec"]
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert all(rule["to"] for rule in policy["egress"])
    assert ports == {53, 4317, 9093}
