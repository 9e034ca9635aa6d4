"""What the site has beyond the pages in docs/: the pages of the top level, and the reference.

mkdocs calls these functions while it builds (https://www.mkdocs.org/user-guide/configuration/#hooks). The
site's pages lie as the files of the repository do, so that a link leads to the same place in both.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
BESIDE: Final = ("*.md", "NOTICE", "LICENSE", "deploy/pictures/*")
"""Files of the repository that pages show or link to."""
ROLE: Final = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")
"""What docstrings write before a name, for another tool than ours."""
COMMANDS: Final = "<!-- reference: commands -->"
PYTHON: Final = "<!-- reference: python -->"
HTTP: Final = "<!-- reference: http -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of docs/ below docs/, and those of the top level beside them and the theme's."""
    below = [
        File.generated(config, f"docs/{file.src_uri}", abs_src_path=file.abs_src_path)
        for file in files
        if file.src_dir == config.docs_dir and file.is_documentation_page()
    ]
    theme = [file for file in files if file.src_dir != config.docs_dir]
    beside = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for pattern in BESIDE
        for path in sorted(ROOT.glob(pattern))
    ]
    return Files([*below, *beside, *theme])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # mkdocs's
    """Put the reference of commands and of Python where a page asks for it."""
    return markdown.replace(COMMANDS, commands()).replace(PYTHON, python())


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # mkdocs's
    """Put the reference of the HTTP API where a page asks for it."""
    return html.replace(HTTP, http()) if HTTP in html else ROLE.sub("", html)


def commands() -> str:
    """Return what has mkdocs-click write the help of every command."""
    return (
        "::: mkdocs-click\n    :module: lookalike.deploy.cli.main\n    :command: group\n"
        "    :prog_name: lookalike\n    :depth: 2\n    :style: plain\n"
    )


def python() -> str:
    """Return what has mkdocstrings write the docstring of every public name."""
    import lookalike

    names = (name for name in lookalike.__all__ if not name.startswith("_"))
    return "\n\n".join(f"::: lookalike.{name}" for name in names)


def http() -> str:
    """Return the routes of the service as HTML, made of its OpenAPI description."""
    from lookalike.deploy.http import Settings, create_app
    from lookalike.deploy.http.reference import reference_page
    from lookalike.indexer.open import open_store

    with tempfile.TemporaryDirectory() as folder, open_store(folder) as store:
        description = create_app(Settings(store=folder), store=store).openapi()
    whole = reference_page(description, base="http://127.0.0.1:8000", style="", key=False)
    _, _, after = whole.partition("<main>")
    return after.partition("</main>")[0]
