"""Says why a signature does not match, to who may know.

A client that signs the header `x-s3gw-debug: explain` with its request asks for it; the setting
`explain_signatures` asks for all. It is said when the access key is root's or one whose policies
allow `s3gw:ExplainAccess`; the error is what it is in any case, for the caller has proved nothing.
See s3gw.auth.mismatch for what can be said.

Version 2 signs no such header, and there it suffices to send it; a form has it as a field. An
answer to HEAD has no body: its explanation is in the header `x-s3gw-explanation`.

The tries cost more than a tenth of a second for the longest query, and so are made in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from s3gw.auth import sigv2, sigv4
from s3gw.auth.authenticate import acting
from s3gw.auth.canonical import Request
from s3gw.auth.mismatch import explain
from s3gw.auth.mismatch_others import explain_form, explain_version_2
from s3gw.auth.policy import RequestContext, principal_values
from s3gw.auth.post_form import TOKEN
from s3gw.errors import S3Error, SignatureDoesNotMatch
from s3gw.identities.view import Identities
from s3gw.operations.access import EXPLAIN, explains_to

HEADER, ASKED = b"x-s3gw-debug", b"explain"
FIELD = "Explanation"
REPLY_HEADER = "x-s3gw-explanation"
HEADER_CHARACTERS_MAX = 2000


async def add_explanation(
    error: SignatureDoesNotMatch,
    request: Request,
    region: str,
    identities: Identities,
    *,
    always: bool = False,
    hosted_bucket: bytes | None = None,
    subresources: Collection[bytes] = (),
) -> None:
    """Add the explanation to the error of a request that may have it and, unless it is `always`
    given, asks for it. `hosted_bucket` and `subresources` as of `sigv2.verify`."""
    if not (always or request.header_values.get(HEADER) == ASKED):
        return
    old = sigv2.parse_credentials(request) if request.raw_query else None
    if old is None:
        credentials = sigv4.parse_credentials(request, (region,))
        if credentials is None or not (always or HEADER in credentials.signed_headers):
            return
        secret = _secret(identities, credentials.access_key, credentials.session_token)
        if secret is not None:
            error.fields[FIELD] = await asyncio.to_thread(explain, request, credentials, secret)
        return
    moved = acting(request)
    raw_token = moved.header_values.get(b"x-amz-security-token")
    token = None if raw_token is None else raw_token.decode("latin-1")
    secret = _secret(identities, old.access_key, token)
    if secret is not None:
        error.fields[FIELD] = await asyncio.to_thread(
            explain_version_2,
            moved,
            old,
            secret,
            hosted_bucket=hosted_bucket,
            subresources=subresources,
        )


async def add_form_explanation(
    error: SignatureDoesNotMatch,
    fields: Mapping[str, str],
    identities: Identities,
    *,
    always: bool = False,
) -> None:
    """The same for the fields of a form."""
    if not (always or fields.get(HEADER.decode()) == ASKED.decode()):
        return
    access_key = error.fields["AWSAccessKeyId"]
    secret = _secret(identities, access_key, fields.get(TOKEN))
    if secret is not None:
        error.fields[FIELD] = await asyncio.to_thread(explain_form, fields, secret)


def _secret(identities: Identities, access_key: str, token: str | None) -> str | None:
    """The secret of a signer who may be told, else None."""
    principal, permissions = identities.identify(access_key, token)
    context = RequestContext(principal, EXPLAIN, "*", principal_values(principal))
    if not explains_to(context, permissions):
        return None
    return identities.signing_secret(access_key, token)


def explanation_header(error: S3Error) -> list[tuple[str, str]]:
    """What an answer without a body carries instead of the field: one line of ASCII."""
    if FIELD not in error.fields:
        return []
    text = " ".join(error.fields[FIELD].split())
    line = text.encode("ascii", "backslashreplace").decode()
    return [(REPLY_HEADER, line[:HEADER_CHARACTERS_MAX])]
