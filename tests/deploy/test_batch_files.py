"""What deploy/ has for work on many machines: pods as restricted as all, and lines that are commands."""

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lookalike.indexer.units import Shard
from tests.fixtures.pages import parses

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "kubernetes" / "batch"
MANIFESTS: Final = {
    (manifest["kind"], manifest["metadata"]["name"]): manifest
    for file in sorted(FOLDER.glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))
}
JOB: Final = MANIFESTS["Job", "embed"]["spec"]
RAY: Final = MANIFESTS["RayJob", "embed-ray"]["spec"]
CLUSTER: Final = RAY["rayClusterSpec"]
GROUPS: Final = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


@pytest.mark.parametrize("template", [JOB["template"], *(group["template"] for group in GROUPS)])
def test_pods_are_restricted_and_have_bounds(template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        each["name"] for each in spec["volumes"]
    }
    locked = container["securityContext"]
    assert (locked["allowPrivilegeEscalation"], locked["readOnlyRootFilesystem"]) == (False, True)
    assert locked["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    for variable in container["env"]:
        if "KEY" in variable["name"]:
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "bucket"  # never in the file


def test_the_indexed_job_does_each_share_once() -> None:
    assert JOB["completionMode"] == "Indexed"
    (container,) = JOB["template"]["spec"]["containers"]
    (line,) = container["args"]
    shares = []
    for index in range(JOB["completions"]):
        program, command, *words = shlex.split(line.replace("$((JOB_COMPLETION_INDEX + 1))", str(index + 1)))
        assert (program, command) == ("exec", "lookalike")
        parses(words)
        shares.append(Shard.parse(words[words.index("--shard") + 1]))
    assert sorted(chain.from_iterable(share.slice(1000) for share in shares)) == list(range(1000))
    # 2 and 3 say that running it again helps nobody.
    assert JOB["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3]


def test_the_ray_job_runs_the_command_and_lets_nobody_in() -> None:
    program, *words = shlex.split(RAY["entrypoint"])
    assert program == "lookalike"
    parses(words)
    assert words[-2:] == ["--engine", "ray"]
    policy = MANIFESTS["NetworkPolicy", "embed-ray"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    for group in GROUPS:
        assert labels.items() <= group["template"]["metadata"]["labels"].items()
    own, operator = policy["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert operator["ports"] == [{"port": 8265}]
    assert "Ingress" in policy["policyTypes"]
    workers = CLUSTER["workerGroupSpecs"][0]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_the_docs_say_who_may_reach_ray_and_compute_sizes_right() -> None:
    text = (ROOT / "docs" / "howto" / "service.md").read_text(encoding="utf-8")
    assert "An open Ray port runs anybody's code" in " ".join(text.split())
    rows = re.findall(
        r"\| \*([\d,]+) . 512\* \| \*([\d.]+) TB\* \| \*([\d.]+) GB\* \| \*([\d.]+) GB\* \|", text
    )
    assert len(rows) == 2
    for vectors, whole, int8, graph in rows:
        count = int(vectors.replace(",", ""))
        assert float(whole) == pytest.approx(count * 512 * 4 / 1e12, rel=0.02)
        assert float(int8) == pytest.approx(count * 512 / 1e9, rel=0.02)
        assert float(graph) == pytest.approx(count * 16 * 2 * 4 / 1e9, rel=0.02)
