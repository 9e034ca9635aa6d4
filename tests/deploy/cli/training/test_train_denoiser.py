"""``lookalike train denoiser``: images in, a bundle that denoises out; the same when it was killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lookalike.deploy.cli.training.train import denoiser
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.export.parity import PARITY
from lookalike.encoder.images import add_noise, encode_png
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser
from lookalike.trainer.config import DENOISER_DEFAULTS, DenoiserShape, PatchSpec, TrainingSpec
from lookalike.trainer.data import NoiseMix, open_dataset, read_pixel_cache, views_of
from lookalike.trainer.loop import Run, prepare_run
from lookalike.trainer.models import CELL, SIZE_MULTIPLE, DenoiserNet, NoiseEstimator
from lookalike.trainer.publish.denoiser import export_bundle, measure_level
from lookalike.trainer.recipes.denoiser import DenoiserPlan, denoiser_data, fit_denoiser, fit_estimator
from tests.fixtures.command import lookalike
from tests.fixtures.digit_files import write_digits
from tests.fixtures.people import portraits, write_people

pytestmark = pytest.mark.trains
NARROW = ("--widths", "16,16,16", "--blocks", "1,1,1", "--batch", "32", "--device", "cpu")
SMALL = (*NARROW, "--patch", "16", "--learning-rate", "0.01", "--epochs", "12")
SIGMA = 50 / 255
LEVELS = (0, 25 / 255, 50 / 255, 75 / 255)

PATCHES = 128
"""In an epoch; 1,024 at least would teach more than is looked at here."""
BATCHES = 2
"""That an epoch is measured on."""
Networks = tuple[DenoiserNet, NoiseEstimator]

# Writes its state after every epoch, not every 15 seconds: there is more to resume from.
COMMAND = f"""
import signal, torch
import lookalike.trainer.loop.loop
from lookalike.trainer.recipes import denoiser as recipe
from lookalike.deploy.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
torch.set_num_threads(1)
lookalike.trainer.loop.loop._WRITE_EVERY = -1.0
recipe._MIN_PATCHES, recipe._MEASURED = {PATCHES}, {BATCHES}
main()
"""


Done = subprocess.CompletedProcess[str]
Train = Callable[..., Done]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Train:
    """Run ``lookalike train denoiser`` in an empty folder of this process: torch is loaded once."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *words: lookalike("train", "denoiser", *words, cwd=tmp_path / "here")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same only when they are added in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def short_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lookalike.trainer.recipes.denoiser._MIN_PATCHES", PATCHES)
        patch.setattr("lookalike.trainer.recipes.denoiser._MEASURED", BATCHES)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people")


def enlarged(*, height: int, width: int) -> NDArray[np.float32]:
    """Portraits of people nobody trained on, float32 (4, height, width, 3) in [0, 1]."""
    large = portraits(1, 4, seed=9).repeat(8, axis=1).repeat(8, axis=2)  # (4, 128, 128, 3)
    return large[:, :height, :width].astype(np.float32) / np.float32(255)


def with_noise(clean: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    levels = np.full(len(clean), sigma, np.float32)
    return add_noise(clean, levels, kind="gaussian", rng=np.random.default_rng(0))


def between(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return psnr_from_mse(float(np.square(one.clip(0, 1) - other).mean()))


@pytest.fixture(scope="module")
def networks() -> list[Networks]:
    """The networks that `done` trained, in torch, with the weights as stored."""
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data: Path, networks: list[Networks]) -> Done:
    """The command has run to its end, in seconds."""

    def keep(denoiser: DenoiserNet, estimator: NoiseEstimator, folder: Path, **options: Any) -> object:
        networks.append((denoiser, estimator))
        return export_bundle(denoiser, estimator, folder, **options)

    out = tmp_path_factory.mktemp("trained") / "denoise"
    words = ("train", "denoiser", "--data", data, "--out", out, *SMALL, "--resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lookalike.trainer.recipes.denoiser.export_bundle", keep)
        return lookalike(*words, cwd=out.parent)


@pytest.fixture(scope="module")
def trained(done: Done) -> Denoiser:
    """What it made."""
    assert done.returncode == 0, done.stderr
    return Denoiser.open(done.stdout.rstrip("\n"))


def test_the_command_tells_how_it_goes_and_where_the_model_is(done: Done, trained: Denoiser) -> None:
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        f"{part} photographs, 0 megapixels" for part in (40, 8, 16)
    ]
    assert re.fullmatch(r"denoiser: [\d,]+ weights; 48 steps of 32 patches; training on cpu", lines[3])
    assert [line.split()[1] for line in lines[4:16]] == [f"{epoch}/12" for epoch in range(1, 13)]
    assert re.fullmatch(r"estimator of the noise: [\d,]+ weights; 0 of 4 epochs done", lines[16])
    assert [line.split()[1] for line in lines[17:21]] == [f"{epoch}/4" for epoch in range(1, 5)]
    assert [line.split(":")[0] for line in lines[21:25]] == [
        f"held-out PSNR at sigma {sigma}" for sigma in (0, 25, 50, 75)
    ]
    assert lines[25:] == [f"model {trained.model_id[:12]} is in {trained.bundle.folder}"]


def test_the_bundle_tells_what_it_is_and_what_it_does(trained: Denoiser) -> None:
    trained.check()
    spec, shape = trained.spec, DenoiserShape(blocks=(1, 1, 1))
    assert (spec.size_multiple, spec.cell) == (SIZE_MULTIPLE, CELL)
    assert (spec.receptive_field, spec.estimator_field) == (shape.receptive_field, shape.estimator_field)
    assert spec.deviations == (0, 75 / 255)
    assert spec.training["network"] == {
        "widths": [16, 16, 16],
        "blocks": [1, 1, 1],
        "estimator": 32,
        "dilations": [1, 2, 4],
    }
    assert (spec.training["data"], spec.training["patches"]["side"]) == ("people", 16)
    assert spec.training["images"] == {"train": 40, "validation": 8, "held_out": 16}
    assert spec.training["noise"] == asdict(NoiseMix())
    assert spec.training["photographs"] == 0
    figures = spec.figures
    assert figures["held_out_images"] == 16
    assert [level["sigma"] for level in figures["held_out"]] == [0, 25, 50, 75]
    for level in figures["held_out"][1:]:
        assert level["known_sigma_psnr_db"] > level["noisy_psnr_db"]
    run = trained.bundle.folder.with_name("denoise.run")
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == [
        "estimator/log.csv",
        "log.csv",
    ]
    log = (run / "log.csv").read_text().splitlines()
    assert log[0] == "epoch,loss,validation_psnr_db,held_out_psnr_db"
    assert len(log) == 13
    log = (run / "estimator" / "log.csv").read_text().splitlines()
    assert log[0] == "epoch,loss,validation_negative_loss,held_out_negative_loss"
    assert len(log) == 5


@pytest.mark.parametrize("size", [(128, 128), (57, 91), (17, 5), (8, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_are_denoised_as_torch_denoises_them(
    trained: Denoiser, networks: list[Networks], size: tuple[int, int], channels: int
) -> None:
    noisy = with_noise(enlarged(height=size[0], width=size[1])[..., :channels], SIGMA)
    below, right = (-side % SIZE_MULTIPLE for side in size)
    padding = ((0, 0), (0, below), (0, right))
    padded = np.pad(noisy, (*padding, (0, 0)), "reflect").repeat(3 // channels, axis=3)
    pixels = torch.from_numpy(padded).permute(0, 3, 1, 2)  # -> (N, 3, H', W')
    sigma = np.random.default_rng(0).uniform(0, 0.3, noisy.shape[:3]).astype(np.float32)
    denoiser, estimator = (network.eval().cpu() for network in networks[0])
    with torch.no_grad():
        expected = denoiser(pixels, torch.from_numpy(np.pad(sigma, padding, "reflect")))
        cells = estimator(pixels)
    expected = expected.permute(0, 2, 3, 1)[:, : size[0], : size[1]].numpy()
    if channels == 1:
        expected = expected.mean(3, keepdims=True)
    output = trained.denoise(noisy, sigma)
    np.testing.assert_allclose(output, expected, atol=PARITY, rtol=0)
    assert np.abs(output - noisy).max() > 10 * PARITY
    height, width = (-(-side // CELL) for side in size)
    np.testing.assert_allclose(
        trained.estimate(noisy), cells[:, :height, :width].clamp(0, 1).numpy(), atol=PARITY, rtol=0
    )


def test_figures_are_what_the_bundle_does(trained: Denoiser, data: Path) -> None:
    dataset = open_dataset(str(data))
    pixels = read_pixel_cache(dataset, next(iter(views_of(dataset))))
    clean = pixels.images[dataset.split(pixels.usable).held_out].astype(np.float32) / np.float32(255)
    for level in trained.spec.figures["held_out"][1:]:
        noisy = with_noise(clean, level["sigma"] / 255)  # other noise of the same deviation
        sigma = np.full(len(clean), level["sigma"] / 255, np.float32)
        outputs = (noisy, trained.denoise(noisy, sigma), trained.denoise(noisy))
        measured = [np.mean([between(*pair) for pair in zip(each, clean, strict=True)]) for each in outputs]
        figures = [level[f"{name}_psnr_db"] for name in ("noisy", "known_sigma", "blind")]
        assert measured == pytest.approx(figures, abs=0.1)
        assert 255 * trained.estimate(noisy).mean() == pytest.approx(level["estimate"], abs=1)


@pytest.mark.slow
def test_digits_have_their_own_sizes_and_options_of_the_noise_are_heeded(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "data" / "MNIST" / "raw")
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "data"))
    words = ("--epochs", "1", "--denoise", "20:50", "--precision", "bfloat16")
    done = train("--data", "mnist", "--out", tmp_path / "m", *NARROW, *words)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'm'}\n"), done.stderr
    assert "left out" not in done.stderr
    spec = Bundle.open(tmp_path / "m").denoiser_spec
    assert spec.deviations == (20 / 255, 50 / 255)
    assert spec.training["training"]["precision"] == "bfloat16"
    assert spec.training["patches"] == {
        "side": 28,
        "mirror": False,
        "rotated": 0.0,
        "gray": 0.3,
        "drawn": 0.0,
        "relit": 0.0,
    }
    assert [level["sigma"] for level in spec.figures["held_out"]] == [0, 30, 40, 50]
    noise = spec.training["noise"]
    assert noise["camera"] == noise["grain"] == noise["clean"] == noise["partial"] == noise["jpeg"] == 0
    refused = train("--data", "mnist", "--out", tmp_path / "n", "--photographs", tmp_path / "data")
    assert refused.returncode == 2
    assert "--photographs are for faces and other photographs" in refused.stderr


@pytest.mark.slow
def test_killed_and_interrupted_and_resumed_it_ends_as_if_it_never_stopped(
    tmp_path: Path, data: Path, train: Train, trained: Denoiser
) -> None:
    out = tmp_path / "cut"
    words = ("--data", data, "--out", out, *SMALL)
    assert _stopped(*words, after=2, by=signal.SIGKILL) == -signal.SIGKILL
    assert Run.unfinished(tmp_path / "cut.run")
    assert not out.exists()
    refused = train(*words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cut.run; pass --resume to go on, or remove that folder" in refused.stderr
    for option, value, change in (
        ("--learning-rate", "0.1", "learning_rate 0.01 (now 0.1)"),
        ("--seed", "1", "seed 0 (now 1)"),
        ("--denoise", "25", "low 0.0 (now 0.09"),
    ):
        other = train(*words, "--resume", option, value)
        assert other.returncode == 1
        assert f"resumes with the options and data it began with, {out}.run had " in other.stderr
        assert change in other.stderr
    assert _stopped(*words, "--resume", after=5, by=signal.SIGINT) == 130
    assert _stopped(*words, "--resume", after=2, of=4, by=signal.SIGKILL) == -signal.SIGKILL  # the estimator
    assert Run.unfinished(tmp_path / "cut.run" / "estimator")
    assert not out.exists()
    resumed = train(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch 12 of 12" in resumed.stderr
    assert re.search(r"; [234] of 4 epochs done$", resumed.stderr, re.MULTILINE)
    assert Bundle.open(out).model_id == trained.model_id  # a digest over weights and figures
    for name in ("log.csv", "estimator/log.csv"):
        logs = [folder.with_name(f"{folder.name}.run") / name for folder in (out, trained.bundle.folder)]
        assert logs[0].read_text() == logs[1].read_text()


def test_photographs_are_trained_on_beside_the_data(tmp_path: Path, data: Path, train: Train) -> None:
    photos = tmp_path / "photos"
    for number, pixels in enumerate(portraits(6, 2, seed=5)):
        file = photos / f"{number % 3}" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(pixels.repeat(3, axis=0).repeat(2, axis=1)))  # 48 x 32
    (photos / "bad.jpg").write_bytes(b"no image")
    words = ("--data", data, "--out", "model", *SMALL, "--epochs", "1")
    done = train(*words, "--photographs", photos)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert f"left out: {photos / 'bad.jpg'}: " in done.stderr
    assert [int(line.split()[0]) for line in lines if " photographs, " in line] == [40, 8, 16, 10, 2]
    spec = Bundle.open("model").denoiser_spec
    assert spec.training["photographs"] == 13
    assert len(spec.training["sources"]) == 5
    (tmp_path / "few").mkdir()
    few = train("--data", data, "--out", "other", *SMALL, "--photographs", tmp_path / "few")
    assert (few.returncode, few.stderr.count("Traceback")) == (1, 0)
    assert "so 5 or more are needed, got 0; add some" in few.stderr.splitlines()[-1]
    assert not Path("other").exists()


def test_another_seed_gives_another_model(tmp_path: Path, data: Path) -> None:
    ends: list[torch.Tensor] = []
    for number, seed in enumerate((0, 0, 1)):
        networks = _fit(tmp_path / f"{number}", data, epochs=1, seed=seed)
        ends.append(torch.cat([weight.flatten() for net in networks for weight in net.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_training_teaches_to_denoise_and_to_estimate(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.trainer.recipes.denoiser._MIN_PATCHES", 512)
    monkeypatch.setattr("lookalike.trainer.recipes.denoiser._ESTIMATOR_EPOCHS", 8)
    after = _fit(tmp_path, data, epochs=6, seed=0, white_only=True)
    torch.manual_seed(0)
    before = DenoiserNet(SHAPE), NoiseEstimator(SHAPE.estimator)
    dataset = open_dataset(str(data))
    pixels = read_pixel_cache(dataset, next(iter(views_of(dataset))))
    rows = dataset.split(pixels.usable).held_out[::4]
    cpu = torch.device("cpu")
    first, last = (
        [measure_level(*each, pixels.images, rows, sigma, device=cpu) for sigma in LEVELS]
        for each in (before, after)
    )
    assert last[0].psnr_known_sigma > 35
    for level in last[1:]:
        assert level.psnr_known_sigma > level.psnr_noisy + 0.2
    assert sum(level.estimate_error for level in last) < 0.9 * sum(level.estimate_error for level in first)


SHAPE = DenoiserShape(widths=(16, 16, 16), blocks=(1, 1, 1), estimator=8)


def _fit(folder: Path, data: Path, *, epochs: int, seed: int, white_only: bool = False) -> Networks:
    """Train both networks without the command."""
    dataset = open_dataset(str(data))
    spec = TrainingSpec(epochs=epochs, batch=32, learning_rate=0.005, shift=0, seed=seed)
    inputs = prepare_run(
        dataset, folder / "out", next(iter(views_of(dataset))), device="cpu", resume=False, log=lambda _: None
    )
    images = denoiser_data(dataset, inputs.split, None, side=16)
    noise = NoiseMix(camera=0, grain=0, clean=0, partial=0, jpeg=0) if white_only else NoiseMix()
    plan = DenoiserPlan(shape=SHAPE, patches=PatchSpec(side=16), noise=noise, spec=spec)
    return fit_denoiser(inputs, images, plan, {}), fit_estimator(
        inputs, images, plan.for_estimator(images), {}
    )


def _stopped(*words: str | Path, after: int, by: signal.Signals, of: int = 12) -> int:
    """Run the command in another process and send a signal after so many lines of epochs; its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", "denoiser", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        while not any(re.match(rf"epoch +{after}/{of}\\b", line) for line in said):
            said.append(process.stderr.readline())
            assert said[-1], said
        process.send_signal(by)
        said.append(process.stderr.read())
        assert "Traceback" not in said[-1], said[-1]
        return process.wait(60)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--widths", "64,96"), "'64,96' must be 3 whole numbers with commas between them"),
        (("--widths", "a,b,c"), "--widths"),
        (("--widths", "0,16,16"), "widths must be three numbers of 1 to 1024, not (0, 16, 16)"),
        (("--blocks", "2"), "--blocks"),
        (("--blocks", "2,2,0"), "blocks must be three numbers of 1 to 1024"),
        (("--patch", "7"), "--patch"),
        (("--patch", "257"), "cut from photographs of 16 pixels at most, --patch 257 is larger"),
        (("--denoise", "25:10"), "levels of gaussian noise must rise"),
        (("--denoise", "300"), "within 0 to 255"),
        (("--denoise", "much"), "cannot read 'much'"),
        (("--denoise", "0"), "a denoiser is trained on Gaussian noise"),
        (("--denoise", "poisson:25"), "a denoiser is trained on Gaussian noise"),
        (("--epochs", "0"), "epochs must be 1 or more"),
        (("--epochs", "few"), "--epochs"),
        (("--batch", "0"), "batch must be 1 or more"),
        (("--learning-rate", "nan"), "learning_rate must be above 0"),
        (("--seed", "-1"), "seed must be 0"),
        (("--precision", "float16"), "--precision"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(
    data: Path, train: Train, words: tuple[str, ...], rule: str
) -> None:
    done = train("--data", data, "--out", "model", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert rule in done.stderr
    assert len([line for line in done.stderr.splitlines() if rule in line]) == 1
    assert "Traceback" not in done.stderr
    assert list(Path().iterdir()) == []


def test_too_few_pictures_and_places_that_are_taken_fail_in_one_line(
    tmp_path: Path, data: Path, train: Train
) -> None:
    few = write_people(tmp_path / "few", people=2)
    Path("full").mkdir()
    Path("full/thesis.txt").touch()
    for words, rule in (
        (("--data", few, "--out", "model"), "training needs images of three people or more"),
        (("--data", "nowhere", "--out", "model"), "'nowhere' is none"),
        (("--data", data, "--out", "full"), "thesis.txt"),
    ):
        done = train(*words)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert rule in done.stderr
        assert done.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["full"]


def test_a_learning_rate_that_is_too_high_is_told(data: Path, train: Train) -> None:
    done = train("--data", data, "--out", "model", *SMALL, "--learning-rate", "1e9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the loss must stay finite" in done.stderr.splitlines()[-1]
    assert not Path("model").exists()


def test_every_option_is_described_and_has_the_default_of_the_library() -> None:
    options = {option.name: option for option in denoiser.params if isinstance(option, click.Option)}
    assert all(option.help for option in options.values())
    defaults = DENOISER_DEFAULTS.to_json()
    shared = options.keys() & defaults.keys() - {"epochs", "noise"}  # by the data
    assert len(shared) == 4
    assert {name: options[name].default for name in shared} == {name: defaults[name] for name in shared}
    assert f"else {DENOISER_DEFAULTS.epochs}" in str(options["epochs"].show_default)
    shape = DenoiserShape()
    assert options["blocks"].default == shape.blocks
    assert ",".join(map(str, shape.widths)) in str(options["widths"].show_default)
