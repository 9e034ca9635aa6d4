"""Pictures are served of items alone, from under their collection's folder and from nowhere else."""

import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.items import item_file
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store.spec import CollectionSpec
from tests.fixtures.photos import NAME, index, make_home, photograph
from tests.fixtures.service import client_of, collection_url, problem

SECRET = b"root:x:0:0"


@pytest.fixture
def home(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret.jpg").write_bytes(photograph(15))
    return make_home(tmp_path / "home", tiny_model)


@pytest.fixture
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def items(home: Path) -> dict[str, str]:
    with open_store(str(home / ".lookalike")) as store:
        return {str(record.payload["path"]): record.id for record in store.scroll(NAME)}


def shown(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"
    return np.asarray(Image.open(io.BytesIO(response.content)))


def spec_of(folder: Path) -> CollectionSpec:
    return CollectionSpec(
        model_id="a" * 64, model_name="faces", dimension=8, crop="full", roots={"photos": str(folder)}
    )


def test_a_picture_is_shown_small_and_whole(home: Path, tiny_model: Path) -> None:
    point = items(home)["Ada_Lovelace/0.jpg"]
    with client_of(home, tiny_model) as client:
        small = client.get(collection_url(f"items/{point}/thumbnail", side="64"))
        assert shown(small).shape == (64, 64, 3)
        whole = shown(client.get(collection_url(f"items/{point}/image")))
        true = np.asarray(Image.open(io.BytesIO(photograph(0)))).astype(int)
        assert abs(whole.astype(int) - true).mean() < 3
        again = {"If-None-Match": small.headers["etag"]}
        assert client.get(str(small.request.url), headers=again).status_code == 304
        for side in ("15", "513", "x"):
            problem(client.get(collection_url(f"items/{point}/thumbnail", side=side)), 422, "invalid-request")


def test_nothing_that_a_file_tells_beside_its_picture_goes_out(home: Path, tiny_model: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    file = home / "photos" / "Hypatia" / "0.jpg"
    Image.open(io.BytesIO(photograph(0))).save(file, exif=exif)
    assert b"taken at home" in file.read_bytes()
    point = items(home)["Hypatia/0.jpg"]
    with client_of(home, tiny_model) as client:
        for path in ("image", "thumbnail"):
            assert b"taken at home" not in client.get(collection_url(f"items/{point}/{path}")).content


def linked(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def made_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, secret: file.unlink(),
        lambda file, secret: file.write_bytes(SECRET),
        lambda file, secret: linked(file, secret),
        lambda file, secret: linked(file, Path("../../../secret.jpg")),
        lambda file, secret: linked(file, file),
        lambda file, secret: piped(file),
        lambda file, secret: made_folder(file),
        lambda file, secret: linked(file.parent, secret.parent),
    ],
    ids=["gone", "no picture", "link", "relative link", "circle", "pipe", "folder", "folder link"],
)
def test_what_is_not_there_any_more_or_leads_elsewhere(
    home: Path, tiny_model: Path, spoil: Any, tmp_path: Path
) -> None:
    file = home / "photos" / "Hypatia" / "0.jpg"
    (tmp_path / "0.jpg").write_bytes(photograph(15))  # where the linked folder leads
    point = items(home)["Hypatia/0.jpg"]
    with client_of(home, tiny_model) as client:
        assert client.get(collection_url(f"items/{point}/image")).status_code == 200
        spoil(file, tmp_path / "secret.jpg")
        for path in ("image", "thumbnail"):
            told = client.get(collection_url(f"items/{point}/{path}"))
            problem(told, 404, "picture-not-found")
            assert str(home) not in told.text


def test_a_link_that_stays_under_the_folder_is_followed(home: Path, tiny_model: Path) -> None:
    file = home / "photos" / "Hypatia" / "0.jpg"
    file.rename(home / "photos" / "moved.jpg")
    file.symlink_to("../moved.jpg")
    point = items(home)["Hypatia/0.jpg"]
    with client_of(home, tiny_model) as client:
        shown(client.get(collection_url(f"items/{point}/image")))


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..", "", ".", "\0", "a\0.jpg", "a" * 5000),
        *("x\\x2f..", "\\x2e\\x2e/secret.jpg", "\\x2fetc\\x2fpasswd"),
    ],
)
def test_recorded_paths_that_lead_out_are_refused_too(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for payload in ({"root": "photos", "path": path}, {"root": "other", "path": "x"}, {"path": path}, {}):
        with pytest.raises(ApiError) as refused:
            item_file(spec_of(tmp_path / "photos"), payload)
        assert refused.value.code == "picture-not-found"


def test_paths_in_requests_reach_nothing(client: httpx.Client, home: Path) -> None:
    for path in (
        "/page/../service.py",
        "/page/%2e%2e/service.py",
        "/page/..%2fservice.py",
        "/page//etc/passwd",
        "/api/v1/items/..%2f..%2fme.jpg/image?collection=photos",
        "/api/v1/items/%00/image?collection=photos",
        "//etc/passwd",
    ):
        response = client.get(path)
        assert response.status_code in (404, 422), path
        assert response.headers["content-type"] == "application/problem+json"


def test_a_link_swapped_in_while_it_is_read_gives_nothing_away(tmp_path: Path) -> None:
    folder, secret = tmp_path / "photos", tmp_path / "secret.jpg"
    folder.mkdir()
    file, stop = folder / "a.jpg", threading.Event()
    secret.write_bytes(SECRET)
    file.write_bytes(b"public")

    def swap() -> None:
        while not stop.is_set():
            (folder / "link").symlink_to(secret)
            (folder / "link").replace(file)
            (folder / "new").write_bytes(b"public")
            (folder / "new").replace(file)

    swapper = threading.Thread(target=swap)
    swapper.start()
    read = 0
    try:
        for _ in range(3000):
            try:
                assert item_file(spec_of(folder), {"root": "photos", "path": "a.jpg"}) == b"public"
                read += 1
            except ApiError:
                pass
    finally:
        stop.set()
        swapper.join()
    assert 0 < read < 3000


def test_pictures_in_archives(tmp_path: Path, tiny_model: Path) -> None:
    home, bundle = tmp_path / "home", Model.open(tiny_model)
    (home / "photos").mkdir(parents=True)
    archive = home / "photos" / "some.tar"
    (tmp_path / "a.jpg").write_bytes(photograph(3))
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "a.jpg", "Ada/a.jpg")
    with open_store(str(home / ".lookalike")) as store:
        index(store, bundle, archive)
    ((_, point),) = items(home).items()
    with client_of(home, tiny_model) as client:
        url = collection_url(f"items/{point}/image")
        shown(client.get(url))
        archive.rename(tmp_path / "elsewhere.tar")
        archive.symlink_to(tmp_path / "elsewhere.tar")
        problem(client.get(url), 404, "picture-not-found")
