"""What looks like the address of a server or a bucket never becomes a folder."""

from pathlib import Path

import pytest

from tests.fixtures.command import lookalike
from tests.fixtures.photos import make_home

SERVERS = ("localhost:6333", "127.0.0.1:6333", "[::1]:6333", "qdrant.example:6334/", "my_host:80")
SCHEMES = ("s3://bucket/store", "file:///store", "grpc://localhost:6334", "HTTP+unix://x", "https:/host")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with indexed photographs. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.mark.parametrize("verb", ["index photos --model {model}", "search me.jpg"])
@pytest.mark.parametrize("store", [*SERVERS, *SCHEMES])
def test_a_server_without_scheme_is_no_folder(home: Path, tiny_model: Path, verb: str, store: str) -> None:
    before = sorted(home.iterdir())
    words = verb.format(model=tiny_model).split()
    done = lookalike(*words, "--collection", "photos", "--store", store, cwd=home)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert store in line
    assert ("./" + store if store in SERVERS else "a folder or an http:// or https:// URL") in line
    assert sorted(home.iterdir()) == before


def test_a_folder_of_such_a_name_can_be_meant(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ("--collection", "a", "--store", f"./{SERVERS[0]}", "--model", tiny_model)
    assert lookalike("index", home / "photos", *words, cwd=tmp_path).returncode == 0
    assert (tmp_path / SERVERS[0]).is_dir()


@pytest.mark.parametrize(
    "words",
    [
        "embed photos --out s3://bucket/a.parquet",
        "denoise photos --out clean --sheet s3://bucket/a.png",
        "denoise photos --out clean --report http://host/report",
        "search me.jpg --collection photos --sheet gs://bucket/a.png",
        "generate --out s3://bucket/a.png",
        "train ae --data photos --out s3://bucket/model",
        "search https://host/me.jpg --collection photos",
    ],
)
def test_a_url_is_no_local_path(home: Path, words: str) -> None:
    before = sorted(home.iterdir())
    done = lookalike(*words.split(), cwd=home)
    assert done.returncode == 2
    assert "is a URL, and only local files and folders can be used here" in done.stderr
    assert sorted(home.iterdir()) == before


def test_a_name_with_a_colon_is_a_file(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    for _ in range(2):  # written, then gone on with
        done = lookalike(
            "embed", home / "photos", "--out", "a:b.parquet", "--model", tiny_model, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["a:b.parquet"]
    assert lookalike("index", "a:b.parquet", "--collection", "a", cwd=tmp_path).returncode == 0
