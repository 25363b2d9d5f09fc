"""CORS: which origin gets which headers, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.buckets.cors import CORS, answer_headers, matches, preflight_headers
from s3gw.errors import S3Error


def stored(*rules: dict[str, object]) -> bytes:
    defaults = {"AllowedMethod": ["GET"], "AllowedOrigin": ["*"]}
    return CORS.render({"CORSRule": [{**defaults, **rule} for rule in rules]})


EXACT = {"AllowedOrigin": ["https://a.test"]}
WILD = {"AllowedOrigin": ["https://*.b.test"]}
CREDENTIALS = "Access-Control-Allow-Credentials"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("https://a.test", "https://a.test", True),
        ("https://a.test", "https://A.test", False),
        ("https://a.test", "https://a.test.evil", False),
        ("https://*.b.test", "https://x.b.test", True),
        ("https://*.b.test", "https://x.y.b.test", True),
        ("https://*.b.test", "https://.b.test", True),
        ("https://*.b.test", "https://b.test", False),
        ("https://*.b.test", "http://x.b.test", False),
        ("https://*.b.test", "https://x.b.test.evil", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a.c", "abc", False),
    ],
)
def test_one_star_stands_for_any_characters(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_whatever_the_star_stands_for_matches(before: str, between: str, after: str) -> None:
    before, after = before.replace("*", ""), after.replace("*", "")
    assert matches(f"{before}*{after}", before + between + after)


@pytest.mark.parametrize(
    ("rules", "origin", "method", "allowed", "credentials"),
    [
        ([{}], "https://a.test", "GET", "*", False),
        ([{}], "null", "GET", "*", False),
        ([{}], "https://a.test", "PUT", None, False),
        ([EXACT], "https://a.test", "GET", "https://a.test", True),
        ([EXACT], "https://evil.test", "GET", None, False),
        ([EXACT], "https://a.test.evil.test", "GET", None, False),
        ([EXACT], "https://A.TEST", "GET", None, False),
        ([EXACT], "null", "GET", None, False),
        ([WILD], "https://x.b.test", "GET", "https://x.b.test", True),
        ([WILD], "https://b.test", "GET", None, False),
        ([EXACT, {}], "https://evil.test", "GET", "*", False),
        ([{}, EXACT], "https://a.test", "GET", "*", False),
        ([{"AllowedOrigin": ["*", "https://a.test"]}], "https://a.test", "GET", "*", False),
        (
            [{**EXACT, "AllowedMethod": ["PUT"]}, EXACT],
            "https://a.test",
            "GET",
            "https://a.test",
            True,
        ),
        ([{"AllowedMethod": ["HEAD"]}], "https://a.test", "HEAD", "*", False),
        ([{"AllowedMethod": ["HEAD"]}], "https://a.test", "GET", None, False),
    ],
)
def test_which_origin_is_let_at_an_answer(
    rules: list[dict[str, object]],
    origin: str,
    method: str,
    allowed: str | None,
    credentials: bool,
) -> None:
    headers = dict(answer_headers(stored(*rules), origin, method))
    assert headers.get("Access-Control-Allow-Origin") == allowed
    assert (headers.get(CREDENTIALS) == "true") is credentials
    if allowed is None:
        assert headers == {}


def test_the_first_rule_that_fits_gives_all_its_headers() -> None:
    rule = {
        **EXACT,
        "AllowedMethod": ["PUT", "GET"],
        "AllowedHeader": ["*"],
        "ExposeHeader": ["ETag", "x-amz-request-id"],
        "MaxAgeSeconds": 0,
    }
    assert answer_headers(stored(WILD, rule, {}), "https://a.test", "GET") == [
        ("Access-Control-Allow-Origin", "https://a.test"),
        ("Access-Control-Allow-Methods", "PUT, GET"),
        ("Access-Control-Expose-Headers", "ETag, x-amz-request-id"),
        ("Access-Control-Max-Age", "0"),
        ("Access-Control-Allow-Credentials", "true"),
    ]


def asked(
    rules: list[dict[str, object]] | None,
    origin: str | None,
    method: str | None,
    requested: str | None = None,
) -> dict[str, str]:
    configuration = stored(*rules) if rules is not None else None
    return dict(preflight_headers(configuration, origin, method, requested, resource_type="OBJECT"))


@pytest.mark.parametrize(
    ("patterns", "requested", "answered"),
    [
        ([], None, None),
        ([], " , ", None),
        (["*"], "X-Anything, content-type", "x-anything, content-type"),
        (["Content-Type"], "content-type", "content-type"),
        (["x-amz-*"], "X-Amz-Date,x-amz-meta-a", "x-amz-date, x-amz-meta-a"),
        (["x-amz-*", "range"], "range, x-amz-date", "range, x-amz-date"),
    ],
)
def test_requested_headers_that_are_allowed_are_named(
    patterns: list[str], requested: str | None, answered: str | None
) -> None:
    headers = asked([{"AllowedHeader": patterns}], "https://a.test", "GET", requested)
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers.get("Access-Control-Allow-Headers") == answered


@pytest.mark.parametrize(
    ("rules", "origin", "method", "requested", "code"),
    [
        ([{}], None, "GET", None, "BadRequest"),
        ([{}], "", "GET", None, "BadRequest"),
        ([{}], "https://a.test", None, None, "BadRequest"),
        ([{}], "https://a.test", "PATCH", None, "BadRequest"),
        ([{}], "https://a.test", "get", None, "BadRequest"),
        (None, None, "GET", None, "BadRequest"),
        (None, "https://a.test", "GET", None, "AccessForbidden"),
        ([{}], "https://a.test", "PUT", None, "AccessForbidden"),
        ([EXACT], "https://evil.test", "GET", None, "AccessForbidden"),
        ([{}], "https://a.test", "GET", "x-amz-date", "AccessForbidden"),
        (
            [{"AllowedHeader": ["x-amz-*"]}],
            "https://a.test",
            "GET",
            "x-amz-date, range",
            "AccessForbidden",
        ),
    ],
)
def test_preflights_that_are_refused(
    rules: list[dict[str, object]] | None,
    origin: str | None,
    method: str | None,
    requested: str | None,
    code: str,
) -> None:
    with pytest.raises(S3Error) as caught:
        asked(rules, origin, method, requested)
    assert caught.value.code == code
    assert caught.value.status == (400 if code == "BadRequest" else 403)
    assert not any(name.startswith("Access-Control") for name in caught.value.headers)


def test_a_later_rule_answers_when_the_first_does_not_allow_a_header() -> None:
    rules = [EXACT, {"AllowedHeader": ["range"]}]
    assert asked(rules, "https://a.test", "GET", "range")["Access-Control-Allow-Origin"] == "*"
    assert asked(rules, "https://a.test", "GET")["Access-Control-Allow-Origin"] == "https://a.test"


ORIGINS = st.text("ahtps:/.*x", max_size=12)


PATTERNS = ORIGINS.filter(lambda text: text != "" and text.count("*") <= 1)


@given(st.lists(PATTERNS, min_size=1, max_size=3), ORIGINS)
def test_credentials_go_only_with_an_origin_that_a_rule_names(
    patterns: list[str], origin: str
) -> None:
    headers = dict(answer_headers(stored({"AllowedOrigin": patterns}), origin, "GET"))
    if CREDENTIALS in headers:
        assert headers["Access-Control-Allow-Origin"] == origin
        assert any(pattern != "*" and matches(pattern, origin) for pattern in patterns)
    if headers.get("Access-Control-Allow-Origin") not in (None, "*"):
        assert headers["Access-Control-Allow-Origin"] == origin


HEADER_TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=20)


@given(HEADER_TEXT, HEADER_TEXT)
def test_whatever_a_preflight_sends_its_answer_fits_into_headers(
    origin: str, requested: str
) -> None:
    rule = {"AllowedOrigin": ["h*", "*"], "AllowedHeader": ["*"], "MaxAgeSeconds": 1}
    try:
        headers = asked([rule], origin, "GET", requested)
    except S3Error as error:
        headers = {**error.headers}
    for value in headers.values():
        assert not set("\r\n\0") & set(value)
        value.encode("latin-1")
