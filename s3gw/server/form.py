"""A form upload as the PUT that it describes.

    field                                        acts as
    key, with ${filename} replaced               the key
    acl, tagging (an XML document)               x-amz-acl, x-amz-tagging
    Content-Type, Cache-Control, …, Content-MD5  the header of its name
    x-amz-meta-*, x-amz-storage-class, …         the header of its name, unless it signs the form
    success_action_redirect, -_status            read by the operation
    file                                         the body

Of the request's own headers only those say something about the upload that say where it came from:
a browser's user cannot be made to send others, and nobody signed them. What follows is the pipeline
of any PUT: bucket, key and policies are asked for `s3:PutObject` and whatever the headers need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from nodes.protocol import Buffer
from s3gw import errors, limits
from s3gw.auth.policy_evaluate import NO_PERMISSIONS
from s3gw.auth.post_form import authenticate_form
from s3gw.auth.post_policy import ANY_SIZE, FileSize, parse_post_policy
from s3gw.auth.sigv4 import ONE_MECHANISM, UNSIGNED
from s3gw.buckets.tagging import parse_object_tags
from s3gw.identities.view import Identities
from s3gw.operations.call import ANONYMOUS, Call
from s3gw.server.body import RequestBody
from s3gw.server.explain import add_form_explanation
from s3gw.wire.forms import CONTROLS, FormDecoder
from s3gw.wire.headers import CONTENT_HEADERS

FILENAME = "${filename}"
HEADERS = {"acl": "x-amz-acl"} | {name: name for name in (*CONTENT_HEADERS, "content-md5")}
AMZ = "x-amz-"
# What signs a form, frames a body or names a source is no property of the object.
NO_HEADERS = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-content-sha256",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-trailer",
    }
)
COPY_SOURCE = "x-amz-copy-source"
ABOUT_THE_SENDER = ("host", "user-agent", "referer", "x-amz-expected-bucket-owner")


async def form_call(call: Call, identities: Identities, *, explain: bool = False) -> Call:
    """The call of the upload that the form in the body of `call` describes, authenticated by the
    form. Reads the body up to the file. `explain`: say also who did not ask for it why a signature
    does not match (see s3gw.server.explain). Raises S3Error."""
    if call.signed:
        raise errors.InvalidArgument(ONE_MECHANISM, ArgumentName="Authorization")
    form = FormDecoder(call.headers.get("content-type", ""))
    source = aiter(call.body)
    begun: list[bytes] = []
    async for data in source:
        begun = form.feed(bytes(data))
        if form.file_begun:
            break
    else:
        form.finish()
    fields = form.fields | {"key": _key(form)}
    now = call.origin.now
    try:
        signer = authenticate_form(
            fields, identities.signing_secret, regions=(call.settings.region,), now=now
        )
    except errors.SignatureDoesNotMatch as error:
        await add_form_explanation(error, fields, identities, always=explain)
        raise
    principal, permissions, origin, file_size = ANONYMOUS, NO_PERMISSIONS, call.origin, ANY_SIZE
    again = None
    if signer is not None:
        policy = parse_post_policy(fields["policy"])
        policy.check(fields, call.bucket_name, now)
        file_size = policy.file_size
        again = identities.identify_again(signer.access_key, signer.session_token)
        principal, permissions = again()
        origin = replace(origin, signature=signer.algorithm, timestamp=signer.timestamp)
    headers = {name: call.headers[name] for name in ABOUT_THE_SENDER if name in call.headers}
    headers |= await _headers(fields)
    file = FormFile(form, begun, source, file_size)
    return replace(
        call,
        key=fields["key"],
        query={},
        headers=headers,
        fields=fields,
        principal=principal,
        permissions=permissions,
        identify_again=again,
        signed=signer is not None,
        origin=origin,
        body=RequestBody(file.receive, headers, UNSIGNED, None),
    )


class FormFile:
    """The file of a form, as the body of a request: an ASGI `receive`."""

    def __init__(
        self,
        form: FormDecoder,
        begun: Iterable[bytes],
        source: AsyncIterator[Buffer],
        file_size: FileSize,
    ) -> None:
        self._form = form
        self._begun = begun
        self._source = source
        self._file_size = file_size
        self._pieces = self._read()

    async def receive(self) -> MutableMapping[str, Any]:
        """The next piece. Raises what the decoder raises; EntityTooLarge, EntityTooSmall."""
        piece = await anext(self._pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def _read(self) -> AsyncIterator[bytes]:
        size = 0
        for piece in self._begun:
            size += len(piece)
            self._file_size.check_so_far(size)
            yield piece
        async for data in self._source:
            for piece in self._form.feed(bytes(data)):
                size += len(piece)
                self._file_size.check_so_far(size)
                yield piece
        self._form.finish()
        self._file_size.check(size)


def _key(form: FormDecoder) -> str:
    """The key that the form names. Raises UserKeyMustBeSpecified, KeyTooLongError,
    InvalidArgument."""
    key = form.fields.get("key", "").replace(FILENAME, form.filename)
    if not key:
        raise errors.UserKeyMustBeSpecified(ArgumentName="key", ArgumentValue="")
    size = len(key.encode())
    if size > limits.KEY_BYTES_MAX:
        raise errors.KeyTooLongError(Size=str(size), MaxSizeAllowed=str(limits.KEY_BYTES_MAX))
    if "\0" in key:
        raise errors.InvalidArgument("A key must not contain NUL.", ArgumentName="key")
    return key


async def _headers(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers that the fields act as, in the form in which headers arrive: the characters of
    latin-1, one for each byte. Raises S3Error."""
    headers: dict[str, str] = {}
    for name, value in fields.items():
        header = HEADERS.get(name)
        if header is None and name.startswith(AMZ) and not name.startswith(COPY_SOURCE):
            header = None if name in NO_HEADERS else name
        if header is None:
            continue
        if CONTROLS.search(value):
            raise errors.InvalidArgument(
                "A field that acts as a header must not contain control characters.",
                ArgumentName=name,
            )
        headers.setdefault(header, value.strip(" \t").encode().decode("latin-1"))
    document = fields.get("tagging", "").encode()
    if document.strip():
        if len(document) <= limits.XML_ON_LOOP_BYTES_MAX:
            tags = parse_object_tags(document)
        else:
            tags = await asyncio.to_thread(parse_object_tags, document)
        pairs = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items()]
        headers["x-amz-tagging"] = "&".join(pairs)
    return headers
