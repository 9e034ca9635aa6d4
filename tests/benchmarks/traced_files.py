"""``python -m tests.benchmarks.traced_files VERB ...``: the product's files that one command enters.

A file counts when one of its functions is called; importing it, with its class bodies, does not count. Files
that only child processes of the command enter are not seen.
"""

import inspect
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

from lookalike.deploy.cli.main import main

ROOT: Final = Path(__file__).parents[2]
COMPREHENSIONS: Final = ("<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>")
ROOMS: Final = ("encoder", "trainer", "indexer", "searcher", "deploy")


def traced(argv: list[str]) -> list[str]:
    """Run a command and return the files it entered, sorted, relative to the repository."""
    entered: set[str] = set()

    def enter(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        function = code.co_flags & inspect.CO_OPTIMIZED and code.co_name not in COMPREHENSIONS
        if event == "call" and function:  # not the body of a module or class
            entered.add(code.co_filename)

    sys.argv = ["lookalike", *argv]
    threading.setprofile(enter)
    sys.setprofile(enter)
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.setprofile(None)
    if code:
        raise SystemExit(code)
    files = {Path(name).resolve() for name in entered}
    files = {file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT)}
    return sorted(str(file) for file in files if file.parts[0] in ROOMS)


if __name__ == "__main__":
    files = traced(sys.argv[1:])
    sys.stderr.write("\n".join((*files, f"{len(files)} files")) + "\n")
