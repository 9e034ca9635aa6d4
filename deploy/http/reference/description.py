"""The OpenAPI description: what FastAPI makes of the routes, with each thing said once.

FastAPI writes the schema of a problem, of a request that may be JSON or a form, and of a parameter wherever
it is used. Here they are components that are referred to, and what extends another answer says what it adds.
"""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lookalike.deploy.http.errors import MEDIA_TYPE, PROBLEMS
from lookalike.deploy.http.settings import Settings

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_PUBLIC: Final = ("/healthz", "/readyz")
_MIN_BASE: Final = 5
"""Fields of a schema that another one is said to extend."""
_SCHEMAS: Final = "#/components/schemas/"
_PARAMETERS: Final = "#/components/parameters/"
_IMAGE_FILES: Final = "ImageFiles"
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and the way out."},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "request_id": {"type": "string"},
    },
}
_HEADERS: Final = {
    "ETag": "Send it as If-None-Match to get 304 while nothing has changed.",
    "Location": "Where the progress of the job is.",
    "Retry-After": "Seconds to wait before the next try.",
    "WWW-Authenticate": "How to send the key.",
}
_ALWAYS: Final = ("401", "default")
_OF_PARAMETERS: Final = ("404", "422")
_OF_BODIES: Final = ("400", "413", "415", "501", "503")
"""Problems that operations name one by one: all, those with parameters or a body, those with a body;
the others are the default."""
_MORE_HEADERS: Final = {"202": "Location", "401": "WWW-Authenticate", "503": "Retry-After"}


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI description of a service."""
    base = (settings.origins[0] if settings.origins else "") + settings.root_path
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        servers=[{"url": base or "/"}],
    )
    whole = deepcopy(made)  # parts of it are the routes' own
    schemas = whole["components"]["schemas"]
    schemas = {name: schema for name, schema in schemas.items() if name not in _NOT_OURS}
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            _share_request(operation, schemas)
            _shorten_parameters(operation)
            _share_responses(operation, method)
            if path in _PUBLIC:
                operation["security"] = []
    parameters = _share_parameters(whole["paths"])
    bearer = {"type": "http", "scheme": "bearer", "description": "LOOKALIKE_API_KEY or LOOKALIKE_READ_KEY"}
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    whole["components"] = {
        "schemas": {"Problem": _PROBLEM, **dict(sorted(schemas.items()))},
        "parameters": parameters,
        "responses": _problem_responses(),
        "headers": headers,
        "securitySchemes": {"bearer": bearer},
    }
    _share_bases(whole["components"]["schemas"])
    _share_fields(whole["components"]["schemas"], whole["paths"])
    whole["security"] = [{"bearer": []}] if settings.key is not None else [{}, {"bearer": []}]
    return {key: value if key == "info" else _shortened(value) for key, value in whole.items()}


def _share_request(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Make a component of the schema of a request; a form refers to its fields."""
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON not in content:
        return
    schema = content[_JSON]["schema"]
    name = schema["title"]
    schemas.setdefault(name, schema)
    content = operation["requestBody"]["content"] = dict(content)
    content[_JSON] = {**content[_JSON], "schema": {"$ref": _SCHEMAS + name}}
    if _FORM in content:
        form = content[_FORM]["schema"]
        fields = {
            field: {"$ref": f"{_SCHEMAS}{name}/properties/{field}"} if field in schema["properties"] else own
            for field, own in form["properties"].items()
        }
        (files,) = form["properties"].keys() - schema["properties"].keys()  # the same in every form
        schemas.setdefault(_IMAGE_FILES, fields[files])
        fields[files] = {"$ref": _SCHEMAS + _IMAGE_FILES}
        kept = {key: form[key] for key in ("type", "required", "additionalProperties") if key in form}
        content[_FORM] = {"schema": {**kept, "properties": fields}}


def _shorten_parameters(operation: dict[str, Any]) -> None:
    """Leave out what a parameter's schema says once more."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        if schema.get("description") == parameter.get("description"):
            schema.pop("description", None)


def _share_parameters(paths: dict[str, Any]) -> dict[str, Any]:
    """Say the parameters of all methods of a path once, and return those that several paths have, by name."""
    for methods in paths.values():
        own = [operation.get("parameters", []) for operation in methods.values()]
        if len(own) > 1 and (common := [each for each in own[0] if all(each in other for other in own)]):
            for operation in methods.values():
                operation["parameters"] = [each for each in operation["parameters"] if each not in common]
                if not operation["parameters"]:
                    del operation["parameters"]
            methods["parameters"] = common
    lists = [
        holder["parameters"]
        for methods in paths.values()
        for holder in (methods, *methods.values())
        if isinstance(holder, dict) and "parameters" in holder
    ]
    texts = [_text(each) for found in lists for each in found]
    shared: dict[str, Any] = {}
    for found in lists:
        for place, each in enumerate(found):
            if texts.count(_text(each)) > 1 and shared.setdefault(each["name"], each) == each:
                found[place] = {"$ref": _PARAMETERS + each["name"]}
    return shared


def _share_bases(schemas: dict[str, Any]) -> None:
    """Let an answer that has all fields of another one, word for word, refer to that and say the others."""
    fields = {
        name: {field: _text(value) for field, value in schema.get("properties", {}).items()}
        for name, schema in schemas.items()
        if schema.get("additionalProperties") is not False  # it would forbid what is added
    }
    for name, own in fields.items():
        smaller = {base: values for base, values in fields.items() if _MIN_BASE <= len(values) < len(own)}
        base = next((base for base, values in smaller.items() if values.items() <= own.items()), None)
        if base is None:
            continue
        schema = schemas[name]
        schema["properties"] = {
            field: value for field, value in schema["properties"].items() if field not in fields[base]
        }
        schema["required"] = [field for field in schema["required"] if field not in fields[base]]
        schema["allOf"] = [{"$ref": _SCHEMAS + base}]


def _share_fields(schemas: dict[str, Any], paths: dict[str, Any]) -> None:
    """Make components of fields that several schemas have, word for word, where that is shorter."""
    fields = [
        (schema["properties"], field) for schema in schemas.values() for field in schema.get("properties", ())
    ]
    uses = Counter((field, _text(own[field])) for own, field in fields)
    shared: dict[str, Any] = {}
    for own, field in fields:
        value, reference = own[field], {"$ref": _SCHEMAS + field}
        count, size = uses[field, _text(value)], len(_text(value))
        saved = count * (size - len(_text(reference))) - size - len(field)
        if saved > 0 and field not in schemas and shared.setdefault(field, value) == value:
            own[field] = reference
    schemas |= shared
    for methods in paths.values():
        for operation in methods.values():
            content = (
                operation.get("requestBody", {}).get("content", {}) if isinstance(operation, dict) else {}
            )
            form = content.get(_FORM, {"schema": {"properties": {}}})["schema"]["properties"]
            for field, value in form.items():  # the component itself, not the field that refers to it
                request, _, own_name = value["$ref"].removeprefix(_SCHEMAS).partition("/properties/")
                found = schemas[request]["properties"][own_name] if own_name else {}
                form[field] = found if found.keys() == {"$ref"} else value


def _share_responses(operation: dict[str, Any], method: str) -> None:
    """Refer to the problems, and name the headers of the other responses."""
    problems = _problem_responses()
    for status, response in operation["responses"].items():
        image = method == "get" and any(media.startswith("image/") for media in response.get("content", {}))
        if status in problems:
            continue
        if headers := _headers(status, *["ETag"] * image):
            response["headers"] = headers
        if response["description"] == "Successful Response":  # FastAPI's words, at every route
            response["description"] = "OK"
    named = set(_ALWAYS)
    named |= {*_OF_PARAMETERS} if {"parameters", "requestBody"} & operation.keys() else set()
    named |= {*_OF_BODIES} if "requestBody" in operation else set()
    operation["responses"] = {
        status: {"$ref": f"#/components/responses/{status}"} if status in problems else response
        for status, response in sorted((dict.fromkeys(named) | operation["responses"]).items())
        if status in named or status not in problems
    }


def _problem_responses() -> dict[str, Any]:
    """Return the responses that are problems, by status: the same for every path."""
    named = {
        status: "; ".join(each.title for each in PROBLEMS.values() if str(each.status) == status)
        for status in sorted({*_ALWAYS, *_OF_PARAMETERS, *_OF_BODIES} - {"default"})
    }
    return {
        status: {
            "description": text,
            **({"headers": found} if (found := _headers(status)) else {}),
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
        }
        for status, text in {**named, "default": "Any other problem; GET problems lists them all."}.items()
    }


def _headers(status: str, *more: str) -> dict[str, Any]:
    names = [*more, *([_MORE_HEADERS[status]] if status in _MORE_HEADERS else [])]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_IMPLIED: Final = {"additionalProperties": True, "required": False}
"""What a schema and a parameter mean where they do not say it."""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shortened(value: Any) -> Any:
    """Return a description without pydantic's titles and what is implied, with null as a second type."""
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str):
        return value.replace("``", "`")  # the same in Markdown, which descriptions are
    if isinstance(value, float) and value.is_integer():  # limits of integers
        return int(value)
    if not isinstance(value, dict):
        return value
    short = {
        key: each if key == "example" else _shortened(each)
        for key, each in value.items()
        if (key != "title" or not isinstance(each, str)) and _IMPLIED.get(key, ...) is not each
    }
    either = short.get("anyOf", ())
    if len(either) == 2 and either[1] == {"type": "null"} and isinstance(either[0].get("type"), str):
        del short["anyOf"]
        short = {**either[0], **short, "type": [either[0]["type"], "null"]}
        if "enum" in short:
            short["enum"] = [*short["enum"], None]
    return short
