"""Labeled Faces in the Wild: found, fetched and read; handwritten files and the real ones."""

import dataclasses
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from lookalike.encoder.datasets import LFW, find_lfw, person_from_folder
from lookalike.encoder.datasets import lfw as module
from lookalike.encoder.datasets.download import RemoteFile
from lookalike.encoder.datasets.lfw import Pair
from lookalike.encoder.errors import DataError, InvalidArgumentError
from tests.conftest import FileServer

PEOPLE = {"Ann_A": 2, "Bob_B": 2, "Cy_C": 1, "Di-Di_D": 1}


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(wrapping: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for shade, (person, count) in enumerate(PEOPLE.items()):
            for number in range(1, count + 1):
                member = tarfile.TarInfo(f"{wrapping}/{person}/{person}_{number:04d}.jpg")
                content = jpeg(20 * shade + number)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def made_up(tmp_path: Path) -> LFW:
    """Four people without a face, and no label files yet."""
    with tarfile.open(fileobj=io.BytesIO(archive("lfw-deepfunneled"))) as tar:
        tar.extractall(tmp_path, filter="data")
    return LFW(tmp_path, "lfw-deepfunneled")


def below(data: LFW, pairs: list[Pair]) -> list[tuple[str, str, bool]]:
    return [
        (
            pair.first.relative_to(data.root).as_posix(),
            pair.second.relative_to(data.root).as_posix(),
            pair.same,
        )
        for pair in pairs
    ]


def test_images_are_sorted_and_know_their_person(made_up: LFW) -> None:
    names = [path.relative_to(made_up.root).as_posix() for path in made_up.images()]
    assert names == sorted(names)
    assert len(names) == sum(PEOPLE.values())
    assert {made_up.person_of(path) for path in made_up.images()} == set(PEOPLE)
    with pytest.raises(InvalidArgumentError, match="person's folder"):
        made_up.person_of(made_up.folder / "elsewhere" / "x.jpg")
    with pytest.raises(DataError, match="holds no image"):
        LFW(made_up.folder, "lfw").images()


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("faces/Ann/1.jpg", "Ann"),
        ("faces/of/Ann/1.jpg", "Ann"),
        ("faces/1.jpg", None),
        ("faces", None),
        ("elsewhere/Ann/1.jpg", None),
    ],
)
def test_a_person_is_the_folder_that_is_not_the_root(path: str, person: str | None) -> None:
    assert person_from_folder(Path(path), Path("faces")) == person


PAIRS = "2\t1\nAnn_A\t1\t2\nAnn_A\t2\tCy_C\t1\nBob_B\t1\t2\nBob_B\t2\tDi-Di_D\t1\n"


@pytest.mark.parametrize("text", [PAIRS, PAIRS.replace("\n", "\r\n"), PAIRS + "\n\n"])
def test_pairs_are_read_in_folds(text: str, made_up: LFW) -> None:
    (made_up.folder / "pairs.txt").write_bytes(text.encode())
    first, second = made_up.pairs()
    assert below(made_up, first) == [
        ("Ann_A/Ann_A_0001.jpg", "Ann_A/Ann_A_0002.jpg", True),
        ("Ann_A/Ann_A_0002.jpg", "Cy_C/Cy_C_0001.jpg", False),
    ]
    assert below(made_up, second)[1] == ("Bob_B/Bob_B_0002.jpg", "Di-Di_D/Di-Di_D_0001.jpg", False)
    assert all(path.is_file() for pair in first + second for path in (pair.first, pair.second))
    assert made_up.held_out_people() == set(PEOPLE)


def test_only_the_first_five_folds_are_held_out(made_up: LFW) -> None:
    folds = "".join(f"P{fold}\t1\t2\nQ{fold}\t1\tR{fold}\t1\n" for fold in range(10))
    (made_up.folder / "pairs.txt").write_text(f"10\t1\n{folds}")
    assert made_up.held_out_people() == {f"{name}{fold}" for name in "PQR" for fold in range(5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs\.txt:1 must give the numbers"),
        ("10\n", r"pairs\.txt:1 must give the numbers"),
        ("1\t1\nAnn_A\t1\n", r"pairs\.txt:2 must be 'name i j' or"),
        ("1\t1\nAnn_A\tone\t2\n", r"pairs\.txt:2 must name a person and the number"),
        ("1\t1\nAnn_A\t1\t2\nAnn_A\t1\t2\n", r"pairs\.txt:3 must keep to 1 matched, then 1"),
        ("1\t1\nAnn_A\t1\t2\n", r"pairs\.txt must hold 2 pairs, not 1"),
        ("1\t1\n\xe9\xff\t1\t2\n", r"pairs\.txt must be a readable text file"),
    ],
)
def test_malformed_pairs_are_told_by_line(text: str, message: str, made_up: LFW) -> None:
    (made_up.folder / "pairs.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        made_up.pairs()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", ["", "1\n"])
def test_view_1_is_read_with_and_without_its_count(count: str, made_up: LFW) -> None:
    (made_up.folder / "pairsDevTest.txt").write_text(f"{count}Ann_A\t1\t2\nBob_B\t1\tCy_C\t1\n")
    assert below(made_up, made_up.view1("test")) == [
        ("Ann_A/Ann_A_0001.jpg", "Ann_A/Ann_A_0002.jpg", True),
        ("Bob_B/Bob_B_0001.jpg", "Cy_C/Cy_C_0001.jpg", False),
    ]
    with pytest.raises(DataError, match=r"pairsDevTrain\.txt must be a readable text file"):
        made_up.view1("train")
    with pytest.raises(InvalidArgumentError, match="'train' or 'test', not 'dev'"):
        made_up.view1("dev")  # type: ignore[arg-type]  # what an untyped caller may do


@pytest.mark.parametrize("text", ["", "2\nAnn_A\t1\t2\nBob_B\t1\tCy_C\t1\n"])
def test_view_1_must_hold_what_it_counts(text: str, made_up: LFW) -> None:
    (made_up.folder / "pairsDevTest.txt").write_text(text)
    with pytest.raises(DataError, match=r"pairsDevTest\.txt must hold"):
        made_up.view1("test")


HEADER = "# LFW attributes\n#\tperson\timagenum\tMale\tRosy Cheeks\tSmiling\n"


@pytest.mark.parametrize("end", ["", "\t"])
def test_attributes_leave_out_what_is_unknown(end: str, made_up: LFW) -> None:
    rows = f"Ann A\t1\t-1.5\t\t2.25{end}\nAnn A\t2\t1e-3\t0.5\t{end}\nCy C\t1\t\t\t\n"
    (made_up.folder / "lfw_attributes.txt").write_text(HEADER + rows)
    assert made_up.attributes() == {
        "Ann_A/Ann_A_0001.jpg": {"Male": -1.5, "Smiling": 2.25},
        "Ann_A/Ann_A_0002.jpg": {"Male": 0.001, "Rosy Cheeks": 0.5},
        "Cy_C/Cy_C_0001.jpg": {},
    }


def test_all_73_columns_are_read(made_up: LFW) -> None:
    names = [f"A{column}" for column in range(73)]
    row = "\t".join(str(column - 36.5) for column in range(73))
    text = "#\tperson\timagenum\t" + "\t".join(names) + f"\nAnn A\t1\t{row}\n"
    (made_up.folder / "lfw_attributes.txt").write_text(text)
    assert made_up.attributes() == {"Ann_A/Ann_A_0001.jpg": {f"A{c}": c - 36.5 for c in range(73)}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann A\t1\t1\n", r":1 must come after '#<TAB>person"),
        (HEADER + "Ann A\n", r":3 must name a person and the number"),
        (HEADER + "Ann A\tx\t1\t1\t1\n", r":3 must name a person and the number"),
        (HEADER + "Ann A\t1\t1\n", r":3 must hold 3 finite scores"),
        (HEADER + "Ann A\t1\t1\t2\t3\t4\n", r":3 must hold 3 finite scores"),
        (HEADER + "Ann A\t1\t1\t2\tnan\n", r":3 must hold 3 finite scores"),
        (HEADER + "Ann A\t1\t1\tyes\t3\n", r":3 must hold numbers"),
    ],
)
def test_malformed_attributes_are_told_by_line(text: str, message: str, made_up: LFW) -> None:
    (made_up.folder / "lfw_attributes.txt").write_text(text)
    with pytest.raises(DataError, match=r"lfw_attributes\.txt" + message):
        made_up.attributes()


def test_missing_attributes_are_told_with_their_source(made_up: LFW) -> None:
    with pytest.raises(DataError, match="get the file from https://"):
        made_up.attributes()


@pytest.fixture
def mirror(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A mirror with a made-up data set, an empty cache, and nothing at LOOKALIKE_DATA."""
    monkeypatch.delenv("LOOKALIKE_DATA", raising=False)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKALIKE_MIRRORS", server.url)
    view1 = PAIRS.partition("\n")[2].encode()
    server.files = {"pairs.txt": PAIRS.encode(), "pairsDevTrain.txt": view1, "pairsDevTest.txt": view1}
    server.files |= {f"{name}.tgz": archive(name) for name in ("lfw-deepfunneled", "lfw-funneled")}

    def made_here(file: RemoteFile) -> RemoteFile:
        return dataclasses.replace(file, sha256=hashlib.sha256(server.files[file.name]).hexdigest())

    monkeypatch.setattr(module, "LABEL_FILES", tuple(map(made_here, module.LABEL_FILES)))
    monkeypatch.setattr(module, "ARCHIVES", {name: made_here(a) for name, a in module.ARCHIVES.items()})
    return server


def test_it_is_downloaded_once(mirror: FileServer, tmp_path: Path) -> None:
    data = find_lfw()
    assert data == LFW(tmp_path / "cache" / "lfw", "lfw-deepfunneled")
    assert len(data.images()) == sum(PEOPLE.values())
    assert len(data.pairs()) == 2
    assert len(data.view1("train")) == len(data.view1("test")) == 4
    left = {path.name for path in data.folder.iterdir() if not path.name.startswith(".")}
    assert left == {"lfw-deepfunneled", "pairs.txt", "pairsDevTrain.txt", "pairsDevTest.txt"}
    asked = len(mirror.served)
    assert find_lfw() == data == find_lfw(download=False)
    assert len(mirror.served) == asked


def test_the_funneled_images_will_do(mirror: FileServer) -> None:
    del mirror.files["lfw-deepfunneled.tgz"]
    assert find_lfw().variant == "lfw-funneled"


def test_what_was_tried_is_told_on_one_line(
    mirror: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path))
    mirror.files.clear()
    with pytest.raises(DataError) as caught:
        find_lfw()
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path / "lfw"), str(tmp_path / "cache" / "lfw"), "404", "LOOKALIKE_DATA", "MIRRORS"):
        assert part in message
    asked = len(mirror.served)
    with pytest.raises(DataError, match="downloading is off"):
        find_lfw(download=False)
    assert len(mirror.served) == asked


@pytest.mark.parametrize("variant", module.VARIANTS)
def test_a_copy_at_hand_comes_first(
    variant: str, mirror: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_lfw()
    (tmp_path / "data" / "lfw" / variant).mkdir(parents=True)
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "data"))
    assert find_lfw() == LFW(tmp_path / "data" / "lfw", variant)


def test_importing_is_light() -> None:
    code = "import lookalike.encoder.datasets.lfw, sys; print(*sys.modules)"
    root = Path(__file__).parents[3]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert not {"torch", "requests", "skimage", "tqdm", "PIL"} & set(loaded.stdout.split())


@pytest.mark.lfw
def test_the_real_images(lfw: LFW) -> None:
    images = lfw.images()
    assert len(images) == 13_233
    people = [lfw.person_of(path) for path in images]
    assert len(set(people)) == 5_749
    held_out = lfw.held_out_people()
    assert len(held_out) == 2_086
    assert held_out <= set(people)
    assert sum(person in held_out for person in people) == 5_373
    assert len(set(people) - held_out) == 3_663
    assert sum(person not in held_out for person in people) == 7_860


@pytest.mark.lfw
def test_the_real_labels(lfw: LFW) -> None:
    images = set(lfw.images())
    folds = lfw.pairs()
    assert [[sum(pair.same for pair in fold), len(fold)] for fold in folds] == [[300, 600]] * 10
    train, test = lfw.view1("train"), lfw.view1("test")
    assert (len(train), len(test)) == (2_200, 1_000)
    for pair in [*train, *test, *(pair for fold in folds for pair in fold)]:
        assert {pair.first, pair.second} <= images
        assert pair.same == (lfw.person_of(pair.first) == lfw.person_of(pair.second))
    attributes = lfw.attributes()
    assert set(attributes) <= {path.relative_to(lfw.root).as_posix() for path in images}
    for name, least in {"Male": 13_000, "Smiling": 3_000}.items():
        assert sum(name in scores for scores in attributes.values()) >= least
