"""A name is a name, also one that looks like a number; numbers are whole columns of numbers."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import DataError
from lookalike.indexer.sources import read_payload
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, photograph, write_photos


def column(tmp_path: Path, *cells: str, name: str = "x") -> list[Any]:
    """The values that a CSV with one column is read as; None where a cell is empty."""
    file = tmp_path / "table.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", name), *((f"{n}.jpg", cell) for n, cell in enumerate(cells))])
    return [row.get(name) for row in read_payload(file).values()]


def same(one: list[Any], other: list[Any]) -> bool:
    return one == other and list(map(type, one)) == list(map(type, other))


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1", "22", "0", "-3"), [1, 22, 0, -3]),
        (("1", "", "2"), [1, None, 2]),
        (("1", "0.5", "-2e3", "1E-2"), [1, 0.5, -2000.0, 0.01]),
        ((" 1", "2 "), [1, 2]),
        ((str(2**63 - 1), str(2**53 + 1)), [2**63 - 1, 2**53 + 1]),
    ],
)
def test_a_column_of_numbers_is_numbers(tmp_path: Path, cells: tuple[str, ...], values: list[Any]) -> None:
    assert same(column(tmp_path, *cells), values)


@pytest.mark.parametrize(
    "odd",
    [
        *("00123", "007", "-01", "00", "00.5", "1_000", "+41791234567", "0x10", "1,5", "nan", "inf", "-inf"),
        *(
            "Infinity",
            "1e400",
            "1e99999",
            str(2**63),
            "9" * 30,
            "٣",
            "\uff11",
            "1 2",
            "--1",
            "1-",
            "e5",
            ".",
            "A",
        ),
        *("true", "None", "1e", "1.2.3", "²"),
    ],
)
def test_one_cell_that_is_no_number_makes_the_column_text(tmp_path: Path, odd: str) -> None:
    for cells in ((odd, "1", "2.5"), ("1", "2.5", odd), (odd,)):
        assert same(column(tmp_path, *cells), list(cells))


@pytest.mark.parametrize("cells", [("123",), ("123", "7"), ("00123",), ("1.5", "2"), ("1e5",), ("-0",)])
def test_a_person_is_text_whatever_the_column_holds(tmp_path: Path, cells: tuple[str, ...]) -> None:
    assert same(column(tmp_path, *cells, name="person"), list(cells))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.text("0123456789.eE+-_ ", max_size=8)), max_size=5
    )
)
def test_no_cell_loses_a_character_that_tells_it_from_another(
    tmp_path_factory: pytest.TempPathFactory, cells: list[int | str]
) -> None:
    texts = [str(cell) for cell in cells if str(cell)]
    values = column(tmp_path_factory.mktemp("t"), *texts)
    kinds = {type(value) for value in values}
    assert kinds <= {str} or kinds <= {int, float}
    if kinds <= {str}:
        assert values == texts
    else:
        assert [float(text) for text in texts] == [float(value) for value in values]


def test_a_table_larger_than_its_cache_is_found_and_iterated(tmp_path: Path) -> None:
    count = 60_000
    lines = (f"{number}.jpg,{number},{'x' * 60}{number}" for number in range(count))
    (tmp_path / "a.csv").write_text("\n".join(["path,n,note", *lines]))
    table = read_payload(tmp_path / "a.csv")
    assert len(table) == count
    assert list(table)[::20_000] == ["0.jpg", "20000.jpg", "40000.jpg"]  # in the order of the file
    assert table["59999.jpg"] == {"n": 59999, "note": f"{'x' * 60}59999"}
    assert table.get("\udcff.jpg") is table.get("60000.jpg") is None


@pytest.mark.parametrize(("person", "read"), [(123, "123"), ("00123", "00123"), (None, None), (-1, "-1")])
def test_a_person_in_json_lines_is_text(tmp_path: Path, person: object, read: object) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"path": "a.jpg", "person": person}))
    assert read_payload(tmp_path / "a.jsonl") == {"a.jpg": {"person": read}}


@pytest.mark.parametrize("person", [1.5, True, [], ["Ada"], {"name": "Ada"}])
def test_a_person_that_is_no_text_is_refused_with_its_line(tmp_path: Path, person: object) -> None:
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps({"path": "a.jpg", "person": person}))
    with pytest.raises(DataError, match=r"a.jsonl:2 must name a person, but .* is not text"):
        read_payload(tmp_path / "a.jsonl")


@pytest.mark.parametrize("table", ["csv", "jsonl"])
def test_people_called_by_numbers_are_found_and_shown(tmp_path: Path, tiny_model: Path, table: str) -> None:
    write_photos(tmp_path / "photos", each=1)
    (tmp_path / "me.jpg").write_bytes(photograph(1))
    people = {"Ada_Lovelace/0.jpg": 123, "Hypatia/0.jpg": 7}
    if table == "csv":
        (tmp_path / "t.csv").write_text("path,person\n" + "".join(f"{p},{n}\n" for p, n in people.items()))
    else:
        (tmp_path / "t.jsonl").write_text(
            "\n".join(json.dumps({"path": p, "person": n}) for p, n in people.items())
        )
    words = ("index", "photos", "--model", tiny_model, "--collection", NAME, "--payload", f"t.{table}")
    for counts in ("3 added", "3 unchanged"):
        assert counts in one_line(lookalike(*words, cwd=tmp_path))
    found = lookalike(
        *("search", "me.jpg", "--collection", NAME, "--where", "person=123", "--sheet", "out.png", "--json"),
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    ((hit,),) = (answer["results"] for answer in json.loads(found.stdout))
    assert (hit["path"], hit["person"]) == ("Ada_Lovelace/0.jpg", "123")
    assert (tmp_path / "out.png").is_file()
