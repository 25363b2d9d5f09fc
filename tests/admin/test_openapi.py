"""The OpenAPI document is valid, complete, and what the documents show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from openapi_spec_validator import OpenAPIV31SpecValidator

from s3gw.admin.openapi import document, page
from s3gw.admin.routes import ROWS
from tests.admin.conftest import Admin

PAGE = Path(__file__).resolve().parents[2] / "docs" / "admin-api.md"


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(document("1.2.3")).iter_errors()) == []  # type: ignore[arg-type]


def test_a_document_that_is_not_valid_would_be_noticed() -> None:
    broken: dict[str, Any] = document("1.2.3")
    broken["paths"]["/admin/nodes/{node}"]["get"]["parameters"] = []
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())  # type: ignore[arg-type]


def test_it_has_every_operation_once() -> None:
    described = document("1.2.3")
    operations = [
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
    ]
    assert len(operations) == len(set(operations))
    assert {row.operation for row in ROWS} <= set(operations)


async def test_it_is_served_to_everybody(admin: Admin) -> None:
    reply = await admin.http.get("/openapi.json")
    assert reply.status_code == httpx.codes.OK
    assert reply.json()["info"]["version"] == "1.2.3"
    assert reply.json() == document("1.2.3")


def test_the_page_is_what_the_table_generates() -> None:
    text = PAGE.read_text()
    assert "<!-- generated:begin -->" in text
    assert page(text) == text, "bring it up to date: python -m s3gw.admin.openapi"
