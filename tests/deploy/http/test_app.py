"""The service answers what the commands answer, on the real store and model."""

import base64
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.command import lookalike, lookalike_process
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, KEY, client_of, collection_url, problem, running


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"k": 3, "exclude_self": True},
    {"k": 2, "crop": "full"},
    {"k": 5, "crop": "0.1,0.1,0.5,0.5"},
    {"where": "person!=Hypatia"},
    {"group_by": "person", "k": 3},
]


@pytest.fixture(scope="module")
def commands(home: Path) -> dict[int | str, Any]:
    """What the commands print, before a service holds the store."""
    printed: dict[int | str, Any] = {}
    for number, options in enumerate(OPTIONS):
        words = ["search", "me.jpg", "--collection", NAME, "--json"]
        words += ["-n", str(options.get("k", 10))]
        words += ["--exclude-self"] if options.get("exclude_self") else []
        for name in ("crop", "where", "group_by"):
            words += [f"--{name.replace('_', '-')}", options[name]] if name in options else []
        printed[number] = json.loads(lookalike(*words, cwd=home).stdout)
        for result in printed[number][0]["results"]:
            del result["file"]  # the service names no folder of its machine
    facets = lookalike("facets", "person", "--collection", NAME, "--json", cwd=home)
    printed["facets"] = json.loads(facets.stdout)
    return printed


@pytest.fixture(scope="module")
def client(home: Path, commands: dict[int | str, Any], tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def picture(number: int) -> tuple[str, bytes]:
    return f"{number}.jpg", photograph(number)


def as_text(number: int) -> str:
    return base64.b64encode(photograph(number)).decode()


def pixels(png: str | bytes) -> Any:
    data = base64.b64decode(png) if isinstance(png, str) else png
    return np.asarray(Image.open(io.BytesIO(data)))


def without_times(answers: list[dict[str, Any]], *, ids: bool) -> list[dict[str, Any]]:
    """Answers as they can be compared: a command prints no ids, names its files, and takes its time."""
    for answer in answers:
        del answer["took_ms"], answer["query"]
        for result in answer["results"]:
            assert (result.pop("id", None) is not None) == ids
            if not ids:  # a score in between may be rounded either way
                result["score"] = pytest.approx(result["score"], abs=3e-6)
    return answers


@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_search_finds_what_the_command_finds(
    client: httpx.Client, commands: dict[int | str, Any], number: int
) -> None:
    options = OPTIONS[number]
    form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    sent = client.post(f"{API}/search", data={"collection": NAME, **form}, files={"image": picture(4)})
    text = client.post(f"{API}/search", json={"collection": NAME, "images": [as_text(4)], **options})
    assert (sent.status_code, text.status_code) == (200, 200), sent.text + text.text
    want = without_times(commands[number], ids=False)
    assert without_times(sent.json()["answers"], ids=True) == want
    assert without_times(text.json()["answers"], ids=True) == want


def test_several_pictures_get_answers_in_order_and_a_bad_one_costs_no_other(client: httpx.Client) -> None:
    files = [("image", picture(1)), ("image", ("bad.jpg", b"no picture")), ("image", picture(2))]
    response = client.post(f"{API}/search", data={"collection": NAME, "k": "1"}, files=files)
    assert response.status_code == 200
    one, bad, two = response.json()["answers"]
    assert [one["query"], bad["query"], two["query"]] == ["1.jpg", "bad.jpg", "2.jpg"]
    assert one["results"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert (bad["results"], "not an image" in bad["error"]) == ([], True)
    for answer, number in ((one, 1), (two, 2)):
        (single,) = client.post(
            f"{API}/search", data={"collection": NAME, "k": "1"}, files={"image": picture(number)}
        ).json()["answers"]
        assert single["results"][0]["id"] == answer["results"][0]["id"]


def test_more_like_an_item_leaves_it_out_unless_told_otherwise(client: httpx.Client) -> None:
    found = client.post(f"{API}/search", data={"collection": NAME}, files={"image": picture(4)}).json()
    best, *others = found["answers"][0]["results"]
    asked = {"collection": NAME, "item": best["id"]}
    like = client.post(f"{API}/search", json=asked).json()["answers"][0]
    assert [each["id"] for each in like["results"]] == [each["id"] for each in others]
    assert [each["score"] for each in like["results"]] == pytest.approx(
        [each["score"] for each in others], abs=1e-4
    )
    assert like["query"] == best["path"]
    whole = client.post(f"{API}/search", json={**asked, "exclude_self": False}).json()["answers"][0]
    assert whole["results"][0]["id"] == best["id"]


def test_concurrent_searches_answer_as_single_ones_do(tiny_model: Path, tmp_path: Path) -> None:
    with client_of(make_home(tmp_path, tiny_model), tiny_model, workers=1) as client:
        body = {"collection": NAME, "k": "4"}
        alone = [
            client.post(f"{API}/search", data=body, files={"image": picture(n)}).json()["answers"]
            for n in range(8)
        ]
        found: dict[int, Any] = {}

        def ask(number: int) -> None:
            found[number] = client.post(f"{API}/search", data=body, files={"image": picture(number)}).json()

        threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(8):
        together, single = found[number]["answers"][0]["results"], alone[number][0]["results"]
        assert [each["id"] for each in together] == [each["id"] for each in single]
        scores = [each["score"] for each in single]
        assert [each["score"] for each in together] == pytest.approx(scores, abs=3e-6)


def test_reconstruct_draws_what_the_command_draws(client: httpx.Client, home: Path, tiny_model: Path) -> None:
    lookalike("reconstruct", "me.jpg", "--model", tiny_model, "--out", "kept.png", cwd=home)
    lookalike("reconstruct", "me.jpg", "--model", tiny_model, "--out", "kept/", cwd=home)
    asked: dict[str, Any] = {
        "data": {"model": tiny_model.name},
        "files": {"image": ("me.jpg", photograph(4))},
    }
    sheet = client.post(f"{API}/reconstruct", **asked, headers={"Accept": "image/png"})
    assert sheet.headers["content-type"] == "image/png"
    assert (pixels(sheet.content) == np.asarray(Image.open(home / "kept.png"))).all()
    (image,) = client.post(f"{API}/reconstruct", **asked).json()["images"]
    assert (pixels(image["reconstruction"]) == np.asarray(Image.open(home / "kept" / "me.png"))).all()
    assert image["name"] == "me.jpg"
    assert 5 < image["psnr"] < 100


def test_interpolate_draws_what_the_command_draws(client: httpx.Client, home: Path, tiny_model: Path) -> None:
    (home / "you.jpg").write_bytes(photograph(1))
    words = ["interpolate", "me.jpg", "you.jpg", "--steps", "4", "--model", str(tiny_model)]
    assert lookalike(*words, "--out", "between.png", cwd=home).returncode == 0
    files = [("image", ("me.jpg", photograph(4))), ("image", ("you.jpg", photograph(1)))]
    asked: dict[str, Any] = {"data": {"model": tiny_model.name, "steps": "4"}, "files": files}
    sheet = client.post(f"{API}/interpolate", **asked, headers={"Accept": "image/png"})
    assert (pixels(sheet.content) == np.asarray(Image.open(home / "between.png"))).all()
    rows = client.post(f"{API}/interpolate", **asked).json()["rows"]
    assert [len(row) for row in rows] == [4]
    problem(
        client.post(f"{API}/interpolate", data={"model": tiny_model.name}, files=files[:1]),
        422,
        "invalid-request",
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("-n 3 --seed 5", {"n": 3, "seed": 5}),
        ("-n 2 --class 7 --seed 1", {"n": 2, "class": "7", "seed": 1}),
        ("-n 3 --class all --temperature 0.5", {"n": 3, "class": "all", "temperature": 0.5}),
        ("-n 2 --sampler gmm", {"n": 2, "sampler": "gmm"}),
    ],
)
def test_generate_draws_what_the_command_draws(
    client: httpx.Client, tmp_path: Path, words: str, asked: dict[str, Any]
) -> None:
    done = lookalike("generate", "--model", "digits", *words.split(), "--out", "new.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sheet = client.post(f"{API}/generate", json={"model": "digits", **asked}, headers={"Accept": "image/png"})
    assert (pixels(sheet.content) == np.asarray(Image.open(tmp_path / "new.png"))).all()
    found = client.post(f"{API}/generate", json={"model": "digits", **asked}).json()
    columns = 10 if asked.get("class") == "all" else asked["n"]
    assert {len(row) for row in found["rows"]} == {columns}
    assert len(found["classes"]) == columns
    assert pixels(found["rows"][0][0]).shape == (28, 28)


def test_values_are_counted_as_the_command_counts(
    client: httpx.Client, commands: dict[int | str, Any]
) -> None:
    told = client.get(collection_url("facets", field="person")).json()
    assert told == {"field": "person", "values": commands["facets"]}
    some = client.get(collection_url("facets", where="person=Hypatia")).json()
    assert some["values"] == [{"value": "Hypatia", "count": 3}]
    problem(client.get(collection_url("facets", where="person")), 422, "invalid-request")
    problem(client.get(collection_url("facets", where="persn=Bill")), 422, "invalid-request")
    problem(client.get(collection_url("facets", where="a\\b=1")), 422, "invalid-request")


def test_edit_draws_what_the_command_draws(tiny_model: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    words = ["edit", "me.jpg", "--model", "faces", "--add", "Smiling=2", "--steps", "-1:1:3"]
    done = lookalike(*words, "--out", "edited/", cwd=home)
    assert done.returncode == 0, done.stderr
    with client_of(home, Path("faces")) as client:
        asked = {"model": "faces", "images": [as_text(4)], "add": ["Smiling=2"], "steps": "-1:1:3"}
        told = client.post(f"{API}/edit", json=asked)
        assert told.json()["steps"] == [-1, 0, 1]
        form = client.post(
            f"{API}/edit",
            data={"model": "faces", "add": ["Smiling=2"], "steps": "-1:1:3"},
            files={"image": ("me.jpg", photograph(4))},
        )
        assert form.json() == told.json()
        for file, text in zip(sorted((home / "edited").iterdir()), told.json()["rows"][0], strict=True):
            assert (pixels(text) == np.asarray(Image.open(file))).all()
        for wrong in (["Smilling=1"], ["Smiling=x"], []):
            problem(client.post(f"{API}/edit", json={**asked, "add": wrong}), 422, "invalid-request")
        models = {each["name"]: each for each in client.get(f"{API}/models").json()["models"]}
        assert "Smiling" in models["faces"]["attributes"]


def test_what_is_there(client: httpx.Client, tiny_model: Path) -> None:
    (collection,) = client.get(f"{API}/collections").json()["collections"]
    assert (collection["name"], collection["count"], collection["model"]) == (NAME, 9, tiny_model.name)
    assert collection["roots"] == ["photos"]  # and not where that is
    assert collection["index"]["search"] == "exact"
    models = {each["name"]: each for each in client.get(f"{API}/models").json()["models"]}
    assert models.keys() == {tiny_model.name, "digits"}
    assert models["digits"]["classes"] == list("0123456789")
    assert models["digits"]["draws"]
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert set(ready["providers"].values()) == {"CPUExecutionProvider"}
    assert client.get(f"{API}/problems").json()["busy"]["status"] == 503


def test_the_numbers_for_prometheus_say_where_time_goes(client: httpx.Client) -> None:
    client.post(f"{API}/search", data={"collection": NAME}, files={"image": picture(4)})
    client.post(f"{API}/generate", json={"model": "digits", "n": 1})
    told = client.get("/metrics").text
    for step in ("wait", "embed", "search", "draw"):
        assert f'lookalike_step_seconds_count{{step="{step}"}}' in told
    assert 'lookalike_requests_total{method="POST",route="/api/v1/search",status="200"}' in told
    assert "lookalike_waiting 0.0" in told


def test_a_random_item_is_one_that_is_there(client: httpx.Client) -> None:
    drawn = client.get(collection_url("items/random")).json()
    shown = client.get(collection_url(f"items/{drawn['id']}")).json()
    assert shown == drawn
    assert drawn["payload"]["root"] == "photos"


def test_the_description_is_whole_and_has_examples(client: httpx.Client) -> None:
    told = client.get(f"{API}/openapi.json").json()
    assert told["info"]["title"] == "lookalike"
    posts = [path for path, ways in told["paths"].items() if "post" in ways]
    assert {
        f"{API}/{verb}"
        for verb in ("search", "reconstruct", "generate", "interpolate", "edit", "denoise", "faces", "index")
    } <= set(posts)
    for path in posts:
        content = told["paths"][path]["post"]["requestBody"]["content"]
        assert "example" in content["application/json"], path
        assert told["paths"][path]["post"]["responses"].keys() >= {"400", "413", "415", "422", "503"}


def test_the_process_serves_without_torch_and_ends_with_what_it_has_begun(
    tiny_model: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", tiny_model)
    with running(home, tiny_model) as service, service.client() as client:
        answer = client.post(f"{API}/search", data={"collection": NAME}, files={"image": picture(4)})
        assert answer.status_code == 200
        maps = Path(f"/proc/{service.process.pid}/maps")
        if maps.exists():
            assert "torch" not in maps.read_text()
        asked = threading.Event()
        found: list[int] = []

        def ask() -> None:
            with service.client() as other:
                asked.set()
                body = {"model": "digits", "n": 10, "class": "all"}
                found.append(other.post(f"{API}/generate", json=body).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        asked.wait(10)
        assert service.stop() in (0, -signal.SIGTERM)
        thread.join()
        assert found in ([200], [])  # [] where the signal was first
        # The store was let go whole.
        done = lookalike("search", "me.jpg", "--collection", NAME, "--json", cwd=home)
        assert done.returncode == 0, done.stderr
        lines = service.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        assert len(events) == len(lines) - 1  # beside the address
        (line,) = [event for event in events if event.get("path") == f"{API}/search"]
        assert line["status"] == 200
        assert line["request"] == answer.headers["x-request-id"]
        assert (
            events[-1]["event"] in ("ended", "Application shutdown complete.")
            or "Finished" in events[-1]["event"]
        )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--host 0.0.0.0", 2, "so an API key is needed; set LOOKALIKE_API_KEY"),
        ("--model nowhere", 1, "no model 'nowhere'"),
        ("--store http://127.0.0.1:9", 1, "no Qdrant server answers"),
        ("--host 203.0.113.9", 2, "cannot listen on"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, words: str, code: int, said: str
) -> None:
    key = {"LOOKALIKE_API_KEY": KEY} if "203" in words else {}
    environment = dict.fromkeys(("LOOKALIKE_API_KEY",), "") | key
    done = lookalike_process("serve", *words.split(), cwd=tmp_path, env={**os.environ, **environment})
    assert (done.returncode, done.stdout) == (code, "")
    line = [each for each in done.stderr.splitlines() if not each.startswith("serving on")][-1]
    assert said in line
    assert "Traceback" not in done.stderr
