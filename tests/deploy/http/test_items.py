"""Images of items are sent from under their collection's folder and from nowhere else."""

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
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store import CollectionSpec
from tests.fixtures.photos import NAME, index, photograph, write_photos
from tests.fixtures.service import client_of, collection_url, problem

SECRET = b"root:x:0:0"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three people, five each, in a collection; secret.jpg is beside the folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "secret.jpg").write_bytes(photograph(15))
    (home / "0.jpg").write_bytes(photograph(15))
    write_photos(home / "photos", each=5)
    with open_store(str(home / ".lookalike")) as store:
        index(store, Model.open(tiny_model), home / "photos")
    return home


@pytest.fixture(scope="module")
def items(home: Path) -> dict[str, str]:
    """The id of each item by its path."""
    return stored_items(home)


@pytest.fixture(scope="module")
def client(home: Path, items: dict[str, str], tiny_model: Path) -> Iterator[httpx.Client]:
    """One service for all tests, each of which changes files of its own."""
    with client_of(home, tiny_model) as opened:
        yield opened


def stored_items(home: Path) -> dict[str, str]:
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


def test_an_image_is_shown_small_and_whole(client: httpx.Client, items: dict[str, str]) -> None:
    point = items["Ada_Lovelace/4.jpg"]
    small = client.get(collection_url(f"items/{point}/thumbnail", side="64"))
    assert shown(small).shape == (64, 64, 3)
    whole = shown(client.get(collection_url(f"items/{point}/image")))
    original = np.asarray(Image.open(io.BytesIO(photograph(4)))).astype(int)
    assert abs(whole.astype(int) - original).mean() < 3
    again = {"If-None-Match": small.headers["etag"]}
    assert client.get(str(small.request.url), headers=again).status_code == 304
    for side in ("15", "513", "x"):
        problem(client.get(collection_url(f"items/{point}/thumbnail", side=side)), 422, "invalid-request")


def test_metadata_of_a_file_is_not_sent(client: httpx.Client, home: Path, items: dict[str, str]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    file = home / "photos" / "Ada_Lovelace" / "3.jpg"
    Image.open(io.BytesIO(photograph(3))).save(file, exif=exif)
    assert b"taken at home" in file.read_bytes()
    for path in ("image", "thumbnail"):
        response = client.get(collection_url(f"items/{items['Ada_Lovelace/3.jpg']}/{path}"))
        assert response.status_code == 200
        assert b"taken at home" not in response.content


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
    ("path", "spoil"),
    [
        ("Ada_Lovelace/0.jpg", lambda file, secret: file.unlink()),
        ("Ada_Lovelace/1.jpg", lambda file, secret: file.write_bytes(SECRET)),
        ("Ada_Lovelace/2.jpg", lambda file, secret: linked(file, secret)),
        ("Émilie_du_Châtelet/0.jpg", lambda file, secret: linked(file, Path("../../secret.jpg"))),
        ("Émilie_du_Châtelet/1.jpg", lambda file, secret: linked(file, file)),
        ("Émilie_du_Châtelet/2.jpg", lambda file, secret: piped(file)),
        ("Émilie_du_Châtelet/3.jpg", lambda file, secret: made_folder(file)),
        ("Hypatia/0.jpg", lambda file, secret: linked(file.parent, secret.parent)),
    ],
    ids=["gone", "no image", "link", "relative link", "circle", "pipe", "folder", "folder link"],
)
def test_an_image_that_is_gone_or_elsewhere_is_not_sent(
    client: httpx.Client, home: Path, items: dict[str, str], path: str, spoil: Any
) -> None:
    assert client.get(collection_url(f"items/{items[path]}/image")).status_code == 200
    spoil(home / "photos" / path, home / "secret.jpg")
    for kind in ("image", "thumbnail"):
        response = client.get(collection_url(f"items/{items[path]}/{kind}"))
        problem(response, 404, "picture-not-found")
        assert str(home) not in response.text


def test_a_link_that_stays_under_the_folder_is_followed(
    client: httpx.Client, home: Path, items: dict[str, str]
) -> None:
    file = home / "photos" / "Émilie_du_Châtelet" / "4.jpg"
    file.rename(home / "photos" / "moved.jpg")
    file.symlink_to("../moved.jpg")
    shown(client.get(collection_url(f"items/{items['Émilie_du_Châtelet/4.jpg']}/image")))


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


def test_paths_in_requests_reach_nothing(client: httpx.Client) -> None:
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
    (point,) = stored_items(home).values()
    with client_of(home, tiny_model) as client:
        url = collection_url(f"items/{point}/image")
        shown(client.get(url))
        archive.rename(tmp_path / "elsewhere.tar")
        archive.symlink_to(tmp_path / "elsewhere.tar")
        problem(client.get(url), 404, "picture-not-found")
