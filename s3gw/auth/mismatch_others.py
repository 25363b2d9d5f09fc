"""Why a signature of Version 2, or that of a form, does not match: as `s3gw.auth.mismatch` says it
of Version 4, by the same rules.

Version 2 signs little of a request, and so few things explain a mismatch: a method, a Content-Type
that the HTTP library adds (botocore signs none, curl and urllib send one), an `x-amz-` header, the
path. A form signs the text of its policy alone: what remains is what happened to the text on its
way through a page, and how the signature is written.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3gw.auth import sigv2, sigv4
from s3gw.auth.canonical import Request
from s3gw.auth.mismatch import CHANGED, METHODS, SECRET_HEADERS, TRIED_MAX, USUAL_VALUES
from s3gw.errors import InvalidURI, SignatureDoesNotMatch

UNKNOWN_2 = (
    "None of the {tried} usual changes on the way explains the signature. Either the secret key is "
    "not the one of this access key, or another part was changed: compare StringToSign with what "
    "the client signed."
)
UNKNOWN_FORM = (
    "None of the {tried} usual mistakes explains the signature. Either the secret key is not the "
    "one of this access key, or another policy was signed: what is signed is the text of the field "
    "policy, in Base64."
)
PARAMETERS_MAX = 8
FORM_MISTAKE = "The signature is right, but {what}."

# Name of the part, as it may have been signed, as it came, the request as it may have been, the
# bucket that its host named, and who changes the part.
Change2 = tuple[str, bytes, bytes, Request, bytes | None, str]


def explain_version_2(
    request: Request,
    credentials: sigv2.Credentials,
    secret_key: str,
    *,
    hosted_bucket: bytes | None,
    subresources: Collection[bytes],
) -> str:
    """A sentence or two about a query that `sigv2.verify`, given the same, refused. Raises
    InvalidURI."""
    tried = 0
    changes = _changes(request, hosted_bucket, {*sigv2.SUBRESOURCES, *subresources})
    for name, signed, came, changed, bucket, hint in islice(changes, TRIED_MAX):
        tried += 1
        try:
            strings = sigv2.strings_to_sign(changed, credentials.expires, bucket, subresources)
        except (InvalidURI, SignatureDoesNotMatch):
            continue  # nobody can have signed that
        if sigv2.fits(strings, credentials, secret_key):
            part = f"{name} {_text(signed)!r}"
            return CHANGED.format(signed=part, came=repr(_text(came)), hint=hint)
    return UNKNOWN_2.format(tried=tried)


def _changes(
    request: Request, hosted_bucket: bytes | None, signed_parameters: Collection[bytes]
) -> Iterator[Change2]:
    """Likely ones first. Few of them change the query, which may be long: who asks has proved
    nothing yet."""
    values = request.header_values
    for name in (b"content-type", b"content-md5"):
        came = values.get(name, b"")
        for value in dict.fromkeys((b"", *USUAL_VALUES.get(name, ()), came.partition(b";")[0])):
            if value != came:
                hint = "Version 2 signs it also where it is absent; HTTP libraries add one."
                yield (
                    *(f"the header {_text(name)}:", value, came),
                    *(_with_header(request, name, value), hosted_bucket, hint),
                )
    method = request.method.encode("latin-1", "replace")
    for other in METHODS:
        if other != method:
            changed = request.with_same_query(method=other.decode())
            hint = "A URL is presigned for one method."
            yield "the method", other, method, changed, hosted_bucket, hint
    for name, value in values.items():
        if name.startswith(b"x-amz-"):
            came = b"" if name in SECRET_HEADERS else value
            hint = "Version 2 signs every x-amz- header: this one was added after signing."
            removed = _with_header(request, name, b"")
            yield f"no header {_text(name)}:", b"", came, removed, hosted_bucket, hint
    for path, hint in _paths(request.raw_path):
        if path != request.raw_path:
            changed = request.with_same_query(raw_path=path)
            yield "the path", path, request.raw_path, changed, hosted_bucket, hint
    if hosted_bucket is not None:
        hint = "The bucket in the host name is signed in front of the path."
        yield (
            "the path",
            request.raw_path,
            b"/" + hosted_bucket + request.raw_path,
            request,
            None,
            hint,
        )
    pieces = request.raw_query.split(b"&")
    found = [i for i, (_, (name, _)) in enumerate(request.query_pairs) if name in signed_parameters]
    for index in found[:PARAMETERS_MAX]:
        kept = b"&".join(pieces[:index] + pieces[index + 1 :])
        hint = "The parameter was added after signing."
        changed = replace(request, raw_query=kept)
        yield "no parameter", b"", pieces[index], changed, hosted_bucket, hint


def _with_header(request: Request, name: bytes, value: bytes) -> Request:
    kept = [pair for pair in request.headers if pair[0] != name]
    return request.with_same_query(headers=[*kept, (name, value)] if value else kept)


def _paths(raw: bytes) -> Iterator[tuple[bytes, str]]:
    decoded = unquote_to_bytes(raw)
    twice = quote_from_bytes(unquote_to_bytes(decoded), safe="/~").encode()
    yield twice, "The path was percent-encoded once more on the way."
    yield (
        quote_from_bytes(quote_from_bytes(decoded, safe="/~").encode(), safe="/~").encode(),
        "The path is signed percent-encoded once.",
    )
    yield raw.replace(b"%20", b"%2B"), "A plus in a path was made a space on the way."
    yield raw.replace(b"+", b"%20"), "A plus in a path is a plus: a space must be sent as %20."
    other = raw.removesuffix(b"/") if raw.endswith(b"/") else raw + b"/"
    yield other or b"/", "A slash at the end was added or removed."
    bucket, _, rest = raw[1:].partition(b"/")
    yield b"/" + rest, f"The bucket {_text(bucket)} was not in the path when it was signed."


def explain_form(fields: Mapping[str, str], secret_key: str) -> str:
    """A sentence or two about a form that `s3gw.auth.post_form.authenticate_form` refused with
    SignatureDoesNotMatch. `fields` by lower-case name."""
    version_4 = "x-amz-signature" in fields
    tried = 0
    for what, key, policy, algorithm in _form_mistakes(fields, secret_key, version_4=version_4):
        digest = hmac.digest(key, policy, algorithm)
        sent = fields["x-amz-signature" if version_4 else "signature"].encode()
        for written, how in ((digest.hex().encode(), "hex"), (base64.b64encode(digest), "Base64")):
            tried += 1
            if hmac.compare_digest(sent.strip(), written):
                form = "" if (how == "hex") is version_4 else f"it is in {how}"
                space = "" if sent.strip() == sent else "white space is around it"
                found = " and ".join(each for each in (what, form, space) if each)
                return FORM_MISTAKE.format(what=found)
            if version_4 and hmac.compare_digest(sent.lower(), written):
                return FORM_MISTAKE.format(what="it is in capitals")
    return UNKNOWN_FORM.format(tried=tried)


def _form_mistakes(
    fields: Mapping[str, str], secret_key: str, *, version_4: bool
) -> Iterator[tuple[str, bytes, bytes, str]]:
    """What was done, the key, the text that was signed and the hash function: none first."""
    secret = secret_key.encode()
    key, algorithm = secret, "sha1"
    if version_4:
        scope = fields["x-amz-credential"].partition("/")[2].encode()
        key, algorithm = sigv4.signing_key(secret_key, scope), "sha256"
    text = fields["policy"].encode()
    yield "", key, text, algorithm
    for what, policy in _policies(text):
        if policy != text:
            yield what, key, policy, algorithm
    if version_4:
        yield (
            "it is made with the secret key itself, not with the signing key",
            secret,
            text,
            algorithm,
        )
    other = "sha1" if version_4 else "sha256"
    yield f"it is made with HMAC-{other.upper()}", secret, text, other


def _policies(text: bytes) -> Iterator[tuple[str, bytes]]:
    yield "the policy lost its plus signs: they came as spaces", text.replace(b" ", b"+")
    yield "the policy has white space that was not signed", b"".join(text.split())
    yield "the policy was signed with a line feed at its end", text + b"\n"
    yield "the policy was signed with other ends of lines", text.replace(b"\r\n", b"\n")
    yield "the policy was signed without its padding", text.rstrip(b"=")
    try:
        yield "the policy was signed before it was written in Base64", base64.b64decode(text)
    except binascii.Error:
        return


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
