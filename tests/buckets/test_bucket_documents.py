"""Bucket documents: what botocore sends is what it reads back; hostile ones are refused.

Examples are made from botocore's model by hypothesis, sent through botocore's serialiser, our
parser and writer, and botocore's parser.
"""

import re
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape
from botocore.parsers import RestXMLParser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3gw.buckets import configurations
from s3gw.buckets import settings as small
from s3gw.buckets.configurations import KINDS
from s3gw.buckets.cors import CORS, METHODS
from s3gw.buckets.document import Document, Value
from s3gw.buckets.tagging import TAGGING, parse_bucket_tags, parse_object_tags, render_tags
from s3gw.buckets.website import WEBSITE
from s3gw.errors import S3Error

MODEL = botocore.session.get_session().get_service_model("s3")
BUCKET_ARN = "arn:aws:s3:::target"

TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"
    ),
    min_size=1,
    max_size=12,
)
NAME = st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True)
TAG = st.fixed_dictionaries({"Key": NAME, "Value": NAME})
TAGS = st.lists(TAG, max_size=4, unique_by=lambda tag: tag["Key"])
TOKEN = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
ORIGIN = st.sampled_from(["*", "https://*.example.com", "http://a.test", "https://x*"])


def some(required: dict[str, Any], **optional: Any) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


def filters(**more: Any) -> Any:
    both = st.fixed_dictionaries({"Prefix": TEXT, "Tags": TAGS.filter(bool), **more})
    one = {"Prefix": TEXT, "Tag": TAG, **more, "And": both}
    return st.one_of([st.fixed_dictionaries({name: value}) for name, value in one.items()])


CORS_RULE = some(
    {
        "AllowedMethods": st.lists(st.sampled_from(METHODS), min_size=1, max_size=3),
        "AllowedOrigins": st.lists(ORIGIN, min_size=1, max_size=3),
    },
    ID=TEXT,
    AllowedHeaders=st.lists(st.sampled_from(["*", "x-amz-*", "content-type"]), min_size=1),
    ExposeHeaders=st.lists(TOKEN, min_size=1, max_size=3),
    MaxAgeSeconds=st.integers(0, 2**31 - 1),
)
REPLACED = st.one_of(
    some({"HostName": TEXT, "HttpRedirectCode": st.sampled_from(["301", "307"])}),
    some({"ReplaceKeyWith": TEXT}, Protocol=st.sampled_from(["http", "https"])),
    some({"ReplaceKeyPrefixWith": TEXT}),
)
CONDITION = st.one_of(
    some({"KeyPrefixEquals": TEXT}),
    some({"HttpErrorCodeReturnedEquals": st.sampled_from(["404", "503"])}, KeyPrefixEquals=TEXT),
)
TIERINGS = st.sampled_from(
    [
        [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}],
        [{"Days": 730, "AccessTier": "DEEP_ARCHIVE_ACCESS"}],
        [
            {"Days": 180, "AccessTier": "DEEP_ARCHIVE_ACCESS"},
            {"Days": 179, "AccessTier": "ARCHIVE_ACCESS"},
        ],
    ]
)
INVENTORY_TARGET = some(
    {"Bucket": st.just(BUCKET_ARN), "Format": st.sampled_from(["CSV", "Parquet"])},
    AccountId=NAME,
    Prefix=TEXT,
    Encryption=st.sampled_from([{"SSES3": {}}, {"SSEKMS": {"KeyId": "key"}}]),
)
ANALYTICS_TARGET = some(
    {"Bucket": st.just(BUCKET_ARN), "Format": st.just("CSV")}, BucketAccountId=NAME, Prefix=TEXT
)
EXPORT = st.fixed_dictionaries(
    {
        "OutputSchemaVersion": st.just("V_1"),
        "Destination": st.fixed_dictionaries({"S3BucketDestination": ANALYTICS_TARGET}),
    }
)

# Operation that sets, that which reads (its output names the same members), document, values.
EXAMPLES: dict[str, tuple[str, Document, Any]] = {
    "PutBucketCors": (
        "GetBucketCors",
        CORS,
        some({"CORSRules": st.lists(CORS_RULE, min_size=1, max_size=4)}),
    ),
    "PutBucketTagging": ("GetBucketTagging", TAGGING, some({"TagSet": TAGS})),
    "PutObjectTagging": ("GetObjectTagging", TAGGING, some({"TagSet": TAGS})),
    "PutBucketWebsite": (
        "GetBucketWebsite",
        WEBSITE,
        st.one_of(
            some({"RedirectAllRequestsTo": some({"HostName": TEXT}, Protocol=st.just("https"))}),
            some(
                {"IndexDocument": some({"Suffix": NAME})},
                ErrorDocument=some({"Key": TEXT}),
                RoutingRules=st.lists(
                    some({"Redirect": REPLACED}, Condition=CONDITION), min_size=1, max_size=3
                ),
            ),
        ),
    ),
    "PutBucketRequestPayment": (
        "GetBucketRequestPayment",
        small.REQUEST_PAYMENT,
        some({"Payer": st.sampled_from(["Requester", "BucketOwner"])}),
    ),
    "PutBucketAccelerateConfiguration": (
        "GetBucketAccelerateConfiguration",
        small.ACCELERATE,
        some({"Status": st.sampled_from(["Enabled", "Suspended"])}),
    ),
    "PutBucketLogging": (
        "GetBucketLogging",
        small.LOGGING,
        some(
            {},
            LoggingEnabled=some(
                {"TargetBucket": NAME, "TargetPrefix": TEXT},
                TargetObjectKeyFormat=st.sampled_from(
                    [
                        {"SimplePrefix": {}},
                        {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}},
                    ]
                ),
            ),
        ),
    ),
    "PutBucketNotificationConfiguration": (
        "GetBucketNotificationConfiguration",
        small.NOTIFICATION,
        st.just({}),
    ),
    "PutBucketInventoryConfiguration": (
        "GetBucketInventoryConfiguration",
        configurations.INVENTORY.document,
        some(
            {
                "Destination": st.fixed_dictionaries({"S3BucketDestination": INVENTORY_TARGET}),
                "IsEnabled": st.booleans(),
                "Id": NAME,
                "IncludedObjectVersions": st.sampled_from(["All", "Current"]),
                "Schedule": some({"Frequency": st.sampled_from(["Daily", "Weekly"])}),
            },
            Filter=some({"Prefix": TEXT}),
            OptionalFields=st.lists(
                st.sampled_from(configurations.OPTIONAL_FIELDS), min_size=1, unique=True
            ),
        ),
    ),
    "PutBucketAnalyticsConfiguration": (
        "GetBucketAnalyticsConfiguration",
        configurations.ANALYTICS.document,
        some({"Id": NAME, "StorageClassAnalysis": some({}, DataExport=EXPORT)}, Filter=filters()),
    ),
    "PutBucketMetricsConfiguration": (
        "GetBucketMetricsConfiguration",
        configurations.METRICS.document,
        some({"Id": NAME}, Filter=filters(AccessPointArn=TEXT)),
    ),
    "PutBucketIntelligentTieringConfiguration": (
        "GetBucketIntelligentTieringConfiguration",
        configurations.INTELLIGENT_TIERING.document,
        some(
            {
                "Id": NAME,
                "Status": st.sampled_from(["Enabled", "Disabled"]),
                "Tierings": TIERINGS,
            },
            Filter=filters(),
        ),
    ),
}


def payload_member(setter: str) -> str:
    shape = MODEL.operation_model(setter).input_shape
    return str(shape.serialization["payload"])


def sent(setter: str, value: Any) -> bytes:
    """The body that botocore sends to set this value."""
    operation = MODEL.operation_model(setter)
    parameters = {
        member: "x" for member in operation.input_shape.required_members if member != "Id"
    }
    parameters |= {"Id": value.get("Id", "x")} if "Id" in operation.input_shape.members else {}
    parameters[payload_member(setter)] = value
    serializer = create_serializer("rest-xml", include_validation=False)
    body = serializer.serialize_to_request(parameters, operation)["body"]
    assert isinstance(body, bytes)
    return body


def received(getter: str, body: bytes) -> Any:
    """What botocore reads from this body."""
    shape: Shape = MODEL.operation_model(getter).output_shape
    response = {"status_code": 200, "headers": {}, "body": body}
    parsed = RestXMLParser().parse(response, shape)
    del parsed["ResponseMetadata"]
    payload = shape.serialization.get("payload")
    return parsed[payload] if payload else parsed


def without_empty(value: Any) -> Any:
    """An empty structure as {}: botocore's parser gives None for some."""
    if isinstance(value, dict):
        return {name: {} if one is None else without_empty(one) for name, one in value.items()}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("setter", EXAMPLES)
def test_what_botocore_sends_is_what_it_reads_back(setter: str) -> None:
    getter, document, values = EXAMPLES[setter]

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(values)
    def check(value: Any) -> None:
        stored = document.render(document.parse(sent(setter, value)))
        assert without_empty(received(getter, stored)) == without_empty(value)
        assert document.render(document.read_stored(stored)) == stored
        assert document.render(document.parse(stored)) == stored

    check()


FRAGMENTS = st.sampled_from(
    sorted(
        {
            word
            for _, document, _ in EXAMPLES.values()
            for word in (document.root, *re.findall(r"name='(\w+)'", str(document.shape)))
        }
    )
)
TREES = st.recursive(
    st.one_of(st.just(""), TEXT.map(lambda text: re.sub("[<&]", "", text)), st.just("1")),
    lambda inner: st.lists(st.tuples(FRAGMENTS, inner), max_size=4).map(
        lambda pairs: "".join(f"<{name}>{content}</{name}>" for name, content in pairs)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([document for _, document, _ in EXAMPLES.values()]), TREES)
def test_any_tree_of_known_elements_is_read_or_refused(document: Document, content: str) -> None:
    body = f"<{document.root}>{content}</{document.root}>".encode()
    refused: S3Error | None = None
    value: Value = {}
    try:
        value = document.parse(body)
    except S3Error as error:
        refused = error
    if refused is not None:
        assert refused.status == 400
        return
    stored = document.render(value)
    assert document.render(document.parse(stored)) == stored


def code_of(document: Document, content: str) -> str:
    with pytest.raises(S3Error) as caught:
        document.parse(f"<{document.root}>{content}</{document.root}>".encode())
    assert caught.value.status == 400
    return caught.value.code


RULE = "<AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin>"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "MalformedXML"),
        ("<CORSRule/>", "MalformedXML"),
        ("<CORSRule><AllowedMethod>GET</AllowedMethod></CORSRule>", "MalformedXML"),
        ("<CORSRule><AllowedOrigin>*</AllowedOrigin></CORSRule>", "MalformedXML"),
        (f"<CORSRule>{RULE}<Unknown/></CORSRule>", "MalformedXML"),
        (f"<CORSRule>{RULE}stray</CORSRule>", "MalformedXML"),
        (f"<CORSRule>{RULE}<MaxAgeSeconds>1e3</MaxAgeSeconds></CORSRule>", "MalformedXML"),
        (f"<CORSRule>{RULE}<ID>a</ID><ID>b</ID></CORSRule>", "MalformedXML"),
        (f"<CORSRule>{RULE}<ID>{'i' * 256}</ID></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<AllowedMethod>PATCH</AllowedMethod></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<AllowedMethod>get</AllowedMethod></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<AllowedOrigin>*.*</AllowedOrigin></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<AllowedHeader>*-*</AllowedHeader></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<ExposeHeader>*</ExposeHeader></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<ExposeHeader>a\r\nb: c</ExposeHeader></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}<ExposeHeader>é</ExposeHeader></CORSRule>", "InvalidRequest"),
        (f"<CORSRule>{RULE}</CORSRule>" * 101, "InvalidRequest"),
    ],
)
def test_cors_configurations_that_are_refused(content: str, code: str) -> None:
    assert code_of(CORS, content) == code


def test_a_negative_age_of_a_cors_rule_is_accepted() -> None:
    rule = f"<CORSRule>{RULE}<MaxAgeSeconds>-1</MaxAgeSeconds></CORSRule>"
    body = f"<CORSConfiguration>{rule}</CORSConfiguration>"
    assert CORS.parse(body.encode())["CORSRule"][0]["MaxAgeSeconds"] == -1


def test_a_hundred_cors_rules_are_accepted() -> None:
    body = f"<CORSConfiguration>{f'<CORSRule>{RULE}</CORSRule>' * 100}</CORSConfiguration>"
    assert len(CORS.parse(body.encode())["CORSRule"]) == 100


INDEX = "<IndexDocument><Suffix>i</Suffix></IndexDocument>"


def routed(rule: str, times: int = 1) -> str:
    return f"{INDEX}<RoutingRules>{f'<RoutingRule>{rule}</RoutingRule>' * times}</RoutingRules>"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "InvalidArgument"),
        ("<ErrorDocument><Key>k</Key></ErrorDocument>", "InvalidArgument"),
        ("<IndexDocument><Suffix/></IndexDocument>", "InvalidArgument"),
        ("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>", "InvalidArgument"),
        ("<IndexDocument/>", "MalformedXML"),
        (f"{INDEX}<ErrorDocument><Key/></ErrorDocument>", "InvalidArgument"),
        (
            f"{INDEX}<RedirectAllRequestsTo><HostName>h</HostName></RedirectAllRequestsTo>",
            "InvalidArgument",
        ),
        (
            "<RedirectAllRequestsTo><HostName>h</HostName><Protocol>ftp</Protocol>"
            "</RedirectAllRequestsTo>",
            "InvalidRequest",
        ),
        (routed(""), "MalformedXML"),
        (routed("<Redirect/>"), "InvalidRequest"),
        (routed("<Redirect><HttpRedirectCode>300</HttpRedirectCode></Redirect>"), "InvalidRequest"),
        (routed("<Redirect><HttpRedirectCode>200</HttpRedirectCode></Redirect>"), "InvalidRequest"),
        (routed("<Redirect><HttpRedirectCode>306</HttpRedirectCode></Redirect>"), "InvalidRequest"),
        (routed("<Redirect><HttpRedirectCode>399</HttpRedirectCode></Redirect>"), "InvalidRequest"),
        (routed("<Redirect><HttpRedirectCode>3xx</HttpRedirectCode></Redirect>"), "MalformedXML"),
        (
            routed(
                "<Redirect><ReplaceKeyWith>a</ReplaceKeyWith>"
                "<ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect>"
            ),
            "InvalidRequest",
        ),
        (routed("<Condition/><Redirect><HostName>h</HostName></Redirect>"), "InvalidRequest"),
        (
            routed(
                "<Condition><HttpErrorCodeReturnedEquals>200</HttpErrorCodeReturnedEquals>"
                "</Condition><Redirect><HostName>h</HostName></Redirect>"
            ),
            "InvalidRequest",
        ),
        (routed("<Redirect><HostName>h</HostName></Redirect>", 51), "InvalidRequest"),
    ],
)
def test_website_configurations_that_are_refused(content: str, code: str) -> None:
    assert code_of(WEBSITE, content) == code


TARGET = "<TargetBucket>b</TargetBucket><TargetPrefix/>"


@pytest.mark.parametrize(
    ("document", "content", "code"),
    [
        (small.REQUEST_PAYMENT, "", "MalformedXML"),
        (small.REQUEST_PAYMENT, "<Payer>Nobody</Payer>", "MalformedXML"),
        (small.ACCELERATE, "<Status>enabled</Status>", "MalformedXML"),
        (small.LOGGING, "<LoggingEnabled/>", "MalformedXML"),
        (
            small.LOGGING,
            "<LoggingEnabled><TargetBucket>b</TargetBucket></LoggingEnabled>",
            "MalformedXML",
        ),
        (
            small.LOGGING,
            f"<LoggingEnabled>{TARGET}<TargetGrants><Grant><Grantee><ID>1</ID></Grantee>"
            "<Permission>READ</Permission></Grant></TargetGrants></LoggingEnabled>",
            "AccessControlListNotSupported",
        ),
        (
            small.LOGGING,
            f"<LoggingEnabled>{TARGET}<TargetObjectKeyFormat/></LoggingEnabled>",
            "MalformedXML",
        ),
        (small.NOTIFICATION, "<EventBridgeConfiguration/>", "InvalidArgument"),
        (
            small.NOTIFICATION,
            "<TopicConfiguration><Topic>t</Topic><Event>e</Event></TopicConfiguration>",
            "InvalidArgument",
        ),
    ],
)
def test_small_configurations_that_are_refused(document: Document, content: str, code: str) -> None:
    assert code_of(document, content) == code


S3_BUCKET = f"<Bucket>{BUCKET_ARN}</Bucket><Format>CSV</Format>"


def tiering(days: int, tier: str) -> str:
    return f"<Tiering><Days>{days}</Days><AccessTier>{tier}</AccessTier></Tiering>"


def inventory(destination: str = S3_BUCKET, more: str = "") -> str:
    return (
        f"<Destination><S3BucketDestination>{destination}</S3BucketDestination></Destination>"
        "<IsEnabled>true</IsEnabled><Id>i</Id><IncludedObjectVersions>All</IncludedObjectVersions>"
        f"<Schedule><Frequency>Daily</Frequency></Schedule>{more}"
    )


@pytest.mark.parametrize(
    ("kind", "content", "code"),
    [
        ("metrics", "", "MalformedXML"),
        ("metrics", "<Id/>", "MalformedXML"),
        ("metrics", f"<Id>{'i' * 65}</Id>", "MalformedXML"),
        ("metrics", "<Id>i</Id><Filter/>", "MalformedXML"),
        ("metrics", "<Id>i</Id><Filter><And><Prefix>p</Prefix></And></Filter>", "MalformedXML"),
        (
            "metrics",
            "<Id>i</Id><Filter><Prefix>p</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></Filter>",
            "MalformedXML",
        ),
        (
            "metrics",
            "<Id>i</Id><Filter><Tag><Key>aws:k</Key><Value>v</Value></Tag></Filter>",
            "InvalidTag",
        ),
        ("analytics", "<Id>i</Id>", "MalformedXML"),
        (
            "analytics",
            "<Id>i</Id><StorageClassAnalysis><DataExport><OutputSchemaVersion>V_1"
            "</OutputSchemaVersion><Destination><S3BucketDestination><Format>CSV</Format>"
            "<Bucket>plain</Bucket></S3BucketDestination></Destination></DataExport>"
            "</StorageClassAnalysis>",
            "InvalidArgument",
        ),
        ("inventory", inventory("<Bucket>plain</Bucket><Format>CSV</Format>"), "InvalidArgument"),
        ("inventory", inventory(f"<Bucket>{BUCKET_ARN}</Bucket>"), "MalformedXML"),
        ("inventory", inventory(f"{S3_BUCKET}<Encryption/>"), "MalformedXML"),
        (
            "inventory",
            inventory(more="<OptionalFields><Field>Colour</Field></OptionalFields>"),
            "MalformedXML",
        ),
        (
            "inventory",
            inventory(more=f"<OptionalFields>{'<Field>Size</Field>' * 2}</OptionalFields>"),
            "MalformedXML",
        ),
        ("intelligent-tiering", "<Id>i</Id><Status>Enabled</Status>", "MalformedXML"),
        *(
            ("intelligent-tiering", f"<Id>i</Id><Status>Enabled</Status>{tiers}", "InvalidRequest")
            for tiers in (
                tiering(89, "ARCHIVE_ACCESS"),
                tiering(179, "DEEP_ARCHIVE_ACCESS"),
                tiering(731, "DEEP_ARCHIVE_ACCESS"),
                tiering(90, "ARCHIVE_ACCESS") * 2,
                tiering(180, "ARCHIVE_ACCESS") + tiering(180, "DEEP_ARCHIVE_ACCESS"),
            )
        ),
    ],
)
def test_configurations_with_an_id_that_are_refused(kind: str, content: str, code: str) -> None:
    (found,) = (one for one in KINDS if one.name == kind)
    assert code_of(found.document, content) == code


@pytest.mark.parametrize("text", ["", "a b", "é", "a/b", "x" * 65, "a\n"])
def test_ids_that_are_refused(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        configurations.check_id(text)
    assert caught.value.code == "InvalidArgument"


@pytest.mark.parametrize("text", ["a", "EntireBucket", "x" * 64, "a-b_c.d", "..."])
def test_ids_that_are_accepted(text: str) -> None:
    assert configurations.check_id(text) == text


def tags(*pairs: tuple[str, str]) -> bytes:
    listed = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return f"<Tagging><TagSet>{listed}</TagSet></Tagging>".encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<Tagging/>", "MalformedXML"),
        (b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>", "MalformedXML"),
        (b"<Tagging><TagSet/><TagSet/></Tagging>", "MalformedXML"),
        (tags(("", "v")), "InvalidTag"),
        (tags(("k" * 129, "v")), "InvalidTag"),
        (tags(("k", "v" * 257)), "InvalidTag"),
        (tags(("k", "1"), ("k", "2")), "InvalidTag"),
        (tags(("aws:k", "v")), "InvalidTag"),
        (tags(("k", "a;b")), "InvalidTag"),
        (tags(*((f"k{number}", "") for number in range(51))), "BadRequest"),
    ],
)
def test_tag_sets_that_are_refused(body: bytes, code: str) -> None:
    for parse in (parse_bucket_tags, parse_object_tags):
        with pytest.raises(S3Error) as caught:
            parse(body)
        assert caught.value.code == code


def test_buckets_have_more_tags_than_objects() -> None:
    fifty = {f"k{number}": "v" for number in range(50)}
    assert parse_bucket_tags(render_tags(fifty)) == fifty
    with pytest.raises(S3Error, match="Object tags cannot be greater than 10"):
        parse_object_tags(render_tags(fifty))


def test_escapes_do_not_make_a_stored_document_larger_than_its_bound() -> None:
    value = {"ID": ">" * 200, "AllowedMethod": ["GET"], "AllowedOrigin": [">" * 200] * 300}
    with pytest.raises(S3Error) as caught:
        CORS.render({"CORSRule": [value]})
    assert caught.value.code == "MaxMessageLengthExceeded"
