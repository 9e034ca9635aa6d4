"""Files of latents made and compared. Not a test."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.runtime.model import Model
from lookalike.indexer.parquet.export import EmbedReport, embed
from lookalike.indexer.parquet.file import Entry, LatentsFile
from lookalike.indexer.sources.source import open_source


def run(model: Model, out: Path, *sources: Path, **options: Any) -> EmbedReport:
    return embed(
        model, [open_source(str(each), root_name=None, known={}) for each in sources], out, **options
    )


def content(file: Path) -> dict[Entry, NDArray[np.float32]]:
    """The rows of a file; none is there twice."""
    with LatentsFile.open(file) as opened:
        pairs = [pair for rows in opened.rows() for pair in zip(*rows, strict=True)]
        assert len(pairs) == opened.count
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys()
    for entry, vector in ours.items():
        np.testing.assert_allclose(vector, theirs[entry], rtol=0, atol=1e-5)


def nothing_beside(out: Path) -> None:
    assert not out.with_name(f"{out.name}.part").exists()


def assert_same_as_clean(model: Model, out: Path, *sources: Path) -> None:
    clean = out.with_name("clean.parquet")
    clean.unlink(missing_ok=True)
    run(model, clean, *sources)
    assert_same(out, clean)
    nothing_beside(out)
