"""Website configurations: index and error documents, redirects.

Source: Amazon S3 API Reference, PutBucketWebsite; User Guide, "Website configuration reference".
"""

from __future__ import annotations

from s3gw import limits
from s3gw.buckets.document import Document, Structure, Text, Value, optional, required, several
from s3gw.errors import InvalidArgument, InvalidRequest

PROTOCOLS = ("http", "https")

_CONDITION = Structure(
    (
        optional("HttpErrorCodeReturnedEquals", Text()),
        optional("KeyPrefixEquals", Text()),
    )
)
_REDIRECT = Structure(
    (
        optional("HostName", Text(1)),
        optional("HttpRedirectCode", Text()),
        optional("Protocol", Text()),
        optional("ReplaceKeyPrefixWith", Text()),
        optional("ReplaceKeyWith", Text()),
    )
)
_ROUTING_RULE = Structure((optional("Condition", _CONDITION), required("Redirect", _REDIRECT)))
_SHAPE = Structure(
    (
        optional(
            "RedirectAllRequestsTo",
            Structure((required("HostName", Text(1)), optional("Protocol", Text()))),
        ),
        optional("IndexDocument", Structure((required("Suffix", Text()),))),
        optional("ErrorDocument", Structure((required("Key", Text(1, limits.KEY_BYTES_MAX)),))),
        optional("RoutingRules", Structure((several("RoutingRule", _ROUTING_RULE),))),
    )
)


def _check(value: Value) -> None:
    everything = value.get("RedirectAllRequestsTo")
    if everything is not None:
        if len(value) > 1:
            raise InvalidArgument(
                "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
                ArgumentName="RedirectAllRequestsTo",
            )
        _check_protocol(everything)
        return
    if "IndexDocument" not in value:
        raise InvalidArgument(
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
            ArgumentName="IndexDocument",
        )
    suffix = value["IndexDocument"]["Suffix"]
    if not suffix or "/" in suffix:
        raise InvalidArgument(
            "The IndexDocument Suffix is not well formed",
            ArgumentName="IndexDocument",
            ArgumentValue=suffix,
        )
    rules = value.get("RoutingRules", {}).get("RoutingRule", [])
    if len(rules) > limits.ROUTING_RULES_MAX:
        raise InvalidRequest(
            f"{len(rules)} routing rules provided, the number of routing rules in a website "
            f"configuration is limited to {limits.ROUTING_RULES_MAX}."
        )
    for rule in rules:
        _check_routing_rule(rule)


def _check_routing_rule(rule: Value) -> None:
    redirect = rule["Redirect"]
    if not redirect:
        raise InvalidRequest("A redirect must say at least one thing that it changes.")
    if "ReplaceKeyPrefixWith" in redirect and "ReplaceKeyWith" in redirect:
        raise InvalidRequest("You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
    _check_protocol(redirect)
    code = redirect.get("HttpRedirectCode")
    if code is not None and (not _is_status(code, "3") or code == "300"):
        raise InvalidRequest(
            f"The provided HTTP redirect code ({code}) is not valid. Valid codes are 3XX except "
            "300."
        )
    condition = rule.get("Condition")
    if condition is None:
        return
    if not condition:
        raise InvalidRequest(
            "Condition cannot be empty. To redirect all requests without a condition, the "
            "condition element shouldn't be present."
        )
    returned = condition.get("HttpErrorCodeReturnedEquals")
    if returned is not None and not _is_status(returned, "45"):
        raise InvalidRequest(
            f"The provided HTTP error code ({returned}) is not valid. Valid codes are 4XX or 5XX."
        )


def _is_status(code: str, classes: str) -> bool:
    return len(code) == 3 and code.isascii() and code.isdigit() and code[0] in classes


def _check_protocol(redirect: Value) -> None:
    if redirect.get("Protocol", "http") not in PROTOCOLS:
        raise InvalidRequest(
            "Invalid protocol, protocol can be http or https. If not defined the protocol will be "
            "selected automatically."
        )


WEBSITE = Document("website", "WebsiteConfiguration", _SHAPE, _check)
