"""The house plan, checked: what a folder holds, who imports whom, which library is named where."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.command import COMMAND

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("encoder", "trainer", "indexer", "searcher", "deploy")
FILES: Final = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))
NAMES: Final = [file.relative_to(ROOT).as_posix() for file in FILES]
TOP_LEVEL: Final = {
    *ROOMS,
    "docs",
    "tests",
    *(".ci", ".github"),  # what a change must pass: here, and on a public forge
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE", "NOTICE"),
    *("Makefile", "pyproject.toml", "constraints.txt", "MANIFEST.in", "mkdocs.yml"),
    *(".dockerignore", ".gitattributes", ".gitignore"),
}
"""The rooms, their tests and their docs, and files that tools and people look for by name at the top."""
GENERIC: Final = {"util", "utils", "helper", "helpers", "common", "misc", "core", "tools"}


def module_name(path: str) -> str:
    """`deploy/api` is the package `lookalike` itself, every other folder a package below it."""
    dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    below_api = dotted.removeprefix("deploy.api").lstrip(".")
    return f"lookalike.{below_api if dotted.startswith('deploy.api') else dotted}".rstrip(".")


MODULES: Final = {module_name(name): file for name, file in zip(NAMES, FILES, strict=True)}
PACKAGES: Final = {name for name, file in MODULES.items() if file.name == "__init__.py"}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported_names(file: Path) -> list[tuple[str, str | None]]:
    """Each import anywhere in a file, lazy ones and those for type checkers too: module, name or None."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found += ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += ((node.module, alias.name) for alias in node.names)
    return found


def imported_modules(file: Path) -> set[str]:
    """The modules of ours that a file imports: `from package import module` is that module."""
    found = set()
    for module, name in imported_names(file):
        is_module = f"{module}.{name}" in MODULES and name not in exported(module)
        found.add(f"{module}.{name}" if is_module else module)
    return {module for module in found if module in MODULES}


@cache
def exported(module: str) -> frozenset[str]:
    """The names in the `__all__` of a face; a function may be called as the module that holds it."""
    if module not in PACKAGES:
        return frozenset()
    for node in tree(MODULES[module]).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def who_imports(*libraries: str) -> set[str]:
    return {
        name
        for name, file in zip(NAMES, FILES, strict=True)
        if {module.split(".")[0] for module, _ in imported_names(file)} & set(libraries)
    }


def folder_of(module: str) -> str:
    return module if module in PACKAGES else module.rpartition(".")[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return one circle of the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def public(module: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Every public function, class and method at the top of a file."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for below in node.body:
                    if isinstance(below, ast.FunctionDef) and not below.name.startswith("_"):
                        yield f"{node.name}.{below.name}", below


def test_imports_run_one_way(tmp_path: Path) -> None:
    links = tmp_path / "lookalike"  # as it is installed: the linter reads files, not import hooks
    links.mkdir()
    for target in (*(ROOT / room for room in ROOMS), *(ROOT / "deploy" / "api").iterdir()):
        if target.name != "__pycache__":
            (links / target.name).symlink_to(target)
    done = subprocess.run(
        [COMMAND.with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_there_is_no_circle_between_modules() -> None:
    # A face imports the modules of its own folder; what a module takes from a face it takes from those.
    graph = {name: imported_modules(file) - {name} for name, file in MODULES.items()}
    assert circle(graph) == []


def test_there_is_no_circle_between_folders() -> None:
    graph: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        graph.setdefault(folder_of(name), set()).update(map(folder_of, imported_modules(file)))
    # A folder and one inside it are one concept: app.py brings the routes, which know its state.
    within = {
        folder: {other for other in others if not related(folder, other)} for folder, others in graph.items()
    }
    assert circle(within) == []


def related(folder: str, other: str) -> bool:
    return f"{folder}.".startswith(f"{other}.") or f"{other}.".startswith(f"{folder}.")


def test_folders_are_entered_through_their_faces() -> None:
    # Several doors: exports need different extras, and each kind of model is published by its own module.
    doors = {"lookalike.encoder.export", "lookalike.trainer.publish"}
    for name, file in MODULES.items():
        for module in imported_modules(file) - PACKAGES:
            folder = folder_of(module)
            if folder.count(".") >= 2 and folder not in doors and not related(folder, folder_of(name)):
                pytest.fail(f"{name} imports {module}; import what it needs from {folder}")


def test_torch_is_named_in_the_trainer_and_the_export_alone() -> None:
    named = {name for name in who_imports("torch", "torchvision") if not name.startswith("trainer/")}
    assert named <= {"encoder/export/torch_export.py", "encoder/export/torchvision_model.py"}
    fitting = {
        name for name in who_imports("torch") if name.startswith(("trainer/fitting/", "trainer/config"))
    }
    assert not fitting


def test_foreign_engines_are_named_in_one_place_each() -> None:
    onnxruntime = {
        f"encoder/{name}.py"
        for name in ("runtime/session", "export/parity", "export/import_model", "export/text_tower")
    }
    onnxruntime |= {"encoder/detect/yunet.py"}  # its network is no bundle's, and bundles know of faces
    assert who_imports("onnxruntime") <= onnxruntime
    assert all(name.startswith("encoder/export/") for name in who_imports("onnx", "onnxscript"))
    assert who_imports("pi_heif", "rawpy") == {"encoder/images/find.py"}
    assert who_imports("tokenizers") == {"encoder/bundle/tokenizer.py"}
    assert who_imports("huggingface_hub") == {"encoder/export/hub.py"}
    assert who_imports("qdrant_client") == {"indexer/server/client.py"}
    assert who_imports("ray") == {"indexer/units/ray_engine.py"}
    assert who_imports("qdrant_edge") == {"indexer/embedded/shard.py"}
    assert all(
        name.startswith(("deploy/http/", "deploy/cli/")) for name in who_imports("fastapi", "starlette")
    )
    assert all(name.startswith("deploy/evaluation/") for name in who_imports("matplotlib"))
    assert all(
        name.startswith(("trainer/", "deploy/evaluation/", "encoder/metrics"))
        for name in who_imports("sklearn")
    )
    assert who_imports("requests", "urllib3") == {"encoder/datasets/download.py"}
    assert not who_imports("bm3d", "pywt")  # rivals are measured in tests/benchmarks


def test_only_commands_talk_to_people() -> None:
    assert {name for name in who_imports("click") if not name.startswith("deploy/cli/")} <= {"deploy/demo.py"}
    for name, file in zip(NAMES, FILES, strict=True):
        calls = [node.func for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), name


def test_a_folder_holds_twelve_modules_at_most() -> None:
    modules = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert {folder: count for folder, count in modules.items() if count > 12} == {}


def test_a_module_has_500_lines_at_most_and_a_name_of_its_own() -> None:
    for file in (*FILES, *TESTS):
        assert file.stem.removeprefix("test_") not in GENERIC, file
    for file in FILES:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, file


def test_rooms_open_without_loading_anything() -> None:
    for room in ROOMS:
        found = {module for module, _ in imported_names(ROOT / room / "__init__.py")}
        assert found <= {"os"}, room  # os costs nothing: it is loaded at start


def test_every_module_and_every_public_name_has_a_docstring() -> None:
    for name, file in zip(NAMES, FILES, strict=True):
        module = tree(file)
        assert len(ast.get_docstring(module) or "") > 10, name
        for what, node in public(module):
            assert ast.get_docstring(node), f"{name}: {what}"


def test_only_faces_say_what_they_export() -> None:
    for name, file in zip(NAMES, FILES, strict=True):
        lists = [
            target.id
            for node in tree(file).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and target.id == "__all__"
        ]
        assert not lists or file.name == "__init__.py", name
    for name in PACKAGES:
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            assert hasattr(module, exported), f"{name}: {exported}"


def test_every_error_of_the_tree_is_drawn() -> None:
    from lookalike.encoder import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert errors.__doc__ is not None
    assert errors.LookalikeError in kinds
    for kind in kinds:
        assert issubclass(kind, errors.LookalikeError)
        (line,) = (line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
        parents = [parent for parent in kind.__mro__[1:] if issubclass(parent, errors.LookalikeError)]
        assert line.index(kind.__name__) == 4 + 4 * len(parents), kind.__name__


def test_every_folder_is_packaged() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(document["tool"]["setuptools"]["packages"]) == PACKAGES


def test_tests_of_what_needs_no_torch_load_none() -> None:
    at_the_top = {
        file.relative_to(ROOT / "tests").as_posix()
        for file in TESTS
        for node in tree(file).body
        if (isinstance(node, ast.Import) and any(alias.name == "torch" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch")
    }
    train = ("trainer/", "encoder/export/", "benchmarks/", "deploy/cli/training/")
    assert {name for name in at_the_top if not name.startswith(train)} <= {
        "encoder/images/test_noise.py",  # compares the trainer's noise with the encoder's
        "fixtures/exports.py",
        "fixtures/plain_ae.py",
    }


def test_the_base_install_holds_no_training() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {need.split(">")[0].split("=")[0].split("<")[0].lower() for need in document["dependencies"]}
    extras = {
        "torch",
        "torchvision",
        "onnx",
        "onnxscript",
        "scikit-image",
        "scikit-learn",
        "pyarrow",
        "matplotlib",
    }
    assert not names & (extras | {"pytest", "mypy", "ruff"})
    assert any(need.startswith("torch") for need in document["optional-dependencies"]["train"])


def test_all_but_the_trainer_and_the_export_import_without_torch() -> None:
    modules = [
        name
        for name in MODULES
        if not name.startswith(("lookalike.trainer", "lookalike.encoder.export.torch_export"))
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def tracked() -> list[Path]:
    """The files of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not in a clone")
    return [Path(name) for name in listed.stdout.splitlines()]


def test_the_top_level_holds_the_rooms_and_what_is_looked_for_there() -> None:
    assert {file.parts[0] for file in tracked()} <= TOP_LEVEL


def test_no_data_set_lies_in_the_project() -> None:
    kinds = {".jpg", ".jpeg", ".tgz", ".npz", ".pt", ".gz"}
    names = tracked()
    bundles = (Path("encoder/shipped"), Path("tests/fixtures/bundles"))  # statistics, and images they decoded
    assert not [
        name
        for name in names
        if name.suffix.lower() in kinds and not any(name.is_relative_to(folder) for folder in bundles)
    ]
