"""Access control lists as values: read from three forms, kept, and rendered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.buckets import acl
from s3gw.buckets.acl import ALL_USERS, AUTHENTICATED_USERS, EC2, GROUPS, PERMISSIONS, Grant, Kind
from s3gw.errors import S3Error

OWNER = "ab" * 32
LIMIT = 64 * 1024
GRANTS = st.builds(Grant, st.sampled_from([OWNER, EC2, *GROUPS]), st.sampled_from(PERMISSIONS))
ACLS = st.lists(GRANTS, unique=True).map(tuple)


@given(ACLS)
def test_a_list_survives_being_stored_and_being_sent(found: acl.Acl) -> None:
    assert acl.stored(acl.to_store(found, OWNER), OWNER) == found
    assert acl.of_document(acl.render(found, OWNER, "us"), OWNER, limit=LIMIT) == found


@given(ACLS)
def test_it_is_public_when_it_grants_a_public_group_something(found: acl.Acl) -> None:
    public = {ALL_USERS, AUTHENTICATED_USERS}
    assert acl.is_public(found) is bool({grant.grantee for grant in found} & public)


def test_what_the_owner_alone_has_takes_no_room() -> None:
    assert acl.to_store(acl.owner_alone(OWNER), OWNER) == b""
    assert acl.stored(b"", OWNER) == acl.owner_alone(OWNER)
    assert acl.to_store((), OWNER) == b"[]"
    assert acl.stored(b"[]", OWNER) == ()


@pytest.mark.parametrize("name", acl.CANNED)
def test_a_canned_list_starts_with_the_owner(name: str) -> None:
    found = acl.of_headers({"x-amz-acl": name}, OWNER, Kind.BUCKET)
    assert found is not None
    assert found[0] == Grant(OWNER, "FULL_CONTROL")
    assert len(set(found)) == len(found) == 1 + len(acl.CANNED[name])


# text of x-amz-grant-read → grantees, or the code of its refusal
GRANTEES = [
    (f'id="{OWNER}"', [OWNER]),
    (f"id={OWNER}", [OWNER]),
    (f"ID = {OWNER}", [OWNER]),
    (f'uri="{ALL_USERS}"', [ALL_USERS]),
    (f'uri="{ALL_USERS}",id={OWNER}', [ALL_USERS, OWNER]),
    (f"  uri={ALL_USERS} , id={OWNER}  ", [ALL_USERS, OWNER]),
    (f"id={OWNER}, id={OWNER}", [OWNER]),
    (f"id={EC2}", [EC2]),
    ("", "InvalidArgument"),
    ("id", "InvalidArgument"),
    ("id=", "InvalidArgument"),
    ('id=""', "InvalidArgument"),
    ("id=x", "InvalidArgument"),
    (f"id={OWNER} id={OWNER}", "InvalidArgument"),
    (f"id={OWNER},", "InvalidArgument"),
    (f'id="{OWNER}', "InvalidArgument"),
    (f"name={OWNER}", "InvalidArgument"),
    ("uri=http://acs.amazonaws.com/groups/global/allusers", "InvalidArgument"),
    ('emailAddress="a@example.com"', "UnresolvableGrantByEmailAddress"),
    (f"id={OWNER}, emailaddress=a@example.com", "UnresolvableGrantByEmailAddress"),
]


@pytest.mark.parametrize(("text", "expected"), GRANTEES)
def test_grantees_of_headers(text: str, expected: list[str] | str) -> None:
    headers = {"x-amz-grant-read": text}
    if isinstance(expected, list):
        found = acl.of_headers(headers, OWNER, Kind.OBJECT)
        assert found == tuple(Grant(grantee, "READ") for grantee in expected)
        return
    with pytest.raises(S3Error) as caught:
        acl.of_headers(headers, OWNER, Kind.OBJECT)
    assert caught.value.code == expected


def read_or_refused(text: str) -> set[str]:
    """The permissions that a header grants, or the status of its refusal."""
    try:
        found = acl.of_headers({"x-amz-grant-write": text}, OWNER, Kind.BUCKET)
    except S3Error as error:
        return {str(error.status)}
    return {grant.permission for grant in found or ()}


@given(st.text(max_size=200))
def test_any_header_is_read_or_refused(text: str) -> None:
    assert read_or_refused(text) in ({"WRITE"}, {"400"})


def test_headers_without_a_list_ask_for_none() -> None:
    assert acl.of_headers({"x-amz-meta-acl": "public-read"}, OWNER, Kind.OBJECT) is None


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ({}, False),
        ({"ownershipControls": b"BucketOwnerEnforced"}, False),
        ({"ownershipControls": b"BucketOwnerPreferred"}, True),
        ({"ownershipControls": b"ObjectWriter"}, True),
        ({"acl": b"[]"}, False),
    ],
)
def test_where_lists_count(documents: dict[str, bytes], expected: bool) -> None:
    assert acl.in_force(documents) is expected


def test_a_list_that_is_too_long_is_refused() -> None:
    grants = tuple(Grant(grantee, "READ") for grantee in (OWNER, ALL_USERS)) * 51
    with pytest.raises(S3Error) as caught:
        acl.of_document(acl.render(grants, OWNER, "us"), OWNER, limit=LIMIT)
    assert caught.value.code == "MalformedACLError"
