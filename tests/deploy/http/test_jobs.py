"""Folders indexed through the service: allowed ones, with progress, ended when asked; nothing is lost."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.jobs import Cancelled, Job, Jobs
from lookalike.deploy.http.routes.jobs import JobJson
from lookalike.deploy.http.settings import MAX_DECODING_PIXELS
from lookalike.encoder.embed import workers
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import DECODING
from lookalike.indexer.open import open_store
from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, make_home, photograph, write_many, write_photos
from tests.fixtures.service import API, Running, client_of, problem, running

MANY: Final = 2500
"""Images of a job that is ended on the way: a batch of 1,024 is stored before the next begins."""


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait until a job has ended."""
    for _ in range(1200):
        now: dict[str, Any] = client.get(f"{API}/jobs/{job['id']}").json()
        if now["ended"] is not None:
            return now
        time.sleep(0.05)
    raise AssertionError(f"the job goes on: {now}")


def begun(client: httpx.Client, source: Path | str, model: Path, **more: Any) -> dict[str, Any]:
    body = {"source": str(source), "collection": "new", "model": model.name, **more}
    response = client.post(f"{API}/index", json=body)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{API}/jobs/{job['id']}"
    return job


def test_a_folder_is_indexed_and_searched_as_by_the_command(
    client: httpx.Client, home: Path, tiny_model: Path
) -> None:
    write_photos(home / "more")
    (home / "more" / "bad.jpg").write_bytes(b"no picture")
    job = ended(client, begun(client, home / "more", tiny_model))
    assert (job["state"], job["total"], job["done"], job["problem"]) == ("done", 10, 10, None)
    assert (job["report"]["added"], len(job["report"]["failed"])) == (9, 1)
    found = client.post(f"{API}/search", data={"collection": "new"}, files={"image": photograph(2)}).json()
    best = found["answers"][0]["results"][0]
    assert (best["path"], best["payload"]["root"]) == ("Ada_Lovelace/2.jpg", "more")
    again = ended(client, begun(client, home / "more", tiny_model))
    assert (again["report"]["added"], again["report"]["unchanged"]) == (0, 9)
    (home / "more" / "Ada_Lovelace" / "2.jpg").unlink()
    pruned = ended(client, begun(client, home / "more", tiny_model, prune=True))
    assert (pruned["report"]["missing"], pruned["report"]["pruned"]) == (1, True)
    assert [each["id"] for each in client.get(f"{API}/jobs").json()["jobs"]][-1] == pruned["id"]


@pytest.mark.parametrize(
    "source",
    ["/etc", "/", "photos", "../..", "HOME/..", "HOME/photos/../..", "HOME/link", "HOME/nothing", "\0"],
)
def test_other_folders_may_not_be_indexed_and_nothing_is_told_of_them(
    client: httpx.Client, home: Path, tiny_model: Path, source: str
) -> None:
    (home / "link").unlink(missing_ok=True)
    (home / "link").symlink_to("/etc")
    body = {
        "source": source.replace("HOME", str(home)),
        "collection": "other",
        "model": tiny_model.name,
    }
    told = problem(client.post(f"{API}/index", json=body), 403, "folder-not-allowed")
    assert "is in no folder that may be indexed" in told["detail"]


@pytest.mark.parametrize("source", ["NAME", "NAME/photos", "NAME/./photos", "NAME/photos/Hypatia/0.jpg"])
def test_a_folder_may_be_named_as_the_service_names_it(
    client: httpx.Client, home: Path, tiny_model: Path, source: str
) -> None:
    given = source.replace("NAME", home.name)
    job = ended(client, begun(client, given, tiny_model, collection=f"c{len(source)}"))
    assert (job["state"], job["source"]) == ("done", given.replace("/./", "/"))


def test_a_job_tells_what_failed_and_when_without_the_folders_of_the_service(
    client: httpx.Client, home: Path, tiny_model: Path
) -> None:
    write_photos(home / "some" / "below")
    for name in ("bad.jpg", "worse.png"):
        (home / "some" / "below" / name).write_bytes(b"no picture")
    before = datetime.now(UTC)
    job = ended(client, begun(client, home / "some", tiny_model, collection="some"))
    assert job.keys() == JobJson.model_fields.keys()
    assert (job["kind"], job["unit"], job["state"]) == ("index", "images", "done")
    assert (job["collection"], job["source"]) == ("some", f"{home.name}/some")
    assert (job["done"], job["total"], job["failed"]) == (11, 11, 2)
    assert job["rate"] > 0
    assert job["current"].startswith("below/")
    assert {each["path"] for each in job["failures"]} == {"below/bad.jpg", "below/worse.png"}
    for each in job["failures"]:
        assert each["error"].startswith("not an image in a supported format")
    assert {each["path"] for each in job["report"]["failed"]} == {"below/bad.jpg", "below/worse.png"}
    assert str(home.parent) not in json.dumps(job)
    times = [datetime.fromisoformat(job[name]) for name in ("created", "started", "ended")]
    assert before - timedelta(seconds=1) <= times[0] <= times[1] <= times[2] <= datetime.now(UTC)


def events_of(client: httpx.Client, path: str) -> list[tuple[float, dict[str, Any]]]:
    """All events, each with the time at which it came."""
    with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [
            (time.monotonic(), json.loads(line.removeprefix("data: ")))
            for line in response.iter_lines()
            if line.startswith("data: ")
        ]


def test_progress_comes_by_itself_batch_by_batch_and_ends_with_the_job(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = workers.embed_batch

    def slowly(*args: Any, **more: Any) -> Any:
        time.sleep(0.35)  # as large photographs take
        return embed(*args, **more)

    monkeypatch.setattr(workers, "embed_batch", slowly)
    home = make_home(tmp_path, tiny_model)
    write_many(tmp_path / "many", 640)
    with client_of(home, tiny_model) as client:
        job = begun(client, tmp_path / "many", tiny_model)
        events = events_of(client, f"{API}/jobs/{job['id']}")
        (listed,) = [each["jobs"] for _, each in events_of(client, f"{API}/jobs")]
        assert listed == [client.get(f"{API}/jobs/{job['id']}").json()] == [events[-1][1]]
        states = [each["state"] for _, each in events]
        assert states == sorted(states, key=["queued", "running", "done"].index)
        done = [each["done"] for _, each in events]
        assert done == sorted(done)
        assert len(set(done)) >= 3
        assert all(each % 64 == 0 for each in done)
        arrived = [at for at, _ in events]
        # On a busy machine one may arrive late, and the next one on time.
        assert arrived[-2] - arrived[0] > 0.2 * (len(arrived) - 2)
        # Nobody has to wait for all of a job that was cancelled.
        job = begun(client, tmp_path / "many", tiny_model, collection="other")
        while not client.get(f"{API}/jobs/{job['id']}").json()["done"]:
            time.sleep(0.01)
        began = time.monotonic()
        assert client.delete(f"{API}/jobs/{job['id']}").json()["state"] == "cancelling"
        now = ended(client, job)
        assert time.monotonic() - began < 3
        assert (now["state"], now["done"] < 640) == ("cancelled", True)


def test_a_job_that_waits_is_cancelled_at_once_and_kinds_do_not_wait_for_each_other() -> None:
    jobs, go = Jobs(), threading.Event()

    def work(job: Job) -> dict[str, Any]:
        go.wait(10)
        return {}

    first, second = jobs.start(Job("index"), work), jobs.start(Job("index"), work)
    assert jobs.cancel(second.id).state == "cancelled"
    assert second.to_json()["ended"] is not None
    quick = jobs.start(Job("denoise"), lambda job: {})
    while not quick.over:
        time.sleep(0.001)
    assert not first.over
    go.set()
    jobs.close()
    assert (first.state, second.state, quick.state) == ("done", "cancelled", "done")


def test_images_of_jobs_are_kept_within_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.deploy.http.jobs._KEPT_BYTES", 10)
    jobs = Jobs()

    def made(data: bytes) -> Job:
        def work(job: Job) -> dict[str, Any]:
            jobs.keep_image(job, data)
            return {}

        job = jobs.start(Job("denoise"), work)
        while not job.over:
            time.sleep(0.001)
        return job

    small = [made(bytes([number]) * 4) for number in range(3)]
    kept = []
    for job in small:
        with contextlib.suppress(ApiError):
            kept.append(jobs.image(job.id))
    assert kept == [b"\1" * 4, b"\2" * 4]
    large = made(b"x" * 20)  # the newest is kept however large it is
    assert jobs.image(large.id) == b"x" * 20
    with pytest.raises(ApiError) as refused:
        jobs.image(small[2].id)
    assert refused.value.code == "job-image-gone"
    jobs.close()


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"collection": "a/b"}, 422, "invalid-request"),
        ({"model": "nowhere"}, 404, "model-not-found"),
        ({"crop": "middle"}, 422, "invalid-request"),
        ({"source": ""}, 422, "invalid-request"),
        ({"prune": "yes"}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_indexed_is_told_at_once(
    client: httpx.Client, home: Path, tiny_model: Path, more: dict[str, Any], status: int, code: str
) -> None:
    body = {"source": str(home / "photos"), "collection": "x", "model": tiny_model.name, **more}
    problem(client.post(f"{API}/index", json=body), status, code)


def test_a_job_that_fails_says_why(client: httpx.Client, home: Path) -> None:
    body = {"source": str(home / "photos"), "collection": NAME, "model": "digits"}
    job = ended(client, client.post(f"{API}/index", json=body).json())
    assert (job["state"], job["problem"]["code"]) == ("failed", "model-mismatch")
    problem(client.delete(f"{API}/jobs/{job['id']}"), 409, "job-ended")


def test_a_cancelled_job_keeps_what_it_has_stored(tmp_path: Path, tiny_model: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    write_many(tmp_path / "many", MANY)
    with client_of(home, tiny_model) as client:
        job = begun(client, tmp_path / "many", tiny_model)
        while not client.get(f"{API}/jobs/{job['id']}").json()["done"]:
            time.sleep(0.01)
        assert client.delete(f"{API}/jobs/{job['id']}").status_code == 202
        now = ended(client, job)
        assert now["state"] == "cancelled"
        assert 0 < now["done"] < now["total"] == MANY
        rest = ended(client, begun(client, tmp_path / "many", tiny_model))
        assert rest["report"]["unchanged"] >= now["done"]
        assert rest["report"]["unchanged"] + rest["report"]["added"] == MANY


@contextlib.contextmanager
def decoding_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The pixels of each image that this process decodes within its budget."""
    acquire, counted = DECODING.acquire, list[int]()

    @contextlib.contextmanager
    def counting() -> Iterator[Callable[[int], None]]:
        with acquire() as wait_for:

            def wait(pixels: int) -> None:
                wait_for(pixels)
                counted.append(pixels)

            yield wait

    with monkeypatch.context() as patch:
        patch.setattr(DECODING, "acquire", counting)
        yield counted


@pytest.mark.parametrize("faces", [False, True])
def test_the_images_of_a_large_job_count_within_the_budget(
    tmp_path: Path, tiny_model: Path, faces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 2,048 images on they could be decoded by other processes; here from 4 on."""
    home = make_home(tmp_path, tiny_model)
    monkeypatch.setattr("lookalike.encoder.embed.pipeline.PROCESSES_FROM", 4)
    with client_of(home, tiny_model, "faces") as client, decoding_counted(monkeypatch) as counted:
        model = Path("faces") if faces else tiny_model
        job = ended(client, begun(client, home / "photos", model, faces=faces))
        assert (job["state"], job["done"]) == ("done", 9)
    assert len(counted) == 9
    assert (DECODING.limit, DECODING._used) == (MAX_DECODING_PIXELS, 0)


def loaded(service: Running, stop: threading.Event, home: Path) -> None:
    """Search until it is killed."""
    with service.client() as client:
        while not stop.is_set():
            try:
                client.post(f"{API}/search", data={"collection": NAME}, files={"image": photograph(1)})
            except httpx.HTTPError:
                return


@pytest.mark.slow
def test_killed_under_load_it_loses_nothing_that_it_said_was_stored(tmp_path: Path, tiny_model: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    write_many(tmp_path / "many", MANY)
    stop = threading.Event()
    with running(home, tiny_model) as service, service.client() as client:
        searchers = [threading.Thread(target=loaded, args=[service, stop, home]) for _ in range(2)]
        for thread in searchers:
            thread.start()
        job = begun(client, tmp_path / "many", tiny_model)
        done = 0
        while not done:
            done = client.get(f"{API}/jobs/{job['id']}").json()["done"]
            time.sleep(0.01)
        service.stop(signal.SIGKILL)
        stop.set()
        for thread in searchers:
            thread.join()
    with open_store(str(home / ".lookalike")) as store:
        stored = store.count("new")
        assert 0 < done <= stored <= MANY
        assert store.count(NAME) == 9
    words = ["index", "many", "--collection", "new", "--model", str(tiny_model), "--json"]
    rest = json.loads(lookalike(*words, cwd=home).stdout)
    assert (rest["unchanged"], rest["added"]) == (stored, MANY - stored)


def test_told_to_end_it_ends_its_job_and_keeps_what_that_stored(tmp_path: Path, tiny_model: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    write_many(tmp_path / "many", MANY)
    with running(home, tiny_model) as service, service.client() as client:
        begun(client, tmp_path / "many", tiny_model)
        while not client.get(f"{API}/jobs").json()["jobs"][0]["done"]:
            time.sleep(0.01)
        service.stop()
        events = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    (job,) = [event for event in events if event["event"] == "job ended"]
    assert job["state"] == "cancelled"
    with open_store(str(home / ".lookalike")) as store:
        assert store.count("new") >= job["done"] > 0


def test_jobs_run_one_after_the_other_and_old_ones_are_forgotten() -> None:
    jobs, running_now, most = Jobs(), [0], [0]
    lock = threading.Lock()

    def work(job: Job) -> dict[str, Any]:
        with lock:
            running_now[0] += 1
            most[0] = max(most[0], running_now[0])
        time.sleep(0.001)
        with lock:
            running_now[0] -= 1
        return {}

    first = jobs.start(Job("index"), work)
    for _ in range(150):
        while jobs.open > 5:
            time.sleep(0.001)
        jobs.start(Job("index"), work)
    jobs.close()
    assert most == [1]
    assert len(jobs.all()) <= 101 + 8
    with pytest.raises(ApiError) as refused:
        jobs.get(first.id)
    assert refused.value.code == "job-not-found"


def test_too_many_jobs_wait_no_longer_than_told() -> None:
    jobs, go = Jobs(), threading.Event()

    def work(job: Job) -> dict[str, Any]:
        go.wait(10)
        job.on_progress(1)
        return {"done": True}

    started = [jobs.start(Job("index"), work) for _ in range(9)]
    with pytest.raises(ApiError) as refused:
        jobs.start(Job("index"), work)
    assert refused.value.code == "busy"
    jobs.cancel(started[-1].id)
    go.set()
    jobs.close()
    assert started[-1].state == "cancelled"
    with pytest.raises(Cancelled):
        started[-1].check_cancelled()


def test_what_a_job_raises_is_told_as_a_problem() -> None:
    jobs, running = Jobs(), threading.Event()

    def work(job: Job) -> dict[str, Any]:
        running.set()
        raise ImageError("this is no picture")

    job = jobs.start(Job("index"), work)
    assert running.wait(10)  # closing would cancel it while it waits
    jobs.close()
    told = job.to_json()
    assert (told["state"], told["kind"], told["problem"]["code"]) == ("failed", "index", "image-unreadable")
