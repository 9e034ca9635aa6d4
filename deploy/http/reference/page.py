"""The API reference as a page: made of the OpenAPI description, and read without scripts or a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

from lookalike.deploy.http.errors import PROBLEMS
from lookalike.deploy.http.reference.examples import Example

STYLE: Final = (files("lookalike.deploy.http.reference") / "reference.css").read_bytes()
"""The style sheet of the page."""

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_METHODS: Final = ("get", "post", "put", "delete")
_CODE: Final = re.compile(r"``?([^`]+)``?")


def reference_page(description: Mapping[str, Any], *, base: str, style: str, key: bool) -> str:
    """Return the page, HTML.

    Args:
        description: The OpenAPI description.
        base: The address of the service, without a slash at its end.
        style: The address of the style sheet.
        key: Whether the service asks for a key.
    """
    groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in description["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = _with_parameters(methods, method, description)
                groups.setdefault(operation["tags"][0], []).append((method, path, operation))
    contents, sections = [], []
    for tag, operations in groups.items():
        title = escape(tag[0].upper() + tag[1:])
        links = (f"<li>{_link(method, path, each)}" for method, path, each in operations)
        contents.append(f"<h2>{title}</h2><ul>{''.join(links)}</ul>")
        parts = (
            _operation(Example.of(method, path, each, base=base, key=key), method, path, each, description)
            for method, path, each in operations
        )
        sections.append(f"<section><h2>{title}</h2>{''.join(parts)}</section>")
    info = description["info"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>lookalike: API reference</title>'
        f'<link rel="stylesheet" href="{escape(style)}"></head><body>'
        f"<header><h1>API reference of lookalike {escape(info['version'])}</h1>"
        f"<p>{_text(info['description'])}</p><p>{_introduction(key=key)}</p></header>"
        f'<nav aria-label="Routes">{"".join(contents)}</nav>'
        f"<main>{''.join(sections)}{_problems()}</main></body></html>\n"
    )


def _with_parameters(
    methods: Mapping[str, Any], method: str, description: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return an operation with all its parameters, also those of its path and those that are referred to."""
    every = (*methods.get("parameters", ()), *methods[method].get("parameters", ()))
    return {**methods[method], "parameters": [_resolved(each, description) for each in every]}


def _introduction(*, key: bool) -> str:
    asks = (
        "Replace <code>KEY</code> by your key."
        if key
        else "This service asks for no key; one that does takes <code>Authorization: Bearer KEY</code>."
    )
    return (
        f"{asks} Images are sent as files of a form, as below, or as <code>images</code> in JSON: Base64, "
        "also as data URIs. Python lines need <code>import httpx</code>. "
        '<a href="./">Back to the page</a> · <a href="api/v1/openapi.json">OpenAPI description</a>'
    )


def _link(method: str, path: str, operation: Mapping[str, Any]) -> str:
    return f'<a href="#{escape(operation["operationId"])}"><b>{method.upper()}</b> {escape(path)}</a>'


def _operation(
    example: Example, method: str, path: str, operation: Mapping[str, Any], description: Mapping[str, Any]
) -> str:
    rows = "".join(
        f"<tr><th scope=row><code>{escape(name)}</code><td>{escape(kind)}<td>{_text(text)}"
        for name, kind, text in [*_parameters(operation), *_body(operation, description)]
    )
    head = "<tr><th scope=col>Field<th scope=col>Type<th scope=col>Meaning"
    return (
        f'<article id="{escape(operation["operationId"])}"><h3>{_link(method, path, operation)}</h3>'
        f"<p>{_text(operation.get('description') or operation['summary'])}</p>"
        f"{f'<table>{head}{rows}</table>' if rows else ''}<p>Answer: {_answer(operation, description)}</p>"
        f"<pre><code>{escape(example.curl(), quote=False)}</code></pre>"
        f"<pre><code>{escape(example.python(), quote=False)}</code></pre></article>"
    )


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for each in operation.get("parameters", ()):
        text = each.get("description") or each["schema"].get("description", "")
        where = "in the path" if each["in"] == "path" else "in the query"
        yield each["name"], f"{_type(each['schema'])}, {where}", text


def _body(operation: Mapping[str, Any], description: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON not in content:
        return
    schema = _resolved(content[_JSON]["schema"], description)
    for name, shared in schema["properties"].items():
        field = _resolved(shared, description)
        if name == "images" and _FORM in content:
            yield "image", "file", "One or more, in a form; in JSON `images`, a list of Base64."
        else:
            required = ", required" if name in schema.get("required", ()) else ""
            yield name, _type(field) + required, field.get("description", "") + _default(field)


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, [], False, "") else f" Default: `{default}`."


def _type(schema: Mapping[str, Any]) -> str:
    """Return a type in words."""
    if "enum" in schema:
        return " or ".join(str(each) for each in schema["enum"] if each is not None)
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("format", schema.get("type", "value"))
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return "text" if kind == "string" else str(kind)


def _answer(operation: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """Return what the answers that are no problems hold."""
    found = []
    for status, response in operation["responses"].items():
        if "$ref" in response:
            continue
        parts = []
        for media, each in response.get("content", {}).items():
            fields = _fields(each.get("schema", {}), description)
            names = ", ".join(f"<code>{escape(name)}</code>" for name in fields)
            parts.append(escape(media) + (f" with {names}" if names else ""))
        found.append(f"{escape(status)} {' or '.join(parts)}".rstrip())
    return "; ".join(found)


def _fields(schema: Mapping[str, Any], description: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of an object, those of the schemas that it extends first."""
    whole = _resolved(schema, description)
    inherited = [name for base in whole.get("allOf", ()) for name in _fields(base, description)]
    return [*inherited, *whole.get("properties", ())]


def _resolved(schema: Mapping[str, Any], description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema, or the one that it refers to."""
    if "$ref" not in schema:
        return schema
    found: Any = description
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return _resolved(found, description)


def _problems() -> str:
    rows = "".join(
        f"<tr><th scope=row><code>{escape(code)}</code><td>{each.status}<td>{escape(each.title)}"
        for code, each in PROBLEMS.items()
    )
    return (
        '<section id="problem-codes"><h2>Problems</h2><p>Every other answer is a problem (RFC 9457, '
        "<code>application/problem+json</code>): <code>detail</code> says what is wrong and what to do, "
        "<code>code</code> is for programs.</p>"
        f"<table><tr><th scope=col>Code<th scope=col>Status<th scope=col>Meaning{rows}</table></section>"
    )


def _text(text: str) -> str:
    """Return a description as HTML: `code` and paragraphs are all that it has."""
    joined = "</p><p>".join(" ".join(part.split()) for part in escape(text, quote=False).split("\n\n"))
    return _CODE.sub(r"<code>\1</code>", joined)
