"""Access control lists of objects that browsers upload (PostObject)."""

import pytest

from tests.compat.forms import Poster


@pytest.fixture
def poster(http, listed):
    return Poster(http, listed)


def test_a_form_gives_its_object_a_list(http, listed, poster, grants_of, s3):
    assert poster.post({"key": "k", "acl": "public-read"}).status == 204
    assert http.send("GET", f"/{listed}/k").status == 200
    grants = grants_of(s3.get_object_acl(Bucket=listed, Key="k"))
    assert grants == {("owner", "FULL_CONTROL"), ("AllUsers", "READ")}


def test_strangers_add_and_do_not_replace(s3, listed, poster):
    assert poster.send({"key": "k"}).code == "AccessDenied"
    s3.put_bucket_acl(Bucket=listed, ACL="public-read-write")
    assert poster.send({"key": "k"}, b"one").status == 204
    assert poster.send({"key": "k"}, b"two").code == "AccessDenied"
    assert poster.send({"key": "other", "acl": "public-read"}).code == "AccessDenied"
    assert s3.get_object(Bucket=listed, Key="k")["Body"].read() == b"one"


def test_disabled_lists_are_refused(http, bucket):
    reply = Poster(http, bucket).post({"key": "k", "acl": "public-read"})
    assert (reply.status, reply.code) == (400, "AccessControlListNotSupported")
