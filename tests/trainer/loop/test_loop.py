"""The loop: the same end however often it was killed, the best epoch kept, and no silent nonsense."""

import copy
import csv
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import DataError, InvalidArgumentError, TrainingError
from lookalike.encoder.images import ImageSpec, NoiseSpec
from lookalike.trainer.config import AESpec, TrainingSpec
from lookalike.trainer.data import open_dataset, to_floats
from lookalike.trainer.loop import EpochLog, Run
from lookalike.trainer.loop.loop import load_checkpoint, pick_device, save_checkpoint, schedule
from lookalike.trainer.models import AE
from lookalike.trainer.publish.ae import reconstruction_psnr
from lookalike.trainer.recipes import train_autoencoder
from lookalike.trainer.recipes.ae import reconstruction
from tests.fixtures import exports
from tests.fixtures.people import SIDE, portraits, write_people

pytestmark = pytest.mark.trains
exported_once = exports.exported_once
CPU = torch.device("cpu")
NETWORK = AESpec(size=SIDE, channels=3, latent=4, hidden=(8,))
SPEC = TrainingSpec(epochs=4, batch=16, warmup=2, shift=1, noise=NoiseSpec(low=0, high=0.05))
IMAGES = portraits(6, 8)
TRAIN = np.arange(40)
RECORD = {"data": "portraits", "training": {"epochs": 4, "batch": 16}, "network": {"hidden": [8]}}

# Writes its state after every epoch, not every 15 seconds: there is more to resume from.
TRAINER = """
import sys, torch
from pathlib import Path
import lookalike.trainer.loop.loop
from tests.trainer.loop.test_loop import train
torch.set_num_threads(1)
lookalike.trainer.loop.loop._WRITE_EVERY = -1.0
train(Path(sys.argv[1]), Path(sys.argv[2]), resume=True, log=lambda line: print(line, flush=True))
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same only when they are added in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(data: Path, out: Path, **changes: Any) -> Bundle:
    """Train as the command does: 30 epochs on 64 pictures."""
    options: dict[str, Any] = {
        "image": ImageSpec(size=SIDE),
        "network": NETWORK,
        "spec": replace(SPEC, epochs=30),
        "device": "cpu",
    }
    bundle, _ = train_autoencoder(open_dataset(str(data)), out, **(options | changes))
    return bundle


def start(folder: Path, spec: TrainingSpec = SPEC, record: dict[str, Any] = RECORD) -> Run[AE]:
    network = AE.from_pca(NETWORK, to_floats(IMAGES), seed=spec.seed)
    return Run(folder, network, spec, record=record, device=CPU)


def measured(network: nn.Module) -> tuple[float, float]:
    validation, held_out = (
        reconstruction_psnr(network, IMAGES, indices, device=CPU)
        for indices in (np.arange(40, 44), np.arange(44, 48))
    )
    return validation, held_out


def epochs_of(run: Run[AE], **changes: Any) -> list[EpochLog]:
    measure = changes.pop("measure", measured)
    return list(run.fit(reconstruction(IMAGES, TRAIN, run.spec, measure), **changes))


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Bit by bit."""
    weights = other.state_dict()
    assert one.state_dict().keys() == weights.keys()
    for name, values in one.state_dict().items():
        assert torch.equal(values, weights[name]), name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people")


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(3,), (None, None)])
def test_training_killed_at_any_moment_and_resumed_ends_as_if_it_never_stopped(
    tmp_path: Path, data: Path, stops: tuple[int | None, ...]
) -> None:
    expected = train(data, tmp_path / "whole", resume=True)  # nothing to resume: it begins
    out, run = tmp_path / "killed", tmp_path / "killed.run"
    rng = random.Random()
    reached = []
    for stop in stops:
        stop = stop or rng.randint(1, 14)  # lines; there is one for each of the 30 epochs
        lines = _killed_after(stop, data, out)
        reached.append(sum(line.startswith("epoch") for line in lines))
        assert Run.unfinished(run)
        assert not out.exists()
    with pytest.raises(TrainingError, match=r"was interrupted in .*killed\.run; pass --resume to go on, or"):
        train(data, out)
    with pytest.raises(TrainingError, match=r"had hidden \[8\] \(now \[16\]\), seed 0 \(now 1\); give"):
        train(
            data,
            out,
            resume=True,
            spec=replace(SPEC, epochs=30, seed=1),
            network=replace(NETWORK, hidden=(16,)),
        )
    said: list[str] = []
    bundle = train(data, out, resume=True, log=said.append)
    assert any(line.startswith("resuming after epoch") for line in said)
    assert not Run.unfinished(run)
    assert bundle.model_id == expected.model_id, reached  # a digest over weights, statistics and figures
    log, expected_log = ((tmp_path / f"{name}.run" / "log.csv").read_text() for name in ("killed", "whole"))
    assert log == expected_log


def _killed_after(lines: int, data: Path, out: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, data, out], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        heard: list[str] = []
        while sum(line.startswith("epoch") for line in heard) < lines:
            heard.append(process.stdout.readline())
            assert heard[-1], "the training ended by itself"
        process.kill()
        return heard


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_run_resumed_after_any_epoch_is_the_same_run(tmp_path: Path, stop: int) -> None:
    whole = start(tmp_path / "whole")
    expected = epochs_of(whole)
    for _, epoch in zip(range(stop), _written(tmp_path / "cut"), strict=False):
        last = epoch
    assert last.epoch == stop
    run = start(tmp_path / "cut").resume()
    assert run.done == stop
    assert epochs_of(run) == expected[stop:]
    assert run.step == whole.step == 4 * 3  # 40 images in batches of at most 16
    assert_same_weights(run.network, whole.network)
    assert_same_weights(run.take_best(), whole.take_best())


def _written(folder: Path) -> Iterator[EpochLog]:
    """Epochs of a run that has written its state before each of them is yielded."""
    run = start(folder)
    for epoch in run.fit(reconstruction(IMAGES, TRAIN, run.spec, measured)):
        run._write("psnr")  # on real data epochs are longer than the time between two writings
        yield epoch


def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    runs = [
        start(tmp_path / name, replace(SPEC, seed=seed)) for name, seed in zip("abc", (0, 0, 1), strict=True)
    ]
    one, again, other = (epochs_of(run) for run in runs)
    assert one == again
    assert_same_weights(runs[0].network, runs[1].network)
    assert one != other


@pytest.mark.parametrize("averaging", [0.9, 0.998])  # the second reaches back to the start of these 180 steps
def test_network_learns_more_than_pca(tmp_path: Path, averaging: float) -> None:
    spec = replace(SPEC, epochs=60, noise=None, shift=0, learning_rate=5e-3, averaging=averaging)
    run = start(tmp_path, spec)
    before = reconstruction_psnr(run.network, IMAGES, TRAIN, device=CPU)
    epochs = epochs_of(run)
    # The worst of 20 seeds gains 0.66 dB and ends at 0.62 of the first loss.
    assert reconstruction_psnr(run.average, IMAGES, TRAIN, device=CPU) > before + 0.3
    assert epochs[-1].loss < 0.85 * epochs[0].loss


def test_best_epoch_by_validation_is_kept(tmp_path: Path) -> None:
    scores = iter([20.0, 25.0, 24.0, 25.0])
    seen: list[nn.Module] = []

    def measure(network: nn.Module) -> tuple[float, float]:
        seen.append(copy.deepcopy(network))
        return next(scores), 99.0 - len(seen)

    run = start(tmp_path)
    epochs = epochs_of(run, measure=measure)
    assert [epoch.best for epoch in epochs] == [True, True, False, False]
    assert_same_weights(run.take_best(), seen[1])
    assert not torch.equal(next(seen[1].parameters()), next(seen[3].parameters()))


def test_log_has_a_row_for_each_epoch(tmp_path: Path) -> None:
    epochs = epochs_of(start(tmp_path))
    with (tmp_path / "log.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "loss", "validation_psnr", "held_out_psnr"]
    assert [tuple(map(float, row)) for row in rows] == [
        (epoch.epoch, epoch.loss, epoch.validation, epoch.held_out) for epoch in epochs
    ]


def test_finished_run_leaves_its_log_and_no_checkpoint(tmp_path: Path) -> None:
    run = start(tmp_path)
    epochs_of(run)
    assert Run.unfinished(tmp_path)
    Run.finish(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_every_step_is_reported_with_its_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    epochs = epochs_of(start(tmp_path), on_step=losses.append)
    assert len(losses) == 12
    assert epochs[0].loss == pytest.approx(np.mean(losses[:3]))


def test_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    run = start(tmp_path, replace(SPEC, learning_rate=1e30, warmup=0))
    with pytest.raises(
        TrainingError, match=r"must stay finite, it is (nan|inf) at step \d; lower --learning"
    ):
        epochs_of(run)


def test_bfloat16_products_learn_too(tmp_path: Path) -> None:
    run = start(tmp_path, replace(SPEC, precision="bfloat16"))
    assert all(math.isfinite(epoch.loss) for epoch in epochs_of(run))
    assert all(weights.dtype == torch.float32 for weights in run.take_best().parameters())


def test_other_options_or_data_are_named_when_resuming(tmp_path: Path) -> None:
    epochs_of(start(tmp_path))
    other = {"data": "faces", "training": {"epochs": 9, "batch": 16}, "network": {"hidden": [8]}}
    with pytest.raises(TrainingError, match=r"had data portraits \(now faces\), epochs 4 \(now 9\); give"):
        start(tmp_path, record=other).resume()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("optimizer"),
        lambda state: state["network"].popitem(),
        lambda state: state["network"].update(extra=torch.zeros(1)),
        lambda state: state.update(average=3),
    ],
)
def test_state_of_another_version_is_refused(tmp_path: Path, change: Callable[[Any], object]) -> None:
    epochs_of(start(tmp_path))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    change(state)
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    with pytest.raises(TrainingError, match="another version of lookalike wrote") as caught:
        start(tmp_path).resume()
    assert len(str(caught.value).splitlines()) == 1


def test_resuming_without_a_state_or_from_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        start(tmp_path).resume()
    save_checkpoint(tmp_path / "checkpoint.pt", {"something": "else"})
    with pytest.raises(TrainingError, match="resumes with the options and data it began with"):
        start(tmp_path).resume()


def test_options_at_their_limits_train(tmp_path: Path) -> None:
    spec = TrainingSpec(epochs=1, batch=1, warmup=0, averaging=0, shift=0, noise=None, seed=2**63 - 1)
    (epoch,) = epochs_of(start(tmp_path, spec))
    assert math.isfinite(epoch.loss)


def test_learning_rate_rises_over_the_warm_up_then_falls_as_a_half_cosine() -> None:
    shares = [schedule(step, 110, warmup=10) for step in range(110)]
    assert shares[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert shares[10] == 1.0
    assert shares[60] == pytest.approx(0.5)
    assert shares[35] == pytest.approx(0.5 + 0.5**1.5)
    assert shares[109] < 1e-3
    assert schedule(0, 1, warmup=200) == 1.0
    assert [schedule(step, 8, warmup=200) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]  # a quarter at most


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="torch finds no CUDA device"):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == CPU


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="auto, cpu or cuda; 'tpu' is not"):
        pick_device("tpu")  # type: ignore[arg-type]  # wrong on purpose


def test_something_else_at_the_target_is_refused_before_anything_is_decoded(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(InvalidArgumentError, match=r"thesis\.txt"):
        train(data, tmp_path / "out")
    assert not (tmp_path / "cache").exists()


def test_too_few_people_are_refused_before_a_run_begins(tmp_path: Path) -> None:
    few = write_people(tmp_path / "few", people=2)
    with pytest.raises(DataError, match="three people or more"):
        train(few, tmp_path / "out")
    assert not (tmp_path / "out.run").exists()
