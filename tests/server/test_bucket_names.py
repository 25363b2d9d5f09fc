import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.buckets.names import check_new, is_well_formed
from s3gw.errors import InvalidBucketName

GOOD = [
    "abc",
    "a-b",
    "a.b.c",
    "1ab",
    "my.bucket-9",
    "a" * 63,
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.a",
    "a--b",
]
BAD = [
    "",
    "ab",
    "a" * 64,
    "Abc",
    "a_b",
    "-ab",
    "ab-",
    ".ab",
    "ab.",
    "a..b",
    "192.168.5.4",
    "a b",
    "a/b",
]
RESERVED = ["xn--abc", "sthree-a", "amzn-s3-demo-bucket", "abc-s3alias", "abc--ol-s3"]
RESERVED += ["abc.mrap", "abc--x-s3", "abc--table-s3", "a-.bc", "a.-bc"]


@pytest.mark.parametrize("name", GOOD)
def test_name_within_the_rules_is_accepted(name: str) -> None:
    assert is_well_formed(name.encode())
    check_new(name)


@pytest.mark.parametrize("name", [*BAD, "bücket", "abc\ud800"])
def test_name_against_the_rules_is_refused(name: str) -> None:
    assert not is_well_formed(name.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidBucketName) as caught:
        check_new(name)
    assert caught.value.fields == {"BucketName": name}


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_name_and_what_is_no_host_name_may_be_asked_for_but_not_created(name: str) -> None:
    assert is_well_formed(name.encode())
    with pytest.raises(InvalidBucketName):
        check_new(name)


@given(st.binary(max_size=70))
def test_any_bytes_are_either_a_name_or_not(name: bytes) -> None:
    if is_well_formed(name):
        assert 3 <= len(name) <= 63
        assert name.decode("ascii").lower().encode() == name
