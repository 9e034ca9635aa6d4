"""What deploy/ ships for containers, clusters and systemd, as far as a machine without an engine can tell."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lookalike.indexer.server.errors import version_warning
from lookalike.indexer.store import Layout
from lookalike.indexer.store.layout import recommended_layout
from tests.fixtures.pages import parses
from tests.fixtures.qdrant_stub import serving

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
DOCKERFILES: Final = [DEPLOY / f"{name}Dockerfile" for name in ("", "trainer.", "batch.")]
MANIFESTS: Final = [
    manifest
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    if manifest["kind"] != "Kustomization"
]
QDRANT_IMAGES: Final = [
    container["image"]
    for manifest in MANIFESTS
    if manifest["kind"] == "StatefulSet"
    for container in manifest["spec"]["template"]["spec"]["containers"]
]
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def instructions(file: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", file.read_text(encoding="utf-8")))
    return [(words[0], words[1]) for line in text.splitlines() if (words := line.split(None, 1))]


def listed(value: str) -> list[str]:
    found: list[str] = yaml.safe_load(value)
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_are_small_pinned_and_not_root(file: Path) -> None:
    steps = instructions(file)
    of = {name: [value for kind, value in steps if kind == name] for name, _ in steps}
    assert all(re.search(r":\d+\.\d+", image) for image in of["FROM"])  # never :latest
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of["USER"][-1])
    for source in of["COPY"]:
        if not source.startswith("--from"):
            for path in source.split()[:-1]:
                assert (ROOT / path).exists(), path
    assert not any("apt-get" in value or "sudo" in value or "ADD" in value for value in of["RUN"])
    (install,) = [value for value in of["RUN"] if "pip install" in value]
    assert "--no-cache-dir --constraint constraints.txt" in install
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r'"\.\[([\w,]+)\]"', install)
    assert set(named.split(",")) <= set(extras)
    assert listed(of["ENTRYPOINT"][0]) == ["lookalike"]
    if file.name == "Dockerfile":
        assert named == "serve,faces"
        assert not [need for need in extras["serve"] if need.startswith(("torch", "onnxscript"))]
        parses(listed(of["CMD"][0]))
        assert "HEALTHCHECK" in of


def test_make_builds_an_image_of_each_dockerfile() -> None:
    make = ["make", "--silent", "images", "ENGINE=echo"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    built = {Path(words[2]).name: words[4] for words in map(str.split, done.stdout.splitlines())}
    assert built == {
        "Dockerfile": "lookalike",
        "batch.Dockerfile": "lookalike-batch",
        "trainer.Dockerfile": "lookalike-trainer",
    }
    assert {file.name for file in DOCKERFILES} == set(built)


def test_what_the_image_needs_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    needed = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "encoder", "deploy"}
    assert ".git" in ignored
    assert not needed & set(ignored)


def test_compose_waits_for_health_asks_for_keys_and_gives_little_away() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"qdrant", "service", "index"}
    for name in ("service", "index"):
        service = services[name]
        assert service["depends_on"]["qdrant"]["condition"] == "service_healthy"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"]["QDRANT_API_KEY"].startswith("${QDRANT_API_KEY:?")
        parses(service["command"])
        assert service["volumes"][0].endswith(":ro")
    assert services["qdrant"]["healthcheck"]["test"][0] == "CMD"
    assert "ports" not in services["qdrant"]
    assert all(port.startswith("127.0.0.1:") for port in services["service"]["ports"])
    build = services["service"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    for service in services.values():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert ":latest" not in service["image"]
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert services["qdrant"]["volumes"][0].split(":")[0] in COMPOSE["volumes"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for each in MANIFESTS:
        if "template" in each.get("spec", {}):
            yield f"{each['kind']}/{each['metadata']['name']}", each


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in MANIFESTS if each["kind"] == kind}


@pytest.mark.parametrize(
    ("name", "manifest"), list(pods()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_pods_are_restricted_and_have_bounds(name: str, manifest: dict[str, Any]) -> None:
    template = manifest["spec"]["template"]
    spec, labels = template["spec"], template["metadata"]["labels"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    if manifest["kind"] != "Job":
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
    (container,) = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert ":latest" not in container["image"]
    if container["image"] == "lookalike":
        assert container["securityContext"]["readOnlyRootFilesystem"]
        parses(container["args"])
    for variable in container["env"]:
        if "KEY" in variable["name"]:
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "keys"  # never in the file
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container:
            assert container[probe]["httpGet"]["port"] in ports


def test_services_policies_and_claims_lead_to_pods_that_are_there() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for _, each in pods()]
    for service in of_kind("Service").values():
        assert any(service["spec"]["selector"].items() <= each.items() for each in labels)
    budgets = of_kind("PodDisruptionBudget")
    assert budgets.keys() == {"qdrant", "lookalike"}
    policies = of_kind("NetworkPolicy")
    assert policies["qdrant"]["spec"]["ingress"][0]["ports"] == [{"port": 6333}]
    claims = of_kind("PersistentVolumeClaim")
    for _, manifest in pods():
        for volume in manifest["spec"]["template"]["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
    stateful = of_kind("StatefulSet")["qdrant"]
    assert stateful["spec"]["replicas"] == 3
    assert stateful["spec"]["serviceName"] in of_kind("Service")
    (qdrant,) = stateful["spec"]["template"]["spec"]["containers"]
    assert {"name": "QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR", "value": "2"} in qdrant["env"]


def test_the_index_job_asks_for_what_the_cluster_can_keep() -> None:
    (container,) = of_kind("Job")["index"]["spec"]["template"]["spec"]["containers"]
    said = dict(pairwise(container["args"]))
    (qdrant,) = of_kind("StatefulSet")["qdrant"]["spec"]["template"]["spec"]["containers"]
    copies = {each["name"]: each.get("value") for each in qdrant["env"]}
    rule = recommended_layout(0, 512, of_kind("StatefulSet")["qdrant"]["spec"]["replicas"])
    assert (int(said["--shards"]), int(said["--replicas"])) == (rule.shards, rule.replicas)
    assert copies["QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR"] == said["--replicas"]


def test_the_index_job_waits_for_all_peers() -> None:
    spec = of_kind("Job")["index"]["spec"]["template"]["spec"]
    (waiting,), (indexing,) = spec["initContainers"], spec["containers"]
    stateful = of_kind("StatefulSet")["qdrant"]["spec"]
    assert stateful["podManagementPolicy"] == "Parallel"  # else none is ready where most must be
    assert waiting["securityContext"] == indexing["securityContext"]
    assert waiting["image"] == indexing["image"]
    given = {each["name"]: each.get("value") for each in waiting["env"]}
    assert int(given["PEERS"] or 0) == stateful["replicas"]
    with serving(peers=1) as stub:
        stub.fault = lambda _: 503 if len(stub.asked) == 1 else None  # it is not up yet
        environment = os.environ | {**given, "LOOKALIKE_STORE": stub.url, "QDRANT_API_KEY": "key"}
        words = [sys.executable, *waiting["command"][1:], *waiting["args"]]
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as started:
            deadline = time.monotonic() + 30
            while len(stub.asked) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert started.poll() is None  # one peer is not enough
            stub.peers = stateful["replicas"]
            assert started.wait(timeout=30) == 0
    assert {each.path for each in stub.asked} == {"/cluster"}


@pytest.mark.parametrize("image", [COMPOSE["services"]["qdrant"]["image"], *QDRANT_IMAGES])
def test_servers_are_of_the_clients_generation(image: str) -> None:
    client = re.findall(r"(?m)^qdrant-client==(.+)$", (ROOT / "constraints.txt").read_text())
    assert version_warning("here", image.rpartition(":v")[2], *client) is None


def test_every_manifest_is_in_the_kustomization() -> None:
    told = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    files = {file.name for file in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(told["resources"]) == files
    names = [(each["kind"], each["metadata"]["name"]) for each in MANIFESTS]
    assert len(names) == len(set(names))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_builds_it() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(MANIFESTS)
    assert {each["metadata"].get("namespace", each["metadata"]["name"]) for each in built} == {"lookalike"}


def test_the_unit_starts_the_service_and_is_locked_up() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read(DEPLOY / "systemd" / "lookalike.service")
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "lookalike"
    parses(words)
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert service["DynamicUser"] == "yes"
    assert int(service["TimeoutStopSec"]) > 30  # longer than requests are let finish


def test_its_readme_names_what_is_there() -> None:
    text = (ROOT / "docs" / "howto" / "service.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:systemd|kubernetes|compose)[\w./]*)`", text):
        assert (DEPLOY / path).exists(), path
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            program, *words = shlex.split(line)
            if program == "lookalike":
                parses(words)
    for vectors, dimension, alone in re.findall(r"\| ([\d,]+) . (\d+)[^|]*\| ([\d.]+ [MG]B) \|", text):
        size = int(vectors.replace(",", "")) * int(dimension) * 4
        number, unit = alone.split()
        assert float(number) == pytest.approx(size / {"MB": 1e6, "GB": 1e9}[unit], rel=0.03)
    quantized = Layout(quantization="int8", on_disk=True)
    rows = re.findall(r"\| ([\d,]+) . (\d+)[^|]*\|[^|]*\| ([\d.]+ [MG]B) \| ([\d.]+ [MG]B) \|", text)
    assert len(rows) == 6
    for vectors, dimension, *told in rows:
        for layout, size in zip((Layout(), quantized), told, strict=True):
            number, unit = size.split()
            expected = layout.memory_bytes(int(vectors.replace(",", "")), int(dimension))
            assert float(number) == pytest.approx(expected / {"MB": 1e6, "GB": 1e9}[unit], rel=0.05)
