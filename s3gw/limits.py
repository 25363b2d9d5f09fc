"""Every bound of the gateway, with where its value comes from.

Each queue, body, header, document and retry has its limit here, so that one page shows what a
client, however hostile, can make the gateway hold or do.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# S3's own limits (Amazon S3 User Guide, "Amazon S3 multipart upload limits", "Creating object
# key names" and "Working with object metadata").
KEY_BYTES_MAX = 1024
USER_METADATA_BYTES_MAX = 2 * KIB
SINGLE_PUT_BYTES_MAX = 5 * GIB
PART_BYTES_MIN = 5 * MIB
PART_BYTES_MAX = 5 * GIB
PART_NUMBER_MAX = 10_000
OBJECT_BYTES_MAX = 5 * TIB
COPY_SOURCE_BYTES_MAX = 5 * GIB
LIST_PAGE_KEYS_MAX = 1000
BUCKETS_PAGE_MAX = 10_000
DELETE_OBJECTS_KEYS_MAX = 1000
PRESIGNED_SECONDS_MAX = 7 * 24 * 3600
CLOCK_SKEW_SECONDS_MAX = 15 * 60
OBJECT_TAGS_MAX = 10
BUCKET_POLICY_BYTES_MAX = 20 * KIB
TAG_KEY_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256
BUCKET_TAGS_MAX = 50
CORS_RULES_MAX = 100
ROUTING_RULES_MAX = 50
CONFIGURATIONS_MAX = 1000
CONFIGURATIONS_PAGE_MAX = 100
LIFECYCLE_RULES_MAX = 1000

# Requests. A URL of a 1,024-byte key, percent-encoded, with a presigned query fits in 16 KiB.
REQUEST_HEAD_BYTES_MAX = 32 * KIB
REQUEST_HEADERS_MAX = 200
HEAD_DEADLINE_SECONDS = 30
KEEP_ALIVE_SECONDS = 75
DISCARD_BYTES_MAX = 16 * MIB
DISCARD_SECONDS_MAX = 10
RANGE_HEADER_BYTES_MAX = 4 * KIB

# Documents (XML). 2 MiB holds the longest legal Complete and Delete requests.
XML_LARGE_BYTES_MAX = 2 * MIB
XML_SMALL_BYTES_MAX = 64 * KIB
# One configuration of a bucket, as stored; a bucket's record, with a dozen of them, is one value.
DOCUMENT_BYTES_MAX = 64 * KIB
# A thousand lifecycle rules with prefixes of 200 characters.
LIFECYCLE_BYTES_MAX = 512 * KIB
# All of a bucket's inventory (or metrics, …) configurations, which are one value: half a commit.
CONFIGURATIONS_BYTES_MAX = 768 * KIB
XML_TAGS_MAX = 200_000
XML_DEPTH_MAX = 32

# Framing of aws-chunked bodies. A chunk may be as long as the body: payload is not held back.
CHUNK_HEADER_BYTES_MAX = 1 * KIB
TRAILER_BYTES_MAX = 4 * KIB
# S3's own (InvalidChunkSizeError): only the last signed chunk may be shorter.
SIGNED_CHUNK_BYTES_MIN = 8 * KIB

# A form upload: fields, headers of parts and boundaries together, the file not counted. S3's own
# (API Reference, POST Object).
FORM_FIELDS_BYTES_MAX = 20 * KIB

# Metadata commits (etcd's defaults: --max-txn-ops 128, --max-request-bytes 1.5 MiB).
COMMIT_OPERATIONS_MAX = 128
COMMIT_GUARDS_MAX = 128
COMMIT_BYTES_MAX = 3 * MIB // 2
COMMIT_ATTEMPTS_MAX = 64
SCAN_ITEMS_MAX = 10_000

# Data path.
SMALL_BLOB_BYTES_MAX = 64 * KIB
WRITE_AGE_SECONDS_MAX = 12 * 3600
USAGE_SLOTS_MAX = 64
# An S3 document has fewer than a hundred element names; one with thousands is made to fill hash
# tables. The most elements of a legal one: Complete with 10,000 parts of six elements. Attributes
# carry no meaning but a Grantee's type; some writers repeat `xmlns` on each part.
XML_ELEMENTS_MAX = 65_536
XML_NAMES_MAX = 256
XML_ATTRIBUTES_MAX = 20_000
XML_ON_LOOP_BYTES_MAX = 8 * KIB
# Requests of the query protocol (IAM and STS). A policy of 128 KiB may be percent-encoded.
QUERY_BODY_BYTES_MAX = 512 * KIB
QUERY_PARAMETERS_MAX = 2000
QUERY_ON_LOOP_BYTES_MAX = 16 * KIB

# Identities (IAM User Guide, "IAM and AWS STS quotas"). White space of policies does not count.
IAM_USER_NAME_CHARACTERS_MAX = 64
IAM_NAME_CHARACTERS_MAX = 128
IAM_PATH_CHARACTERS_MAX = 512
IAM_DESCRIPTION_CHARACTERS_MAX = 1000
IAM_TAGS_MAX = 50
IAM_USERS_MAX = 5000
IAM_GROUPS_MAX = 300
IAM_ROLES_MAX = 1000
IAM_POLICIES_MAX = 1500
IAM_GROUPS_PER_USER_MAX = 10
IAM_ACCESS_KEYS_PER_USER_MAX = 2
# Ours: a user and all of its keys are changed in one commit.
IAM_SERVICE_ACCOUNTS_PER_USER_MAX = 100
IAM_ATTACHED_POLICIES_MAX = 10
IAM_MANAGED_POLICY_CHARACTERS_MAX = 6144
IAM_USER_INLINE_CHARACTERS_MAX = 2048
IAM_GROUP_INLINE_CHARACTERS_MAX = 5120
IAM_ROLE_INLINE_CHARACTERS_MAX = 10_240
IAM_TRUST_POLICY_CHARACTERS_MAX = 2048
IAM_SESSION_POLICY_CHARACTERS_MAX = 2048
# With white space, as stored.
IAM_DOCUMENT_BYTES_MAX = 64 * KIB
ROLE_SESSION_SECONDS_MIN = 3600
ROLE_SESSION_SECONDS_MAX = 12 * 3600
OIDC_PROVIDERS_MAX = 100
OIDC_URL_CHARACTERS_MAX = 255
OIDC_CLIENT_IDS_MAX = 100
OIDC_THUMBPRINTS_MAX = 5
