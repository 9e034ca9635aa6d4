"""The house stands as it was drawn: who may name what, who may import whom, how large a file may be."""

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.photos import COMMAND

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("encoder", "trainer", "indexer", "searcher", "deploy")
FILES: Final = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))
NAMES: Final = [file.relative_to(ROOT).as_posix() for file in FILES]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported(file: Path) -> set[str]:
    """The first names of all that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def who_imports(*libraries: str) -> set[str]:
    return {name for name, file in zip(NAMES, FILES, strict=True) if imported(file) & set(libraries)}


def public(module: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every public function, class and method at the top of a file."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for below in node.body:
                    if isinstance(below, ast.FunctionDef) and not below.name.startswith("_"):
                        yield f"{node.name}.{below.name}", below


def test_imports_run_one_way() -> None:
    linter = COMMAND.with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_torch_is_named_in_the_trainer_and_the_export_alone() -> None:
    assert {n for n in who_imports("torch") if not n.startswith("trainer/")} == {
        "encoder/export/torch_export.py"
    }


def test_foreign_engines_are_named_in_one_place_each() -> None:
    assert who_imports("onnxruntime") <= {
        "encoder/runtime/session.py",
        "encoder/export/parity.py",
        "encoder/export/import_model.py",
    }
    onnx = {"encoder/export/torch_export.py", "encoder/export/quantize.py", "encoder/export/onnx_graph.py"}
    assert who_imports("onnx", "onnxscript") <= onnx
    assert who_imports("qdrant_client") == {"indexer/server/client.py"}
    assert who_imports("qdrant_edge") == {"indexer/embedded/shard.py"}
    measured = {
        "deploy/evaluation/denoising.py",
        "deploy/evaluation/exhibits.py",
        "deploy/evaluation/rivals.py",
    }
    assert (
        who_imports("skimage")
        == {"encoder/datasets/sample_faces.py", "deploy/evaluation/local_features.py"} | measured
    )
    assert who_imports("bm3d") == {"deploy/evaluation/rivals.py"}
    assert who_imports("sklearn") == {
        "deploy/evaluation/baselines.py",
        "trainer/data/patches.py",
        "trainer/publish/latent_prior.py",
    }
    assert who_imports("pyarrow") == {"indexer/parquet/file.py", "deploy/evaluation/parquet.py"}
    assert who_imports("matplotlib") == {"deploy/evaluation/curves.py", "deploy/evaluation/reliability.py"}
    assert who_imports("requests", "urllib3") == {"encoder/datasets/download.py"}


def test_only_commands_talk_to_people() -> None:
    talkers = who_imports("click")
    assert talkers <= {name for name in NAMES if name.startswith("deploy/") or name.endswith("commands.py")}
    for name, file in zip(NAMES, FILES, strict=True):
        calls = [node.func for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), name


def test_no_file_is_long_or_has_a_name_for_anything() -> None:
    for file in FILES:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 320, file
        assert file.stem not in {"utils", "util", "helpers", "common", "base", "misc", "core", "tools"}, file


def test_no_file_name_is_used_twice() -> None:
    # Each room has its door and its commands.
    names = [file.name for file in FILES if file.name not in ("__init__.py", "commands.py")]
    assert len(names) == len(set(names))


def test_rooms_open_without_loading_anything() -> None:
    for file in FILES:
        if file.name == "__init__.py":
            assert imported(file) <= {"os"}, file  # os costs nothing: it is there at start


def test_every_file_says_what_it_is_and_every_public_name_what_it_does() -> None:
    for name, file in zip(NAMES, FILES, strict=True):
        module = tree(file)
        assert ast.get_docstring(module), name
        for what, node in public(module):
            assert isinstance(node, ast.FunctionDef | ast.ClassDef)
            assert ast.get_docstring(node), f"{name}: {what}"


def test_every_file_exports_what_it_names() -> None:
    for name, file in zip(NAMES, FILES, strict=True):
        if file.name == "__init__.py":
            continue
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        assert module.__all__, name
        for exported in module.__all__:
            assert hasattr(module, exported), f"{name}: {exported}"
            assert not exported.startswith("_"), f"{name}: {exported}"


def test_every_error_of_the_tree_is_drawn_and_exported() -> None:
    from lookalike.encoder import errors

    assert errors.__doc__ is not None
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.LookalikeError)
        (line,) = (line for line in errors.__doc__.splitlines() if f" {name} " in line)
        depth = len(kind.__mro__) - len(errors.LookalikeError.__mro__)
        assert line.index(name) == 4 + 4 * depth, name


def test_tests_have_no_names_for_anything_either() -> None:
    for file in TESTS:
        assert file.stem.removeprefix("test_") not in {"utils", "helpers", "common", "base", "misc"}, file


def test_tests_of_what_needs_no_torch_load_none() -> None:
    at_the_top = {
        file.relative_to(ROOT / "tests").as_posix()
        for file in TESTS
        for node in tree(file).body
        if (isinstance(node, ast.Import) and any(alias.name == "torch" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch")
    }
    train = ("trainer/", "encoder/export/", "benchmarks/", "deploy/cli/test_train")
    assert {name for name in at_the_top if not name.startswith(train)} <= {
        "encoder/images/test_noise.py",  # compares the trainer's noise with the encoder's
        "fixtures/exports.py",
        "fixtures/plain_ae.py",
    }


def test_the_base_install_holds_no_training() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {need.split(">")[0].split("=")[0].split("<")[0].lower() for need in project["dependencies"]}
    assert not names & {
        "torch",
        "onnx",
        "onnxscript",
        "scikit-image",
        "scikit-learn",
        "pyarrow",
        "matplotlib",
        "pytest",
        "mypy",
        "ruff",
    }
    assert any(need.startswith("torch") for need in project["optional-dependencies"]["train"])


def test_all_but_the_trainer_and_the_export_import_without_torch() -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in NAMES
        if not name.startswith("trainer/") and name != "encoder/export/torch_export.py"
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_data_set_lies_in_the_project() -> None:
    kinds = {".jpg", ".jpeg", ".tgz", ".npz", ".pt", ".gz"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not in a clone")
    names = [Path(name) for name in listed.stdout.splitlines()]
    shipped = Path("encoder/shipped")  # arrays of a bundle: statistics, and pictures that its decoder drew
    tiny = Path("tests/fixtures/bundles")  # the same of bundles that tests use
    assert not [
        name
        for name in names
        if name.suffix.lower() in kinds and not name.is_relative_to(shipped) and not name.is_relative_to(tiny)
    ]
