"""The signer of the admin command line against botocore's, and against our own verifier."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from s3gw.auth import sigv4
from s3gw.auth.canonical import Request
from s3gw.auth.signer import sign

NOW = datetime(2026, 5, 17, 12, 34, 56, tzinfo=UTC)
KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG", "region": "eu-west-3"}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    segments=st.lists(NAMES, max_size=3),
    query=st.dictionaries(NAMES, NAMES, max_size=3),
    body=st.binary(max_size=100),
)
@example(method="GET", segments=["/"], query={"/+": "%"}, body=b"")
def test_it_signs_as_botocore_does(
    method: str, segments: list[str], query: dict[str, str], body: bytes
) -> None:
    path = "/admin/" + "/".join(quote(segment, safe="~") for segment in segments)
    pairs = "&".join(f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in query.items())
    target = f"{path}?{pairs}" if pairs else path
    ours = sign(method, target.encode(), {"host": "a:1"}, body, now=NOW.timestamp(), **KEYS)

    request = AWSRequest(method, f"http://a:1{target}", {"host": "a:1"}, body)
    signer = botocore.auth.S3SigV4Auth(
        Credentials(KEYS["access_key"], KEYS["secret_key"]), "s3", KEYS["region"]
    )
    with (
        mock.patch.object(
            botocore.auth, "get_current_datetime", return_value=NOW.replace(tzinfo=None)
        ),
        mock.patch.object(signer, "_should_sha256_sign_payload", return_value=True),
    ):
        signer.add_auth(request)
    assert ours["authorization"] == request.headers["Authorization"]
    assert ours["x-amz-content-sha256"] == request.headers["X-Amz-Content-SHA256"]


def test_what_it_signs_the_verifier_accepts() -> None:
    headers = sign(
        "POST", b"/admin/x%20y?b=2&a=1", {"host": "h"}, b"{}", now=NOW.timestamp(), **KEYS
    )
    request = Request(
        "POST",
        b"/admin/x%20y",
        b"b=2&a=1",
        [(name.encode(), text.encode()) for name, text in headers.items()],
        NOW.timestamp(),
    )
    credentials = sigv4.parse_credentials(request, (KEYS["region"],))
    assert credentials is not None
    signed = sigv4.verify(request, credentials, KEYS["secret_key"])
    assert signed.payload.mode is sigv4.PayloadMode.HASHED
