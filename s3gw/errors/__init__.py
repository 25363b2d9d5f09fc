"""The S3 errors: one class per error code, raised anywhere below, rendered once at the edge.

Codes, statuses and messages are those of the S3 API Reference ("Error responses", "List of error
codes"), and where that list is silent those that S3 was seen to send. Two are not Amazon's:
`InsufficientStorage` carries MinIO's code `XMinioStorageFull` with status 507, which no SDK retries
(a retry would meet the same full drives), and `QuotaExceeded` is Ceph's, status 403.

`raise NoSuchKey(Key=key)`: keyword arguments become additional elements of the error document.
"""

from s3gw.errors.access import *
from s3gw.errors.base import *
from s3gw.errors.missing import *
from s3gw.errors.requests import *
from s3gw.errors.state import *
