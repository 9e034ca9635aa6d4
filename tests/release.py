"""`make release`: what strangers install, tried as they do: in an empty environment, without this checkout.

The wheel and the source distribution are built and looked through; the wheel alone is installed into a new
environment of each supported Python that is here, where the main jobs run in an empty folder. Beside them in
the folder lie SHA-256 sums, the list of all parts in CycloneDX form (SBOM), and a card of each model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
SUPPORTED: Final = sorted(
    (3, int(minor))
    for each in PROJECT["classifiers"]
    for minor in re.findall(r"^Programming Language :: Python :: 3\.(\d+)$", each)
)
SUMS: Final = "SHA256SUMS"
JOBS: Final = (
    "--version",
    "models",
    "generate --count 12 --seed 1 --out photos/",
    "index photos/ --crop full --collection family",
    "search photos/03.png --crop full --collection family --count 3 --exclude-self --sheet hits.png",
    "compare photos/03.png photos/03.png --crop full",
    "duplicates --collection family",
    "cluster --collection family --threshold 0.2 --sheet groups.png",
    "map --collection family --out map.html",
    "edit photos/03.png --crop full --add Smiling=2 --out smile.png",
    "reconstruct photos/03.png --crop full --out kept.png",
    "denoise photos/ --out clean/",
    "models card faces",
    "collections verify family",
)
"""What a newcomer does, in this order, in an empty folder."""
IMPORTED: Final = """
import sys, lookalike as la
store = la.open_store(".lookalike")
assert len(la.Searcher(store, "family").search("photos/03.png", crop="full", k=3)) == 3
store.close()
assert "torch" not in sys.modules
assert la.__version__ == sys.argv[1], la.__version__
"""


def run(*words: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Return what a program prints; end with its whole output where it fails."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def pythons() -> Iterator[tuple[str, Path]]:
    """Yield the supported Pythons that are here, each minor version once: its version and its program."""
    lowest = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    for major, minor in SUPPORTED:
        names = [sys.executable] if sys.version_info[:2] == (major, minor) else []
        found = shutil.which(f"python{major}.{minor}")
        for program in (*names, *([found] if found else [])):
            asked = subprocess.run(
                [program, "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
                capture_output=True,
                text=True,
                check=False,
            )
            version = asked.stdout.strip()
            if asked.returncode == 0 and tuple(map(int, version.split("."))) >= lowest:
                yield version, Path(program)
                break


def build(out: Path) -> tuple[Path, Path]:
    """Build both files, look through them, and return the source distribution and the wheel."""
    with tempfile.TemporaryDirectory() as folder:  # setuptools leaves files in what it builds
        clean = Path(folder) / "lookalike"
        listed = run("git", "ls-files", "-z").split("\0")
        for name in filter(None, listed):
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clean / name)
        run(sys.executable, "-m", "build", "--outdir", out, clean, cwd=Path(folder))
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)
    run(sys.executable, "-m", "check_wheel_contents", "--toplevel", "lookalike", wheel)
    return source, wheel


def outside() -> dict[str, str]:
    """Return an environment that knows nothing of this checkout, nor of the user's data."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOOKALIKE_"))
    }
    return {**kept, "LOOKALIKE_STORE": ".lookalike", "LOOKALIKE_MODELS": "own-models"}


def install(wheel: Path, python: Path, env: Path) -> Path:
    """Install the wheel alone into a new environment, and return its folder of programs."""
    uv = shutil.which("uv")
    programs = env / ("Scripts" if os.name == "nt" else "bin")
    if uv:
        run(uv, "venv", "--quiet", "--python", python, env)
        run(uv, "pip", "install", "--quiet", "--python", programs / "python", wheel)
    else:
        run(python, "-m", "venv", env, env=outside())
        run(
            programs / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            wheel,
            env=outside(),
        )
    return programs


def use(programs: Path, folder: Path) -> None:
    """Run the main jobs of what is installed, in an empty folder."""
    folder.mkdir()
    for job in JOBS:
        run(programs / "lookalike", *job.split(), cwd=folder, env=outside())
    run(programs / "python", "-c", IMPORTED, PROJECT["version"], cwd=folder, env=outside())


def write_cards(programs: Path, out: Path) -> None:
    """Write a card of each shipped model."""
    out.mkdir()
    for each in json.loads(run(programs / "lookalike", "models", "list", "--json", env=outside(), cwd=out)):
        card = run(programs / "lookalike", "models", "card", each["name"], env=outside(), cwd=out)
        (out / f"{each['name']}.md").write_text(card, encoding="utf-8")


def write_parts(python: Path, out: Path) -> None:
    """Write what the installed environment consists of, in CycloneDX form."""
    words = ("--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", out)
    run(sys.executable, "-m", "cyclonedx_py", "environment", *words, python)


def write_sums(out: Path) -> None:
    """Write the SHA-256 of every file, in the form that `sha256sum --check` reads."""
    files = sorted(file for file in out.rglob("*") if file.is_file())
    lines = (
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(out).as_posix()}\n"
        for file in files
    )
    (out / SUMS).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Make a release in a folder, and say what was done."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="emptied first")
    out: Path = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    found = list(pythons())
    if not found:
        sys.exit(f"no supported Python ({PROJECT['requires-python']}) is here; install one")
    source, wheel = build(out)
    for file in (source, wheel):
        print(f"built and checked {file.name}, {file.stat().st_size / 1e6:.1f} MB")  # noqa: T201  # a command
    with tempfile.TemporaryDirectory() as folder:
        for version, python in found:
            programs = install(wheel, python, Path(folder) / version)
            use(programs, Path(folder) / f"{version}-jobs")
            print(f"Python {version}: the wheel alone is installed, {len(JOBS)} jobs ran")  # noqa: T201
        write_cards(programs, out / "models")
        write_parts(programs / "python", out / f"lookalike-{PROJECT['version']}.cdx.json")
    missing = ", ".join(
        f"3.{minor}" for _, minor in SUPPORTED if f"3.{minor}" not in {v[:4] for v, _ in found}
    )
    if missing:
        print(f"not here, so not tried: Python {missing}")  # noqa: T201
    write_sums(out)
    print(f"{out}: {', '.join(sorted(each.name for each in out.iterdir()))}")  # noqa: T201


if __name__ == "__main__":
    main()
