"""Real photographs, cut from one that comes with scikit-image, and the real command. Not a test."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from lookalike.encoder.runtime.model import Model
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store.base import VectorStore, open_store
from lookalike.indexer.sync.report import Report
from lookalike.indexer.sync.sync import load, prepare_collection

COMMAND: Final = Path(sys.executable).with_name("lookalike")
PEOPLE: Final = ("Ada_Lovelace", "Émilie_du_Châtelet", "Hypatia")
NAME: Final = "photos"


@cache
def cuttings() -> list[NDArray[np.uint8]]:
    """Sixteen squares of a portrait, uint8 (128, 128, 3), no two alike."""
    portrait: Callable[[], NDArray[np.uint8]] = astronaut
    picture = portrait()
    return [picture[y : y + 128, x : x + 128] for y in range(0, 512, 128) for x in range(0, 512, 128)]


@cache
def photograph(number: int) -> bytes:
    """One of the squares as JPEG."""
    out = io.BytesIO()
    Image.fromarray(cuttings()[number]).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_photos(folder: Path, *, each: int = 3) -> list[Path]:
    """Write ``<person>/<n>.jpg`` for three people and return the files, sorted."""
    files = [folder / person / f"{number}.jpg" for person in PEOPLE for number in range(each)]
    for index, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photograph(index))
    return sorted(files)


def write_many(folder: Path, count: int) -> None:
    """Write as many files; links to a few, so that it takes no time."""
    folder.mkdir()
    for index in range(count):
        file = folder / f"{index:05d}.jpg"
        if index < 16:
            file.write_bytes(photograph(index))
        else:
            os.link(folder / f"{index % 16:05d}.jpg", file)


def index(store: VectorStore, model: Model, *sources: Path, name: str = NAME, **options: Any) -> Report:
    """Index folders as the command does."""
    prepare_collection(store, name, model, crop=None)
    known = store.describe(name).roots
    found = [open_source(str(source), root_name=None, known=known) for source in sources]
    return load(store, name, model, found, **options)


@dataclass(frozen=True, eq=False)
class Stored:
    """Everything in a collection in the order of ids; equal when vectors are, up to rounding."""

    payloads: dict[str, dict[str, Any]]
    vectors: NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Stored)
            and self.payloads == other.payloads
            and np.allclose(self.vectors, other.vectors, rtol=0, atol=1e-5)
        )


def stored(store: VectorStore, name: str = NAME) -> Stored:
    """Return what a collection holds."""
    records = list(store.scroll(name, with_vectors=True))
    vectors = [record.vector for record in records if record.vector is not None]
    assert len(vectors) == len(records)
    return Stored({record.id: dict(record.payload) for record in records}, np.array(vectors))


def lookalike(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, both outputs caught."""
    return subprocess.run(
        [COMMAND, *words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line on stderr; there is nothing else, on either output."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def make_home(folder: Path, bundle: Path) -> Path:
    """Fill a folder with photos/ indexed into .lookalike, me.jpg (one of them) and bad.jpg."""
    write_photos(folder / "photos")
    (folder / "me.jpg").write_bytes(photograph(4))
    (folder / "bad.jpg").write_bytes(b"no picture")
    with open_store(str(folder / ".lookalike")) as store:
        index(store, Model.open(bundle), folder / "photos")
    return folder
