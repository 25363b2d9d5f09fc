"""The compatibility table of the README, generated from the route table.

`python -m s3gw.server.compatibility` prints it.
"""

from __future__ import annotations

from s3gw.buckets.fresh import ANSWERS, Document, Refusal
from s3gw.server.routes import ROWS, Row

# Why an operation that is not built is not.
REASONS = {
    "AppendObject": "S3 Express One Zone",
    "CreateSession": "S3 Express One Zone",
    "DeleteBucketReplication": "nothing is replicated to other stores yet",
    "DeleteObjectAnnotation": "annotations are not kept",
    "GetObjectAnnotation": "annotations are not kept",
    "GetObjectTorrent": "withdrawn by Amazon",
    "ListDirectoryBuckets": "S3 Express One Zone",
    "ListObjectAnnotations": "annotations are not kept",
    "PutBucketAbac": "policies do not look at the tags of buckets",
    "PutBucketReplication": "nothing is replicated to other stores yet",
    "PutObjectAnnotation": "annotations are not kept",
    "RestoreObject": "nothing is archived, so there is nothing to restore",
    "SelectObjectContent": "closed to new customers by Amazon",
    "WriteGetObjectResponse": "S3 Object Lambda",
}
# What is kept and given back, and does not do all that it says.
STORED = {
    "PutBucketAccelerateConfiguration": "stored and returned; nothing is accelerated",
    "PutBucketAnalyticsConfiguration": "stored and returned; nothing is analysed",
    "PutBucketIntelligentTieringConfiguration": "stored and returned; nothing is moved",
    "PutBucketInventoryConfiguration": "CSV and Parquet, not ORC",
    "PutBucketMetricsConfiguration": "stored and returned; no request metrics are kept",
    "PutBucketNotificationConfiguration": "the empty configuration; there are no destinations yet",
    "PutBucketRequestPayment": "stored and returned; nobody is charged",
}
_METADATA_TABLES = "S3 Metadata, which lives in S3 Tables"


def status(row: Row) -> str:
    """`built`, maybe with what is not, the fresh answer, or `501` with its reason."""
    if row.handler is not None:
        return f"built: {STORED[row.name]}" if row.name in STORED else "built"
    match ANSWERS.get(row.name):
        case Refusal(error, _):
            return f"answers as for a resource without the setting: `{error.code}`"
        case Document(root, _):
            return f"answers as for a resource without the setting: `{root}`"
        case None:
            return f"501: {_reason(row.name)}"


def _reason(name: str) -> str:
    return _METADATA_TABLES if "BucketMetadata" in name else REASONS[name]


def table() -> str:
    """A Markdown table, one line per operation in alphabetical order, ending in a newline."""
    lines = [
        f"| {' / '.join((row.name, *row.aliases))} | {status(row)} |"
        for row in sorted(ROWS, key=lambda row: row.name)
    ]
    return "\n".join(("| operation | status |", "|---|---|", *lines)) + "\n"


if __name__ == "__main__":
    print(table(), end="")
