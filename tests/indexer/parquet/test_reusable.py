"""Rows of earlier runs: reused once, by the first file that has them, the faces of an image together."""

import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike.indexer.parquet.file import Entry, LatentsFile, Rows, write_latents
from lookalike.indexer.parquet.resume import NO_KEY, ReusableRows
from tests.benchmarks.million_vectors import People

KEYS = [bytes([n]) * 15 + bytes([end]) for n in (0, 7, 255) for end in (0, 1, 255)]
"""Also such that end in zeros, which numpy takes for no part of them."""


@given(
    files=st.lists(st.lists(st.sampled_from(KEYS), max_size=9), max_size=4),
    asked=st.lists(st.sampled_from([*KEYS, NO_KEY]), max_size=6),
)
def test_what_is_reused_is_counted(files: list[list[bytes]], asked: list[bytes]) -> None:
    rows, counts = ReusableRows(), dict[bytes, int]()
    for keys in files:
        rows.add(Path("never opened"), keys)
        counts |= {key: keys.count(key) for key in keys if key not in counts}
    taken = {key for key in asked if key in counts}
    assert rows.contains(asked).tolist() == [key in counts for key in asked]
    assert (rows.taken, rows.left) == (0, sum(counts.values()))
    assert rows.take(asked).tolist() == [key in counts for key in asked]
    assert rows.taken == sum(counts[key] for key in taken)
    assert rows.left == sum(counts.values()) - rows.taken
    assert rows.takes_all(asked) == all(key in counts for key in asked)
    assert rows.takes_all(KEYS) == (taken == set(KEYS))


def test_a_row_takes_21_bytes() -> None:
    assert min(_bytes_of_a_row() for _ in range(2)) < 25  # what else allocates meanwhile counts too


def _bytes_of_a_row() -> float:
    rows, count, rng = ReusableRows(), 100_000, np.random.default_rng(0)
    tracemalloc.start()
    rows.add(Path("never opened"), (rng.bytes(16) for _ in range(count)))
    assert not rows.contains([NO_KEY]).any()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.left == count
    return held / count


def test_rows_come_from_the_first_file_that_has_their_image(tmp_path: Path) -> None:
    def write(name: str, *paths: str) -> Path:
        spec = People(1, 4).spec
        entries = [Entry(path, "people", f"{name:0<64}", 1, 1, None) for path in paths]
        rows = Rows(entries, np.full((len(paths), 4), 0.5, np.float32))
        write_latents(tmp_path / f"{name}.parquet", spec, [rows], draft=tmp_path / "new")
        return tmp_path / f"{name}.parquet"

    files = {
        "a": write("a", "1", "2", "2", "3"),  # two faces in 2
        "b": write("b", "2", "2", "2", "4"),
        "c": write("c", "4", "1", "5", "5"),
    }
    reusable, keys = ReusableRows(), dict[str, bytes]()
    for file in files.values():
        with LatentsFile.open(file) as opened:
            reusable.add(file, opened.keys())
            keys |= {entry.path: entry.key for rows in opened.rows() for entry in rows.entries}
    reusable.take([keys[path] for path in ("5", "2", "4", "1")])
    found = [(entry.sha256[0], entry.path) for rows in reusable.rows() for entry in rows.entries]
    assert found == [("a", "1"), ("a", "2"), ("a", "2"), ("b", "4"), ("c", "5"), ("c", "5")]
    assert (reusable.taken, reusable.left) == (6, 1)
