"""Bulk load into the real embedded store: killed, repeated, broken, it ends where one clean run ends."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.bundle import AffineMap
from lookalike.encoder.errors import DataError, InvalidArgumentError, ModelMismatchError, StoreError
from lookalike.encoder.images import Crop, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.open import open_store
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import Payload
from lookalike.indexer.sync import DEGENERATE, sync
from lookalike.indexer.sync.collection import prepare_collection
from tests.fixtures.command import COMMAND, lookalike
from tests.fixtures.killed_load import BATCH, TOGETHER, small_batches
from tests.fixtures.photos import NAME, index, photograph, stored, write_many, write_photos
from tests.fixtures.tiny_models import make_bundle, save_again


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeStore]:
    with open_store(str(tmp_path / "store")) as opened:
        assert isinstance(opened, EdgeStore)
        yield opened


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def test_payloads_say_where_a_picture_lies_and_who_is_on_it(
    store: EdgeStore, model: Model, photos: Path
) -> None:
    report = index(store, model, photos)
    assert (report.added, report.failed) == (9, [])
    payload = next(p for p in stored(store).payloads.values() if p["path"] == "Hypatia/0.jpg")
    status = (photos / "Hypatia" / "0.jpg").stat()
    assert payload.keys() == {"root", "path", "sha256", "size", "mtime_ns", "person"}
    assert (payload["root"], payload["person"]) == ("photos", "Hypatia")
    assert (payload["size"], payload["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert store.info(NAME).roots == {"photos": str(photos.resolve())}


def test_what_is_stored_is_the_models_embedding(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    record = next(iter(store.scroll(NAME, with_vectors=True)))
    assert record.vector is not None
    pixels = read_pixels((photos / record.payload["path"]).read_bytes(), model.bundle.spec.image, name="")
    np.testing.assert_allclose(record.vector, model.embed(pixels[None])[0], atol=1e-5)


def test_indexing_twice_equals_once(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    once = stored(store)
    again = index(store, model, photos)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 9)
    assert stored(store) == once


def test_an_unchanged_folder_is_not_opened(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    told: list[int] = []
    index(store, model, photos, on_total=told.append)
    assert told == [0]


def test_how_many_there_are_is_told_of_an_empty_collection_too(
    store: EdgeStore, model: Model, tmp_path: Path
) -> None:
    write_many(tmp_path / "photos", 1500)
    told: list[int] = []
    report = index(store, model, tmp_path / "photos", on_total=told.append)
    assert (report.added, told) == (1500, [1500])
    assert index(store, model, tmp_path / "photos", dry_run=True).unchanged == 1500


def test_changed_new_and_missing_files_are_told_apart(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    (photos / "Hypatia" / "0.jpg").write_bytes(photograph(15))
    (photos / "Hypatia" / "1.jpg").unlink()
    (photos / "Hypatia" / "new.jpg").write_bytes(photograph(14))
    report = index(store, model, photos)
    assert (report.added, report.changed, report.unchanged, report.missing) == (1, 1, 7, 1)
    assert store.count(NAME) == 10  # the missing one stays until it is pruned
    report = index(store, model, photos, prune=True)
    assert (report.missing, report.pruned, store.count(NAME)) == (1, True, 9)
    with open_store(f"{store.address}-fresh") as fresh:
        index(fresh, model, photos)
        assert stored(store) == stored(fresh)


def test_pruning_a_part_leaves_the_rest(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    (photos / "Hypatia" / "0.jpg").unlink()
    (photos / "Ada_Lovelace" / "0.jpg").unlink()
    report = index(store, model, photos / "Hypatia", prune=True)
    assert (report.unchanged, report.missing, store.count(NAME)) == (2, 1, 8)
    assert index(store, model, photos / "Hypatia" / "1.jpg", prune=True).missing == 0


def test_pruning_does_not_take_an_empty_folder_for_a_wish(
    store: EdgeStore, model: Model, photos: Path
) -> None:
    index(store, model, photos)
    shutil.rmtree(photos)
    photos.mkdir()  # as a disk that is not mounted leaves it
    with pytest.raises(DataError, match="held 9; mount it"):
        index(store, model, photos, prune=True)
    assert store.count(NAME) == 9


def test_sources_that_overlap_store_each_picture_once(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    report = index(store, model, photos, photos / "Hypatia", photos / "Hypatia" / "1.jpg", photos)
    assert (report.unchanged, report.added, store.count(NAME)) == (9, 0, 9)


def test_two_sources_of_one_name_in_one_run_are_refused(
    store: EdgeStore, model: Model, tmp_path: Path
) -> None:
    both = [tmp_path / above / "photos" for above in ("mine", "yours")]
    for folder in both:
        write_photos(folder, each=1)
    with pytest.raises(InvalidArgumentError, match="two sources are called 'photos'"):
        index(store, model, *both)


def test_a_moved_folder_is_taken_over_by_its_root_name(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    moved = photos.rename(photos.with_name("moved"))
    known = store.info(NAME).roots
    report = sync(store, NAME, model, [open_source(str(moved), root_name="photos", known_roots=known)])
    assert (report.unchanged, report.missing, store.count(NAME)) == (9, 0, 9)
    assert store.info(NAME).roots == {"photos": str(moved.resolve())}


def test_bad_files_are_named_and_cost_nobody_else(store: EdgeStore, model: Model, photos: Path) -> None:
    bad = {
        "Hypatia/0a-empty.jpg": b"",
        "Hypatia/0b-cut.jpg": photograph(3)[:400],
        "Hypatia/0c-text.jpg": b"not a picture at all\n",
        "Hypatia/0d-zeros.png": bytes(5000),
        "Ada_Lovelace/0e-\xff\n.jpg": b"<svg/>",
    }
    for name, data in bad.items():
        (photos / name).write_bytes(data)
    (photos / "Hypatia" / "0f-broken.jpg").symlink_to("nowhere")
    (photos / "Hypatia" / "0g-folder.jpg").mkdir()  # a folder is a folder, whatever it is called
    os.mkfifo(photos / "Hypatia" / "0h-pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(photos)  # the path of a socket is short
        listener.bind("0i-socket.jpg")
        os.chdir(here)
        report = index(store, model, photos)
    assert report.added == store.count(NAME) == 9
    named = {path for path, _ in report.failed}
    assert len(named) == len(report.failed) == len(bad) + 3
    assert all("\n" not in path + reason for path, reason in report.failed)
    assert {Path(path).name[:2] for path in named} == {"0a", "0b", "0c", "0d", "0e", "0f", "0h", "0i"}
    with open_store(f"{store.address}-clean") as clean:
        for file in photos.rglob("0[a-i]*"):
            if not file.is_dir():
                file.unlink()
        index(clean, model, photos)
        assert stored(clean) == stored(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(store: EdgeStore, model: Model, photos: Path) -> None:
    (photos / "Hypatia" / "0.jpg").chmod(0)
    ((path, reason),) = index(store, model, photos).failed
    assert path.endswith("0.jpg")
    assert "Permission denied" in reason


def test_a_picture_gone_bad_keeps_its_old_vector_and_is_tried_again(
    store: EdgeStore, model: Model, photos: Path
) -> None:
    index(store, model, photos)
    before = stored(store)
    (photos / "Hypatia" / "0.jpg").write_bytes(b"broken")
    for _ in range(2):
        report = index(store, model, photos, prune=True)
        assert (len(report.failed), report.unchanged, report.missing) == (1, 8, 0)
    assert stored(store) == before


def test_pictures_above_the_limit_fail_alone(store: EdgeStore, model: Model, photos: Path) -> None:
    Image.new("RGB", (200, 200), "red").save(photos / "large.png")
    report = index(store, model, photos, max_pixels=128 * 128)
    assert report.added == 9
    assert "limit of 16384" in report.failed[0][1]


def test_a_picture_without_direction_is_no_vector(store: EdgeStore, tiny_model: Path, photos: Path) -> None:
    # Black feeds the network zeros whatever stands beside it in the batch, so its latent is exactly known.
    plain = Model.open(tiny_model)
    black = plain.encode(np.zeros((1, *plain.bundle.spec.image.shape), np.uint8))[0]
    affine = AffineMap(plain.bundle.affine.matrix, black)
    blind = Model(save_again(plain.bundle, photos.parent / "blind", affine=affine))
    Image.new("RGB", (64, 64)).save(photos / "Hypatia" / "black.png")
    report = index(store, blind, photos)
    assert report.added == store.count(NAME) == 9
    assert report.failed == [
        (str(photos / "Hypatia" / "black.png"), f"{photos / 'Hypatia' / 'black.png'}: {DEGENERATE}")
    ]


def test_another_model_of_the_same_dimension_is_refused(store: EdgeStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    other = Model(make_bundle(photos.parent / "other", seed=1))
    assert other.bundle.spec.embedding == model.bundle.spec.embedding
    with pytest.raises(ModelMismatchError, match="use that model or index into another collection"):
        index(store, other, photos)
    assert index(store, model, photos).unchanged == 9


def test_a_collection_remembers_its_crop(store: EdgeStore, model: Model, photos: Path) -> None:
    spec = prepare_collection(store, NAME, model, crop=Crop.parse("full"))
    assert spec.crop == "full"
    assert prepare_collection(store, NAME, model, crop=None).crop == "full"
    with pytest.raises(ModelMismatchError, match=r"--crop full, this run uses center:0\.5; pass --crop full"):
        prepare_collection(store, NAME, model, crop=Crop(fraction=0.5))
    index(store, model, photos)
    with open_store(f"{store.address}-other") as other:
        index(other, model, photos)
        assert stored(other) != stored(store)


class _FullStore(EdgeStore):
    """A store whose disk is full after the first write."""

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        if self.count(name):
            raise StoreError(f"store {self.address}: No space left on device")
        super().upsert(name, ids, vectors, payloads)


def test_a_full_disk_keeps_what_was_stored_and_the_next_run_completes_it(
    model: Model, tmp_path: Path
) -> None:
    write_many(tmp_path / "photos", 100)
    with (
        small_batches(),
        _FullStore(str(tmp_path / "store")) as full,
        pytest.raises(StoreError, match="No space left"),
    ):
        index(full, model, tmp_path / "photos")
    with open_store(str(tmp_path / "store")) as store:
        kept = store.count(NAME)
        report = index(store, model, tmp_path / "photos")
        assert (report.unchanged, report.added, store.count(NAME)) == (kept, 100 - kept, 100)
    assert kept >= TOGETHER


def test_files_are_read_only_as_they_are_stored(store: EdgeStore, model: Model, tmp_path: Path) -> None:
    ahead = BATCH * ((os.cpu_count() or 1) + 2)
    count = TOGETHER + ahead + 40
    write_many(tmp_path / "photos", count)

    def lose_the_rest(done: int) -> None:
        for file in sorted((tmp_path / "photos").iterdir())[TOGETHER + ahead :]:
            file.unlink()

    with small_batches():
        report = index(store, model, tmp_path / "photos", on_progress=lose_the_rest)
    assert len(report.failed) == 40
    assert report.added == count - 40


@pytest.mark.slow
def test_killed_anywhere_and_run_again_equals_once(tiny_model: Path, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 2500)
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    rng = random.Random(os.getpid())
    for _ in range(3):
        with subprocess.Popen([COMMAND, *words], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
            time.sleep(rng.uniform(0.3, 2.0))
            running.send_signal(signal.SIGKILL)
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ", 0 failed" in done.stderr
    with open_store(str(tmp_path / ".lookalike")) as store, open_store(str(tmp_path / "clean")) as clean:
        index(clean, Model.open(tiny_model), tmp_path / "photos")
        assert store.count(NAME) == 2500
        assert stored(store) == stored(clean)


def test_an_interrupted_run_says_so_and_goes_on_later(tiny_model: Path, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 3000)
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    with subprocess.Popen([COMMAND, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        waited = time.monotonic() + 60
        while not (tmp_path / ".lookalike" / NAME).exists() and time.monotonic() < waited:
            time.sleep(0.01)
        time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130
    assert said.split("\n") == ["", "lookalike: interrupted; run it again to continue", ""]  # "" ends ^C
    with open_store(str(tmp_path / ".lookalike")) as store:
        kept = store.count(NAME)
        assert kept < 3000
    shutil.rmtree(tmp_path / "photos")
    write_many(tmp_path / "photos", 300)
    again = lookalike(*words, "--prune", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    with open_store(str(tmp_path / ".lookalike")) as store:
        assert store.count(NAME) == 300
