"""An example request of each operation: a line for curl, and one for Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_FILES: Final = ("me.jpg", "you.jpg")
_ITEM: Final = "5d0cba5c-7e94-5e8c-b9cb-5b9a0b2a5b5e"
_BEARER: Final = "Bearer KEY"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An example request.

    Attributes:
        method: GET, POST, ...
        url: Whole.
        fields: Of a form, or of a JSON object; None: there is no body.
        files: Sent with the fields as a form; empty: the fields are JSON.
        key: Whether a key is sent.
        answer: Whether the answer is an image, JSON, other text, or nothing.
    """

    method: str
    url: str
    fields: Mapping[str, Any] | None = None
    files: tuple[str, ...] = ()
    key: bool = False
    answer: str = ""

    @classmethod
    def of(cls, method: str, path: str, operation: Mapping[str, Any], *, base: str, key: bool) -> Example:
        """Return the example of an operation.

        Args:
            method: get, post, ...
            path: As in the OpenAPI description.
            operation: Of that description.
            base: The address of the service, without a slash at its end.
            key: Whether the service asks for a key.
        """
        query = {}
        for parameter in operation.get("parameters", ()):
            value = _example_of(parameter)
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(value))
            elif parameter.get("required"):
                query[parameter["name"]] = value
        content = operation.get("requestBody", {}).get("content", {})
        fields = dict(content[_JSON]["example"]) if content else None
        images = fields.pop("images", ()) if fields is not None and _FORM in content else ()
        return cls(
            method=method.upper(),
            url=f"{base}{path}" + (f"?{urlencode(query)}" if query else ""),
            fields=fields,
            files=_FILES[: len(images)],
            key=key and operation.get("security") != [],
            answer=_answer(operation),
        )

    def curl(self) -> str:
        """Return a line for a shell."""
        words = ["curl"]
        if self.method != ("GET" if self.fields is None else "POST"):
            words += ["-X", self.method]
        words += ["-H", f"Authorization: {_BEARER}"] if self.key else []
        if self.files:
            for name, value in (self.fields or {}).items():
                for each in value if isinstance(value, list) else [value]:
                    words += ["-F", f"{name}={each}"]
            words += [word for file in self.files for word in ("-F", f"image=@{file}")]
        elif self.fields is not None:
            words += ["-H", f"Content-Type: {_JSON}", "-d", json.dumps(self.fields)]
        words += ["-o", "found.jpg"] if self.answer == "image" else []
        return shlex.join([*words, self.url])

    def python(self) -> str:
        """Return a line for Python with ``import httpx``."""
        arguments = [json.dumps(self.url)]
        if self.key:
            arguments.append(f'headers={{"Authorization": "{_BEARER}"}}')
        if self.files:
            data = {
                name: value if isinstance(value, list) else str(value)
                for name, value in (self.fields or {}).items()
            }
            arguments += [f"data={json.dumps(data)}"] if data else []
            sent = ", ".join(f'("image", open("{file}", "rb"))' for file in self.files)
            arguments.append(f"files=[{sent}]")
        elif self.fields is not None:
            arguments.append(f"json={dict(self.fields)!r}".replace("'", '"'))
        ends = {"image": ".content", "json": ".json()", "text": ".text"}
        return f"httpx.{self.method.lower()}({', '.join(arguments)}){ends.get(self.answer, '.status_code')}"


def _answer(operation: Mapping[str, Any]) -> str:
    """Return whether the answer of an operation is an image, JSON, other text, or nothing."""
    responses: Mapping[str, Mapping[str, Any]] = operation["responses"]
    good = [each for status, each in responses.items() if status.startswith("2")]
    media = [kind for each in good for kind in each.get("content", ())]
    if not media:
        return "" if "204" in responses else "text"
    return "json" if _JSON in media else "image" if media[0].startswith("image/") else "text"


def _example_of(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    if schema.get("format") == "uuid":
        return _ITEM
    return str(next(iter(schema.get("examples", ())), parameter["name"]))
