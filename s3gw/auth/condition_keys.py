"""The condition keys that the policies of buckets and roles may name.

Sources: Service Authorization Reference, "Condition keys for Amazon S3"; IAM User Guide, "AWS
global condition context keys". A bucket policy with a key that no request ever has would deny or
allow something else than it says, so a misspelt one is refused, as S3 does. (IAM does not, in the
policies of identities: see `policy_parse`.) Names are in lower case; those in `*_PREFIXES` end in a
name that the policy chooses (a tag's).
"""

from __future__ import annotations

_S3 = """
    accessgrantsinstancearn accesspointnetworkorigin authtype bucketnamespace
    dataaccesspointaccount dataaccesspointarn delimiter if-match if-none-match
    inventoryaccessibleoptionalfields jobsuspendedcause locationconstraint max-keys
    object-lock-legal-hold object-lock-mode object-lock-remaining-retention-days
    object-lock-retain-until-date objectcreationoperation prefix requestobjecttagkeys
    resourceaccount signatureage signatureversion tlsversion versionid x-amz-acl
    x-amz-checksum-algorithm x-amz-content-sha256 x-amz-copy-source x-amz-grant-full-control
    x-amz-grant-read x-amz-grant-read-acp x-amz-grant-write x-amz-grant-write-acp
    x-amz-metadata-directive x-amz-object-ownership x-amz-server-side-encryption
    x-amz-server-side-encryption-aws-kms-key-id
    x-amz-server-side-encryption-customer-algorithm x-amz-storage-class
    x-amz-website-redirect-location
"""
_GLOBAL = """
    calledvia calledviafirst calledvialast currenttime ec2instancesourceprivateipv4
    ec2instancesourcevpc epochtime federatedprovider multifactorauthage multifactorauthpresent
    principalaccount principalarn principalisawsservice principalorgid principalorgpaths
    principalservicename principalservicenameslist principaltype referer requestedregion
    resourceaccount resourceorgid resourceorgpaths securetransport sourceaccount sourcearn
    sourceidentity sourceip sourceorgid sourceorgpaths sourcevpc sourcevpcarn sourcevpce tagkeys
    tokenissuetime useragent userid username viaawsservice vpceaccount vpceorgid vpceorgpaths
    vpcsourceip
"""
_IAM = "policyarn permissionsboundary"
KEYS = frozenset(
    f"{service}:{name}"
    for service, names in (("s3", _S3), ("aws", _GLOBAL), ("iam", _IAM))
    for name in names.split()
)
TAG_PREFIXES = (
    "s3:existingobjecttag/",
    "s3:requestobjecttag/",
    "s3:buckettag/",
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "iam:resourcetag/",
)
TOKEN_SERVICES = frozenset({"sts", "saml", "jwt"})

# Only a listing has these: elsewhere they would silently mean "never", or with Deny "always".
LISTING_KEYS = frozenset({"s3:prefix", "s3:delimiter", "s3:max-keys"})
LISTING_ACTIONS = frozenset(
    {"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"}
)


def is_known(key: str) -> bool:
    """Whether a request can have the key (any case). The claims of a web identity are named by
    their provider, which has a dot or a slash: `accounts.example.com:aud`."""
    folded = key.lower()
    if folded in KEYS:
        return True
    service, colon, name = folded.rpartition(":")
    if service in ("aws", "s3", "iam") or folded.startswith(TAG_PREFIXES):
        return any(folded.startswith(p) and len(folded) > len(p) for p in TAG_PREFIXES)
    if not (colon and name):
        return False
    return service in TOKEN_SERVICES or "." in service or "/" in service
