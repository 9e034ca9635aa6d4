"""Options made from dataclasses, their groups in ``--help``, and what the commands load for it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from lookalike.deploy.cli.main import VERBS
from lookalike.deploy.cli.options import Command, Given, auto, command, option, options_of
from tests.fixtures.command import lookalike


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    size: int
    rate: float = 0.5
    widths: tuple[int, ...] = (8, 4)
    corners: tuple[int, int, int] = (1, 2, 3)
    mode: Literal["fast", "exact"] = "fast"
    deep: bool = False
    mirror: bool | None = None
    limit: int | None = None


HELP: dict[str, str | dict[str, Any]] = {
    "rate": "Rate.",
    "widths": "Widths.",
    "corners": "Corners.",
    "mode": "Mode.",
    "deep": "Deep.",
    "mirror": auto("Mirror.", "yes for faces"),
    "limit": auto("Limit.", type=click.IntRange(min=1)),
}


def tool(**options: Any) -> Command:
    @command(context_settings={"max_content_width": 100})
    @option("--name", help="Name.")
    @options_of(Spec, "spec", HELP, group="Shape", **options)
    def run(name: str | None, spec: Given[Spec]) -> Spec:
        return spec.build(size=3)

    return run


def built(words: Sequence[str], **options: Any) -> Spec:
    spec = tool(**options).main(list(words), standalone_mode=False)
    assert isinstance(spec, Spec)
    return spec


def test_without_options_the_dataclass_has_its_defaults() -> None:
    assert built([]) == Spec(size=3)


def test_options_are_the_fields_in_their_types() -> None:
    words = [
        "--rate",
        "2",
        "--widths",
        "16,8,4",
        "--corners",
        "3,2,1",
        "--mode",
        "exact",
        "--deep",
        "--no-mirror",
        "--limit",
        "7",
    ]
    assert built(words) == Spec(
        size=3, rate=2.0, widths=(16, 8, 4), corners=(3, 2, 1), mode="exact", deep=True, mirror=False, limit=7
    )


def test_another_instance_gives_other_defaults_also_to_fields_without_an_option() -> None:
    assert built(["--rate", "2"], defaults=Spec(size=9, rate=0.1, mode="exact")) == Spec(
        size=3, rate=2.0, mode="exact"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--widths 8,x", "'8,x' must be whole numbers with commas between them"),
        ("--corners 1,2", "'1,2' must be 3 whole numbers with commas between them"),
        ("--mode slow", "'slow' is not one of 'fast', 'exact'"),
        ("--limit 0", "0 is not in the range x>=1"),
    ],
)
def test_a_wrong_value_is_wrong_usage(words: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        built(words.split())


def test_help_has_the_groups_and_the_defaults_as_they_are_typed() -> None:
    lines = tool().get_help(click.Context(tool(), max_content_width=100)).splitlines()
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "Options:",
        "Shape:",
    ]
    text = "\n".join(lines)
    for line in ("[default: 8,4]", "[default: 1,2,3]", "[default: yes for faces]", "--deep ", "--limit N "):
        assert line in text
    assert "x>=" not in text


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_as_wide_as_the_terminal(verb: str, tmp_path: Path) -> None:
    for columns in (80, 100):
        text = lookalike(verb, "--help", cwd=tmp_path, env={"COLUMNS": str(columns)}).stdout
        assert max(map(len, text.splitlines())) <= columns


def test_help_of_no_verb_loads_torch_or_a_runtime() -> None:
    code = (
        "import sys\n"
        "from lookalike.deploy.cli.main import VERBS, group\n"
        "for verb in VERBS:\n"
        "    group.main([verb, '--help'], prog_name='lookalike', standalone_mode=False)\n"
        "sys.exit(', '.join({'torch', 'onnxruntime', 'onnx', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
