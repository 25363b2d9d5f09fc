"""Lines of access logs: the fields of S3, and nothing that a client sends breaks or leaks."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.limits import KEY_BYTES_MAX
from s3gw.wire.access_log import Entry, access_line, masked

# As readers of such logs take them apart (Athena's regular expression of S3's documentation).
FIELDS = re.compile(
    r"^([^ ]*) ([^ ]*) \[(.*?)\] ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) (\"[^\"]*\"|-) "
    r"(-|[0-9]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) (\"[^\"]*\"|-) (\"[^\"]*\"|-) ([^ ]*) "
    r"([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*)\n$"
)
ENTRY = Entry(
    owner="79a59df900b949e5",
    bucket="bucket",
    seconds=1549411238.25,
    address="192.0.2.3",
    requester="arn:aws:iam::000000000000:user/alice",
    request_id="3E57427F3EXAMPLE",
    operation="REST.GET.OBJECT",
    key="photos/2019/08/puppy.jpg",
    request_uri="GET /bucket/photos/2019/08/puppy.jpg?x-foo=bar HTTP/1.1",
    status=200,
    error="",
    bytes_sent=2662992,
    object_size=3462992,
    total_ms=70,
    turnaround_ms=10,
    referrer="http://www.example.com/webservices",
    user_agent="curl/7.15.1",
    version_id="",
    host_id="s9lzHYrFp76ZVxRcpX9",
    signature="SigV4",
    authentication="AuthHeader",
    host="bucket.s3.example.com",
)


def test_the_fields_are_those_of_s3_in_their_order() -> None:
    assert access_line(ENTRY).decode() == (
        "79a59df900b949e5 bucket [06/Feb/2019:00:00:38 +0000] 192.0.2.3 "
        "arn:aws:iam::000000000000:user/alice 3E57427F3EXAMPLE REST.GET.OBJECT "
        'photos/2019/08/puppy.jpg "GET /bucket/photos/2019/08/puppy.jpg?x-foo=bar HTTP/1.1" '
        '200 - 2662992 3462992 70 10 "http://www.example.com/webservices" "curl/7.15.1" - '
        "s9lzHYrFp76ZVxRcpX9 SigV4 - AuthHeader bucket.s3.example.com - - -\n"
    )


def test_the_last_field_says_that_a_list_was_needed() -> None:
    assert access_line(replace(ENTRY, by_list=True)).endswith(b" bucket.s3.example.com - - Yes\n")


def test_what_is_not_known_is_a_dash() -> None:
    line = access_line(
        replace(ENTRY, requester="", referrer="", user_agent="", bytes_sent=0, object_size=-1)
    ).decode()
    found = FIELDS.match(line)
    assert found is not None
    assert found.group(5, 12, 13, 16, 17) == ("-", "-", "-", '"-"', '"-"')


@given(
    agent=st.text(st.characters(max_codepoint=255)),
    referrer=st.text(st.characters(max_codepoint=255)),
    uri=st.text(st.characters(max_codepoint=255)),
    key=st.text(st.characters(exclude_categories=("Cs",))),
    host=st.text(st.characters(max_codepoint=255)),
)
def test_nothing_sent_ends_a_field_or_a_line(
    agent: str, referrer: str, uri: str, key: str, host: str
) -> None:
    entry = replace(ENTRY, user_agent=agent, referrer=referrer, request_uri=uri, key=key, host=host)
    line = access_line(entry).decode("ascii")
    assert line.count("\n") == 1
    found = FIELDS.match(line)
    assert found is not None
    assert found.group(10) == "200"
    assert found.group(20) == "SigV4"


def test_a_key_is_cut_where_no_object_has_a_longer_one() -> None:
    whole = access_line(replace(ENTRY, key="k" * KEY_BYTES_MAX))
    assert b" " + b"k" * KEY_BYTES_MAX + b" " in whole
    assert access_line(replace(ENTRY, key="k" * 2_000_000)) == whole


def test_quotes_and_new_lines_are_percent_encoded() -> None:
    entry = replace(ENTRY, key='a"\nb c', user_agent='x" 200 -\r\nforged "\\')
    line = access_line(entry).decode()
    assert " a%22%0Ab%20c " in line
    assert '"x%22 200 -%0D%0Aforged %22%5C"' in line


@pytest.mark.parametrize(
    "name",
    [
        "X-Amz-Signature",
        "x-amz-signature",
        "Signature",
        "X-Amz-Security-Token",
        "X%2DAmz-Signatur%65",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-key",
    ],
)
def test_secrets_of_presigned_urls_are_masked(name: str) -> None:
    uri = f"GET /b/k?versionId=1&{name}=SECRET%2F&X-Amz-SignedHeaders=host HTTP/1.1"
    referrer = f"https://example.com/page?{name}=SECRET"
    line = access_line(replace(ENTRY, request_uri=uri, referrer=referrer)).decode()
    assert "SECRET" not in line
    assert f"?versionId=1&{name}=***&X-Amz-SignedHeaders=host HTTP/1.1" in line
    assert masked(uri.replace(f"&{name}=SECRET%2F", "")).count("***") == 0
