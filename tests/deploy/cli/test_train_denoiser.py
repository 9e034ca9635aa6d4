"""``lookalike train denoiser``: images in, a bundle that denoises out; the same when it was killed."""

import copy
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lookalike.deploy.cli.train import denoiser
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.export.parity import PARITY
from lookalike.encoder.images import NoiseSpec, add_noise
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser
from lookalike.trainer.config import DENOISER_DEFAULTS, DenoiserShape, PatchSpec, TrainingSpec
from lookalike.trainer.data import open_dataset, read_pixel_cache, sources_of, views_of
from lookalike.trainer.loop import Objective, Run, muon
from lookalike.trainer.models import SIZE_MULTIPLE, BlindDenoiser
from lookalike.trainer.models.denoiser import Estimator
from lookalike.trainer.publish.denoiser import export_bundle, measure_level
from lookalike.trainer.recipes.denoiser import denoising_objective
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
IMAGES = 4
"""That an epoch is measured on."""

# Writes its state after every epoch, not every 15 seconds: there is more to resume from.
COMMAND = f"""
import signal, torch
import lookalike.trainer.loop.loop
from lookalike.trainer.recipes import denoiser as recipe
from lookalike.deploy.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
torch.set_num_threads(1)
lookalike.trainer.loop.loop._WRITE_EVERY = -1.0
recipe._MIN_PATCHES, recipe._MEASURED = {PATCHES}, {IMAGES}
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
        patch.setattr("lookalike.trainer.recipes.denoiser._MEASURED", IMAGES)
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
def networks() -> list[BlindDenoiser]:
    """The network that `done` trained, in torch, with the weights as stored."""
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data: Path, networks: list[BlindDenoiser]) -> Done:
    """The command has run to its end, in seconds."""

    def keep(network: BlindDenoiser, folder: Path, **options: Any) -> object:
        networks.append(network)
        return export_bundle(network, folder, **options)

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
    assert lines[0].startswith("people: 40 training, 8 validation and 16 held-out images; ")
    assert lines[0].endswith(" weights; training on cpu")
    assert [line.split()[1] for line in lines[1:13]] == [f"{epoch}/12" for epoch in range(1, 13)]
    assert [line.split(":")[0] for line in lines[13:17]] == [
        f"held-out PSNR at sigma {sigma}" for sigma in (0, 25, 50, 75)
    ]
    assert lines[17:] == [f"model {trained.model_id[:12]} is in {trained.bundle.folder}"]


def test_the_bundle_tells_what_it_is_and_what_it_does(trained: Denoiser) -> None:
    trained.check()
    spec = trained.spec
    assert (spec.size_multiple, spec.receptive_field) == (
        SIZE_MULTIPLE,
        DenoiserShape(blocks=(1, 1, 1)).receptive_field,
    )
    assert spec.deviations == (0, 75 / 255)
    assert spec.training["network"] == {"widths": [16, 16, 16], "blocks": [1, 1, 1], "estimator": 48}
    assert (spec.training["data"], spec.training["patches"]["side"]) == ("people", 16)
    assert spec.training["images"] == {"train": 40, "validation": 8, "held_out": 16}
    figures = spec.figures
    assert figures["held_out_images"] == 16
    assert [level["sigma"] for level in figures["held_out"]] == [0, 25, 50, 75]
    for level in figures["held_out"][1:]:
        assert level["known_sigma_psnr_db"] > level["noisy_psnr_db"]
        assert level["blind_psnr_db"] > level["noisy_psnr_db"]
    run = trained.bundle.folder.with_name("denoise.run")
    assert [path.name for path in run.iterdir()] == ["log.csv"]
    log = (run / "log.csv").read_text().splitlines()
    assert log[0] == "epoch,loss,validation_psnr_db,held_out_psnr_db"
    assert len(log) == 13


@pytest.mark.parametrize("size", [(128, 128), (57, 91), (17, 5), (8, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_are_denoised_as_torch_denoises_them(
    trained: Denoiser, networks: list[BlindDenoiser], size: tuple[int, int], channels: int
) -> None:
    noisy = with_noise(enlarged(height=size[0], width=size[1])[..., :channels], SIGMA)
    sigma = np.full(len(noisy), SIGMA, np.float32)
    below, right = (-side % SIZE_MULTIPLE for side in size)
    padded = np.pad(noisy, ((0, 0), (0, below), (0, right), (0, 0)), "reflect").repeat(3 // channels, axis=3)
    pixels = torch.from_numpy(padded).permute(0, 3, 1, 2)  # -> (N, 3, H', W')
    with torch.no_grad():
        known, blind = networks[0](pixels, torch.from_numpy(sigma)), networks[0](pixels)
    for output, torch_output in ((trained.denoise(noisy, sigma), known), (trained.denoise(noisy), blind)):
        expected = torch_output.denoised.permute(0, 2, 3, 1)[:, : size[0], : size[1]].numpy()
        if channels == 1:
            expected = expected.mean(3, keepdims=True)
        np.testing.assert_allclose(output, expected, atol=PARITY, rtol=0)
        assert np.abs(output - noisy).max() > 10 * PARITY
    np.testing.assert_allclose(trained.estimate(noisy), blind.estimated.numpy(), atol=PARITY, rtol=0)


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
    assert done.stderr.startswith("mnist: 20 training, 10 validation and 20 held-out images; ")
    spec = Bundle.open(tmp_path / "m").denoiser_spec
    assert spec.deviations == (20 / 255, 50 / 255)
    assert spec.training["training"]["precision"] == "bfloat16"
    assert spec.training["patches"] == {"side": 28, "mirror": False, "rotated": 0.0, "gray": 0.3}
    assert [level["sigma"] for level in spec.figures["held_out"]] == [0, 30, 40, 50]


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
    resumed = train(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"^resuming after epoch (5|6|7|8|9|10|11|12) of 12$", resumed.stderr, re.MULTILINE)
    assert Bundle.open(out).model_id == trained.model_id  # a digest over weights and figures
    logs = [folder.with_name(f"{folder.name}.run") / "log.csv" for folder in (out, trained.bundle.folder)]
    assert logs[0].read_text() == logs[1].read_text()


def test_another_seed_gives_another_model(tmp_path: Path, data: Path) -> None:
    ends: list[torch.Tensor] = []
    for seed in (0, 0, 1):
        run, task = _run(tmp_path / f"{len(ends)}", data, _network(), epochs=1, seed=seed)
        assert len(list(run.fit(task))) == 1
        ends.append(torch.cat([weight.flatten() for weight in run.take_best().parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_training_teaches_to_denoise_and_to_estimate(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.trainer.recipes.denoiser._MIN_PATCHES", 512)
    before = _network()
    _estimate_half(before.estimator)
    run, objective = _run(tmp_path, data, copy.deepcopy(before), epochs=4, seed=0)
    for _ in run.fit(objective):
        pass
    after = run.take_best()
    dataset = open_dataset(str(data))
    pixels = read_pixel_cache(dataset, next(iter(views_of(dataset))))
    rows = dataset.split(pixels.usable).held_out[::4]
    first, last = (
        [measure_level(each, pixels.images, rows, sigma, device=torch.device("cpu")) for sigma in LEVELS]
        for each in (before, after)
    )
    # The worst of 20 seeds: 41.7 dB, 0.50 dB, an estimate 16 of 255 higher, 0.73 of the error before.
    assert last[0].psnr_known_sigma > 35
    for level in last[1:]:
        assert level.psnr_known_sigma > level.psnr_noisy + 0.2
        assert level.psnr_blind > level.psnr_noisy + 0.2
    assert all(255 * (high.estimate - low.estimate) > 8 for low, high in itertools.pairwise(last))
    assert sum(level.estimate_error for level in last) < 0.9 * sum(level.estimate_error for level in first)


def _network() -> BlindDenoiser:
    torch.manual_seed(0)
    return BlindDenoiser(DenoiserShape(widths=(16, 16, 16), blocks=(1, 1, 1), estimator=8))


def _estimate_half(estimator: Estimator) -> None:
    """Set weights that estimate half of sigma: the mean absolute difference of neighbors.

    From random weights it is luck how many steps the estimator needs to start learning.
    """
    layers = [layer for layer in estimator.local if isinstance(layer, nn.Conv2d)]
    head = estimator.estimate
    assert head.bias is not None
    with torch.no_grad():
        for weight in estimator.parameters():
            weight.mul_(0.1)
        for feature in range(6):  # two for each color: where its left pixel is brighter, where it is darker
            for layer in layers:
                layer.weight[feature] = 0
            left = 4 * (feature // 2)
            layers[0].weight[feature, left : left + 2, 1, 1] = torch.tensor([1.0, -1.0]) * (-1) ** feature
            layers[1].weight[feature, feature, 1, 1] = 1
            layers[2].weight[feature, feature] = 1 / 4
            layers[3].weight[feature, feature, 1, 1] = 1
        head.weight.zero_()
        # The mean of three colors, each of 2 sigma / sqrt(pi).
        head.weight[0, :6] = 0.5 * (math.sqrt(math.pi) / 2) / 3
        head.bias.zero_()


def _run(
    folder: Path, data: Path, network: BlindDenoiser, *, epochs: int, seed: int
) -> tuple[Run[BlindDenoiser], Objective[BlindDenoiser]]:
    dataset = open_dataset(str(data))
    spec = TrainingSpec(epochs=epochs, batch=32, learning_rate=0.005, shift=0, seed=seed)
    views, patches, noise = views_of(dataset), PatchSpec(side=8), NoiseSpec.parse("0:75")
    pixels = read_pixel_cache(dataset, next(iter(views)))
    split = dataset.split(pixels.usable)
    sources, _ = sources_of(dataset, views, split.train, side=patches.side)
    cpu = torch.device("cpu")
    objective = denoising_objective(sources, pixels.images, split, patches, noise, spec, device=cpu)
    return Run(folder, network, spec, record={}, device=cpu, optimizer=muon), objective


def _stopped(*words: str | Path, after: int, by: signal.Signals) -> int:
    """Run the command in another process and send a signal after so many lines of epochs; its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", "denoiser", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        while sum(line.startswith(f"epoch {after}/") for line in said) < 1:
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
        (("--patch", "257"), "cut from images of 256x256 pixels at most, --patch 257 is larger"),
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
