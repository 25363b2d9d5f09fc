"""The OpenAPI 3.1 document of the admin API, and its page in docs/, made from the route table.

`python -m s3gw.admin.openapi` prints the tables of docs/admin-api.md.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from s3gw.admin import models
from s3gw.admin.routes import DOCUMENT, METRICS, READY, ROWS
from s3gw.admin.row import Row, StructType

SCHEMAS = "#/components/schemas/{name}"
SECURITY = "signature"
JSON = "application/json"
INTRODUCTION = """Operating an s3gw store. Requests under /admin are signed by \
AWS Signature Version 4 (service s3gw, the store's region), with the SHA-256 of the body in \
x-amz-content-sha256: by root, or by a user whose policies allow the operation's action on * \
(listNodes is s3gw:ListNodes, and so on). A signature of a request that changes something is good \
for one. Sizes are bytes, times Unix milliseconds, durations seconds."""


def document(version: str) -> dict[str, Any]:
    """The document, as JSON values."""
    kinds = sorted(
        {kind for row in ROWS for kind in (row.answer, row.body_type) if kind}
        | {models.Problem, models.Ready},
        key=lambda kind: kind.__name__,
    )
    _, components = msgspec.json.schema_components(kinds, ref_template=SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    paths[READY] = {"get": _ready()}
    paths[METRICS] = {"get": _text("getMetrics", "Metrics in the Prometheus text format")}
    paths[DOCUMENT] = {"get": _this()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "s3gw admin API", "version": version, "description": INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                SECURITY: {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4 of root or a user",
                }
            },
        },
    }


def _operation(row: Row) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.operation,
        "summary": row.summary,
        "responses": {"200": _content("done", _ref(row.answer))},
    }
    if row.handler.__doc__:
        operation["description"] = " ".join(row.handler.__doc__.split())
    parameters = [*_parameters(row.path_type, "path"), *_parameters(row.query_type, "query")]
    if parameters:
        operation["parameters"] = parameters
    if row.body_type is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": _ref(row.body_type)}},
        }
    operation["security"] = [] if row.open_to_all else [{SECURITY: []}]
    for status, text in _refusals(row).items():
        operation["responses"][status] = _content(text, _ref(models.Problem))
    return operation


def _refusals(row: Row) -> dict[str, str]:
    """Statuses other than 200 that a row answers, and what they mean."""
    found = {"400": "the request is malformed"}
    if not row.open_to_all:
        found["403"] = "not signed by whom it is allowed to, or done already with this signature"
    if row.path_type is not None:
        found["404"] = "there is none of this name"
    elif row.operation in ("createKey", "createUser"):
        found["404"] = "there is no user, or no policy, of the name in the body"
    elif row.operation in ("getDraft", "planLayout", "applyLayout"):
        found["404"] = "nothing is staged"
    if row.conflicts:
        found["409"] = "the store is not in a state that allows it; the message says why"
    found["413"] = "the body is too large"
    if not row.open_to_all:
        found["503"] = "the metadata engine does not answer, or the outcome is not known"
    return found


def _parameters(kind: StructType | None, place: str) -> list[dict[str, Any]]:
    """The fields of a Struct as parameters."""
    if kind is None:
        return []
    (_,), components = msgspec.json.schema_components([kind], ref_template=SCHEMAS)
    schema = components[kind.__name__]
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path" or name in schema["required"],
            "schema": {key: value for key, value in field.items() if key != "description"},
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in schema["properties"].items()
    ]


def _ref(kind: StructType) -> dict[str, str]:
    return {"$ref": SCHEMAS.format(name=kind.__name__)}


def _content(text: str, schema: dict[str, Any], media: str = JSON) -> dict[str, Any]:
    return {"description": text, "content": {media: {"schema": schema}}}


def _ready() -> dict[str, Any]:
    schema = _ref(models.Ready)
    return {
        "operationId": "getReadiness",
        "summary": "Whether requests can be served now",
        "security": [],
        "responses": {"200": _content("ready", schema), "503": _content("not ready", schema)},
    }


def _text(operation: str, summary: str) -> dict[str, Any]:
    content = _content(summary, {"type": "string"}, "text/plain")
    return {
        "operationId": operation,
        "summary": summary,
        "security": [],
        "responses": {"200": content},
    }


def _this() -> dict[str, Any]:
    return {
        "operationId": "getDescription",
        "summary": "This document",
        "security": [],
        "responses": {"200": _content("the document", {"type": "object"})},
    }


# The page in docs/


def tables() -> str:
    """The operations, their parameters, and the answers' fields, as Markdown."""
    described = document("")
    lines = ["| request | what | body | answer |", "|---|---|---|---|"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parameters = [
                parameter["name"]
                for parameter in operation.get("parameters", ())
                if parameter["in"] == "query"
            ]
            query = f"?{'&'.join(parameters)}" if parameters else ""
            lines.append(
                f"| `{method.upper()} {path}{query}` | {operation['summary']} "
                f"| {_name(operation.get('requestBody'))} "
                f"| {_name(operation['responses']['200'])} |"
            )
    lines += ["", "| type | fields |", "|---|---|"]
    for name, schema in sorted(described["components"]["schemas"].items()):
        fields = ", ".join(
            f"`{field}` {_type(value)}" for field, value in schema.get("properties", {}).items()
        )
        lines.append(f"| {name} | {fields} |")
    return "\n".join(lines) + "\n"


def _name(content: dict[str, Any] | None) -> str:
    """The type of a body or answer, as the page shows it."""
    if content is None:
        return ""
    ((media, described),) = content["content"].items()
    reference = described["schema"].get("$ref")
    return str(reference).rsplit("/", 1)[-1] if reference else str(media)


def _type(schema: dict[str, Any]) -> str:
    """A field's type, with its bounds."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        kinds = [_type(kind) for kind in schema["anyOf"]]
        return " or ".join(kind for kind in kinds if kind)
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = f" {least:g}…{most:g}" if least is not None and most is not None else ""
    return f"{schema.get('type', '')}{bounds}"


def page(text: str) -> str:
    """docs/admin-api.md with its generated part brought up to date."""
    return re.sub(
        r"(<!-- generated:begin -->\n).*?(<!-- generated:end -->)",
        lambda match: match[1] + tables() + match[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    print(tables(), end="")
