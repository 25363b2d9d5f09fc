"""`multipart/form-data` as a browser sends it: some fields, and a file that is passed on in pieces.

    form = FormDecoder(content_type)
    form.feed(data)         # until `form.file_begun`: the fields before the file are complete then
    form.feed(data)         # pieces of the file
    form.finish()           # the body has ended: was it whole?

The library finds the boundaries; what S3 makes of a form is said here. The file is the field named
`file`. Fields before it count, those after it are ignored, and a second file is refused. Names are
compared without case. All that is not the file may have 20 KB, parts' headers and boundaries
included, so memory is bounded whatever is sent. The outcome does not depend on how the body was cut
into pieces: where the library is lenient to one piece and strict to two, it is strict here.

Sources: RFC 7578; HTML Standard, "Multipart form data" (names and file names in UTF-8, with `"` and
line ends as %22, %0D, %0A); Amazon S3 API Reference, POST Object.
"""

from __future__ import annotations

import re

import multipart

from s3gw.errors import (
    IncorrectNumberOfFilesInPostRequest,
    InvalidArgument,
    MalformedPOSTRequest,
    MaxPostPreDataLengthExceededError,
    PreconditionFailed,
)
from s3gw.limits import FORM_FIELDS_BYTES_MAX

FILE = "file"
MEDIA_TYPE = "multipart/form-data"
# RFC 2046 §5.1.1 allows 70 characters; any that can be seen is taken, in quotes or not.
BOUNDARY = re.compile(
    r';\s*boundary=(?:"([ !#-~]{0,69}[!#-~])"|([!#-+\--:<-~]{1,70}))\s*(?:;|$)', re.I
)
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
NOT_UTF8 = "The fields of the form must be encoded as UTF-8."


class FormDecoder:
    """One form. `fields` are those before the file, by lower-case name; `filename` is what the
    browser calls the file, without folders, or "".

    Raises PreconditionFailed, MalformedPOSTRequest; `feed` and `finish` also
    MaxPostPreDataLengthExceededError, IncorrectNumberOfFilesInPostRequest, InvalidArgument.
    """

    def __init__(self, content_type: str) -> None:
        self._opening = b"--" + parse_boundary(content_type)
        self._parser = multipart.PushMultipartParser(
            self._opening[2:], max_header_size=FORM_FIELDS_BYTES_MAX + 2
        )
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.file_begun = False
        self.file_ended = False
        self._name = ""
        self._value: list[bytes] = []
        self._fed = 0
        self._file_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """What of the file is in the next piece of the body."""
        pieces: list[bytes] = []
        while data and not self.file_begun:
            room = FORM_FIELDS_BYTES_MAX - self._fed
            if not room:
                raise MaxPostPreDataLengthExceededError
            pieces += self._parse(data[:room])
            data = data[room:]
        if data:
            pieces += self._parse(data)
        if self.file_ended:
            self._check_size()
        return pieces

    def finish(self) -> None:
        """The body has ended."""
        try:
            self._parser.close()
        except multipart.MultipartError as error:
            raise MalformedPOSTRequest from error
        if not self.file_begun:
            raise _files(0)
        self._check_size()

    def _parse(self, data: bytes) -> list[bytes]:
        self._check_opening(data)
        self._fed += len(data)
        pieces: list[bytes] = []
        try:
            for event in self._parser.parse(data):
                if event is None:
                    self._end_part()
                elif isinstance(event, multipart.MultipartSegment):
                    self._begin_part(event)
                elif self._name == FILE:
                    self._file_bytes += len(event)
                    pieces.append(event)
                elif not self.file_ended:
                    self._value.append(event)
        except multipart.MultipartError as error:
            raise MalformedPOSTRequest from error
        return pieces

    def _check_opening(self, data: bytes) -> None:
        """Nothing stands before the first boundary."""
        expected = self._opening[self._fed : self._fed + len(data)]
        if not data.startswith(expected):
            raise MalformedPOSTRequest

    def _begin_part(self, part: multipart.MultipartSegment) -> None:
        if any(CONTROLS.search(value) for _, value in part.headerlist):
            raise MalformedPOSTRequest
        name = (part.name or "").lower()
        if name == FILE:
            if self.file_begun:
                raise _files(2)
            self.file_begun = True
            # Of a path, only what follows the last slash or backslash.
            self.filename = re.split(r"[/\\]", part.filename or "")[-1]
        elif not self.file_begun and (not name or name in self.fields):
            raise InvalidArgument(
                "A field of the form has no name, or the name of another one.", ArgumentName=name
            )
        self._name = name

    def _end_part(self) -> None:
        if self._name == FILE:
            self.file_ended = True
        elif not self.file_ended:
            try:
                self.fields[self._name] = b"".join(self._value).decode()
            except UnicodeDecodeError:
                raise InvalidArgument(NOT_UTF8, ArgumentName=self._name) from None
            self._value = []
        self._name = ""

    def _check_size(self) -> None:
        """What is ignored costs no more than what counts."""
        if self._fed - self._file_bytes > FORM_FIELDS_BYTES_MAX:
            raise MaxPostPreDataLengthExceededError


def parse_boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type names.

    >>> parse_boundary("multipart/form-data; boundary=----WebKitFormBoundary7MA4")
    b'----WebKitFormBoundary7MA4'
    """
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != MEDIA_TYPE:
        # As Amazon S3 does, though its list of errors has RequestIsNotMultiPartContent for this.
        raise PreconditionFailed(
            Condition=f"Bucket POST must be of the enclosure-type {MEDIA_TYPE}"
        )
    found = BOUNDARY.search(content_type)
    if found is None:
        raise MalformedPOSTRequest
    return (found[1] or found[2]).encode()


def _files(count: int) -> IncorrectNumberOfFilesInPostRequest:
    return IncorrectNumberOfFilesInPostRequest(ArgumentName=FILE, ArgumentValue=str(count))
