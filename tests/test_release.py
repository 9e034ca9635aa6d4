"""What a release consists of: files that strangers look for, one version, and a wheel that works alone."""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lookalike.encoder.bundle import shipped_bundles
from tests.fixtures.pages import ROOT, parses
from tests.release import JOBS, PROJECT, SUMS, SUPPORTED, pythons

CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS: Final = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_one_place_names_the_version() -> None:
    version = PROJECT["version"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not in a clone")
    texts = [
        name
        for name in tracked.stdout.splitlines()
        if name.endswith((".py", ".toml", ".cff", ".yml", ".yaml"))
    ]
    naming = [
        name
        for name in texts
        if re.search(rf"version\W+{re.escape(version)}\b", (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert naming == ["pyproject.toml"]


def test_the_changelog_keeps_its_form() -> None:
    heads = re.findall(r"^## (.*)$", CHANGELOG, flags=re.MULTILINE)
    assert heads[0] == "[Unreleased]"
    versions = []
    for head in heads[1:]:
        found = re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", head)
        assert found, head
        versions.append((tuple(map(int, found.groups()[:3])), date.fromisoformat(found[4])))
    assert versions == sorted(versions, reverse=True)
    assert ".".join(map(str, versions[0][0])) == PROJECT["version"]
    for part in CHANGELOG.split("\n## ")[1:]:
        kinds = re.findall(r"^### (.*)$", part, flags=re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds], part.splitlines()[0]


def test_who_cites_it_finds_what_citing_needs() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "message", "authors", "license", "type"} <= set(cited)
    assert cited["license"] == "Apache-2.0"


def test_the_security_page_says_what_is_trusted_and_how_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "## How to report" in text
    assert "in private" in text
    assert "| trusted | not trusted |" in text


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_is_valid_and_runs_chores_that_there_are(file: Path) -> None:
    workflow: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {"name", "permissions", "jobs"} <= set(workflow)
    assert True in workflow  # "on", which YAML reads as a truth value
    assert workflow["permissions"] == {"contents": "read"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[\w./-]+", step.get("uses", "a/b@v1"))
            for chore in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert re.search(rf"^{chore}:", makefile, flags=re.MULTILINE), chore


def test_the_tests_run_on_three_systems_and_each_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert {each.split("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == [f"{major}.{minor}" for major, minor in SUPPORTED]


def test_the_jobs_of_a_release_are_commands_and_a_python_is_here() -> None:
    for job in JOBS:
        if not job.startswith("--"):
            parses(job.split())
    assert [version for version, _ in pythons()]


def test_extras_are_named_where_they_are_promised() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for extra in set(extras) - {"dev", "docs", "release"}:
        assert f"`{extra}`" in readme or f"[{extra}" in readme, extra


@pytest.mark.slow
def test_the_wheel_alone_does_the_main_jobs_and_all_files_have_their_sums(tmp_path: Path) -> None:
    out = tmp_path / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "tests.release", "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the wheel alone is installed" in done.stdout
    lines = [line.split("  ") for line in (out / SUMS).read_text(encoding="utf-8").splitlines()]
    sums = {name: digest for digest, name in lines}
    files = {file.relative_to(out).as_posix(): file for file in out.rglob("*") if file.is_file()}
    assert set(sums) == set(files) - {SUMS}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest
    cards = {name for name in files if name.startswith("models/")}
    assert cards == {f"models/{name}.md" for name in shipped_bundles()}
    parts = json.loads((out / f"lookalike-{PROJECT['version']}.cdx.json").read_text(encoding="utf-8"))
    assert {"numpy", "onnxruntime", "qdrant-edge-py"} <= {
        part["name"].lower() for part in parts["components"]
    }
    assert "torch" not in {part["name"].lower() for part in parts["components"]}
