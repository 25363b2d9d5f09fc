"""A bucket's default encryption, and whether what it gets is compressed.

Source: Amazon S3 API Reference, PutBucketEncryption; S3 User Guide, "Blocking or unblocking SSE-C".
Compression is no matter of S3: an operator turns it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from s3gw.buckets.document import (
    Choice,
    Document,
    Flag,
    Structure,
    Text,
    Value,
    optional,
    required,
    several,
)
from s3gw.errors import InvalidArgument, NotImplementedS3

SSE_S3, SSE_KMS, SSE_C = "AES256", "aws:kms", "SSE-C"
DUAL_LAYER = "aws:kms:dsse"
DOCUMENTS_KEPT = 1024

_BY_DEFAULT = Structure(
    (
        required("SSEAlgorithm", Choice((SSE_S3, SSE_KMS, DUAL_LAYER))),
        optional("KMSMasterKeyID", Text(1, 2048)),
    )
)
_BLOCKED = Structure((several("EncryptionType", Choice(("NONE", SSE_C))),))
_RULE = Structure(
    (
        optional("ApplyServerSideEncryptionByDefault", _BY_DEFAULT),
        optional("BucketKeyEnabled", Flag()),
        optional("BlockedEncryptionTypes", _BLOCKED),
    )
)


def _check(value: Value) -> None:
    by_default = value["Rule"].get("ApplyServerSideEncryptionByDefault", {})
    algorithm = by_default.get("SSEAlgorithm")
    if algorithm == DUAL_LAYER:
        raise NotImplementedS3("Dual-layer encryption (aws:kms:dsse) is not offered.")
    if algorithm == SSE_S3 and "KMSMasterKeyID" in by_default:
        raise InvalidArgument(
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms",
            ArgumentName="KMSMasterKeyID",
        )


ENCRYPTION = Document(
    "encryption",
    "ServerSideEncryptionConfiguration",
    Structure((required("Rule", _RULE),)),
    _check,
)


@dataclass(frozen=True, slots=True)
class Default:
    """What a bucket's objects get unless their request says otherwise: an algorithm ("" for none),
    of SSE-KMS a key ("" for the store's default key) and the bucket key flag; and whether SSE-C is
    refused."""

    algorithm: str = ""
    key_name: str = ""
    bucket_key: bool = False
    blocks_customer_keys: bool = False


NO_DEFAULT = Default()


@lru_cache(maxsize=DOCUMENTS_KEPT)
def default_of(document: bytes) -> Default:
    """The default in a stored document."""
    rule = ENCRYPTION.read_stored(document)["Rule"]
    by_default = rule.get("ApplyServerSideEncryptionByDefault", {})
    return Default(
        by_default.get("SSEAlgorithm", ""),
        by_default.get("KMSMasterKeyID", ""),
        rule.get("BucketKeyEnabled", False),
        SSE_C in rule.get("BlockedEncryptionTypes", {}).get("EncryptionType", ()),
    )


# Compression.

COMPRESSION = "compression"
"""The name among a bucket's documents of the compression that its new objects get."""

# What is compressed already; trying costs as much as doing. Suffixes of types as in RFC 6839.
_PACKED_TYPES = frozenset(
    {
        "application/gzip",
        "application/java-archive",
        "application/vnd.apache.parquet",
        "application/vnd.rar",
        "application/x-7z-compressed",
        "application/x-bzip2",
        "application/x-gzip",
        "application/x-rar-compressed",
        "application/x-xz",
        "application/zip",
        "application/zstd",
        "font/woff2",
    }
)
_PACKED_FAMILIES = ("audio/", "image/", "video/")
_PLAIN_IMAGES = frozenset({"image/bmp", "image/svg+xml", "image/tiff", "image/x-portable-pixmap"})


def compressible(content_type: str, content_encoding: str) -> bool:
    """Whether it is worth trying to compress content of this type.

    >>> compressible("text/html", ""), compressible("image/png", ""), compressible("x", "gzip")
    (True, False, False)
    """
    kind = content_type.partition(";")[0].strip().lower()
    if content_encoding.strip().lower() not in ("", "identity", "aws-chunked"):
        return False
    if kind in _PLAIN_IMAGES:
        return True
    return kind not in _PACKED_TYPES and not kind.startswith(_PACKED_FAMILIES)
