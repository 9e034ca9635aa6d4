"""The card of a model says what bundle.json says, whatever stands in it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lookalike.encoder.bundle import Bundle, model_card, read_manifest, shipped_bundles
from tests.fixtures.command import lookalike
from tests.fixtures.pages import commands, parses

SHIPPED = shipped_bundles()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_a_shipped_model_has_all_figures_digests_and_commands_that_run(
    name: str, tmp_path: Path
) -> None:
    done = lookalike("models", "card", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card, content = done.stdout, json.loads((SHIPPED[name] / "bundle.json").read_text(encoding="utf-8"))
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "lookalike"
    assert content["model_id"] in card
    for file, digest in content["files"].items():
        assert f"| `{file}` | `{digest}` |" in card
    for key, value in content["model"]["figures"].items():
        assert f"`{key}`" in card
        rows = [each.values() for each in value] if isinstance(value, list) else [[value]]
        for number in (each for row in rows for each in row if not isinstance(each, dict)):
            assert f"| {f'{number:,}' if isinstance(number, int) else number} |" in card
    assert f"`{content['model']['training']['data']}`" in card
    for words in commands(card):
        parses(words)
    assert ("not proof of identity" in card) == (name == "faces")


@pytest.mark.parametrize(
    "text", ["a|b", "<script>alert(1)</script>", "`rm`", "two\nlines", "| --- |", "\x1b[31m"]
)
def test_what_a_stranger_wrote_stays_in_its_cell(tiny: Bundle, text: str) -> None:
    manifest = read_manifest(tiny.folder)
    spec = replace(
        tiny.spec, figures={text: text, "rows": [{text: text}]}, training={"data": text, "torch": text}
    )
    card = model_card("mine", replace(manifest, spec=spec))
    assert "<script" not in card
    assert "\x1b" not in card
    assert "license" not in card
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table
