"""Pictures to a file: again, changed, broken, it ends as a clean run of what is there."""

import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.encoder.bundle import AffineMap
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.parquet.file import LatentsFile
from lookalike.indexer.sync import DEGENERATE
from tests.fixtures.command import lookalike, lookalike_process, one_line
from tests.fixtures.embedding import assert_same_as_clean, content, nothing_beside, run
from tests.fixtures.photos import photograph, write_photos
from tests.fixtures.tiny_models import make_bundle, save_again


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def test_a_file_has_a_row_for_each_picture(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "latents.parquet"
    report = run(model, out, photos)
    assert (report.rows, report.embedded, report.kept, report.failed) == (9, 9, 0, [])
    entry = next(entry for entry in content(out) if entry.path == "Hypatia/0.jpg")
    status = (photos / "Hypatia" / "0.jpg").stat()
    assert (entry.root, entry.person) == ("photos", "Hypatia")
    assert (entry.size, entry.mtime_ns) == (status.st_size, status.st_mtime_ns)
    with LatentsFile.open(out) as opened:
        assert opened.spec.roots == {"photos": str(photos.resolve())}
        assert (opened.spec.model_id, opened.spec.crop) == (model.model_id, "center:0.5")
    nothing_beside(out)


def test_other_programs_find_the_files(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents.parquet"
    with tarfile.open(tmp_path / "more.tar", "w") as archive:
        archive.add(photos / "Hypatia" / "0.jpg", "inside.jpg")
    sources = photos, tmp_path / "more.tar"
    run(model, out, *sources)
    files = {row["path"]: row["file"] for row in pq.read_table(out).select(["path", "file"]).to_pylist()}
    assert files.pop("more.tar/inside.jpg") is None
    assert len(files) == 9
    assert all(Path(file).is_absolute() and Path(file) == photos / path for path, file in files.items())
    # A file of an earlier version gets the column where it is brought up to date.
    pq.write_table(pq.read_table(out).drop_columns("file"), out)
    assert run(model, out, *sources).unchanged
    assert run(model, out, *sources, overwrite=True).kept == 10
    assert "file" in pq.read_schema(out).names


def test_embedding_twice_equals_once(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents.parquet"
    run(model, out, photos)
    once = out.read_bytes()
    for overwrite in (False, True):
        report = run(model, out, photos, overwrite=overwrite)
        assert (report.rows, report.embedded, report.unchanged) == (9, 0, True)
        assert out.read_bytes() == once
    nothing_beside(out)


def test_a_file_that_is_not_up_to_date_is_refused_and_with_overwrite_brought_so(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents.parquet"
    run(model, out, photos)
    (photos / "Hypatia" / "0.jpg").write_bytes(photograph(15))
    with pytest.raises(
        InvalidArgumentError, match=r"without 1 of the images as they are now; --overwrite brings it"
    ):
        run(model, out, photos)
    (photos / "Hypatia" / "0.jpg").unlink()
    with pytest.raises(InvalidArgumentError, match=r"exists, 1 of its 9 images are gone or changed since"):
        run(model, out, photos)
    nothing_beside(out)
    (photos / "Hypatia" / "1.jpg").write_bytes(photograph(14))
    (photos / "new.jpg").write_bytes(photograph(13))
    report = run(model, out, photos, overwrite=True)
    assert (report.rows, report.kept, report.embedded, report.dropped) == (9, 7, 2, 2)
    assert_same_as_clean(model, out, photos)


def test_a_file_of_another_model_is_written_anew_only_when_that_is_said(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents.parquet"
    run(Model(make_bundle(tmp_path / "other", seed=1)), out, photos)
    with pytest.raises(InvalidArgumentError, match="made with another model, --crop or source; --overwrite"):
        run(model, out, photos)
    report = run(model, out, photos, overwrite=True)
    assert (report.embedded, report.kept) == (9, 0)
    assert_same_as_clean(model, out, photos)


def test_nothing_but_a_file_of_latents_is_replaced(model: Model, photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.parquet"
    mine.write_bytes(b"PAR1 dear to me")
    for overwrite in (False, True):
        with pytest.raises(InvalidArgumentError, match="exists and is not a readable file of latents"):
            run(model, mine, photos, overwrite=overwrite)
        with pytest.raises(
            InvalidArgumentError, match=r"is written as \.parquet, .* is not; change the name"
        ):
            run(model, photos / "Hypatia" / "0.jpg", photos, overwrite=overwrite)
    assert mine.read_bytes() == b"PAR1 dear to me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.parquet", "photos"]


def test_an_empty_folder_is_not_taken_for_a_wish(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents.parquet"
    run(model, out, photos)
    shutil.rmtree(photos)
    photos.mkdir()  # as a disk that is not mounted leaves it
    with pytest.raises(DataError, match=r"has 9 rows and no image at all is left in .*photos; mount it"):
        run(model, out, photos, overwrite=True)
    assert len(content(out)) == 9


def test_bad_pictures_are_named_each_time_and_cost_nobody_else(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents.parquet"
    (photos / "Hypatia" / "0a.jpg").write_bytes(b"")
    (photos / "0b.jpg").symlink_to("nowhere")
    for _ in range(2):
        report = run(model, out, photos)
        assert report.rows == 9
        assert sorted(Path(path).name for path, _ in report.failed) == ["0a.jpg", "0b.jpg"]
    assert report.unchanged


def test_a_picture_without_direction_gets_no_row(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    plain = Model.open(tiny_model)
    black = plain.encode(np.zeros((1, *plain.bundle.spec.image.shape), np.uint8))[0]
    affine = AffineMap(plain.bundle.affine.matrix, black)
    blind = Model(save_again(plain.bundle, tmp_path / "blind", affine=affine))
    Image.new("RGB", (64, 64)).save(photos / "black.png")
    report = run(blind, tmp_path / "latents.parquet", photos)
    assert report.rows == 9
    ((_, reason),) = report.failed
    assert reason.endswith(DEGENERATE)


def test_sources_that_are_named_twice_give_a_row_each(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents.parquet"
    assert run(model, out, photos, photos).rows == 9
    (tmp_path / "elsewhere").mkdir()
    write_photos(tmp_path / "elsewhere" / "photos", each=1)
    with pytest.raises(InvalidArgumentError, match="two sources are called 'photos'"):
        run(model, tmp_path / "both.parquet", photos, tmp_path / "elsewhere" / "photos")


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "embed nowhere --out new.parquet --model MODEL", "'nowhere' does not exist"),
        (1, "embed photos --out new.parquet --model nowhere", "no model 'nowhere'"),
        (1, "embed photos --out bad.jpg/new.parquet --model MODEL", r"cannot be written \(Not a directory\)"),
        (2, "embed photos --out new.csv --model MODEL", "a file of latents is written as .parquet"),
        (2, "embed photos --out new.parquet --model MODEL --crop middle", "write full, center:FRACTION or"),
        (2, "embed photos --out new.parquet --model MODEL --root-name", "requires an argument"),
        (2, "embed photos --model MODEL", "Missing option '--out'"),
    ],
)
def test_errors_have_a_code(
    tiny_model: Path, photos: Path, tmp_path: Path, code: int, words: str, said: str
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    done = lookalike(*words.replace("MODEL", str(tiny_model)).split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert re.search(said, last), last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jpg", "photos"]


def test_the_command_tells_what_it_did(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    words = ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet", "--root-name", "mine"]
    done = lookalike(*words, "--json", cwd=tmp_path)
    assert done.returncode == 3
    failed, summary = done.stderr.splitlines()
    assert failed.startswith("failed: ")
    assert summary.startswith("latents.parquet: 9 rows; 9 embedded, 0 kept, 0 dropped, 1 failed; ")
    report = json.loads(done.stdout)
    assert report.pop("seconds") > 0
    assert report.pop("images_per_second") > 0
    assert report.pop("failed")[0].keys() == {"path", "reason"}
    assert report == {
        "out": "latents.parquet", "model_id": Model.open(tiny_model).model_id, "rows": 9, "embedded": 9,
        "provider": "CPUExecutionProvider", "kept": 0, "dropped": 0, "passed_over": {}, "unchanged": False,
    }  # fmt: skip
    assert {entry.root for entry in content(tmp_path / "latents.parquet")} == {"mine"}
    again = lookalike(*words, cwd=tmp_path)
    assert again.returncode == 3
    assert "latents.parquet: 9 rows; unchanged, 1 failed; " in again.stderr
    assert lookalike(*words, "--crop", "full", cwd=tmp_path).returncode == 2


def test_without_pyarrow_the_extra_is_named_before_anything_is_embedded(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    stub = tmp_path / "stubs" / "pyarrow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, (str(stub.parent), os.environ.get("PYTHONPATH"))))
    for words in (
        ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet"],
        ["index", "latents.parquet", "--collection", "photos"],
    ):
        done = lookalike_process(*words, cwd=tmp_path, env={"PYTHONPATH": path})
        assert done.returncode == 1
        assert one_line(done) == (
            "lookalike: latents.parquet: Parquet needs pyarrow; pip install 'lookalike[parquet]'"
        )
    assert lookalike_process("--help", cwd=tmp_path, env={"PYTHONPATH": path}).returncode == 0
    words = ["index", "photos", "--model", str(tiny_model), "--collection", "photos"]
    assert lookalike_process(*words, cwd=tmp_path, env={"PYTHONPATH": path}).returncode == 0
