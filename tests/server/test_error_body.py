import inspect
import xml.etree.ElementTree as ET

import pytest
from botocore.parsers import RestXMLParser

from s3gw import errors
from s3gw.errors import S3Error
from s3gw.server.error_body import error_body

CLASSES = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, S3Error)
]
RENAMED = {
    "InsufficientStorage": "XMinioStorageFull",
    "KMSDisabledException": "KMS.DisabledException",
    "KMSInvalidStateException": "KMS.KMSInvalidStateException",
    "KMSNotFoundException": "KMS.NotFoundException",
    "NotImplementedS3": "NotImplemented",
    "S3Error": "InternalError",
    "TemporaryRedirect": "Redirect",
}


def render(error: S3Error, method: str = "GET") -> bytes:
    return error_body(error, method=method, resource="/bucket/a&b", request_id="R1", host_id="H1")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_its_code_a_status_and_a_message(cls: type[S3Error]) -> None:
    error = cls()
    assert error.code == RENAMED.get(cls.__name__, cls.__name__)
    assert error.status in {301, 304, 307, *range(400, 417), 500, 501, 503, 507}
    assert error.message
    assert str(error) == f"{error.code}: {error.message}"


def test_document_has_the_elements_of_s3_and_those_of_the_error() -> None:
    error = errors.EntityTooSmall("small <part>", ProposedSize="1", MinSizeAllowed="5242880")
    root = ET.fromstring(render(error))
    assert [(child.tag, child.text) for child in root] == [
        ("Code", "EntityTooSmall"),
        ("Message", "small <part>"),
        ("ProposedSize", "1"),
        ("MinSizeAllowed", "5242880"),
        ("Resource", "/bucket/a&b"),
        ("RequestId", "R1"),
        ("HostId", "H1"),
    ]


def test_botocore_reads_code_message_and_fields() -> None:
    response = {
        "status_code": 404,
        "headers": {},
        "body": render(errors.NoSuchKey(Key="k\x01\r")),
    }
    parsed = RestXMLParser().parse(response, None)
    assert parsed["Error"]["Code"] == "NoSuchKey"
    assert parsed["Error"]["Message"] == "The specified key does not exist."
    assert parsed["Error"]["Key"] == "k\ufffd\r"


def test_head_and_304_have_no_body() -> None:
    assert render(errors.NoSuchKey(), "HEAD") == b""
    assert render(errors.NotModified()) == b""


def test_trouble_of_the_server_asks_to_retry_and_takes_further_headers() -> None:
    assert errors.SlowDown().headers == {"Retry-After": "1"}
    assert errors.ServiceUnavailable(headers={"X": "y"}).headers == {"Retry-After": "1", "X": "y"}
    assert errors.AccessDenied().headers == {}


def test_message_of_one_error_is_not_that_of_the_next() -> None:
    assert errors.InvalidArgument("special").message == "special"
    assert errors.InvalidArgument().message == "Invalid Argument"
