"""Says why a signature does not match, to who may know.

A client that signs the header `x-s3gw-debug: explain` with its request asks for it; the setting
`explain_signatures` asks for all. It is said when the access key is root's or one whose policies
allow `s3gw:ExplainAccess`; the error is what it is in any case, for the caller has proved nothing.
See s3gw.auth.mismatch for what can be said.
"""

from __future__ import annotations

from s3gw.auth import sigv4
from s3gw.auth.canonical import Request
from s3gw.auth.mismatch import explain
from s3gw.auth.policy import RequestContext, principal_values
from s3gw.errors import SignatureDoesNotMatch
from s3gw.identities.view import Identities
from s3gw.operations.access import EXPLAIN, explains_to

HEADER, ASKED = b"x-s3gw-debug", b"explain"
FIELD = "Explanation"


def add_explanation(
    error: SignatureDoesNotMatch,
    request: Request,
    region: str,
    identities: Identities,
    *,
    always: bool = False,
) -> None:
    """Add the explanation to the error of a request that may have it and, unless it is `always`
    given, asks for it."""
    asks = request.header_values.get(HEADER) == ASKED
    if not (asks or always):
        return
    credentials = sigv4.parse_credentials(request, (region,))
    if credentials is None or not (always or HEADER in credentials.signed_headers):
        return
    principal, permissions = identities.identify(credentials.access_key, credentials.session_token)
    context = RequestContext(principal, EXPLAIN, "*", principal_values(principal))
    if explains_to(context, permissions):
        secret = identities.signing_secret(credentials.access_key, credentials.session_token)
        error.fields[FIELD] = explain(request, credentials, secret)
