"""Forms cut at every offset, of every size, and broken in every way."""

import random

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from s3gw import errors
from s3gw.limits import FORM_FIELDS_BYTES_MAX
from s3gw.wire.forms import FormDecoder, parse_boundary

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
Result = tuple[dict[str, str], str, bytes]


def part(name: str, value: bytes, *more: str) -> bytes:
    lines = [f'Content-Disposition: form-data; name="{name}"', *more]
    return "\r\n".join([f"--{BOUNDARY}", *lines, "", ""]).encode() + value + b"\r\n"


def file_part(data: bytes, filename: str = "photo.jpg") -> bytes:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
    lines = [f"--{BOUNDARY}", disposition, "Content-Type: image/jpeg", "", ""]
    return "\r\n".join(lines).encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORM = part("Key", b"a ${filename}") + part("acl", "é".encode()) + file_part(b"\r\n--data\r\n")


def decode(body: bytes, *cuts: int) -> Result:
    form = FormDecoder(CONTENT_TYPE)
    data = bytearray()
    at = 0
    for cut in (*sorted(cuts), len(body)):
        for piece in form.feed(body[at:cut]):
            data += piece
        at = cut
    form.finish()
    return form.fields, form.filename, bytes(data)


def outcome(body: bytes, *cuts: int) -> Result | type[errors.S3Error]:
    try:
        return decode(body, *cuts)
    except errors.S3Error as error:
        return type(error)


def test_a_form_is_the_same_however_it_is_cut() -> None:
    body = FORM + part("after", b"ignored") + END
    whole = decode(body)
    assert whole == ({"key": "a ${filename}", "acl": "é"}, "photo.jpg", b"\r\n--data\r\n")
    assert all(decode(body, cut) == whole for cut in range(len(body)))
    assert decode(body, *range(len(body))) == whole


@pytest.mark.parametrize("end", [END, END.rstrip(), END + b"and what follows"])
def test_a_form_that_ends_early_is_refused_at_every_offset(end: bytes) -> None:
    whole = FORM + end
    last = len(FORM) + len(END.rstrip())
    for length in range(last):
        assert outcome(whole[:length]) is errors.MalformedPOSTRequest
    for length in range(last, len(whole) + 1):
        assert outcome(whole[:length]) == decode(whole)


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%;'), min_size=1
)
VALUES = st.binary(max_size=200) | st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", BOUNDARY.encode()[:20], b"a"])
).map(b"".join)


@given(
    fields=st.dictionaries(
        NAMES.filter(lambda n: n.lower() != "file"), st.text(max_size=50), max_size=5
    ),
    data=VALUES,
    filename=NAMES,
    cuts=st.lists(st.integers(0, 3000), max_size=8),
)
def test_what_was_put_in_comes_out(
    fields: dict[str, str], data: bytes, filename: str, cuts: list[int]
) -> None:
    lowered = {name.lower(): value for name, value in fields.items()}
    body = b"".join(part(name, value.encode()) for name, value in lowered.items())
    body += file_part(data, filename) + END
    assume(lowered.keys() == {name.lower() for name in lowered})  # unlike that of İ
    assert decode(body, *cuts) == (lowered, filename.split("/")[-1], data)


@given(
    seed=st.integers(0, 2**32),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 600), max_size=5),
)
@example(seed=1, changes=[(0.0, b"")], cuts=[])
def test_a_spoilt_form_is_refused_or_read_the_same_however_it_is_cut(
    seed: int, changes: list[tuple[float, bytes]], cuts: list[int]
) -> None:
    body = bytearray(FORM + part("after", b"x") + END)
    chance = random.Random(seed)
    for place, put in changes:
        first = int(place * len(body))
        body[first : first + chance.randrange(4)] = put
    assert outcome(bytes(body), *cuts) == outcome(bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"preamble\r\n" + FORM + END,
        b"\r\n" + FORM + END,
        FORM.replace(b"\r\n", b"\n") + END,
        FORM,
        b"--" + BOUNDARY.encode() + b"\r\n\r\nno header\r\n" + END,
        part("key", b"a").replace(b"form-data", b"attachment") + FORM + END,
        part("key\nx", b"a") + END,
        part("a", b"a", "Content-Length: 2") + END,
        part("a", b"a", "X: a\rb") + END,
        part("a", f"\r\n--{BOUNDARY}x".encode()) + END,
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    assert outcome(body) is errors.MalformedPOSTRequest
    assert outcome(body, *range(len(body))) is errors.MalformedPOSTRequest


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (END, errors.IncorrectNumberOfFilesInPostRequest),
        (part("key", b"a") + END, errors.IncorrectNumberOfFilesInPostRequest),
        (FORM + file_part(b"two") + END, errors.IncorrectNumberOfFilesInPostRequest),
        (part("key", b"a") + part("KEY", b"b") + FORM + END, errors.InvalidArgument),
        (part("", b"a") + FORM + END, errors.InvalidArgument),
        (part("key", b"\xff") + FORM + END, errors.InvalidArgument),
    ],
)
def test_fields_and_files_are_counted(body: bytes, error: type[errors.S3Error]) -> None:
    assert {outcome(body, cut) for cut in range(len(body))} == {error}


def test_what_is_not_the_file_is_bounded() -> None:
    too_large = errors.MaxPostPreDataLengthExceededError
    room = FORM_FIELDS_BYTES_MAX - len(FORM) + len(b"\r\n--data\r\n") - len(part("pad", b"") + END)
    for over, bodies in {
        False: (part("pad", b"x" * room) + FORM + END, FORM + part("pad", b"x" * room) + END),
        True: (part("pad", b"x" * (room + 1)) + FORM + END, FORM + END + b"x" * 30_000),
    }.items():
        for body in bodies:
            found = {str(outcome(body, cut)) for cut in range(0, len(body), 997)}
            assert len(found) == 1
            assert (outcome(body) is too_large) == over
    large = FORM.replace(b"--data", b"x" * 1_000_000)
    assert len(decode(large + END)[2]) > 1_000_000


def test_fields_without_end_are_refused_before_they_are_held() -> None:
    form = FormDecoder(CONTENT_TYPE)
    form.feed(part("a", b"")[:-2])
    with pytest.raises(errors.MaxPostPreDataLengthExceededError):
        form.feed(b"x" * 1_000_000)


def test_what_follows_the_file_is_refused_as_soon_as_it_is_too_much() -> None:
    for rest in (END, part("a", b"")[:-2]):
        form = FormDecoder(CONTENT_TYPE)
        form.feed(FORM + rest)
        with pytest.raises(errors.MaxPostPreDataLengthExceededError):
            form.feed(b"x" * 30_000)


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("photo.jpg", "photo.jpg"),
        ("C:\\My Pictures\\photo.jpg", "photo.jpg"),
        ("/etc/photo.jpg", "photo.jpg"),
        ("../photo.jpg", "photo.jpg"),
        ("a%22b", 'a"b'),
        ("日本.txt", "日本.txt"),
        ("", ""),
        ("a;b=c.txt", "a;b=c.txt"),
    ],
)
def test_the_name_of_the_file_is_that_without_its_folders(sent: str, filename: str) -> None:
    assert decode(file_part(b"x", sent) + END)[1] == filename


def test_a_file_may_be_text_without_a_name() -> None:
    assert decode(part("file", b"text") + END) == ({}, "", b"text")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="a b"', b"a b"),
        ("Multipart/Form-Data;charset=utf-8;BOUNDARY=x", b"x"),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("", errors.PreconditionFailed),
        ("application/x-www-form-urlencoded", errors.PreconditionFailed),
        ("multipart/mixed; boundary=x", errors.PreconditionFailed),
        ("multipart/form-data", errors.MalformedPOSTRequest),
        ("multipart/form-data; boundary=", errors.MalformedPOSTRequest),
        ('multipart/form-data; boundary=""', errors.MalformedPOSTRequest),
        ("multipart/form-data; boundary=" + "x" * 71, errors.MalformedPOSTRequest),
        ("multipart/form-data; boundary=é", errors.MalformedPOSTRequest),
    ],
)
def test_what_names_no_boundary_is_refused(content_type: str, error: type[errors.S3Error]) -> None:
    with pytest.raises(error):
        FormDecoder(content_type)
