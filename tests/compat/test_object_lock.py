"""Object lock: configuration, retention, legal hold, and what they keep from being removed."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

LATER = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
RETENTION = {"Mode": "GOVERNANCE", "RetainUntilDate": LATER}


def new_bucket(s3):
    name = f"compat-lock-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def locked(s3):
    """A bucket with object lock; holds and governance do not keep it from being removed."""
    name = new_bucket(s3)
    yield name
    page = s3.list_object_versions(Bucket=name)
    for row in page.get("Versions", []) + page.get("DeleteMarkers", []):
        version = {"Bucket": name, "Key": row["Key"], "VersionId": row["VersionId"]}
        if "Size" in row:
            s3.put_object_legal_hold(**version, LegalHold={"Status": "OFF"})
        s3.delete_object(**version, BypassGovernanceRetention=True)
    s3.delete_bucket(Bucket=name)


def put(s3, bucket, **asked):
    reply = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="CRC32", **asked)
    return {"Bucket": bucket, "Key": "k", "VersionId": reply["VersionId"]}


def test_a_bucket_made_with_lock_has_versioning_that_stays(s3, locked, refused):
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    configuration = s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"]
    assert configuration == {"ObjectLockEnabled": "Enabled"}
    with refused("InvalidBucketState", 409):
        s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})


def test_lock_can_be_enabled_where_versioning_is(s3, bucket, refused):
    configuration = {"ObjectLockEnabled": "Enabled"}
    with refused("InvalidBucketState", 409):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    reply = s3.get_object_lock_configuration(Bucket=bucket)
    assert reply["ObjectLockConfiguration"] == configuration


def test_retention_in_governance_keeps_a_version_unless_bypassed(s3, locked, refused, history):
    version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=LATER)
    assert s3.get_object_retention(**version)["Retention"] == RETENTION
    head = s3.head_object(**version)
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", LATER)
    with refused("AccessDenied", 403):
        s3.delete_object(**version)
    one = {"Key": "k", "VersionId": version["VersionId"]}
    reply = s3.delete_objects(Bucket=locked, Delete={"Objects": [one]})
    assert reply["Errors"][0]["Code"] == "AccessDenied"
    marker = s3.delete_object(Bucket=locked, Key="k")["VersionId"]  # hides it, removes nothing
    s3.delete_object(Bucket=locked, Key="k", VersionId=marker)
    s3.put_object(Bucket=locked, Key="k", Body=b"newer")
    with refused("AccessDenied", 403):
        s3.delete_object(**version)
    s3.delete_object(**version, BypassGovernanceRetention=True)
    assert len(history(locked)) == 1


def test_retention_is_prolonged_by_anyone_and_weakened_by_bypass(s3, locked, refused):
    version = put(s3, locked)
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_retention(**version)
    s3.put_object_retention(**version, Retention=RETENTION)
    longer = RETENTION | {"RetainUntilDate": LATER + timedelta(days=1)}
    s3.put_object_retention(**version, Retention=longer)
    for weaker in (RETENTION, {}, longer | {"Mode": "COMPLIANCE"}):
        with refused("AccessDenied", 403):
            s3.put_object_retention(**version, Retention=weaker)
    s3.put_object_retention(**version, Retention=RETENTION, BypassGovernanceRetention=True)
    assert s3.get_object_retention(**version)["Retention"] == RETENTION
    s3.put_object_retention(**version, Retention={}, BypassGovernanceRetention=True)
    s3.delete_object(**version)


def test_compliance_is_final(s3, refused):
    """The bucket stays behind: nobody may remove it before its time."""
    bucket = new_bucket(s3)
    version = put(s3, bucket, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=LATER)
    strong = {"Mode": "COMPLIANCE", "RetainUntilDate": LATER}
    earlier = strong | {"RetainUntilDate": LATER - timedelta(days=1)}
    for weaker in (earlier, RETENTION, {}):
        with refused("AccessDenied", 403):
            s3.put_object_retention(**version, Retention=weaker, BypassGovernanceRetention=True)
    with refused("AccessDenied", 403):
        s3.delete_object(**version, BypassGovernanceRetention=True)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    longer = strong | {"RetainUntilDate": LATER + timedelta(days=1)}
    s3.put_object_retention(**version, Retention=longer)
    assert s3.get_object_retention(**version)["Retention"] == longer


def test_a_legal_hold_keeps_a_version_whatever_is_bypassed(s3, locked, refused):
    version = put(s3, locked, ObjectLockLegalHoldStatus="ON")
    assert s3.get_object_legal_hold(**version)["LegalHold"] == {"Status": "ON"}
    assert s3.head_object(**version)["ObjectLockLegalHoldStatus"] == "ON"
    with refused("AccessDenied", 403):
        s3.delete_object(**version, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(**version, LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(**version)["LegalHold"] == {"Status": "OFF"}
    s3.delete_object(**version)


@pytest.mark.parametrize("period", [{"Days": 1}, {"Years": 1}])
def test_a_default_retention_is_that_of_every_new_version(s3, locked, upload_parts, period):
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", **period}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    before = put(s3, locked)
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=configuration)
    reply = s3.get_object_lock_configuration(Bucket=locked)
    assert reply["ObjectLockConfiguration"] == configuration
    versions = [put(s3, locked)]
    copy = s3.copy_object(Bucket=locked, Key="c", CopySource=before)
    versions.append({"Bucket": locked, "Key": "c", "VersionId": copy["VersionId"]})
    upload_id, parts = upload_parts(locked, "m", [b"x"])
    done = s3.complete_multipart_upload(
        Bucket=locked, Key="m", UploadId=upload_id, MultipartUpload={"Parts": parts}
    )
    versions.append({"Bucket": locked, "Key": "m", "VersionId": done["VersionId"]})
    days = 1 if "Days" in period else 365
    for version in versions:
        retention = s3.get_object_retention(**version)["Retention"]
        assert retention["Mode"] == "GOVERNANCE"
        lasts = retention["RetainUntilDate"] - datetime.now(UTC)
        assert timedelta(days=days - 1) < lasts <= timedelta(days=days + 1)
    with pytest.raises(ClientError):
        s3.get_object_retention(**before)
    own = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=LATER)
    assert s3.get_object_retention(**own)["Retention"] == RETENTION


def test_a_copy_does_not_take_the_lock_along(s3, locked, refused):
    version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=LATER)
    s3.copy_object(Bucket=locked, Key="c", CopySource=version)
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_retention(Bucket=locked, Key="c")


def test_without_object_lock_nothing_is_locked(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    named = {"Bucket": bucket, "Key": "k"}
    with refused("InvalidRequest", 400):
        s3.put_object(**named, Body=b"y", ObjectLockLegalHoldStatus="ON")
    with refused("InvalidRequest", 400):
        s3.put_object_retention(**named, Retention=RETENTION)
    with refused("InvalidRequest", 400):
        s3.put_object_legal_hold(**named, LegalHold={"Status": "ON"})
    with refused("InvalidRequest", 400):
        s3.get_object_retention(**named)
    with refused("InvalidRequest", 400):
        s3.get_object_legal_hold(**named)


PAST = datetime(2020, 1, 1, tzinfo=UTC)
UNTIL = "<RetainUntilDate>{}</RetainUntilDate>"


@pytest.mark.parametrize(
    "asked",
    [
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": LATER},
        {"ObjectLockMode": "FOREVER", "ObjectLockRetainUntilDate": LATER},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": PAST},
        {"ObjectLockLegalHoldStatus": "MAYBE"},
    ],
)
def test_headers_that_make_no_lock_are_refused(s3, locked, refused, asked):
    with refused("InvalidArgument", 400):
        s3.put_object(Bucket=locked, Key="k", Body=b"x", **asked)
    assert "Versions" not in s3.list_object_versions(Bucket=locked)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-object-lock-mode", "governance"),
        ("x-amz-object-lock-retain-until-date", "tomorrow"),
        ("x-amz-object-lock-legal-hold", "on"),
    ],
)
def test_the_header_that_makes_no_lock_is_named(http, locked, name, value):
    lock = {
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": LATER.isoformat(),
        "x-amz-object-lock-legal-hold": "OFF",
    }
    reply = http.request("PUT", f"/{locked}/k", headers=lock | {name: value}, body=b"x")
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert f"<ArgumentName>{name}</ArgumentName>".encode() in reply.body


@pytest.mark.parametrize(
    ("subresource", "body"),
    [
        ("retention", "<Retention><Mode>GOVERNANCE</Mode></Retention>"),
        (
            "retention",
            f"<Retention><Mode>X</Mode>{UNTIL.format('2999-01-01T00:00:00Z')}</Retention>",
        ),
        ("retention", f"<Retention><Mode>GOVERNANCE</Mode>{UNTIL.format('soon')}</Retention>"),
        ("retention", "<Other/>"),
        ("legal-hold", "<LegalHold><Status>on</Status></LegalHold>"),
        ("legal-hold", "<LegalHold/>"),
    ],
)
def test_documents_that_say_nothing_are_malformed(s3, http, locked, subresource, body):
    put(s3, locked)
    reply = http.request("PUT", f"/{locked}/k", subresource, body=body.encode())
    assert (reply.status, reply.code) == (400, "MalformedXML")


@pytest.mark.parametrize(
    ("retention", "code"),
    [
        ("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode>", "MalformedXML"),
        ("<Mode>NONE</Mode><Days>1</Days>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><Days>0</Days>", "InvalidArgument"),
        ("<Mode>GOVERNANCE</Mode><Days>-1</Days>", "InvalidArgument"),
        ("<Mode>GOVERNANCE</Mode><Years>101</Years>", "InvalidArgument"),
    ],
)
def test_a_default_that_is_none_is_refused(http, locked, retention, code):
    body = (
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
        f"<DefaultRetention>{retention}</DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    reply = http.request("PUT", f"/{locked}", "object-lock", body=body.encode())
    assert (reply.status, reply.code) == (400, code)


def test_missing_versions_markers_and_strangers(s3, http, locked, refused):
    marker = s3.delete_object(Bucket=locked, Key="k")["VersionId"]
    hold = {"LegalHold": {"Status": "ON"}}
    with refused("NoSuchKey", 404):
        s3.put_object_legal_hold(Bucket=locked, Key="k", **hold)
    with refused("MethodNotAllowed", 405):
        s3.put_object_legal_hold(Bucket=locked, Key="k", VersionId=marker, **hold)
    with refused("NoSuchVersion", 404):
        s3.put_object_legal_hold(Bucket=locked, Key="k", VersionId="null", **hold)
    for method in ("GET", "PUT"):
        for subresource in ("retention", "legal-hold"):
            assert http.send(method, f"/{locked}/k", subresource).status == 403
        assert http.send(method, f"/{locked}", "object-lock").status == 403


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x-amz-object-lock-legal-hold": "on"}, b"Legal Hold must be either of"),
        ({"x-amz-object-lock-mode": "governance"}, b"Unknown wormMode directive"),
        ({"x-amz-object-lock-retain-until-date": "tomorrow"}, b"retain until date"),
    ],
)
def test_a_header_that_is_wrong_in_itself_is_told_whatever_the_bucket(
    http, bucket, locked, headers, message
):
    both = {"x-amz-object-lock-mode": "GOVERNANCE"}
    if "x-amz-object-lock-retain-until-date" in headers:
        headers = both | headers
    for name in (bucket, locked):
        reply = http.request("PUT", f"/{name}/k", headers=headers, body=b"x")
        assert (reply.status, reply.code) == (400, "InvalidArgument")
        assert message in reply.body


@pytest.mark.parametrize(
    ("period", "message"),
    [
        ("<Days>0</Days>", b"must be a positive integer value"),
        ("<Days>-1</Days>", b"must be a positive integer value"),
        ("<Days>36501</Days>", b"too large"),
        ("<Years>101</Years>", b"too large"),
    ],
)
def test_a_default_period_out_of_range_is_refused(http, locked, period, message):
    body = (
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
        f"<DefaultRetention><Mode>GOVERNANCE</Mode>{period}</DefaultRetention></Rule>"
        "</ObjectLockConfiguration>"
    )
    reply = http.request("PUT", f"/{locked}", "object-lock", body=body.encode())
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert message in reply.body
