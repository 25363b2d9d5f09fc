"""Range headers: worked cases, a direct model, and hostile ones."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3gw.errors import S3Error
from s3gw.wire.ranges import ByteRange, parse_copy_range, parse_range


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=0-", 0, 9),
        ("bytes=9-", 9, 9),
        ("bytes=3-100", 3, 9),
        ("bytes=-1", 9, 9),
        ("bytes=-100", 0, 9),
        ("Bytes = 2-3", 2, 3),
        ("bytes=002-3", 2, 3),
        ("bytes=1-" + "9" * 4000, 1, 9),
        ("bytes=-" + "9" * 4000, 0, 9),
    ],
)
def test_one_range_is_served(header: str, first: int, last: int) -> None:
    assert parse_range(header, 10) == ByteRange(first, last, 10)


def test_a_range_knows_its_length_and_header() -> None:
    part = ByteRange(2, 5, 10)
    assert (part.length, part.content_range) == (4, "bytes 2-5/10")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=1--2",
        "bytes=-1-2",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=1.0-2",
        "bytes=٣-٤",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=0-" + "1" * 5000,
    ],
)
def test_malformed_and_multiple_ranges_are_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_unsatisfiable_ranges_are_416(header: str, size: int) -> None:
    with pytest.raises(S3Error) as caught:
        parse_range(header, size)
    assert (caught.value.code, caught.value.status) == ("InvalidRange", 416)
    assert caught.value.fields == {"RangeRequested": header, "ActualObjectSize": str(size)}


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_a_range_serves_what_slicing_would(first: int, last: int, size: int) -> None:
    data = bytes(range(size))
    try:
        part = parse_range(f"bytes={first}-{last}", size)
    except S3Error:
        assert data[first : last + 1] == b""
        return
    if part is None:
        assert last < first
    else:
        assert data[part.first : part.last + 1] == data[first : last + 1]


@given(st.text(max_size=60), st.integers(0, 1 << 40))
@settings(max_examples=200)
def test_arbitrary_headers_give_a_valid_range_nothing_or_an_s3_error(text: str, size: int) -> None:
    for parse in (parse_range, parse_copy_range):
        try:
            part = parse("bytes=" + text, size)
        except S3Error as error:
            assert error.status in (400, 416)  # noqa: PT017
        else:
            assert part is None or 0 <= part.first <= part.last < size


def test_ten_thousand_ranges_cost_nothing() -> None:
    header = "bytes=" + ",".join(f"{n}-{n}" for n in range(10_000))

    def cpu_seconds() -> float:
        start = time.process_time()
        assert parse_range(header, 1 << 40) is None
        return time.process_time() - start

    # Of a few tries one must do: the collector may go through what all other tests have left.
    assert any(cpu_seconds() < 0.05 for _ in range(8))


def test_a_copy_range_is_exact() -> None:
    assert parse_copy_range("bytes=0-9", 10) == ByteRange(0, 9, 10)


@pytest.mark.parametrize(
    "header",
    ["", "bytes=0-", "bytes=-5", "bytes=5-3", "0-5", "Bytes=0-5", "bytes=0-1,2-3", "bytes=0-10"],
)
def test_improper_copy_ranges_are_refused(header: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_copy_range(header, 10)
    assert (caught.value.code, caught.value.status) == ("InvalidArgument", 400)
