"""Every operation of botocore's model, serialised by botocore, resolves to its own row."""

import re
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.config import Config
from botocore.model import Shape

from s3gw.buckets.fresh import ANSWERS
from s3gw.server.resolve import Domains, Resolved, resolve
from s3gw.server.routes import ROWS, Asks, Row, Scope, load_handler

SESSION = botocore.session.get_session()
MODEL = SESSION.get_service_model("s3")
NAMES = sorted(MODEL.operation_names)
BUCKET, KEY = "bucket-name", "dir/a key+plus/é"

# On the wire, without a parameter of its own, it is ListBuckets sent to another endpoint.
EXTRA_PARAMETERS: dict[str, dict[str, Any]] = {"ListDirectoryBuckets": {"MaxDirectoryBuckets": 1}}
NOT_IN_THE_MODEL = {"PostObject", "AppendObject", "PreflightBucket", "PreflightObject"}


class Captured(Exception):
    def __init__(self, request: Any) -> None:
        self.request = request


def example(shape: Shape, name: str = "") -> Any:
    """The smallest value that botocore accepts for a shape."""
    match shape.type_name:
        case "structure":
            members: dict[str, Shape] = shape.members
            wanted = list(shape.required_members)
            if getattr(shape, "is_tagged_union", False):
                wanted = [next(iter(members))]
            return {member: example(members[member], member) for member in wanted}
        case "list":
            return [example(shape.member)]
        case "string":
            by_name = {"Bucket": BUCKET, "Key": KEY, "CopySource": f"{BUCKET}/source"}
            plain = "v" * max(shape.metadata.get("min", 0), 5)
            return by_name.get(name) or next(iter(getattr(shape, "enum", None) or [plain]))
        case "integer" | "long":
            return 1
        case "boolean":
            return True
        case "timestamp":
            return 0
        case "blob":
            return b""
        case other:
            raise AssertionError(other)


@pytest.fixture(scope="module", params=["path", "virtual"])
def client(request: pytest.FixtureRequest) -> Any:
    client = SESSION.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url="http://s3.test:9000",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=Config(s3={"addressing_style": request.param}),
    )

    def capture(request: Any, **_: Any) -> None:
        raise Captured(request)

    client.meta.events.register("before-send.s3", capture)
    client.style = request.param
    return client


def resolved(client: Any, operation: str) -> Resolved:
    shape = MODEL.operation_model(operation).input_shape
    parameters = example(shape) if shape else {}
    parameters |= EXTRA_PARAMETERS.get(operation, {})
    method = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()
    with pytest.raises(Captured) as caught:
        getattr(client, method)(**parameters)
    sent = caught.value.request
    url = urlsplit(sent.url)
    return resolve(
        sent.method,
        url.path.encode(),
        url.query.encode(),
        host=url.netloc.encode(),
        headers={name.lower().encode() for name in sent.headers},
        domains=Domains(["s3.test"]),
    )


@pytest.mark.parametrize("operation", NAMES)
def test_operation_as_botocore_sends_it_resolves_to_its_own_row(
    client: Any, operation: str
) -> None:
    found = resolved(client, operation)
    assert operation in (found.row.name, *found.row.aliases)
    shape = MODEL.operation_model(operation).input_shape
    members = shape.required_members if shape else ()
    assert found.bucket == (BUCKET if "Bucket" in members else "")
    assert found.key == (KEY if "Key" in members else "")


def test_both_addressing_styles_are_tested(client: Any) -> None:
    with pytest.raises(Captured) as caught:
        client.head_bucket(Bucket=BUCKET)
    assert (BUCKET in urlsplit(caught.value.request.url).netloc) == (client.style == "virtual")


def test_table_lists_the_model_and_four_more() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    assert set(names) - NOT_IN_THE_MODEL == set(NAMES)
    assert set(names) >= NOT_IN_THE_MODEL


def test_no_two_rows_have_the_same_discriminators() -> None:
    places = [(row.method, row.scope, frozenset(row.required), row.headers) for row in ROWS]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_is_well_formed(row: Row) -> None:
    assert re.fullmatch(r"s3(express|-object-lambda)?:[A-Z][A-Za-z]+", row.action)
    assert row.version_action is None or re.fullmatch(
        r"s3:[A-Za-z]+Version[A-Za-z]*", row.version_action
    )
    assert row.handler is None or re.fullmatch(r"[a-z0-9_]+:[a-z0-9_]+", row.handler)
    assert all(name == name.lower() for name in row.headers)
    if row.method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        assert row.body.kind == "none"


def test_only_what_a_body_says_and_preflights_are_not_authorized_by_their_row() -> None:
    unusual = {row.name: row.asks for row in ROWS if row.asks is not Asks.ROW}
    assert unusual == {
        "AbortMultipartUpload": Asks.UPLOAD,
        "DeleteObjects": Asks.ITEM,
        "ListParts": Asks.UPLOAD,
        "PutObjectLegalHold": Asks.ITEM,
        "PutObjectRetention": Asks.ITEM,
        "PutObjectTagging": Asks.ITEM,
        "PreflightBucket": Asks.NOBODY,
        "PreflightObject": Asks.NOBODY,
    }


def test_body_kinds_agree_with_the_model() -> None:
    for row in ROWS:
        if row.name in NOT_IN_THE_MODEL:
            continue
        shape = MODEL.operation_model(row.name).input_shape
        payload = shape.serialization.get("payload") if shape else None
        if payload is None:
            # A structure of its own as the body, without a payload member, is Select's alone.
            assert row.body.kind == ("xml" if row.name == "SelectObjectContent" else "none")
        elif shape.members[payload].type_name == "blob":
            assert row.body.kind == "stream"
        else:
            kind = "json" if row.name == "PutBucketPolicy" else "xml"
            assert row.body.kind == kind
            assert row.body.bytes_max > 0


def test_every_fresh_answer_belongs_to_a_row_that_reads() -> None:
    rows = {row.name: row for row in ROWS}
    for name in ANSWERS:
        assert rows[name].method in ("GET", "OPTIONS")
        assert rows[name].scope in (Scope.BUCKET, Scope.OBJECT)


@pytest.mark.parametrize("row", [row for row in ROWS if row.handler], ids=lambda row: row.name)
def test_handler_of_a_built_row_can_be_loaded(row: Row) -> None:
    assert callable(load_handler(row))
