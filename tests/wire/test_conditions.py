"""Conditional requests: the precedence of RFC 9110 §13.2.2 and S3's combinations."""

import pytest

from s3gw.errors import S3Error
from s3gw.wire.conditions import COPY_SOURCE_PREFIX, Current, ReadConditions, WriteConditions
from s3gw.wire.dates import http_date

MODIFIED = 1_700_000_000
CURRENT = Current("abc", MODIFIED + 0.75, 42)
BEFORE, AT, AFTER = (http_date(MODIFIED + shift) for shift in (-1, 0, 1))


def read_status(headers: dict[str, str]) -> int:
    try:
        ReadConditions.of(headers).check(CURRENT)
    except S3Error as error:
        return error.status
    return 200


def copy_status(headers: dict[str, str]) -> int:
    prefixed = {COPY_SOURCE_PREFIX + name: value for name, value in headers.items()}
    try:
        ReadConditions.of(prefixed, COPY_SOURCE_PREFIX).check_copy_source(CURRENT)
    except S3Error as error:
        return error.status
    return 200


CASES = [
    ({}, 200),
    ({"if-match": '"abc"'}, 200),
    ({"if-match": "abc"}, 200),
    ({"if-match": "*"}, 200),
    ({"if-match": '"x", "abc"'}, 200),
    ({"if-match": '"x"'}, 412),
    ({"if-match": 'W/"abc"'}, 412),
    ({"if-match": ""}, 412),
    ({"if-none-match": '"x"'}, 200),
    ({"if-none-match": '"abc"'}, 304),
    ({"if-none-match": 'W/"abc"'}, 304),
    ({"if-none-match": "*"}, 304),
    ({"if-modified-since": BEFORE}, 200),
    ({"if-modified-since": AT}, 304),
    ({"if-modified-since": AFTER}, 304),
    ({"if-modified-since": "yesterday"}, 200),
    ({"if-unmodified-since": BEFORE}, 412),
    ({"if-unmodified-since": AT}, 200),
    ({"if-unmodified-since": AFTER}, 200),
    ({"if-unmodified-since": "yesterday"}, 200),
    ({"if-match": '"abc"', "if-unmodified-since": BEFORE}, 200),
    ({"if-match": '"x"', "if-unmodified-since": AFTER}, 412),
    ({"if-none-match": '"abc"', "if-modified-since": BEFORE}, 304),
    ({"if-none-match": '"x"', "if-modified-since": AFTER}, 200),
    ({"if-match": '"x"', "if-none-match": '"abc"'}, 412),
    ({"if-match": '"abc"', "if-none-match": '"abc"'}, 304),
    ({"if-unmodified-since": BEFORE, "if-none-match": '"abc"'}, 412),
    ({"if-match": '"abc"', "if-modified-since": AFTER}, 304),
]


@pytest.mark.parametrize(("headers", "status"), CASES)
def test_reads_follow_the_precedence(headers: dict[str, str], status: int) -> None:
    assert read_status(headers) == status


@pytest.mark.parametrize(("headers", "status"), CASES)
def test_a_copy_answers_412_where_a_read_answers_304(headers: dict[str, str], status: int) -> None:
    assert copy_status(headers) == (412 if status == 304 else status)


def test_304_carries_the_validators() -> None:
    with pytest.raises(S3Error) as caught:
        ReadConditions(if_none_match="*").check(CURRENT)
    assert caught.value.headers == {"ETag": '"abc"', "Last-Modified": AT}


def test_412_names_its_condition() -> None:
    with pytest.raises(S3Error) as caught:
        ReadConditions(if_match="x").check(CURRENT)
    assert caught.value.fields == {"Condition": "If-Match"}


def put_code(headers: dict[str, str], current: Current | None) -> str:
    try:
        WriteConditions.of_put(headers).check(current)
    except S3Error as error:
        return error.code
    return "done"


@pytest.mark.parametrize(
    ("headers", "on_object", "on_nothing"),
    [
        ({}, "done", "done"),
        ({"if-none-match": "*"}, "PreconditionFailed", "done"),
        ({"if-match": '"abc"'}, "done", "NoSuchKey"),
        ({"if-match": '"x"'}, "PreconditionFailed", "NoSuchKey"),
        ({"if-match": ""}, "PreconditionFailed", "NoSuchKey"),
        ({"if-none-match": '"abc"'}, "NotImplemented", "NotImplemented"),
        ({"if-none-match": ""}, "NotImplemented", "NotImplemented"),
        ({"if-none-match": "*", "if-match": '"abc"'}, "NotImplemented", "NotImplemented"),
        ({"if-modified-since": AT}, "NotImplemented", "NotImplemented"),
        ({"if-unmodified-since": AT}, "NotImplemented", "NotImplemented"),
    ],
)
def test_conditional_puts(headers: dict[str, str], on_object: str, on_nothing: str) -> None:
    assert put_code(headers, CURRENT) == on_object
    assert put_code(headers, None) == on_nothing


def delete_code(headers: dict[str, str], current: Current | None) -> str:
    try:
        WriteConditions.of_delete(headers).check(current)
    except S3Error as error:
        return error.code
    return "done"


TIME, SIZE = "x-amz-if-match-last-modified-time", "x-amz-if-match-size"


@pytest.mark.parametrize(
    ("headers", "on_object", "on_nothing"),
    [
        ({}, "done", "done"),
        ({"if-match": '"abc"', TIME: AT, SIZE: "42"}, "done", "NoSuchKey"),
        ({"if-match": "*"}, "done", "NoSuchKey"),
        ({"if-match": '"x"'}, "PreconditionFailed", "NoSuchKey"),
        ({TIME: AT, SIZE: "42"}, "done", "done"),
        ({TIME: AFTER}, "PreconditionFailed", "done"),
        ({TIME: "now"}, "InvalidArgument", "InvalidArgument"),
        ({SIZE: "41"}, "PreconditionFailed", "done"),
        ({SIZE: "0"}, "PreconditionFailed", "done"),
        ({SIZE: "-42"}, "InvalidArgument", "InvalidArgument"),
        ({SIZE: "9" * 5000}, "InvalidArgument", "InvalidArgument"),
        ({"if-none-match": "*"}, "NotImplemented", "NotImplemented"),
        ({"if-unmodified-since": AT}, "NotImplemented", "NotImplemented"),
        ({"if-modified-since": AT}, "NotImplemented", "NotImplemented"),
    ],
)
def test_conditional_deletes(headers: dict[str, str], on_object: str, on_nothing: str) -> None:
    assert delete_code(headers, CURRENT) == on_object
    assert delete_code(headers, None) == on_nothing


def test_conditions_know_whether_there_are_any() -> None:
    assert not WriteConditions.of_put({})
    assert WriteConditions.of_put({"if-match": ""})
    assert WriteConditions.of_delete({SIZE: "0"})
