"""Faces of many photographs: where their files go, what fails alone, and what a sheet shows."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.detect import ARCFACE_FRAME, face_finder
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import decode_rgb
from lookalike.indexer.sources import SourceFilter
from lookalike.searcher.denoising import Task
from lookalike.searcher.faces import FaceCut, FacesReport, FoundFaces, find_faces, find_photographs
from lookalike.searcher.figures import faces_sheet
from tests.fixtures.face_photos import group, no_face, write


def found(tasks: list[Task], **options: object) -> tuple[FacesReport, list[FoundFaces]]:
    rows: list[FoundFaces] = []
    return find_faces(tasks, on_found=rows.append, **options), rows  # type: ignore[arg-type]


def prefixes(*sources: str | Path, out: str | None) -> list[str]:
    tasks = find_photographs([str(each) for each in sources], [], out=out, root=None, reading=SourceFilter())
    return [str(task.target) for task in tasks]


def test_files_of_faces_keep_the_tree_and_never_share_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/a.png", "in/deep/a.jpg", "in/deep/b.c.jpg", "in/deep/A.webp", "other/a.jpg"):
        write(Path(name), no_face())
    assert prefixes("in", out="out") == [
        "out/a.jpg",
        "out/a.png",
        "out/deep/A.webp",  # the same as a.jpg on a disk that ignores case
        "out/deep/a.jpg",
        "out/deep/b.c",
    ]
    assert prefixes("in/deep/b.c.jpg", "other", out="in/out") == ["in/out/b.c", "in/out/a"]
    with pytest.raises(
        InvalidArgumentError, match=r"in/deep/a\.jpg and other/a\.jpg would both .*a\.jpg-1\.png"
    ):
        prefixes("in/deep/a.jpg", "other", out="out")
    with pytest.raises(InvalidArgumentError, match="--out in is a source itself"):
        prefixes("in", out="in")
    with pytest.raises(InvalidArgumentError, match=r"--out is a folder, in/a\.jpg is a file"):
        prefixes("in", out="in/a.jpg")
    with pytest.raises(DataError, match="'nowhere' does not exist"):
        prefixes("in", "nowhere", out=None)


def test_faces_written_before_are_not_read_as_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in/a.jpg"), no_face())
    write(Path("in/out/a-1.png"), no_face())
    assert prefixes("in", out="in/out") == ["in/out/a"]


def test_a_face_never_replaces_another(tmp_path: Path) -> None:
    photograph = write(tmp_path / "a.png", group(2))
    tasks = [Task(photograph, "a.png", tmp_path / "out" / "a")]
    report, (row,) = found(tasks, write=True, cut=FaceCut(size=64))
    assert (report.faces, report.failed) == (2, [])
    assert [file.name for file in row.files] == ["a-1.png", "a-2.png"]
    before = [file.read_bytes() for file in row.files]
    again, (row,) = found(tasks, write=True, cut=FaceCut(size=64))
    assert (again.faces, again.failed, len(row.files)) == (2, [], 2)  # the same: nothing to do
    (tmp_path / "out" / "a-1.png").unlink()
    other, (row,) = found(tasks, write=True, cut=FaceCut(size=32))
    ((_, reason),) = other.failed
    assert "a-2.png exists and is another picture; name another --out" in reason
    assert not (tmp_path / "out" / "a-1.png").exists()  # all of a photograph or none
    assert (tmp_path / "out" / "a-2.png").read_bytes() == before[1]


def test_what_cannot_be_read_fails_alone_and_in_order(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "0.jpg", group(1)),
        tmp_path / "1.jpg",
        write(tmp_path / "2.png", no_face()),
        tmp_path / "3.jpg",
        write(tmp_path / "4.png", group(3)),
        tmp_path / "5.jpg",
    ]
    files[1].write_bytes(b"no picture")
    os.mkfifo(files[5])
    rows: list[FoundFaces]
    report, rows = found([Task(file, file.name, file) for file in files], threads=3)
    assert [row.path for row in rows] == [file.name for file in files]
    assert [len(row.faces) for row in rows] == [1, 0, 0, 0, 3, 0]
    assert [bool(row.reason) for row in rows] == [False, True, False, True, False, True]
    assert (report.photographs, report.faces, report.without, len(report.failed)) == (3, 4, 1, 3)
    assert report.summary().startswith("3 photographs: 4 faces, 1 without a face, 3 failed; ")
    assert rows[1].to_json().keys() == {"path", "error"}
    values = rows[4].to_json()
    assert (values["width"], values["height"]) == (768, 256)
    assert [sorted(face) for face in values["faces"]] == [["box", "landmarks", "score", "width"]] * 3
    lefts = [face["box"][0] for face in values["faces"]]
    assert lefts == sorted(lefts)
    assert np.diff(lefts) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("turned", [3, 6, 8])
def test_orientation_comes_first(tmp_path: Path, turned: int) -> None:
    pixels = np.ascontiguousarray(np.rot90(group(2), {3: 2, 6: 1, 8: 3}[turned]))
    _, (row,) = found([Task(write(tmp_path / "a.jpg", pixels, turned=turned), "a.jpg", tmp_path)])
    assert (row.width, row.height, len(row.faces)) == (512, 256, 2)
    assert abs(row.faces[0].landmarks[0][1] - row.faces[0].landmarks[1][1]) < 0.05  # eyes side by side


def test_cut_faces_have_their_landmarks_in_the_frame(tmp_path: Path) -> None:
    pixels = group(1)
    (face,) = face_finder().find(pixels)
    for cut in (FaceCut(size=128), FaceCut(size=112, frame=ARCFACE_FRAME, margin=0.25)):
        (image,) = cut(pixels, [face])
        assert image.shape == (cut.size, cut.size, 3)
        (again,) = face_finder().find(np.kron(image, np.ones((3, 3, 1), np.uint8)))
        points = again.points(cut.size, cut.size)
        assert np.abs(points - cut.frame.scaled(cut.size, margin=cut.margin)).max() < 0.06 * cut.size


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 15}, "16 to 4096 pixels, not 15"),
        ({"size": 5000}, "16 to 4096 pixels, not 5000"),
        ({"margin": -0.1}, "0 to 4, not -0.1"),
        ({"margin": float("nan")}, "0 to 4, not nan"),
    ],
)
def test_cuts_that_cannot_be_are_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        FaceCut(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (7, 4000), (27, 200), (200, 27)])
@pytest.mark.parametrize("seed", [0, 1])
def test_pictures_too_small_for_a_face_have_none(shape: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert face_finder().find(noise) == []


def test_a_sheet_shows_photographs_with_numbers_and_their_faces(tmp_path: Path) -> None:
    files = [write(tmp_path / "two.png", group(2)), write(tmp_path / "none.png", no_face())]
    files.append(write(tmp_path / "eight.png", group(8)))
    _, rows = found([Task(file, file.name, file) for file in files], views=2)
    assert [row.view is not None for row in rows] == [True, True, False]
    view = rows[0].view
    assert view is not None
    assert view.photograph.shape == (112, 224, 3)
    plain = Image.fromarray(decode_rgb(files[0].read_bytes(), name="x")).resize((224, 112))
    changed = (np.abs(view.photograph.astype(int) - np.asarray(plain)) > 60).any(2)
    for face in rows[0].faces:
        x, y, across, down = (
            round(part * side) for part, side in zip(face.box, (224, 112, 224, 112), strict=True)
        )
        assert changed[y + down - 2 : y + down + 3, x : x + across].any(0).mean() > 0.8  # its lower edge
    _, all_of_them = found([Task(file, file.name, file) for file in files], views=3)
    sheets = [faces_sheet(some) for some in (rows, all_of_them)]
    assert sheets[1].shape[0] > sheets[0].shape[0] + 2 * 224  # eight faces stand in two rows
    with pytest.raises(InvalidArgumentError, match="at least one tile"):
        faces_sheet([rows[2]])
