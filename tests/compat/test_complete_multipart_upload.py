"""CompleteMultipartUpload."""

import base64
import hashlib
import os

import pytest
from awscrt.checksums import crc64nvme
from botocore.exceptions import ClientError

from tests.compat.encryption import sse_c

PART = 5 * 1024 * 1024


def target_of(bucket, upload):
    return {"Bucket": bucket, "Key": "k", "UploadId": upload}


def complete(s3, bucket, upload, parts, **more):
    return s3.complete_multipart_upload(
        **target_of(bucket, upload), MultipartUpload={"Parts": parts}, **more
    )


def multipart_etag(bodies):
    digests = b"".join(hashlib.md5(body).digest() for body in bodies)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(bodies)}"'


def test_the_parts_become_one_object(s3, bucket, upload_parts):
    bodies = [os.urandom(PART), os.urandom(PART + 1), os.urandom(3)]
    upload, parts = upload_parts(bucket, "k", bodies)
    reply = complete(s3, bucket, upload, parts)
    assert (reply["Bucket"], reply["Key"]) == (bucket, "k")
    assert reply["ETag"] == multipart_etag(bodies)
    assert reply["Location"].endswith("/k")
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["ETag"] == multipart_etag(bodies)
    assert found["Body"].read() == b"".join(bodies)


def test_every_part_and_every_border_can_be_read(s3, bucket, upload_parts):
    bodies = [os.urandom(PART), os.urandom(PART), os.urandom(9)]
    upload, parts = upload_parts(bucket, "k", bodies)
    complete(s3, bucket, upload, parts)
    whole = b"".join(bodies)
    for number, body in enumerate(bodies, 1):
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert (found["PartsCount"], found["Body"].read() == body) == (3, True)
    for first, last in ((PART - 2, PART + 1), (PART - 1, 2 * PART), (2 * PART, 2 * PART + 8)):
        found = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")
        assert found["Body"].read() == whole[first : last + 1]


def test_a_part_number_behind_the_last_is_refused(s3, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"only"])
    complete(s3, bucket, upload, parts)
    with refused("InvalidPartNumber", 416):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=2)


def test_only_the_listed_parts_are_used(s3, bucket, upload_parts):
    bodies = [b"a" * PART, b"b" * PART, b"c" * 5]
    upload, parts = upload_parts(bucket, "k", bodies)
    complete(s3, bucket, upload, [parts[0], parts[2]])
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["Body"].read() == bodies[0] + bodies[2]
    assert found["ETag"].endswith('-2"')


def test_the_same_list_a_second_time_gives_the_same_answer(s3, bucket, upload_parts):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    first, second = (complete(s3, bucket, upload, parts) for _ in range(2))
    assert first["ETag"] == second["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_a_completed_upload_is_gone(s3, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    complete(s3, bucket, upload, parts)
    with refused("NoSuchUpload", 404):
        s3.list_parts(**target_of(bucket, upload))
    with refused("NoSuchUpload", 404):
        s3.upload_part(**target_of(bucket, upload), PartNumber=2, Body=b"late")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_part_that_is_too_small_is_refused_unless_it_is_the_last(
    s3, bucket, upload_parts, refused
):
    upload, parts = upload_parts(bucket, "k", [b"small", b"last"])
    with refused("EntityTooSmall", 400):
        complete(s3, bucket, upload, parts)
    assert len(s3.list_parts(**target_of(bucket, upload))["Parts"]) == 2
    complete(s3, bucket, upload, parts[1:])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"last"


def test_a_part_that_was_never_sent_is_refused(s3, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    with refused("InvalidPart", 400):
        complete(s3, bucket, upload, [{**parts[0], "PartNumber": 2}])


def test_a_part_with_another_etag_is_refused(s3, bucket, upload_parts, refused):
    upload, _ = upload_parts(bucket, "k", [b"hello"])
    wrong = {"PartNumber": 1, "ETag": f'"{hashlib.md5(b"other").hexdigest()}"'}
    with refused("InvalidPart", 400):
        complete(s3, bucket, upload, [wrong])


def test_parts_in_descending_or_repeated_order_are_refused(s3, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"a", b"b"])
    for wrong in (parts[::-1], [parts[0], parts[0]]):
        with refused("InvalidPartOrder", 400):
            complete(s3, bucket, upload, wrong)


def test_an_empty_or_malformed_list_is_refused(http, s3, bucket, upload_parts):
    upload, _ = upload_parts(bucket, "k", [b"a"])
    bodies = [
        b"<CompleteMultipartUpload></CompleteMultipartUpload>",
        b"<CompleteMultipartUpload><Part></Part></CompleteMultipartUpload>",
        b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>y</ETag></Part>"
        b"</CompleteMultipartUpload>",
        b"<Complete",
        b"",
    ]
    for body in bodies:
        reply = http.request("POST", f"/{bucket}/k", f"uploadId={upload}", body=body)
        assert (reply.status, reply.code) == (400, "MalformedXML"), body


@pytest.mark.parametrize("quote", ['"', "", "&quot;"], ids=["quoted", "bare", "entities"])
def test_an_etag_is_accepted_with_and_without_quotes(http, bucket, upload_parts, quote):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    etag = parts[0]["ETag"].strip('"')
    body = (
        "<CompleteMultipartUpload><Part>"
        f"<ETag>{quote}{etag}{quote}</ETag><PartNumber>1</PartNumber>"
        "</Part></CompleteMultipartUpload>"
    ).encode()
    assert http.request("POST", f"/{bucket}/k", f"uploadId={upload}", body=body).status == 200


def test_an_upload_that_does_not_exist_is_refused(s3, bucket, refused):
    with refused("NoSuchUpload", 404):
        complete(s3, bucket, "unknown", [{"PartNumber": 1, "ETag": '"x"'}])


def test_a_wrong_total_size_is_refused(s3, bucket, upload_parts, refused):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    with refused("InvalidRequest", 400):
        complete(s3, bucket, upload, parts, MpuObjectSize=6)
    complete(s3, bucket, upload, parts, MpuObjectSize=5)


def test_conditions_are_kept(s3, bucket, upload_parts, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    with refused("PreconditionFailed", 412):
        complete(s3, bucket, upload, parts, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        complete(s3, bucket, upload, parts, IfMatch='"0"')
    etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    complete(s3, bucket, upload, parts, IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_a_composite_checksum_covers_the_checksums_of_the_parts(s3, bucket):
    bodies = [os.urandom(PART), b"tail"]
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        reply = s3.upload_part(
            **target, UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256"
        )
        sums = {"ETag": reply["ETag"], "ChecksumSHA256": reply["ChecksumSHA256"]}
        parts.append({"PartNumber": number, **sums})
    reply = complete(s3, bucket, upload, parts)
    digests = b"".join(hashlib.sha256(body).digest() for body in bodies)
    expected = base64.b64encode(hashlib.sha256(digests).digest()).decode() + "-2"
    assert (reply["ChecksumSHA256"], reply["ChecksumType"]) == (expected, "COMPOSITE")
    found = s3.head_object(**target, ChecksumMode="ENABLED")
    assert (found["ChecksumSHA256"], found["ChecksumType"]) == (expected, "COMPOSITE")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_a_full_object_checksum_is_that_of_the_whole(s3, bucket, algorithm):
    bodies = [os.urandom(PART), os.urandom(PART), b"tail"]
    target = {"Bucket": bucket, "Key": "k"}
    name = f"Checksum{algorithm}"
    whole = s3.put_object(
        Bucket=bucket, Key="whole", Body=b"".join(bodies), ChecksumAlgorithm=algorithm
    )[name]
    upload = s3.create_multipart_upload(
        **target, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT"
    )["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        reply = s3.upload_part(
            **target, UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm
        )
        parts.append({"PartNumber": number, "ETag": reply["ETag"], name: reply[name]})
    reply = complete(s3, bucket, upload, parts, ChecksumType="FULL_OBJECT", **{name: whole})
    assert (reply[name], reply["ChecksumType"]) == (whole, "FULL_OBJECT")


def test_a_wrong_checksum_of_the_whole_is_refused(s3, bucket, refused):
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(
        **target, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    reply = s3.upload_part(
        **target, UploadId=upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC64NVME"
    )
    part = {name: reply[name] for name in ("ETag", "ChecksumCRC64NVME")}
    with refused("BadDigest", 400):
        complete(
            s3,
            bucket,
            upload,
            [{"PartNumber": 1, **part}],
            ChecksumCRC64NVME="AAAAAAAAAAA=",
            ChecksumType="FULL_OBJECT",
        )


def test_without_an_algorithm_the_object_has_the_crc64nvme_of_the_whole(s3, http, bucket):
    bodies = [os.urandom(PART), b"rest"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    path, query = f"/{bucket}/k", f"uploadId={upload}"
    parts = []
    for number, body in enumerate(bodies, 1):
        reply = http.request("PUT", path, f"partNumber={number}&{query}", body=body)
        parts.append({"PartNumber": number, "ETag": reply["etag"]})
    whole = crc64nvme(b"".join(bodies)).to_bytes(8, "big")
    expected = (base64.b64encode(whole).decode(), "FULL_OBJECT")
    reply = complete(s3, bucket, upload, parts)
    assert (reply["ChecksumCRC64NVME"], reply["ChecksumType"]) == expected
    found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (found["ChecksumCRC64NVME"], found["ChecksumType"]) == expected
    assert found["Body"].read() == b"".join(bodies)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"ChecksumCRC64NVME": "AAAAAAAAAAA="}, "BadDigest"),
        ({"ChecksumCRC32": "AAAAAA=="}, "InvalidRequest"),
        ({"ChecksumType": "COMPOSITE"}, "InvalidRequest"),
    ],
)
def test_a_checksum_that_cannot_be_true_is_refused(s3, bucket, upload_parts, refused, sent, code):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    with refused(code, 400):
        complete(s3, bucket, upload, parts, **sent)
    complete(s3, bucket, upload, parts)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_the_location_is_a_url(s3, bucket, upload_parts):
    key = "a b/ü?.txt"
    upload, parts = upload_parts(bucket, key, [b"hello"])
    reply = s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert reply["Key"] == key
    assert reply["Location"].endswith(f"/{bucket}/a%20b/%C3%BC%3F.txt")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True},
        sse_c(),
    ],
    ids=["plain", "SSE-S3", "SSE-KMS", "SSE-C"],
)
def test_a_retry_is_told_of_the_encryption_as_the_first_was(s3, bucket, asked):
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**target, **asked)["UploadId"]
    customer = {name: value for name, value in asked.items() if name.startswith("SSECustomer")}
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x", **customer)
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    first = complete(s3, bucket, upload, parts, **customer)
    again = complete(s3, bucket, upload, parts, **customer)
    for name in ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled"):
        assert again.get(name) == first.get(name)
    assert again["ETag"] == first["ETag"]
    assert again.get("ServerSideEncryption") == asked.get("ServerSideEncryption")
    headers = [reply["ResponseMetadata"]["HTTPHeaders"] for reply in (first, again)]
    told = [{n: v for n, v in each.items() if "server-side-encryption" in n} for each in headers]
    assert told[0] == told[1]
    assert bool(told[0]) == bool(asked)


@pytest.mark.parametrize(("suffix", "accepted"), [("-1", True), ("", True), ("-2", False)])
def test_a_composite_checksum_may_leave_out_the_number_of_parts(
    s3, bucket, refused, suffix, accepted
):
    """As minio-go sends it; a number that is there must be right."""
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(
        **target, UploadId=upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256"
    )
    parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
    inner = base64.b64decode(part["ChecksumSHA256"])
    composite = base64.b64encode(hashlib.sha256(inner).digest()).decode()
    expected = {"ChecksumSHA256": composite + suffix, "ChecksumType": "COMPOSITE"}
    if not accepted:
        with refused("BadDigest", 400):
            complete(s3, bucket, upload, parts, **expected)
        return
    done = complete(s3, bucket, upload, parts, **expected)
    assert done["ChecksumSHA256"] == f"{composite}-1"


SHA1 = "Kq5sNclPz7QV2+lfQIuc6R7oRu0="
SHA256 = "n2alat9FhKiZXkZO18V2LLcZFM3IT8R7DjSMvK//7WU="


@pytest.mark.parametrize(
    ("of_part", "of_object", "code", "message"),
    [
        ({"CRC32": "invalid_checksum"}, {}, "InvalidArgument", "Invalid Base64 or multiple"),
        ({"SHA1": SHA1}, {}, "InvalidArgument", "Invalid Base64 or multiple"),
        ({"CRC32": "DUoRhQ=="}, {}, "InvalidPart", "could not be found"),
        ({"CRC32": None, "SHA256": SHA256}, {}, "BadDigest", "sha256 you specified for part 1"),
        ({}, {"ChecksumCRC32": "DUoRhQ=="}, "BadDigest", "The CRC32 you specified"),
        ({}, {"ChecksumCRC32": "invalid"}, "InvalidRequest", "x-amz-checksum-crc32 header"),
        ({}, {"ChecksumCRC32": "DUoRhQ==-x"}, "InvalidRequest", "x-amz-checksum-crc32 header"),
        ({}, {"ChecksumCRC32": "DUoRhQ==", "ChecksumSHA1": SHA1}, "InvalidRequest", "single"),
        ({}, {"ChecksumSHA1": SHA1}, "InvalidRequest", "Checksum Type mismatch"),
        ({}, {"ChecksumType": "unknown"}, "InvalidRequest", "x-amz-checksum-type header"),
        ({}, {"ChecksumType": "COMPOSITE"}, "InvalidRequest", "the same checksum mode"),
        ({}, {"MpuObjectSize": -1}, "InvalidRequest", "less than zero: '-1'"),
    ],
)
def test_what_is_wrong_with_a_checksum_or_size_is_told(
    s3, bucket, of_part, of_object, code, message
):
    target = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(
        **target, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    sent = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x")
    given = {"CRC32": sent["ChecksumCRC32"], **of_part}
    checksums = {f"Checksum{name}": value for name, value in given.items() if value is not None}
    part = {"PartNumber": 1, "ETag": sent["ETag"]}
    with pytest.raises(ClientError) as caught:
        complete(s3, bucket, upload, [{**part, **checksums}], **of_object)
    assert caught.value.response["Error"]["Code"] == code
    assert message in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    complete(s3, bucket, upload, [part])


@pytest.mark.parametrize("number", [-4, 0, 10_001])
def test_a_part_number_that_no_part_can_have_is_refused(s3, bucket, upload_parts, refused, number):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    with refused("InvalidArgument", 400):
        complete(s3, bucket, upload, [{**parts[0], "PartNumber": number}])


def test_a_total_size_that_is_no_number_is_refused(http, bucket, upload_parts):
    upload, parts = upload_parts(bucket, "k", [b"hello"])
    body = (
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
        f"<ETag>{parts[0]['ETag']}</ETag></Part></CompleteMultipartUpload>"
    ).encode()
    headers = {"x-amz-mp-object-size": "five"}
    reply = http.request("POST", f"/{bucket}/k", f"uploadId={upload}", headers=headers, body=body)
    assert (reply.status, reply.code) == (400, "InvalidRequest")
