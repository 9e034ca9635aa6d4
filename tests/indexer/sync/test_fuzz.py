"""Real pictures mutated at random: indexing them neither crashes nor hangs and loses no good neighbour."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, cuttings, index, photograph, stored

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 85}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}
EACH = 40


def written(kind: str, number: int) -> bytes:
    form, options = KINDS[kind]
    out = io.BytesIO()
    Image.fromarray(cuttings()[number]).save(out, form, **options)
    return out.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut out, double or swap bytes, once to four times; half of it where the header is."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = max(2, min(len(changed), rng.choice([64, 512, len(changed)])))
        at, length = rng.randrange(reach), rng.choice([1, 4, 100, 4000])
        match rng.choice(["flip", "set", "cut", "remove", "double", "swap"]):
            case "flip":
                changed[at : at + 1] = bytes([(changed[at : at + 1] or b"\0")[0] ^ 1 << rng.randrange(8)])
            case "set":
                changed[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", rng.randbytes(4)])
            case "cut":
                del changed[max(1, len(changed) - at) :]
            case "remove":
                del changed[at : at + length]
            case "double":
                changed[at:at] = changed[at : at + length] * rng.choice([1, 2, 50])
            case _:
                other = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + length]
    return bytes(changed)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_mutated_pictures_crash_nothing_and_cost_no_neighbour(
    tiny_model: Path, tmp_path: Path, seed: int
) -> None:
    rng, folder, good = random.Random(seed), tmp_path / "photos", tmp_path / "good" / "photos"
    folder.mkdir()
    good.mkdir(parents=True)
    for number in range(EACH):
        for kind in KINDS:
            data = mutated(written(kind, number % 16), rng)
            (folder / f"{number:03d}.{kind}").write_bytes(data)
        name = f"{number:03d}-good.jpg"  # among the others of its number
        (good / name).write_bytes(photograph(number % 16))
        (folder / name).hardlink_to(good / name)
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME, "--json"]
    done = lookalike(*words, "--report", "out.jsonl", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    report = json.loads(done.stdout)
    failed = {Path(each["path"]).name for each in report["failed"]}
    assert report["added"] + len(failed) == EACH * (len(KINDS) + 1)
    assert not any("good" in name for name in failed)
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {Path(event["path"]).name for event in events} == failed
    for kind in KINDS:
        names = [name for name in failed if name.split(".", 1)[1] == kind]
        assert 0 < len(names) <= EACH, kind
    again = json.loads(lookalike(*words, cwd=tmp_path).stdout)
    assert (again["added"], again["unchanged"]) == (0, report["added"])
    assert {Path(each["path"]).name for each in again["failed"]} == failed
    with open_store(str(tmp_path / ".lookalike")) as store, open_store(str(tmp_path / "clean")) as clean:
        index(clean, Model.open(tiny_model, threads=1), good)
        alone, together = stored(clean), stored(store)
        rows = [list(together.payloads).index(point) for point in alone.payloads]
        assert [together.payloads[point] for point in alone.payloads] == list(alone.payloads.values())
        assert abs(together.vectors[rows] - alone.vectors).max() <= 1e-5
