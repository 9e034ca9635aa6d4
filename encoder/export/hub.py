"""Models sent to and fetched from a Hugging Face hub, or a folder laid out like one of its repositories.

A repository holds the files of a bundle and, as ``README.md``, the model's card. What is fetched is a model
only if each file has the digest that its ``bundle.json`` names; nothing in it is executed. Needs the extra
``hub``, for folders too, so that they behave alike.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from lookalike.encoder.bundle import BUNDLE_FILES, CARD, Bundle, model_card
from lookalike.encoder.errors import (
    BundleCorruptError,
    BundleError,
    DataError,
    InvalidArgumentError,
    MissingExtraError,
    one_line,
    printable,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME: Final = "hf://"
ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
_REPOSITORY: Final = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?", re.ASCII)
LEAST_ID: Final = 12
"""Digits of a model_id that are enough to tell models apart."""
_LARGEST: Final = 1 << 31
"""Bytes; no file of a bundle is larger."""
_LONGEST: Final = 240


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository of a hub.

    Attributes:
        repository: ``owner/name``.
        revision: Branch, tag or commit; None: the newest.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> Self | None:
        """Return the repository that ``hf://owner/name[@revision]`` names; None where it is no such address.

        Raises:
            InvalidArgumentError: It begins so, and names none.
        """
        if not address.startswith(SCHEME):
            return None
        found = _REPOSITORY.fullmatch(address.removeprefix(SCHEME))
        if found is None:
            raise InvalidArgumentError(
                f"'{printable(address)}' names no repository; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
            )
        return cls(found[1], found[2])


def need_extra() -> None:
    """Check that huggingface_hub is installed.

    Raises:
        MissingExtraError: It is not.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtraError(
            "sending and fetching models needs huggingface_hub; pip install 'lookalike[hub]'"
        )


def push(bundle: Bundle, target: str, *, private: bool = False, licence: str | None = None) -> str:
    """Send a model, with its card where there is none yet, and return where it is now.

    Args:
        bundle: The model.
        target: ``hf://owner/name[@branch]``, or a folder.
        private: Make a new repository private.
        licence: For the card, see :func:`~lookalike.encoder.bundle.model_card`.

    Raises:
        InvalidArgumentError: The target is no repository, or a folder that holds something else.
        DataError: The hub refuses it, or cannot be reached.
        BundleError: The bundle has changed, or the folder cannot be written.
    """
    address = HubAddress.parse(target)
    name = bundle.name if address is None else address.repository.partition("/")[2]
    card = model_card(name, bundle.manifest, licence=licence).encode()
    if address is None:
        return str(bundle.copied(target, card=card).folder)
    contents = bundle.contents()
    from huggingface_hub import CommitOperationAdd

    with _hub(target) as api:
        api.create_repo(address.repository, private=private, exist_ok=True)
        if not api.file_exists(address.repository, CARD, revision=address.revision):
            contents[CARD] = card  # one that somebody has edited stays
        done = api.create_commit(
            address.repository,
            [CommitOperationAdd(path_in_repo=file, path_or_fileobj=data) for file, data in contents.items()],
            commit_message=f"lookalike model {bundle.model_id[:LEAST_ID]}",
            revision=address.revision,
        )
        return str(done.commit_url)


def pull(source: str, folder: Path, *, model_id: str | None = None) -> Bundle:
    """Fetch a model into a folder, which appears only if every file has its digest.

    Args:
        source: ``hf://owner/name[@revision]``, or a folder.
        folder: The folder of the new bundle; a bundle that is there is replaced.
        model_id: What its model_id must begin with, 12 hex digits or more; None: any.

    Raises:
        InvalidArgumentError: The source is no repository, something else than a bundle is at ``folder``, or
            ``model_id`` is none.
        BundleError: What is there is no model, is damaged, or is another than was asked for.
        DataError: The hub refuses it, or cannot be reached.
    """
    if model_id is not None and re.fullmatch(rf"[0-9a-f]{{{LEAST_ID},64}}", model_id) is None:
        raise InvalidArgumentError(
            f"a model_id is {LEAST_ID} to 64 hex digits, '{printable(model_id)}' is not; "
            "lookalike models show NAME prints it"
        )
    address = HubAddress.parse(source)
    with tempfile.TemporaryDirectory() as scratch:
        if address is None:
            fetched = Bundle.open(Path(source).resolve())
        else:
            _fetch(address, Path(scratch), source)
            try:
                fetched = Bundle.open(Path(scratch))
            except BundleError as error:
                reason = one_line(error).replace(f"bundle {scratch} ", "it ")
                raise BundleCorruptError(f"{source} was not taken: {reason}") from error
        if model_id is not None and not fetched.model_id.startswith(model_id):
            raise BundleError(
                f"{printable(source)} was not taken: it is model {fetched.model_id[: len(model_id)]}, "
                f"not {model_id}; check both, or leave --model-id out"
            )
        return fetched.copied(folder)


def _fetch(address: HubAddress, folder: Path, source: str) -> None:
    """Download the files of a bundle; all are of one commit."""
    from huggingface_hub import hf_hub_download

    with _hub(source) as api:
        info = api.model_info(address.repository, revision=address.revision, files_metadata=True)
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
        names = sorted(BUNDLE_FILES & set(sizes))
        if "bundle.json" not in names:
            raise BundleError(
                f"{source} holds no model of lookalike: it has no bundle.json; check the address"
            )
        if large := [name for name in names if sizes[name] > _LARGEST]:
            raise BundleError(
                f"{source} was not taken: {large[0]} has {sizes[large[0]]:,} bytes, more than any model's"
            )
        for name in names:
            hf_hub_download(
                address.repository, name, revision=info.sha, local_dir=folder, endpoint=api.endpoint
            )


@contextmanager
def _hub(address: str) -> Iterator[HfApi]:
    """Yield the hub; what goes wrong there is one error that names the address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # of its client

    try:
        yield HfApi(endpoint=os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or None)
    except (HTTPError, HFValidationError, OSError) as error:
        reason = one_line(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(
                f"{address}: {reason} in {printable(tempfile.gettempdir())}; make room, or set TMPDIR"
            ) from error
        raise DataError(
            f"{address}: {reason[:_LONGEST]}{'...' if len(reason) > _LONGEST else ''}; check the address, "
            "the network, and what HF_TOKEN may do"
        ) from error
