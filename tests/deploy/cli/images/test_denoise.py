"""``lookalike denoise``: what it writes where, what it says, and what it refuses before that."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.bundle import BundleSpec
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import NoiseSpec
from lookalike.indexer.sources import SourceFilter
from lookalike.searcher.denoising import (
    AutoencoderDenoiser,
    check_tasks,
    find_tasks,
    open_file_denoiser,
    resolve_destination,
)
from lookalike.searcher.figures import denoised_sheet
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.handmade_models import make_denoiser, make_digits
from tests.fixtures.tiny_models import save_again


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_denoiser(tmp_path_factory.mktemp("model") / "box").folder


def noisy(file: Path, *, sigma: float = 25, mode: str = "RGB", size: int = 64) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = 128 + np.random.default_rng(0).normal(size=(size, size, 3)) * sigma
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode).save(file)
    return file


def pixels_of(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image)


def targets(*sources: str | Path, out: str | Path, suffix: str = "", kind: str | None = None) -> list[str]:
    """The files that would be written."""
    words = [str(source) for source in sources]
    destination = resolve_destination(words, [], out=str(out), kind=kind, suffix=suffix)
    tasks = find_tasks(words, [], root=None, reading=SourceFilter(), destination=destination)
    check_tasks(tasks)
    return [str(task.target) for task in tasks]


# Where things go


def test_a_tree_is_kept_and_names_follow_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noisy(Path("in/a.jpg"))
    noisy(Path("in/b.JPEG"))
    noisy(Path("in/deep/c.d.png"))
    assert targets("in", out="out") == ["out/a.jpg", "out/b.JPEG", "out/deep/c.d.png"]
    assert targets("in", out="out", suffix="-x") == ["out/a-x.jpg", "out/b-x.JPEG", "out/deep/c.d-x.png"]
    assert targets("in", out="out", kind="JPEG") == ["out/a.jpg", "out/b.JPEG", "out/deep/c.d.jpg"]
    assert targets("in/a.jpg", out="new.png") == ["new.png"]
    assert targets("in/a.jpg", out="new.png/") == ["new.png/a.jpg"]
    assert targets("in/a.jpg", "in/deep", out="out") == ["out/a.jpg", "out/c.d.png"]
    assert targets("in/a.jpg", "in/a.jpg", out="out") == ["out/a.jpg"]


def test_what_is_written_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noisy(Path("in/a.png"))
    noisy(Path("in/out/a.png"))
    assert targets("in", out="in/out") == ["in/out/a.png"]
    noisy(Path("in/a-clean.png"))
    assert "in/a-clean.png" in targets("in", out="in", suffix="-clean")
    assert "in/a-clean-clean.png" not in targets("in", out="in", suffix="-clean")
    with pytest.raises(InvalidArgumentError, match="is the source itself"):
        targets("in", out="in")


def test_two_that_would_be_one_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x/a.png", "y/a.png", "z/a.png", "z/a.jpg"):
        noisy(Path(name))
    with pytest.raises(
        InvalidArgumentError, match=r"x/a\.png and y/a\.png would both be written to out/a\.png"
    ):
        targets("x", "y", out="out")
    with pytest.raises(InvalidArgumentError, match=r"z/a\.jpg and z/a\.png would both"):
        targets("z", out="out", kind="PNG")


def test_an_input_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noisy(Path("in/a.png"))
    Path("link").symlink_to("in")
    Path("other").mkdir()
    Path("other/a.png").hardlink_to("in/a.png")
    Path("third").mkdir()
    Path("third/a.png").symlink_to("../in/a.png")
    for source, out in (("in", "link"), ("in/a.png", "in"), ("in/a.png", "in/a.png"), ("in/a.png", "link")):
        with pytest.raises(InvalidArgumentError):
            targets(source, out=out)
    for out in ("other", "third"):
        with pytest.raises(InvalidArgumentError, match="would be overwritten"):
            targets("in", out=out)


@pytest.mark.parametrize(
    ("sources", "out", "options", "error"),
    [
        (["nowhere"], "out", {}, "does not exist"),
        (["in"], "in/a.png", {}, "is a file"),
        (["in"], "out", {"suffix": "a/b"}, "--suffix"),
        (["in/a.png"], "new.png", {"kind": "JPEG"}, "contradicts"),
        (["in/a.png"], "new.png", {"suffix": "x"}, "leave it out"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: list[str],
    out: str,
    options: dict[str, str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    noisy(Path("in/a.png"))
    with pytest.raises((InvalidArgumentError, DataError), match=error):
        targets(*sources, out=out, **options)


# The command


def test_a_folder_with_all_there_is_to_say(model: Path, tmp_path: Path) -> None:
    noisy(tmp_path / "in" / "a.png")
    noisy(tmp_path / "in" / "deep" / "b.jpg")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "flat.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no")
    words: list[str | Path] = [
        "denoise",
        "in",
        "--out",
        "out",
        "--model",
        model,
        "--json",
        "--compare",
        "s.png",
        "--report",
        "r.jsonl",
    ]
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert (told["cleaned"], told["clean"], told["skipped"]) == (2, 1, 0)
    assert [row["path"] for row in told["failed"]] == ["bad.png"]
    by_path = {row["path"]: row for row in told["images"]}
    assert by_path["a.png"]["sigma"] == pytest.approx(25, rel=0.1)
    assert by_path["a.png"]["sigma_p10"] < by_path["a.png"]["sigma"] < by_path["a.png"]["sigma_p90"]
    assert by_path["a.png"]["changed"] > 0.9
    assert 15 < by_path["a.png"]["psnr_to_input_db"] < 35
    assert by_path["flat.png"] == {
        "path": "flat.png",
        "out": "out/flat.png",
        "status": "clean",
        "sigma": 0.0,
        "sigma_p10": 0.0,
        "sigma_p90": 0.0,
        "changed": 0.0,
        "reason": "few colors",
    }
    assert told["reasons"] == {"few colors": 1}
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines == told["images"]
    assert done.stderr.splitlines()[0].startswith("failed: bad.png: ")
    assert done.stderr.splitlines()[1].startswith("2 denoised, 1 left as they are (1 few colors), 1 failed; ")
    sheet = pixels_of(tmp_path / "s.png")
    assert sheet.shape[0] > 3 * 64  # before, after and the noise of three images
    assert sheet.shape[1] > 320
    done = lookalike("denoise", "in", "--out", "out", "--model", model, "--compare", "new.png", cwd=tmp_path)
    assert "no image was denoised, so new.png was not written" in done.stderr
    assert "3 skipped (exist)" in done.stderr
    assert "--overwrite" in done.stderr.splitlines()[-1]


def test_a_list_of_files_and_the_options_that_choose(model: Path, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/deep/b.png", "in/deep/c.png"):
        noisy(tmp_path / name)
    (tmp_path / "list").write_bytes(b"in/a.png\0in/deep/b.png\0")
    words: list[str | Path] = ["--files-from", "list", "-0", "--root", "in", "--out", "out", "--model", model]
    assert lookalike("denoise", *words, cwd=tmp_path).returncode == 0
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.glob("out/**/*.png")) == [
        "out/a.png",
        "out/deep/b.png",
    ]
    chosen: list[str | Path] = [
        "in",
        "--exclude",
        "b*",
        "--include",
        "deep/*",
        "--out",
        "two",
        "--model",
        model,
    ]
    assert lookalike("denoise", *chosen, cwd=tmp_path).returncode == 0
    assert [f.name for f in tmp_path.glob("two/**/*.png")] == ["c.png"]


def test_standard_input_goes_to_standard_output(model: Path, tmp_path: Path) -> None:
    data = noisy(tmp_path / "a.png").read_bytes()
    words: list[str | Path] = [COMMAND, "denoise", "-", "--model", model, "--format", "jpeg", "--sigma", "30"]
    done = subprocess.run(words, input=data, capture_output=True, check=True)
    assert done.stdout.startswith(b"\xff\xd8\xff")
    assert done.stderr == b""
    done = subprocess.run(words, input=b"no picture", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"lookalike: standard input: not an image in a supported format")


def test_sigma_strength_and_quality_reach_the_picture(model: Path, tmp_path: Path) -> None:
    noisy(tmp_path / "a.png")
    spreads = {}
    for name, words in {
        "none": ["--strength", "0"],
        "some": ["--strength", "0.5"],
        "auto": [],
        "more": ["--strength", "2"],
        "told": ["--sigma", "75"],
        "zero": ["--sigma", "0"],
    }.items():
        words = ["denoise", "a.png", "--out", f"{name}.png", "--model", str(model), *words]
        assert lookalike(*words, cwd=tmp_path).returncode == 0
        spreads[name] = pixels_of(tmp_path / f"{name}.png")[8:-8, 8:-8].std()
    assert spreads["none"] == spreads["zero"] > spreads["some"] > spreads["auto"]
    assert spreads["auto"] > spreads["more"] > spreads["told"]
    sizes = []
    for quality in ("20", "90"):
        words = ["denoise", "a.png", "--out", f"q{quality}", "--format", "jpeg", "--quality", quality]
        assert lookalike(*words, "--model", model, cwd=tmp_path).returncode == 0
        sizes.append((tmp_path / f"q{quality}" / "a.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_sigma_that_is_given_is_named_everywhere(model: Path, tmp_path: Path) -> None:
    noisy(tmp_path / "in" / "a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "black.png")
    words: list[str | Path] = ["denoise", "in", "--out", "out", "--model", model, "--json"]
    done = lookalike(*words, "--sigma", "12.5", "--report", "r.jsonl", "--compare", "s.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "1 denoised, 1 left as they are (1 no change), 0 failed; sigma 12.5, as given; "
    )
    told = json.loads(done.stdout)
    assert (told["sigma"], told["reasons"]) == (12.5, {"no change": 1})
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == told["images"]
    for row in told["images"]:
        assert (row["sigma"], row["sigma_p10"], row["sigma_p90"]) == (12.5, 12.5, 12.5)
    assert [row["status"] for row in told["images"]] == ["cleaned", "clean"]
    denoiser = open_file_denoiser(
        model, sigma=12.5 / 255, strength=1.0, kind=None, quality=None, max_pixels=10_000
    )
    views = [denoiser((tmp_path / "in" / name).read_bytes(), name).view for name in ("a.png", "black.png")]
    for view in views:
        assert len(np.unique(view[2])) == 1  # the noise is the same everywhere
    captions = ("sigma 12.5, as given", "left: no change")
    expected = denoised_sheet(
        [
            (Path(name), caption, view)
            for name, caption, view in zip(("a.png", "black.png"), captions, views, strict=True)
        ]
    )
    np.testing.assert_array_equal(pixels_of(tmp_path / "s.png"), expected)
    done = lookalike(*words, "--overwrite", cwd=tmp_path)
    assert json.loads(done.stdout)["sigma"] == "auto"
    assert "given" not in done.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("", "name the output folder with --out"),
        ("--out out", "name a source"),
        ("a.png", "name the output folder with --out"),
        ("- a.png", "- reads one image from standard input"),
        ("- --out b.png", "leave --out out"),
        ("- --json", "do not work with -"),
        ("a.png --out out --sigma loud", "neither auto nor a number"),
        ("a.png --out out --sigma nan", "neither auto nor a number"),
        ("a.png --out out --sigma 200", "denoises sigma 0 to 75, not 200"),
        ("a.png --out out --strength 2.1", "0<=x<=2"),
        ("a.png --out out --root .", "--root works only with --files-from"),
        ("a.png --out a.png", "would be overwritten"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(model: Path, tmp_path: Path, words: str, error: str) -> None:
    noisy(tmp_path / "a.png")
    done = lookalike("denoise", *words.split(), "--model", model, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_an_out_that_cannot_be_made_is_one_line(model: Path, tmp_path: Path) -> None:
    noisy(tmp_path / "a.png")
    (tmp_path / "file").touch()
    done = lookalike("denoise", "a.png", "--out", "/proc/nothing", "--model", model, cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done).startswith("lookalike: /proc/nothing")
    done = lookalike("denoise", "a.png", "--out", "file", "--model", model, cwd=tmp_path)
    assert (done.returncode, one_line(done)) == (
        2,
        "lookalike: --out is a folder, file is a file; name another",
    )


# Models with a latent


def test_a_model_that_was_not_taught_to_clean_is_refused(tmp_path: Path) -> None:
    noisy(tmp_path / "a.png")
    digits = make_digits(tmp_path / "digits").folder
    done = lookalike("denoise", "a.png", "--out", "out", "--model", digits, cwd=tmp_path)
    assert done.returncode == 2
    assert "model digits (cvae) was not trained to denoise" in one_line(done)


def test_a_model_that_was_taught_works_and_says_that_it_resizes(tmp_path: Path) -> None:
    noisy(tmp_path / "in" / "a.jpg")
    plain = make_digits(tmp_path / "plain", kind="vae", classes=())
    spec: BundleSpec = replace(plain.spec, denoises=NoiseSpec(low=0.5, high=0.5))
    taught = save_again(plain, tmp_path / "taught", spec=spec)
    done = lookalike("denoise", "in", "--out", "out", "--model", taught.folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taught works on 28x28 pixels, crop full: images are resized" in done.stderr
    assert pixels_of(tmp_path / "out" / "a.png").shape[:2] == (28, 28)
    how = {"strength": 1.0, "kind": None, "quality": None, "max_pixels": 100}
    assert isinstance(open_file_denoiser(taught.folder, sigma=None, **how), AutoencoderDenoiser)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="takes no sigma"):
        open_file_denoiser(taught.folder, sigma=0.1, **how)  # type: ignore[arg-type]
    words = ("denoise", "in", "--out", "more", "--model", taught.folder, "--strength", "1.5")
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "taught takes a strength of 0 to 1, not 1.5" in one_line(done)
    assert not (tmp_path / "more").exists()
