"""The container images, built and run for real: a volume and /tmp can be written to, there is no network.

By docker or podman, whichever has the image that the Dockerfiles start from; `make images` builds each first,
with BUILD_ARGS. buildah alone cannot do it: it builds images, but starts none with a read-only root.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.fixtures.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SERVING: Final = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
BASE: Final = re.findall(r"(?m)^FROM (\S+)", SERVING)[-1]
HEALTHCHECK: Final[list[str]] = json.loads(re.findall(r"(?s)HEALTHCHECK .*?CMD (\[.*?\])\n", SERVING)[0])
KEY: Final = "0123456789abcdef0123456789abcdef"
CONFINED: Final = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"),
)
"""As compose.yaml and the manifests start them, and without a network."""
TMP: Final = "/tmp"  # noqa: S108  # that of the container
LOOK: Final = """
import importlib.util, json, os
from pathlib import Path

def writable(folder):
    file = Path(folder, "file")
    try:
        file.touch()
    except OSError:
        return False
    file.unlink()
    return True

print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "writable": [each for each in ("/", "/etc", "/usr/local", "/var/tmp", "/tmp", ".") if writable(each)],
    "torch": importlib.util.find_spec("torch") is not None,
}))
"""
ASK: Final = f"""
import base64, json, sys, urllib.request
from pathlib import Path

path, *searched = sys.argv[1:]
images = [base64.b64encode(Path(file).read_bytes()).decode() for file in searched]
body = {{"collection": "family", "crop": "full", "k": 3, "images": images}}
headers = {{"Authorization": "Bearer {KEY}", "Content-Type": "application/json"}}
request = urllib.request.Request(
    "http://127.0.0.1:8000" + path, json.dumps(body).encode() if searched else None, headers
)
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@dataclass(frozen=True)
class Image:
    """An image whose containers share a volume, in which they work.

    Attributes:
        engine: The program that runs it.
        name: Its name.
        places: Options that say what can be written to.
    """

    engine: str
    name: str
    places: tuple[str, ...]

    def call(self, *words: str, code: int = 0) -> str:
        """Have the engine do something, and return what the container or the engine prints."""
        done = subprocess.run(
            [self.engine, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}"
        return done.stdout

    def start(self, *words: str, options: tuple[str, ...] = (), code: int = 0) -> str:
        # podman makes some folders of a read-only root writable, unless told not to
        strict = ["--read-only-tmpfs=false"] if self.engine.endswith("podman") else []
        return self.call("run", *strict, *CONFINED, *self.places, *options, self.name, *words, code=code)

    def run(self, *words: str) -> str:
        """Run `lookalike` with these words to the end, and return what it prints."""
        return self.start(*words, options=("--rm",))

    def look(self) -> dict[str, Any]:
        """Return who runs in it, what that user can write to, and whether torch is there."""
        found: dict[str, Any] = json.loads(self.start("-c", LOOK, options=("--rm", "--entrypoint", "python")))
        return found

    @contextmanager
    def running(self, *words: str) -> Iterator[str]:
        """Start it in the background, yield the name of the container, and remove it in the end."""
        name = f"lookalike-test-{uuid.uuid4().hex}"
        try:
            self.start(*words, options=("--detach", "--name", name, "--env", f"LOOKALIKE_API_KEY={KEY}"))
            yield name
        finally:
            self.call("rm", "--force", name)

    def stop(self, name: str) -> int:
        """Send SIGTERM, and return the exit code; 137 where it had to be killed."""
        self.call("stop", "--time", "45", name)
        return int(self.call("inspect", "--format", "{{.State.ExitCode}}", name))


@pytest.fixture(scope="module")
def engine() -> str:
    for name in ("docker", "podman"):
        program = shutil.which(name)
        if program is not None:
            asked = subprocess.run(
                [program, "images", "-q", BASE], capture_output=True, text=True, check=False
            )
            if asked.stdout.strip():
                return program
    pytest.skip(f"neither docker nor podman is here with the image {BASE}; pull it to have this tested")


@pytest.fixture
def build(engine: str) -> Iterator[Callable[[str, str], Image]]:
    """Build an image; its containers work in a new volume at the given folder."""
    volume = f"lookalike-test-{uuid.uuid4().hex}"

    def build(name: str, folder: str) -> Image:
        make = ["make", "--silent", "images", f"ENGINE={engine}", f"IMAGES={name}"]
        done = subprocess.run(
            make, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        tmp = () if folder == TMP else ("--tmpfs", TMP)
        return Image(engine, name, (*tmp, "--volume", f"{volume}:{folder}"))

    yield build
    subprocess.run([engine, "volume", "rm", volume], capture_output=True, check=True)


def eventually(condition: Callable[[], bool], seconds: int = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_the_serving_image_indexes_searches_tells_its_health_and_stops(
    build: Callable[[str, str], Image],
) -> None:
    image = build("lookalike", "/data")
    assert image.look() == {"user": [10001, 10001], "writable": [TMP, "."], "torch": False}
    image.run("generate", "--count", "12", "--seed", "1", "--out", "photos/")
    assert "12 added" in image.run("index", "photos/", "--crop", "full", "--collection", "family")
    with image.running() as name:

        def healthy() -> bool:
            asked = [image.engine, "exec", name, *HEALTHCHECK]
            return subprocess.run(asked, capture_output=True, check=False).returncode == 0

        def ask(*words: str) -> dict[str, Any]:
            answer: dict[str, Any] = json.loads(image.call("exec", name, "python", "-c", ASK, *words))
            return answer

        eventually(healthy)
        assert ask("/healthz") == {"status": "ok"}
        assert ask("/readyz")["status"] == "ready"
        (answer,) = ask("/api/v1/search", "photos/03.png")["answers"]
        assert answer["results"][0]["path"] == "03.png"
        assert len(answer["results"]) == 3
        assert image.stop(name) == 0
        assert "Application shutdown complete." in image.call("logs", name)


@pytest.mark.parametrize("how", [("--shard", "1/1"), ("--engine", "ray")], ids=" ".join)
def test_the_batch_image_embeds(build: Callable[[str, str], Image], how: tuple[str, str]) -> None:
    image = build("lookalike-batch", TMP)
    assert image.look() == {"user": [10001, 10001], "writable": [TMP, "."], "torch": False}
    image.run("generate", "--count", "12", "--seed", "1", "--out", "photos/")
    image.run("embed", "photos/", "--out", "latents/", *how)
    status = json.loads(image.run("latents", "status", "latents/", "--json"))
    assert (status["rows"], status["left"]) == (12, 0)


def test_the_training_image_trains_and_is_stopped_as_by_ctrl_c(build: Callable[[str, str], Image]) -> None:
    image = build("lookalike-trainer", "/data")
    assert image.look() == {"user": [10001, 10001], "writable": [TMP, "."], "torch": True}
    image.run("generate", "--count", "64", "--seed", "1", "--out", "photos/")
    train = ("train", "ae", "--data", "photos/", "--size", "32", "--out")
    image.run(*train, "quick", "--epochs", "1")
    index = ("index", "photos/", "--model", "./quick", "--crop", "full", "--collection", "family")
    assert "64 added" in image.run(*index)
    with image.running(*train, "long", "--epochs", "100000") as name:
        eventually(lambda: "epoch" in image.call("logs", name))
        assert image.stop(name) == 130
        assert "interrupted" in image.call("logs", name)
