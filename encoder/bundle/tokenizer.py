"""Text to the tokens of a text tower, by a ``tokenizer.json`` of the library ``tokenizers`` (extra ``text``).

Legend: N texts, T tokens.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.spec import TextSpec
from lookalike.encoder.errors import InvalidArgumentError, MissingExtraError, one_line

if TYPE_CHECKING:
    import tokenizers


@final
class Tokenizer:
    """Turns text into tokens. Safe for several threads.

    Args:
        data: Content of ``tokenizer.json``: vocabulary and rules, nothing that is executed.
        spec: The length of texts; None: as the file says, for an import.

    Raises:
        MissingExtraError: The extra ``text`` is not installed.
        InvalidArgumentError: The file cannot be read.
    """

    def __init__(self, data: bytes, spec: TextSpec | None = None) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError(
                "searching with text needs tokenizers; pip install 'lookalike[text]'"
            ) from error
        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises Exception itself
            raise InvalidArgumentError(f"tokenizer.json cannot be read ({one_line(error)[:200]})") from error
        self._padding: dict[str, Any] = dict(self._tokenizer.padding or {})
        self._truncation: dict[str, Any] = dict(self._tokenizer.truncation or {})
        if spec is not None:
            self._tokenizer.enable_truncation(spec.length)
            self._tokenizer.no_padding()
            if spec.pad is not None:
                self._tokenizer.enable_padding(pad_id=spec.pad, length=spec.length)

    def spec(self, *, fixed: int | None, usual: int) -> TextSpec:
        """Return the length of texts for a text tower.

        Args:
            fixed: The only number of tokens that it takes; None: any.
            usual: Most tokens, where the file does not say it.
        """
        pad = self._padding.get("pad_id", 0)
        if fixed is not None:
            return TextSpec(length=fixed, pad=pad)
        if isinstance(length := self._padding.get("length"), int):
            return TextSpec(length=length, pad=pad)
        return TextSpec(length=self._truncation.get("max_length", usual))

    def __call__(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tokens of a text and which of them count, both int64 (1, T).

        Raises:
            InvalidArgumentError: There are none.
        """
        encoded = self._tokenizer.encode(text)
        if not encoded.ids:
            raise InvalidArgumentError("a text to search with must hold a word; write one")
        return np.array([encoded.ids], np.int64), np.array([encoded.attention_mask], np.int64)


def usual_length(config: bytes) -> int | None:
    """Return ``model_max_length`` of a ``tokenizer_config.json``; None where it says nothing of use."""
    try:
        length = json.loads(config).get("model_max_length")
    except (ValueError, AttributeError):
        return None
    return length if type(length) is int and 1 <= length <= 8192 else None
