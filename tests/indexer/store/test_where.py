"""--where: what it means, and where it stops to mean anything."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError
from lookalike.indexer.store import Condition, Filter, VectorStore, parse_where, value_counts
from tests.fixtures import stores
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, make_home
from tests.fixtures.stores import point_ids, random_vectors

store, name = stores.store, stores.name


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("person=Ada_Lovelace", [("person", "=", "Ada_Lovelace")]),
        (" person != Ada Lovelace ", [("person", "!=", "Ada Lovelace")]),
        ("Smiling>0", [("Smiling", ">", 0)]),
        ("Smiling>=-1.5", [("Smiling", ">=", -1.5)]),
        ("Smiling=1", [("Smiling", "=", 1.0)]),
        ('Smiling="1"', [("Smiling", "=", "1")]),
        ("person=7", [("person", "=", "7")]),
        ("size=1024", [("size", "=", 1024)]),
        ("path~2019/", [("path", "~", "2019/")]),
        ("path~a=b", [("path", "~", "a=b")]),
        ("good=true,bad!=false", [("good", "=", True), ("bad", "!=", False)]),
        ("a<1,b<=2", [("a", "<", 1), ("b", "<=", 2)]),
        ('person="Doe, Jane",a=x', [("person", "=", "Doe, Jane"), ("a", "=", "x")]),
        (r'person="\"Bo\\b\""', [("person", "=", r'"Bo\b"')]),
        ('"a=b"=c', [("a=b", "=", "c")]),
        ("Mouth Slightly Open>0", [("Mouth Slightly Open", ">", 0)]),
        ("x=nan", [("x", "=", "nan")]),
        ("5 o' Clock Shadow<0", [("5 o' Clock Shadow", "<", 0)]),
    ],
)
def test_what_it_means(text: str, conditions: list[tuple[str, Any, Any]]) -> None:
    found = parse_where(text)
    assert found == Filter(tuple(Condition(*each) for each in conditions))
    assert [type(c.value) for c in found.conditions] == [type(value) for _, _, value in conditions]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a field such as person or Smiling at character 1, marked ^ here: ^"),
        ("person", "expected one of .* at character 7, marked ^ here: person^"),
        ("Smiling>>0", r"expected a value that fits .* at character 9, marked ^ here: Smiling>^>0"),
        ("Smiling>", "expected a value.* at character 9, marked ^ here: Smiling>^"),
        ("Smiling>a bit", "expected a value that fits .* at character 9, marked ^ here: Smiling>^a bit"),
        ("person=a,,b=c", "expected a field .* at character 10, marked ^ here: person=a,^,b=c"),
        ("person=a,", "expected a field .* at character 10, marked ^ here: person=a,^"),
        ('person="a"b', 'expected a comma or the end at character 11, marked ^ here: person="a"^b'),
        ('person="a', 'expected a value.* at character 8, marked ^ here: person=^"a'),
        ("=a", "expected a field .* at character 1, marked ^ here: ^=a"),
        ("a..b=1", "expected a value that fits .* at character 6, marked ^ here: a..b=^1"),
        ("person=\n", "expected a value.* at character 9, "),
    ],
)
def test_where_it_stops_to_mean_anything(text: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said.replace("^", r"\^")) as error:
        parse_where(text)
    assert "\n" not in str(error.value)


@given(st.text(max_size=20))
def test_nothing_else_ever_happens(text: str) -> None:
    with suppress(InvalidArgumentError):
        parse_where(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_quotes_hold_any_text(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_where(f"person={quoted}, a>0").conditions[0] == Condition("person", "=", text)


def test_values_are_counted_alike_in_every_store(store: VectorStore, name: str) -> None:
    payloads: list[dict[str, Any]] = [
        {"p": "b", "n": 1, "of": {"x": 1}},
        {"p": "b", "n": 1.5, "l": ["q", "q", "r"]},
        {"p": "a", "n": True},
        {"p": "c", "l": ["r"]},
        {"n": None},
    ]
    store.upsert(name, point_ids(5), random_vectors(5), payloads)
    assert value_counts(store, name, "p") == [("b", 2), ("a", 1), ("c", 1)]
    assert value_counts(store, name, "n") == [(True, 1), (1.5, 1), (1, 1)]
    assert value_counts(store, name, "l") == [("r", 2), ("q", 1)]
    assert value_counts(store, name, "of.x") == [(1, 1)]
    assert value_counts(store, name, "p", where=parse_where("p!=b")) == [("a", 1), ("c", 1)]
    assert value_counts(store, name, "none") == []
    with pytest.raises(CollectionNotFoundError):
        store.facet("nothing", "p")


@pytest.mark.parametrize("odd", [7, ["Ada", "Eve"], True, ["Ada", 7], {"first": "Ada"}, None])
def test_people_are_counted_by_their_index_only_where_it_knows_all(
    store: VectorStore, name: str, odd: object
) -> None:
    payloads: list[dict[str, Any]] = [{"person": each} for each in ("Ada", "Eve", "Ada", "Kim")]
    store.upsert(name, point_ids(5), random_vectors(5), [*payloads, {"path": "x"}])
    assert store.facet(name, "person") == {"Ada": 2, "Eve": 1, "Kim": 1}
    store.upsert(name, point_ids(5)[4:], random_vectors(1), [{"person": odd}])
    expected: Counter[Any] = Counter(["Ada", "Eve", "Ada", "Kim"])
    expected.update(each for each in (odd if isinstance(odd, list) else [odd]) if isinstance(each, str | int))
    assert dict(value_counts(store, name, "person")) == expected


def test_facets_counts_people(tmp_path: Path, tiny_model: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    done = lookalike("facets", "--collection", NAME, "person", cwd=home)
    assert done.stdout.splitlines() == [
        "       3  Ada_Lovelace",
        "       3  Hypatia",
        "       3  Émilie_du_Châtelet",
    ]
    done = lookalike(
        "facets", "--collection", NAME, "person", "--json", "--where", "path~/1.jpg,person!=Hypatia", cwd=home
    )
    assert json.loads(done.stdout) == [
        {"value": "Ada_Lovelace", "count": 1},
        {"value": "Émilie_du_Châtelet", "count": 1},
    ]
    done = lookalike("facets", "--collection", NAME, "person", "--most", "1", cwd=home)
    assert done.stderr == "and 2 more values, in 6 images; --most N prints them\n"
    done = lookalike("facets", "--collection", NAME, "person", "--where", "path~", cwd=home)
    assert done.returncode == 2
    assert one_line(done).endswith("at character 6, marked ^ here: path~^")
