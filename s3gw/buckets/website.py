"""Website configurations: index and error documents, redirects.

Which rule applies: before the object is looked for, the first that fits the key among those without
an error code; after an error, the first among those with its code.

Source: Amazon S3 API Reference, PutBucketWebsite; User Guide, "Website configuration reference",
"Configure redirection rules to use advanced conditional redirects".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from s3gw import limits
from s3gw.buckets.document import Document, Structure, Text, Value, optional, required, several
from s3gw.errors import InvalidArgument, InvalidRequest, MalformedXML
from s3gw.wire.xml import url_encode

PROTOCOLS = ("http", "https")
# Those of RFC 9110 that S3 takes: not 300, which offers a choice, and not 306, which means nothing.
REDIRECTS = frozenset({301, 302, 303, 304, 305, 307, 308})
URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"

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
        optional("ErrorDocument", Structure((required("Key", Text(0, limits.KEY_BYTES_MAX)),))),
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
    if value.get("ErrorDocument", {}).get("Key") == "":
        raise InvalidArgument(
            "The ErrorDocument Key is not well formed",
            ArgumentName="ErrorDocument",
            ArgumentValue="",
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
    if code is not None and _number(code) not in REDIRECTS:
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
    if returned is not None and not 400 <= _number(returned) <= 599:
        raise InvalidRequest(
            f"The provided HTTP error code ({returned}) is not valid. Valid codes are 4XX or 5XX."
        )


def _number(code: str) -> int:
    if not (len(code) == 3 and code.isascii() and code.isdigit()):
        raise MalformedXML
    return int(code)


def _check_protocol(redirect: Value) -> None:
    if redirect.get("Protocol", "http") not in PROTOCOLS:
        raise InvalidRequest(
            "Invalid protocol, protocol can be http or https. If not defined the protocol will be "
            "selected automatically."
        )


WEBSITE = Document("website", "WebsiteConfiguration", _SHAPE, _check)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a request is sent; "" means: as it was asked. Of `key` and `prefix`, the first takes
    the place of the whole key, the second that of the prefix that its rule is about."""

    host: str = ""
    protocol: str = ""
    status: int = 301
    key: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One rule. With a `status` it is for answers that are this error, else for all requests."""

    prefix: str
    status: int | None
    redirect: Redirect

    def path(self, key: str) -> str:
        """The path that a request for `key` is sent to, percent-encoded where it is the client's;
        what the rule says may be more than a path (`#!/`, `index.html?a=b`)."""
        redirect = self.redirect
        if redirect.key is not None:
            return _visible(redirect.key)
        if redirect.prefix is not None:
            return _visible(redirect.prefix) + url_encode(key.removeprefix(self.prefix))
        return url_encode(key)


@dataclass(frozen=True, slots=True)
class Website:
    """A configuration as it is served. `everything` redirects all requests."""

    everything: Redirect | None
    index: str
    error_key: str
    rules: tuple[RoutingRule, ...]

    def rule(self, key: str, status: int | None = None) -> RoutingRule | None:
        """The first rule for requests of `key`, or with `status` for such an error of it."""
        fitting = (r for r in self.rules if r.status == status and key.startswith(r.prefix))
        return next(fitting, None)


@lru_cache(maxsize=64)
def website_of(stored: bytes) -> Website:
    """The website of a stored configuration."""
    value = WEBSITE.read_stored(stored)
    everything = value.get("RedirectAllRequestsTo")
    return Website(
        _redirect(everything) if everything is not None else None,
        value.get("IndexDocument", {}).get("Suffix", ""),
        value.get("ErrorDocument", {}).get("Key", ""),
        tuple(map(_rule, value.get("RoutingRules", {}).get("RoutingRule", ()))),
    )


def _rule(value: Value) -> RoutingRule:
    condition = value.get("Condition", {})
    status = condition.get("HttpErrorCodeReturnedEquals")
    return RoutingRule(
        condition.get("KeyPrefixEquals", ""),
        int(status) if status is not None else None,
        _redirect(value["Redirect"]),
    )


def _redirect(value: Value) -> Redirect:
    return Redirect(
        _visible(value.get("HostName", "")),
        value.get("Protocol", ""),
        int(value.get("HttpRedirectCode", 301)),
        value.get("ReplaceKeyWith"),
        value.get("ReplaceKeyPrefixWith"),
    )


def _visible(text: str) -> str:
    """Text of a configuration in a URL: as it is, but for what no header could carry."""
    return quote(text, safe=URL_CHARACTERS)
