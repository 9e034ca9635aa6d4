"""The service cleans as the command does, within bounds: pictures sent to be cleaned, queries, edits."""

import base64
import io
import json
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.routes import denoise as denoise_route
from lookalike.encoder.images import NoiseSpec
from lookalike.indexer.open import open_store
from tests.deploy.http.test_app import pixels, without_times
from tests.fixtures.command import lookalike
from tests.fixtures.handmade_models import make_denoiser, make_digits
from tests.fixtures.photos import NAME, cuttings, make_home, photograph
from tests.fixtures.service import API, client_of, problem
from tests.fixtures.tiny_models import save_again

KINDS: Final = ("jpeg-turned", "grey", "alpha", "deep", "palette", "large", "clean")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser that takes no time."""
    return make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with latents that was taught to clean."""
    home = tmp_path_factory.mktemp("model")
    plain = make_digits(home / "plain", kind="vae", classes=())
    spec = replace(plain.spec, denoises=NoiseSpec.parse("25"))
    return save_again(plain, home / "taught", spec=spec).folder


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path, box: Path, taught: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model, "denoise", box, taught) as opened:
        yield opened


def noisy(number: int = 4, *, sigma: float = 25, times: int = 1) -> NDArray[np.uint8]:
    """One of the photographs, larger by repetition, with noise: uint8 (H, W, 3)."""
    clean = np.tile(cuttings()[number], (times, times, 1))
    drawn = clean + np.random.default_rng(number).normal(size=clean.shape) * sigma
    return drawn.clip(0, 255).round().astype(np.uint8)


def written(kind: str) -> tuple[str, bytes]:
    """A noisy picture as a file of some kind; its name and its bytes."""
    colour, out, options = Image.fromarray(noisy()), io.BytesIO(), {}
    if kind == "clean":
        return "a.jpg", photograph(4)
    if kind == "jpeg-turned":
        exif = Image.Exif()
        exif[274] = 6  # shown turned right
        options = {"exif": exif, "quality": 95}
        colour = colour.crop((0, 0, 128, 72))
    elif kind == "grey":
        colour = colour.convert("L")
    elif kind == "alpha":
        colour.putalpha(Image.linear_gradient("L").resize(colour.size))
    elif kind == "deep":
        colour = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    elif kind == "palette":
        colour = colour.quantize(64)
    elif kind == "large":  # than what is cleaned at once
        colour = Image.fromarray(noisy(times=6)).crop((0, 0, 700, 96))
    name = "a.jpg" if kind == "jpeg-turned" else "a.png"
    colour.save(out, "JPEG" if name == "a.jpg" else "PNG", **options)
    return name, out.getvalue()


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def deep(data: bytes) -> tuple[str, Any]:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, np.asarray(image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"sigma": 40, "strength": 0.5}], ids=["found out", "told and by half"]
)
def test_it_gives_the_pixels_of_the_command(
    client: httpx.Client, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    name, data = written(kind)
    (tmp_path / name).write_bytes(data)
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    out = ["--out", "out", "--format", "png", "--report", "report.jsonl"]
    done = lookalike("denoise", name, *out, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = json.loads((tmp_path / "report.jsonl").read_text())
    mode, want = deep((tmp_path / "out" / "a.png").read_bytes())
    form = {key: str(value) for key, value in options.items()}
    sent = client.post(f"{API}/denoise", data=form, files={"image": (name, data)})
    text = client.post(f"{API}/denoise", json={"images": [as_text(data)], **options})
    alone = client.post(
        f"{API}/denoise", data=form, files={"image": (name, data)}, headers={"Accept": "image/png"}
    )
    assert (sent.status_code, text.status_code) == (200, 200), sent.text + text.text
    assert alone.headers["content-type"] == "image/png"
    (image,), (same,) = sent.json()["images"], text.json()["images"]
    assert (image["name"], same["name"]) == (name, "image-1")
    assert (image["status"], image["sigma"]) == (command["status"], command["sigma"])
    assert image["image"] == same["image"] == as_text(alone.content)
    got_mode, got = deep(base64.b64decode(image["image"]))
    assert got_mode == mode
    np.testing.assert_array_equal(got, want)
    left = kind in ("clean", "palette") and not options  # the noise of a palette is a drawing's dither
    assert image["status"] == ("clean" if left else "cleaned")
    if kind == "clean" and not options:
        np.testing.assert_array_equal(got, np.asarray(Image.open(io.BytesIO(data))))


def test_noise_is_found_and_goes(client: httpx.Client) -> None:
    name, data = written("alpha")
    (image,) = client.post(f"{API}/denoise", files={"image": (name, data)}).json()["images"]
    assert image["sigma"] == pytest.approx(25, abs=4)
    clean, made = cuttings()[4].astype(float), pixels(image["image"])
    before, after = ((each[:, :, :3] - clean).std() for each in (noisy().astype(float), made))
    assert after < before / 2
    np.testing.assert_array_equal(made[:, :, 3], deep(data)[1][:, :, 3])


def test_several_are_cleaned_in_order_and_a_bad_one_is_named(client: httpx.Client) -> None:
    files = [("image", (f"{number}.jpg", photograph(number))) for number in range(3)]
    told = client.post(f"{API}/denoise", data={"model": "box", "sigma": "50"}, files=files).json()
    assert told["model"] == "box"
    assert [image["name"] for image in told["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    single = client.post(f"{API}/denoise", data={"model": "box", "sigma": "50"}, files=files[2:]).json()
    assert single["images"] == told["images"][2:]
    bad = [*files, ("image", ("bad.jpg", b"no"))]
    said = problem(client.post(f"{API}/denoise", data={"model": "box"}, files=bad), 422, "image-unreadable")
    assert said["detail"].startswith("bad.jpg: ")


def test_a_model_that_was_taught_to_clean_cleans(client: httpx.Client, taught: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(written("grey")[1])
    done = lookalike("denoise", "a.png", "--model", taught, "--out", "out/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked = {"model": "taught", "images": [as_text(written("grey")[1])]}
    (image,) = client.post(f"{API}/denoise", json=asked).json()["images"]
    np.testing.assert_array_equal(pixels(image["image"]), deep((tmp_path / "out" / "a.png").read_bytes())[1])
    assert image["sigma"] is None
    for wrong, rule in (
        ({"sigma": 5}, "takes no sigma"),
        ({"strength": 1.5}, "a strength of 0 to 1, not 1.5"),
    ):
        told = problem(client.post(f"{API}/denoise", json={**asked, **wrong}), 422, "invalid-request")
        assert rule in told["detail"]


@pytest.mark.parametrize(
    ("values", "status", "code", "said"),
    [
        ({"sigma": 300}, 422, "invalid-request", "neither auto nor a number from 0 to 255"),
        ({"sigma": "much"}, 422, "invalid-request", "neither auto nor a number from 0 to 255"),
        ({"sigma": None}, 422, "invalid-request", "neither auto nor a number from 0 to 255"),
        ({"sigma": 200}, 422, "invalid-request", "denoises sigma 0 to 75, not 200"),
        ({"strength": 2.5}, 422, "invalid-request", "strength"),
        ({"images": []}, 422, "invalid-request", "send an image"),
        ({"images": ["no Base64!"]}, 422, "invalid-request", "number 1 is not valid Base64"),
        ({"images": [as_text(b"no picture")]}, 422, "image-unreadable", "not an image"),
        ({"model": "nothing"}, 404, "model-not-found", "the models are tiny, digits, taught, denoise, box"),
        ({"model": "/etc"}, 404, "model-not-found", "the models are"),
        ({"model": "digits"}, 422, "model-kind", "does not denoise; models that do: denoise, box, taught"),
        ({"crop": "full"}, 422, "invalid-request", "crop"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(
    client: httpx.Client, values: dict[str, Any], status: int, code: str, said: str
) -> None:
    asked = {"images": [as_text(photograph(4))], **values}
    assert said in problem(client.post(f"{API}/denoise", json=asked), status, code)["detail"]


def test_a_picture_is_the_answer_for_one_picture_only(client: httpx.Client) -> None:
    files = [("image", (f"{number}.jpg", photograph(number))) for number in range(2)]
    for some in (files, files[:0]):
        response = client.post(
            f"{API}/denoise", data={"model": "box"}, files=some or None, headers={"Accept": "image/png"}
        )
        if some:
            said = problem(response, 422, "invalid-request")["detail"]
            assert said.startswith("send one image for a response that is an image")
        else:
            problem(response, 415, "media-type")


def test_pixels_are_bounded_for_all_pictures_of_a_request(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    Image.new("1", (5000, 4000)).save(out, "PNG")  # twenty million in a few kilobytes
    asked = {"model": "box", "images": [as_text(out.getvalue())]}
    problem(client.post(f"{API}/denoise", json=asked), 413, "image-too-large")
    monkeypatch.setattr(denoise_route, "MAX_DENOISED_PIXELS", 2 * 128 * 128)
    for count, status in ((2, 200), (3, 413)):
        asked = {"model": "box", "images": [as_text(photograph(4))] * count}
        response = client.post(f"{API}/denoise", json=asked)
        assert response.status_code == status
    said = problem(response, 413, "image-too-large")["detail"]
    assert said.startswith("a request denoises at most 32,768 pixels")


def large(*, times: int = 24) -> bytes:
    """Nine million pixels with noise: a minute, about."""
    data = io.BytesIO()
    Image.fromarray(noisy(times=times)).save(data, "JPEG", quality=95)
    return data.getvalue()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def until_idle(client: httpx.Client) -> None:
    """Wait until no worker is busy."""
    until(lambda: "lookalike_busy 0.0" in client.get("/metrics").text)


def test_time_is_bounded_and_what_nobody_waits_for_ends(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoise_route, "DENOISED_PER_SECOND", 1e12)  # nothing is taken to be too slow
    other = make_home(tmp_path, tiny_model)
    with client_of(other, tiny_model, "denoise", workers=1, seconds=1.5) as client:
        began = time.monotonic()
        said = problem(client.post(f"{API}/denoise", files={"image": large()}), 503, "timeout")
        assert "1.5 s" in said["detail"]
        assert problems(client) == {"timeout": 1}
        until_idle(client)  # the only worker is free again, after the tile that it was at
        assert time.monotonic() - began < 20
        assert client.post(f"{API}/denoise", files={"image": photograph(4)}).status_code == 200


def problems(client: httpx.Client) -> dict[str, int]:
    """Return how often requests to denoise were answered with a problem, by code."""
    found = re.findall(
        r'^lookalike_problems_total\{code="([^"]+)",route="/api/v1/denoise"\} (\d+)\.0$',
        client.get("/metrics").text,
        re.MULTILINE,
    )
    return {code: int(count) for code, count in found}


def test_what_would_wait_too_long_is_refused_at_once_and_the_causes_are_told_apart(
    tiny_model: Path, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of box nothing is measured while it waits for its turn: it is taken to be as slow as this.
    image, other_model = large(times=12), {"model": "box"}
    monkeypatch.setattr(denoise_route, "DENOISED_PER_SECOND", 184_320)  # the image takes 20 s of 30
    other = make_home(tmp_path, tiny_model)
    with client_of(other, tiny_model, "denoise", box, workers=2) as client:
        first = threading.Thread(target=give_up, args=(client, image), kwargs={"count": 1, "seconds": 4})
        first.start()
        until(lambda: "lookalike_busy 1.0" in client.get("/metrics").text)
        began = time.monotonic()
        refused = client.post(f"{API}/denoise", data=other_model, files={"image": image})
        assert time.monotonic() - began < 3
        said = problem(refused, 503, "busy")
        found = re.fullmatch(
            r"this would take about \d+ s after \d+ s of other such work, .*; try again in (\d+) s",
            said["detail"],
        )
        assert found is not None
        assert refused.headers["retry-after"] == found[1]
        large_one, none = large(times=20), b"no image"
        for data, status, code in ((large_one, 413, "too-slow"), (none, 422, "image-unreadable")):
            answer = client.post(f"{API}/denoise", data=other_model, files={"image": data})
            problem(answer, status, code)
        waits = client.post(f"{API}/denoise", data=other_model, files={"image": photograph(5)})
        assert waits.status_code == 200
        first.join()
        until_idle(client)
        told = {"busy": 1, "too-slow": 1, "image-unreadable": 1, "client-gone": 1}
        assert problems(client) == told


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[httpx.Client]:
    """A service with two workers and the shipped denoiser."""
    other = make_home(tmp_path_factory.mktemp("slow"), tiny_model)
    with client_of(other, tiny_model, "denoise", workers=2) as client:
        yield client


def give_up(client: httpx.Client, data: bytes, *, count: int, seconds: float = 0.5) -> None:
    """Send an image so many times, and close the connections before the responses."""

    def ask() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{client.base_url}{API}/denoise".replace("//api", "/api"),
                files={"image": data},
                timeout=httpx.Timeout(30, read=seconds),
                trust_env=False,
            )

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_search_is_quick_beside_denoising_and_after_it_was_given_up(
    slow: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searches() -> float:
        took = []
        for number in range(11):
            began = time.perf_counter()
            answer = slow.post(
                f"{API}/search", data={"collection": NAME}, files={"image": photograph(number)}
            )
            took.append(time.perf_counter() - began)
            assert answer.status_code == 200
        return statistics.median(took)

    monkeypatch.setattr(denoise_route, "DENOISED_PER_SECOND", 1e12)
    searches()
    quiet = searches()
    give_up(slow, large(times=12), count=4)
    beside = searches()  # the tile that was begun is still being denoised
    assert "lookalike_waiting 0.0" in slow.get("/metrics").text
    until_idle(slow)
    # A machine that is shared with other tests gives a thread some milliseconds late now and then.
    assert beside <= max(3 * quiet, 0.1)
    assert 'route="/api/v1/denoise",status="499"} 4.0' in slow.get("/metrics").text


def test_what_would_take_too_long_is_refused_at_once_and_denoised_as_a_job(slow: httpx.Client) -> None:
    began = time.monotonic()
    data = io.BytesIO()
    Image.fromarray(noisy(times=30)).save(data, "JPEG", quality=80)  # 15 million pixels
    told = problem(slow.post(f"{API}/denoise", files={"image": data.getvalue()}), 413, "too-slow")
    assert time.monotonic() - began < 10
    assert re.match(
        r"this would take about \d+ s, and a request may take 30 s; send it as a job", told["detail"]
    )
    job = slow.post(f"{API}/denoise?job=1", files={"image": ("large.jpg", data.getvalue())})
    assert job.status_code == 202
    where = job.headers["location"]
    problem(slow.get(f"{where}/image"), 409, "job-not-done")
    while not (now := slow.get(where).json())["done"]:
        assert now["state"] in ("queued", "running")
        time.sleep(0.05)
    assert (now["unit"], now["current"], now["state"]) == ("tiles", "large.jpg", "running")
    assert (now["total"], now["source"], now["collection"]) == (3 * 3 + 6 * 6, None, None)
    assert slow.delete(where).json()["state"] == "cancelling"
    while (now := slow.get(where).json())["ended"] is None:
        time.sleep(0.05)
    assert (now["state"], now["report"], now["problem"]) == ("cancelled", None, None)
    assert now["done"] < now["total"]
    problem(slow.get(f"{where}/image"), 409, "job-not-done")


@pytest.mark.parametrize("kind", ["large", "clean", "alpha"])
def test_a_job_makes_the_image_that_a_request_makes(client: httpx.Client, kind: str) -> None:
    files = {"image": written(kind)}
    asked = client.post(f"{API}/denoise", files=files, headers={"Accept": "image/png"})
    (about,) = client.post(f"{API}/denoise", files=files).json()["images"]
    job = client.post(f"{API}/denoise", params={"job": "1"}, files=files).json()
    with client.stream("GET", f"{API}/jobs/{job['id']}", headers={"Accept": "text/event-stream"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == client.get(f"{API}/jobs/{job['id']}").json()
    assert events[-1]["state"] == "done"
    assert events[-1]["done"] == events[-1]["total"]
    report = events[-1]["report"]
    assert (report["name"], report["status"], report["sigma"]) == (
        files["image"][0], about["status"], about["sigma"]
    )  # fmt: skip
    image = client.get(f"{API}/jobs/{job['id']}/image")
    assert image.headers["content-type"] == "image/png"
    assert image.content == asked.content == base64.b64decode(about["image"])


def test_a_job_denoises_more_pixels_than_a_request_and_one_image(client: httpx.Client) -> None:
    out = io.BytesIO()
    Image.new("L", (5000, 4000), 90).save(out, "PNG")
    asked = {"model": "box", "images": [as_text(out.getvalue())]}
    said = problem(client.post(f"{API}/denoise", json=asked), 413, "image-too-large")
    assert "?job=1" in said["detail"]
    job = client.post(f"{API}/denoise", params={"job": "1"}, json=asked).json()
    while (now := client.get(f"{API}/jobs/{job['id']}").json())["ended"] is None:
        time.sleep(0.05)
    assert (now["state"], now["problem"]) == ("done", None)
    both = client.post(
        f"{API}/denoise", params={"job": "1"}, json={"model": "box", "images": [as_text(photograph(4))] * 2}
    )
    assert problem(both, 422, "invalid-request")["detail"].startswith("send one image for a job")
    bad = {"model": "box", "images": [as_text(b"no picture")]}
    problem(client.post(f"{API}/denoise", params={"job": "1"}, json=bad), 422, "image-unreadable")


# Queries and edits


@pytest.fixture(scope="module")
def noisy_home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody holds, and noisy.png beside it."""
    home = make_home(tmp_path_factory.mktemp("noisy"), tiny_model)
    Image.fromarray(noisy(sigma=40)).save(home / "noisy.png")
    return home


@pytest.mark.parametrize("name", ["noisy.png", "me.jpg"])
def test_a_search_cleans_as_the_command_does(noisy_home: Path, tiny_model: Path, name: str) -> None:
    words = ["search", name, "--collection", NAME, "--json"]
    cleaned = json.loads(lookalike(*words, "--denoise", cwd=noisy_home).stdout)
    plain = json.loads(lookalike(*words, cwd=noisy_home).stdout)
    assert (cleaned[0]["results"] != plain[0]["results"]) == (name == "noisy.png")
    for result in cleaned[0]["results"]:
        del result["file"]  # the service names no folder of its machine
    told = without_times(cleaned, ids=False)
    data = (noisy_home / name).read_bytes()
    with client_of(noisy_home, tiny_model, "denoise") as client:
        asked = {"collection": NAME, "denoise": True}
        sent = client.post(
            f"{API}/search", data={"collection": NAME, "denoise": "true"}, files={"image": (name, data)}
        )
        text = client.post(f"{API}/search", json={**asked, "images": [as_text(data)]})
        several = client.post(f"{API}/search", json={**asked, "images": [as_text(data)] * 2})
    assert without_times(sent.json()["answers"], ids=True) == told
    assert without_times(text.json()["answers"], ids=True) == told
    assert without_times(several.json()["answers"], ids=True) == told * 2
    treatment = told[0]["treatment"]
    assert (treatment["denoiser"], treatment["cleaned"]) == ("denoise", name == "noisy.png")


def test_an_item_is_cleaned_by_its_picture(home: Path, client: httpx.Client) -> None:
    files = {"image": ("x.jpg", photograph(4))}
    found = client.post(f"{API}/search", data={"collection": NAME}, files=files).json()
    item = found["answers"][0]["results"][0]["id"]
    asked = {"collection": NAME, "item": item, "denoise": True, "denoise_model": "box"}
    (answer,) = client.post(f"{API}/search", json=asked).json()["answers"]
    assert answer["treatment"]["denoiser"] == "box"
    (by_picture,) = client.post(
        f"{API}/search",
        data={"collection": NAME, "denoise": "true", "denoise_model": "box", "exclude_self": "true"},
        files=files,
    ).json()["answers"]
    assert answer["results"] == by_picture["results"]


def test_the_wrong_kind_of_model_is_told_wherever_one_is_named(client: httpx.Client) -> None:
    text = [as_text(photograph(4))]
    asked: dict[str, dict[str, Any]] = {
        "reconstruct": {"images": text},
        "interpolate": {"images": text * 2},
        "edit": {"images": text, "add": ["Smiling=1"]},
        "generate": {},
        "index": {"source": "/", "collection": "x"},
    }
    for path, values in asked.items():
        response = client.post(f"{API}/{path}", json={"model": "denoise", **values})
        said = problem(response, 422, "model-kind")["detail"]
        assert (
            said
            == "model denoise is a denoiser and has no latents; models with latents: tiny, digits, taught"
        )
    body = {"collection": NAME, "images": text, "denoise": True}
    for name in ("digits", "taught"):
        response = client.post(f"{API}/search", json={**body, "denoise_model": name})
        said = problem(response, 422, "model-kind")["detail"]
        assert said == f"model {name} is not a denoiser; denoisers: denoise, box"
    problem(client.post(f"{API}/search", json={**body, "denoise_model": "none"}), 404, "model-not-found")


def test_an_edit_of_an_item_is_that_of_its_picture(tmp_path: Path) -> None:
    home = make_home(tmp_path, Path("faces"))
    Image.fromarray(noisy(5, sigma=40)).save(home / "photos" / "noisy.png")
    with client_of(home, Path("faces"), "denoise") as client:
        body = {"source": str(home / "photos"), "collection": "wide", "model": "faces", "crop": "full"}
        job = client.post(f"{API}/index", json=body).json()
        while client.get(f"{API}/jobs/{job['id']}").json()["ended"] is None:
            time.sleep(0.05)
        for collection, file, clean in (
            (NAME, home / "me.jpg", False),
            ("wide", home / "me.jpg", False),
            ("wide", home / "photos" / "noisy.png", True),
        ):
            data = file.read_bytes()
            found = client.post(f"{API}/search", data={"collection": collection}, files={"image": data})
            item = found.json()["answers"][0]["results"][0]["id"]
            asked = {"model": "faces", "add": ["Smiling=2"], "steps": "0:1:2", "denoise": clean}
            of_item = client.post(f"{API}/edit", json={**asked, "item": item, "collection": collection})
            crop = {"crop": "full"} if collection == "wide" else {}
            of_file = client.post(f"{API}/edit", json={**asked, **crop, "images": [as_text(data)]})
            assert of_item.status_code == 200, of_item.text
            assert of_item.json() == of_file.json()
            plain = client.post(
                f"{API}/edit", json={**asked, **crop, "images": [as_text(data)], "denoise": False}
            )
            assert (plain.json() == of_file.json()) != clean
        for wrong in ({"item": item}, {"collection": NAME}, {}):
            problem(client.post(f"{API}/edit", json={**asked, **wrong}), 422, "invalid-request")
        both = {**asked, "item": item, "collection": "wide", "images": [as_text(data)]}
        problem(client.post(f"{API}/edit", json=both), 422, "invalid-request")
        nobody = {**asked, "item": "5d0cba5c-7e94-5e8c-b9cb-5b9a0b2a5b5e", "collection": "wide"}
        problem(client.post(f"{API}/edit", json=nobody), 404, "item-not-found")


# What is there


def test_denoisers_are_listed_beside_models(client: httpx.Client) -> None:
    models = {each["name"]: each for each in client.get(f"{API}/models").json()["models"]}
    assert {name: each["kind"] for name, each in models.items()} == {
        "tiny": "ae", "digits": "cvae", "taught": "vae", "denoise": "denoiser", "box": "denoiser"
    }  # fmt: skip
    assert {name for name, each in models.items() if each["cleans"]} == {"denoise", "box", "taught"}
    assert models["denoise"]["sigma"] == [0, 75]
    assert models["denoise"]["latent"] is models["denoise"]["size"] is models["taught"]["sigma"] is None
    assert not models["denoise"]["draws"]
    assert set(client.get("/readyz").json()["providers"]) == set(models)
    client.post(f"{API}/denoise", data={"model": "box"}, files={"image": photograph(4)})
    assert 'lookalike_step_seconds_count{step="denoise"}' in client.get("/metrics").text


def test_shipped_denoisers_are_served_where_no_model_is_named(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        registry = ModelRegistry(store, timer=lambda _: nullcontext())
        registry.open_models((), provider="cpu")
        assert set(registry.denoisers) == {"denoise", "denoise-digits"}
        assert set(registry.models) == {"faces", "digits", "digits-vae"}
