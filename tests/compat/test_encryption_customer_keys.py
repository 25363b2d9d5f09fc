"""Encryption with the customer's key (SSE-C), over every operation that takes one."""

import pytest

from tests.compat.encryption import KEY, MIB, OTHER_KEY, body_of, key_headers, md5_of, sse_c

SIZES = [0, 1, 4096, 65536, 65537, 200_000, 3 * MIB + 7]
KEY_MD5 = key_headers()["x-amz-server-side-encryption-customer-key-md5"]


@pytest.mark.parametrize("size", SIZES)
def test_an_object_comes_back_with_its_key_whole_and_in_ranges(s3, bucket, size):
    body = body_of(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **sse_c())
    assert (put["SSECustomerAlgorithm"], put["SSECustomerKeyMD5"]) == ("AES256", KEY_MD5)
    assert put["ETag"].strip('"') != md5_of(body)
    got = s3.get_object(Bucket=bucket, Key="k", **sse_c())
    assert got["Body"].read() == body
    assert (got["ContentLength"], got["ETag"]) == (size, put["ETag"])
    assert (got["SSECustomerAlgorithm"], got["SSECustomerKeyMD5"]) == ("AES256", KEY_MD5)
    for first, last in ((0, 0), (65535, 65536), (size // 2, size - 1), (size - 1, size - 1)):
        if 0 <= first <= last < size:
            part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **sse_c())
            assert part["Body"].read() == body[first : last + 1]
            assert part["ContentRange"] == f"bytes {first}-{last}/{size}"


def test_head_and_listing_tell_the_size_of_the_content(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 70_000, **sse_c())
    head = s3.head_object(Bucket=bucket, Key="k", **sse_c())
    assert (head["ContentLength"], head["SSECustomerKeyMD5"]) == (70_000, KEY_MD5)
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Size"] == 70_000


def test_checksums_are_of_the_content(s3, bucket, refused):
    put = s3.put_object(
        Bucket=bucket, Key="k", Body=b"123456789", ChecksumAlgorithm="CRC32C", **sse_c()
    )
    assert put["ChecksumCRC32C"] == "4waSgw=="
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **sse_c())
    assert head["ChecksumCRC32C"] == "4waSgw=="
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32C="4waSgw==", **sse_c())
    plain = s3.put_object(Bucket=bucket, Key="p", Body=b"body")
    sealed = s3.put_object(Bucket=bucket, Key="e", Body=b"body", **sse_c())
    assert plain["ChecksumCRC32"] == sealed["ChecksumCRC32"]


def test_without_a_checksum_the_one_shown_is_that_of_the_content(http, bucket):
    shown = []
    for headers in ({}, key_headers()):
        assert http.request("PUT", f"/{bucket}/k", headers=headers, body=b"body").status == 200
        mode = {"x-amz-checksum-mode": "ENABLED"}
        head = http.request("HEAD", f"/{bucket}/k", headers={**headers, **mode})
        shown.append(head.headers["x-amz-checksum-crc64nvme"])
    assert shown[0] == shown[1]


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_another_key_is_refused_and_a_missing_one_asked_for(s3, bucket, refused, operation):
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **sse_c())
    call = getattr(s3, operation)
    wrong, missing = ("403", "400") if operation == "head_object" else ("AccessDenied", None)
    with refused(wrong, 403):
        call(Bucket=bucket, Key="k", **sse_c(OTHER_KEY))
    with refused(missing or "InvalidRequest", 400):
        call(Bucket=bucket, Key="k")


def as_sent(key):
    """The parameters of the one operation for which boto3 leaves the key to its caller."""
    algorithm, text, md5 = key_headers(key).values()
    return {"SSECustomerAlgorithm": algorithm, "SSECustomerKey": text, "SSECustomerKeyMD5": md5}


def test_attributes_need_the_key_too(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **sse_c())
    wanted = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ObjectSize", "ETag"]}
    assert s3.get_object_attributes(**wanted, **as_sent(KEY))["ObjectSize"] == 6
    with refused("AccessDenied", 403):
        s3.get_object_attributes(**wanted, **as_sent(OTHER_KEY))
    with refused("InvalidRequest", 400):
        s3.get_object_attributes(**wanted)


def test_a_key_for_an_object_without_one_is_not_applicable(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"plain")
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="k", **sse_c())
    with refused("400", 400):
        s3.head_object(Bucket=bucket, Key="k", **sse_c())


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "name"),
    ],
)
def test_nothing_chooses_an_encryption_where_there_is_none_to_choose(
    s3, http, bucket, header, value
):
    s3.put_object(Bucket=bucket, Key="k", Body=b"plain")
    created = s3.create_multipart_upload(Bucket=bucket, Key="m")
    part = f"partNumber=1&uploadId={created['UploadId']}"
    for method, path, query in (
        ("GET", f"/{bucket}/k", ""),
        ("HEAD", f"/{bucket}/k", ""),
        ("PUT", f"/{bucket}/m", part),
    ):
        reply = http.request(method, path, query, headers={header: value})
        assert reply.status == 400, method
        if method != "HEAD":
            assert reply.code == "InvalidArgument", method
            named = f"<ArgumentName>{header}</ArgumentName><ArgumentValue>{value}<".encode()
            assert named in reply.body


NAME = "x-amz-server-side-encryption-customer"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({f"{NAME}-algorithm": None}, "InvalidArgument"),
        ({f"{NAME}-key": None}, "InvalidArgument"),
        ({f"{NAME}-key-md5": None}, "InvalidArgument"),
        ({f"{NAME}-algorithm": "AES128"}, "InvalidEncryptionAlgorithmError"),
        ({f"{NAME}-key": "c2hvcnQ="}, "InvalidArgument"),
        ({f"{NAME}-key": "not base64"}, "InvalidArgument"),
        ({f"{NAME}-key-md5": "c2hvcnQ="}, "InvalidArgument"),
        ({"x-amz-server-side-encryption": "AES256"}, "InvalidArgument"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_incomplete_and_wrong_headers(http, bucket, change, code, method):
    headers = {n: v for n, v in {**key_headers(), **change}.items() if v is not None}
    http.request("PUT", f"/{bucket}/k", headers=key_headers(), body=b"x")
    if method == "GET" and "x-amz-server-side-encryption" in change:
        assert http.request(method, f"/{bucket}/k", headers=headers).status in (200, 400)
        return
    reply = http.request(method, f"/{bucket}/k", headers=headers)
    assert (reply.status, reply.code) == (400, code)
    assert "a2tra2tra2tra2s" not in reply.body.decode()


def test_parts_are_encrypted_under_the_key_of_their_upload(s3, bucket, upload_parts, refused):
    bodies = [body_of(5 * MIB, 1), body_of(5 * MIB + 13, 2), b"end"]
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", **sse_c())
    assert created["SSECustomerKeyMD5"] == KEY_MD5
    target = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    with refused("InvalidRequest", 400):
        s3.upload_part(**target, PartNumber=1, Body=b"x")
    # Another key is a mistake in the request here: nothing is there that could be denied.
    with refused("InvalidRequest", 400):
        s3.upload_part(**target, PartNumber=1, Body=b"x", **sse_c(OTHER_KEY))
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    copied = {"CopySource": f"{bucket}/plain", "PartNumber": 1}
    for key in ({}, sse_c(OTHER_KEY)):
        with refused("InvalidRequest", 400):
            s3.upload_part_copy(**target, **copied, **key)
    assert "Parts" not in s3.list_parts(**target)
    parts = []
    for number, body in enumerate(bodies, 1):
        part = s3.upload_part(**target, PartNumber=number, Body=body, **sse_c())
        assert part["SSECustomerKeyMD5"] == KEY_MD5
        sums = {name: value for name, value in part.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": part["ETag"], **sums})
    ended = {**target, "MultipartUpload": {"Parts": parts}}
    with refused("InvalidRequest", 400):
        s3.complete_multipart_upload(**ended, **sse_c(OTHER_KEY))
    done = s3.complete_multipart_upload(**ended, **sse_c())
    assert s3.complete_multipart_upload(**ended, **sse_c())["ETag"] == done["ETag"]
    whole = b"".join(bodies)
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c())["Body"].read() == whole
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, **sse_c())
    assert second["Body"].read() == bodies[1]
    across = f"bytes={5 * MIB - 3}-{5 * MIB + 65_600}"
    got = s3.get_object(Bucket=bucket, Key="k", Range=across, **sse_c())["Body"].read()
    assert got == whole[5 * MIB - 3 : 5 * MIB + 65_601]
    with refused("AccessDenied", 403):
        s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER_KEY))


def test_an_upload_ends_without_the_key_and_not_with_one_that_it_does_not_have(s3, bucket, refused):
    for given, code in ((sse_c(), None), ({}, "InvalidRequest")):
        created = s3.create_multipart_upload(Bucket=bucket, Key="k", **given)
        target = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
        part = s3.upload_part(**target, PartNumber=1, Body=b"x", **given)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        if code is not None:
            with refused(code, 400):
                s3.complete_multipart_upload(**target, MultipartUpload=parts, **sse_c())
        s3.complete_multipart_upload(**target, MultipartUpload=parts)
        assert s3.get_object(Bucket=bucket, Key="k", **given)["Body"].read() == b"x"


def test_copies_between_keys_and_none(s3, bucket, refused):
    body = body_of(150_000)
    s3.put_object(Bucket=bucket, Key="source", Body=body, **sse_c())
    source = {"Bucket": bucket, "CopySource": {"Bucket": bucket, "Key": "source"}}
    from_key = sse_c(prefix="CopySource")
    with refused("InvalidRequest", 400):
        s3.copy_object(**source, Key="copy")
    with refused("AccessDenied", 403):
        s3.copy_object(**source, Key="copy", **sse_c(OTHER_KEY, "CopySource"))
    s3.copy_object(**source, Key="plain", **from_key)
    assert s3.get_object(Bucket=bucket, Key="plain")["Body"].read() == body
    copied = s3.copy_object(**source, Key="same", **from_key, **sse_c())
    assert copied["SSECustomerKeyMD5"] == KEY_MD5
    s3.copy_object(**source, Key="other", **from_key, **sse_c(OTHER_KEY))
    s3.copy_object(Bucket=bucket, Key="back", CopySource=f"{bucket}/plain", **sse_c())
    for key, secret in (("same", KEY), ("other", OTHER_KEY), ("back", KEY)):
        assert s3.get_object(Bucket=bucket, Key=key, **sse_c(secret))["Body"].read() == body
    with refused("AccessDenied", 403):
        s3.get_object(Bucket=bucket, Key="other", **sse_c(KEY))


def test_a_part_copied_from_an_encrypted_object(s3, bucket):
    body = body_of(6 * MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=body, **sse_c())
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", **sse_c(OTHER_KEY))
    target = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    part = s3.upload_part_copy(
        **target,
        PartNumber=1,
        CopySource=f"{bucket}/source",
        CopySourceRange="bytes=70000-5500000",
        **sse_c(prefix="CopySource"),
        **sse_c(OTHER_KEY),
    )
    listed = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": listed})
    got = s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER_KEY))
    assert got["Body"].read() == body[70_000:5_500_001]


def test_versions_have_keys_of_their_own(s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"one", **sse_c())
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", **sse_c(OTHER_KEY))
    version = {"Bucket": bucket, "Key": "k", "VersionId": first["VersionId"]}
    assert s3.get_object(**version, **sse_c())["Body"].read() == b"one"
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c(OTHER_KEY))["Body"].read() == b"two"
    s3.copy_object(
        Bucket=bucket,
        Key="k",
        CopySource={"Bucket": bucket, "Key": "k", "VersionId": first["VersionId"]},
        **sse_c(prefix="CopySource"),
        **sse_c(),
    )
    assert s3.get_object(Bucket=bucket, Key="k", **sse_c())["Body"].read() == b"one"


@pytest.mark.parametrize("secret", [KEY, OTHER_KEY], ids=["same key", "other key"])
def test_whole_parts_are_copied_from_encrypted_objects(s3, bucket, secret):
    """With the same key no byte moves; what comes back is the same."""
    body = body_of(5 * MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=body, **sse_c())
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", **sse_c(secret))
    target = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    parts = []
    for number in (1, 2):
        part = s3.upload_part_copy(
            **target,
            PartNumber=number,
            CopySource=f"{bucket}/source",
            **sse_c(prefix="CopySource"),
            **sse_c(secret),
        )
        parts.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=bucket, Key="source")
    got = s3.get_object(Bucket=bucket, Key="k", **sse_c(secret))
    assert got["Body"].read() == body * 2
    border = f"bytes={5 * MIB - 10}-{5 * MIB + 9}"
    got = s3.get_object(Bucket=bucket, Key="k", Range=border, **sse_c(secret))
    assert got["Body"].read() == body[-10:] + body[:10]
