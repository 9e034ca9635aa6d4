"""The service reads what lies below folders that the user named: no link and no stranger's file leads out."""

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.items import item_file
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import load_latents
from lookalike.indexer.parquet.file import Entry, Rows, write_latents
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.sync import new_spec
from tests.fixtures.photos import NAME, photograph, write_photos
from tests.fixtures.service import API, client_of, collection_url, problem


def finished(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    job = client.post(f"{API}/index", json=asked)
    assert job.status_code == 202, job.text
    for _ in range(600):
        state: dict[str, Any] = client.get(f"{API}/jobs/{job.json()['id']}").json()
        if state["state"] not in ("queued", "running"):
            return state
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def test_links_out_of_an_allowed_folder_are_named_and_not_read(tmp_path: Path, tiny_model: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    write_photos(home / "photos", each=1)
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(photograph(9))
    (home / "more.jpg").write_bytes(photograph(8))
    links = {
        "absolute.jpg": outside / "secret.jpg",
        "relative.jpg": Path("../../outside/secret.jpg"),
        "twice.jpg": Path("absolute.jpg"),
        "gone.jpg": Path("nowhere.jpg"),
        "circle.jpg": Path("circle.jpg"),
        "inside.jpg": Path("../more.jpg"),  # below another folder that is allowed
        "near.jpg": Path("Hypatia/0.jpg"),
    }
    for name, target in links.items():
        (home / "photos" / name).symlink_to(target)
    with client_of(home, tiny_model) as client:
        for added, unchanged in ((5, 0), (0, 5)):
            state = finished(client, source=str(home / "photos"), collection="new", model=tiny_model.name)
            report = state["report"]
            assert (report["added"], report["unchanged"]) == (added, unchanged), state
            failed = sorted(Path(each["path"]).name for each in report["failed"])
            assert failed == ["absolute.jpg", "circle.jpg", "gone.jpg", "relative.jpg", "twice.jpg"]
            assert all("it is a link out of the folders" in each["reason"] for each in report["failed"])


@pytest.fixture
def claimed(tmp_path: Path, tiny_model: Path) -> Path:
    """A home whose collection has a file's word for where its picture is."""
    home, model = tmp_path / "home", Model.open(tiny_model)
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "a.jpg").write_bytes(photograph(3))
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "b.jpg").write_bytes(photograph(4))
    spec = new_spec(model.bundle, crop=None)
    spec = CollectionSpec(**{**spec.to_json(), "roots": {"all": str(tmp_path)}})
    entries = [Entry(path, "all", "0" * 64, 1, 1, None) for path in ("home/photos/a.jpg", "private/b.jpg")]
    vectors = np.eye(2, spec.dimension, dtype=np.float32)
    write_latents(tmp_path / "a.parquet", spec, [Rows(entries, vectors)], draft=tmp_path / "new")
    with open_store(str(home / ".lookalike")) as store:
        load_latents(store, NAME, [tmp_path / "a.parquet"])
    return home


def test_of_a_strangers_root_only_what_is_allowed_is_shown(claimed: Path, tiny_model: Path) -> None:
    with open_store(str(claimed / ".lookalike")) as store:
        items = {str(record.payload["path"]): record.id for record in store.scroll(NAME)}
    with client_of(claimed, tiny_model) as client:
        for kind in ("image", "thumbnail"):
            shown = client.get(collection_url(f"items/{items['home/photos/a.jpg']}/{kind}"))
            assert shown.status_code == 200
            hidden = client.get(collection_url(f"items/{items['private/b.jpg']}/{kind}"))
            problem(hidden, 404, "picture-not-found")
        edit = {"collection": NAME, "item": items["private/b.jpg"], "model": "faces", "add": ["Smiling=1"]}
        assert client.post(f"{API}/edit", json=edit).status_code >= 400
        search = {"collection": NAME, "item": items["private/b.jpg"], "denoise": True}
        assert client.post(f"{API}/search", json=search).status_code >= 400


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.jpg", "\\x2fetc\\x2fpasswd", "\\x2e\\x2e/secret.jpg", ""]
)
def test_no_path_leads_out_of_a_root_even_where_all_is_allowed(
    tmp_path: Path, path: str, foreign: bool
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "secret.jpg").write_bytes(photograph(0))
    spec = CollectionSpec(
        model_id="a" * 64,
        model_name="faces",
        dimension=8,
        crop="full",
        roots={"photos": str(tmp_path / "photos")},
        foreign_roots=("photos",) * foreign,
    )
    with pytest.raises(ApiError):
        item_file(spec, {"root": "photos", "path": path}, allowed=(Path("/"),))
