"""The limit of an image's size is one option with one name at every door."""

from pathlib import Path

import pytest

import lookalike as la
from lookalike.deploy.http.settings import MAX_DECODING_PIXELS
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import DECODING
from tests.deploy.http.test_jobs import ended
from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, make_home
from tests.fixtures.service import API, client_of, problem

OPTION = "--max-pixels"
COMMANDS = ("index", "embed", "search", "denoise", "faces", "reconstruct", "interpolate", "edit", "serve")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_images_has_the_option(command: str, tmp_path: Path) -> None:
    assert OPTION in lookalike(command, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "words",
    [
        ("index", "photos", "--collection", "other", "--model", "MODEL"),
        ("embed", "photos", "--overwrite", "--out", "out.parquet", "--model", "MODEL"),
        ("search", "me.jpg", "--collection", NAME),
        ("search", "--like", "me.jpg", "--collection", NAME),
        ("search", "me.jpg", "--denoise", "--collection", NAME),
        ("denoise", "me.jpg", "--out", "clean"),
        ("faces", "me.jpg"),
        ("reconstruct", "me.jpg", "--out", "x.png", "--model", "MODEL"),
        ("interpolate", "me.jpg", "me.jpg", "--out", "x.png", "--model", "MODEL"),
    ],
)
def test_who_meets_the_limit_is_told_the_option(words: tuple[str, ...], home: Path, tiny_model: Path) -> None:
    named = [str(tiny_model) if word == "MODEL" else word for word in words]
    refused = lookalike(*named, OPTION, "100", cwd=home)
    assert refused.returncode in (1, 3)
    (line, *_) = refused.stderr.splitlines()
    assert "above the limit of 100; shrink the image or raise --max-pixels (in Python max_pixels)" in line
    if words[0] in ("embed", "search"):
        allowed = lookalike(*named, OPTION, "1000000", cwd=home)
        assert allowed.returncode == 0, allowed.stderr


def test_in_python_it_is_an_argument(home: Path, tiny_model: Path) -> None:
    model = la.load_model(tiny_model)
    for read in (la.embed, la.encode, la.reconstruct):
        with pytest.raises(ImageError, match="in Python max_pixels"):
            read(model, home / "me.jpg", max_pixels=100)
        read(model, home / "me.jpg", max_pixels=10**6)
    with pytest.raises(ImageError, match="above the limit of 100"):
        la.denoise(home / "me.jpg", max_pixels=100)
    with la.open_store(str(home / ".lookalike")) as store:
        with pytest.raises(ImageError, match="above the limit of 100"):
            la.Searcher(store, NAME, max_pixels=100).search(home / "me.jpg")
        assert la.Searcher(store, NAME, max_pixels=10**6).search(home / "me.jpg").hits
        report = la.index(home / "photos", model=model, store=store, collection="third", max_pixels=100)
    assert report.added == 0
    assert all("above the limit of 100" in reason for _, reason in report.failed)


def test_the_service_has_the_limit_and_a_budget(home: Path, tiny_model: Path) -> None:
    file = (home / "me.jpg").read_bytes()
    with client_of(home, tiny_model, max_pixels=100) as client:
        assert DECODING.limit == MAX_DECODING_PIXELS
        for path, fields in (("search", {"collection": NAME}), ("reconstruct", {"model": tiny_model.name})):
            answer = client.post(f"{API}/{path}", data=fields, files={"image": ("me.jpg", file)})
            assert "above the limit of 100; " in problem(answer, 413, "image-too-large")["detail"]
        source = str((home / "photos").resolve())
        job = client.post(
            f"{API}/index", json={"collection": "fourth", "source": source, "model": tiny_model.name}
        ).json()
        assert "above the limit of 100" in ended(client, job)["report"]["failed"][0]["reason"]
    DECODING.limit = None
