"""Each form of condition, what fields it leaves uncovered, and documents that are no policies."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw import errors
from s3gw.auth.post_policy import ANY_SIZE, EXEMPT, FileSize, PostPolicy, parse_post_policy

NOW = 1_800_000_000.0
LATER = "2027-01-16T00:00:00.000Z"
BUCKET: dict[str, str] = {"bucket": "pictures"}


def encoded(document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def policy(*conditions: Any, expiration: str = LATER) -> PostPolicy:
    return parse_post_policy(encoded({"expiration": expiration, "conditions": list(conditions)}))


def allows(conditions: list[Any], fields: dict[str, str], bucket: str = "pictures") -> bool:
    try:
        policy(BUCKET, *conditions).check(fields, bucket, NOW)
    except errors.AccessDenied as error:
        return not error.message.startswith("Invalid according to Policy: ")
    return True


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"key": "a"}, "a", True),
        ({"key": "a"}, "b", False),
        ({"key": "a"}, "A", False),
        ({"key": "a"}, "a ", False),
        ({"key": "a"}, "ab", False),
        ({"KEY": "a"}, "a", True),
        ({"key": ""}, "", True),
        (["eq", "$key", "a"], "a", True),
        (["EQ", "$Key", "a"], "a", True),
        (["eq", "$key", "a"], "ab", False),
        (["eq", "$key", "é"], "é", True),
        (["starts-with", "$key", "user/eric/"], "user/eric/a.jpg", True),
        (["starts-with", "$key", "user/eric/"], "user/erich", False),
        (["starts-with", "$key", "user/eric/"], "xuser/eric/", False),
        (["StArTs-WiTh", "$KeY", "a"], "ab", True),
        (["starts-with", "$key", ""], "anything", True),
        (["starts-with", "$key", ""], "", True),
        (["starts-with", "$key", "a"], "a,b", True),
        (["starts-with", "$key", r"\$foo"], r"\$foo.txt", True),
    ],
)
def test_a_condition_about_a_field(condition: Any, value: str, holds: bool) -> None:
    assert allows([condition], {"key": value}) == holds


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("image/png", True),
        ("image/png,image/gif", True),
        ("image/png, image/gif", True),
        ("image/png,text/html", False),
        ("text/html", False),
    ],
)
def test_each_of_several_content_types_must_begin_as_the_policy_says(
    value: str, holds: bool
) -> None:
    condition = ["starts-with", "$Content-Type", "image/"]
    assert allows([condition], {"content-type": value}) == holds


@pytest.mark.parametrize(
    "condition",
    [{"acl": ""}, ["eq", "$acl", ""], ["starts-with", "$acl", ""], {"x-ignore-a": "b"}],
)
def test_a_condition_about_a_field_that_is_missing_fails(condition: Any) -> None:
    assert not allows([condition], {})


def test_all_conditions_must_hold_each_alone_and_two_about_one_field() -> None:
    conditions = [{"key": "ab"}, ["starts-with", "$key", "a"], ["starts-with", "$acl", "p"]]
    good = {"key": "ab", "acl": "private"}
    assert allows(conditions, good)
    for position in range(len(conditions)):
        spoilt = [*conditions]
        spoilt[position] = ["eq", "$key" if position < 2 else "$acl", "other"]
        assert not allows(spoilt, good)


def test_the_bucket_is_the_one_of_the_url_whatever_a_field_says() -> None:
    assert not allows([], {}, bucket="others")
    assert not allows([], {"bucket": "pictures"}, bucket="others")
    with pytest.raises(errors.AccessDenied, match="Extra input fields: bucket"):
        policy().check({}, "pictures", NOW)


NAMED = st.sampled_from(
    (
        *("acl", "content-type", "success_action_redirect", "tagging", "submit", "file2", "é"),
        *("x-amz-meta-a", "x-amz-date", "x-amz-security-token", "x-amz-credential"),
    )
)


@given(fields=st.dictionaries(NAMED, st.text(max_size=5)), covered=st.sets(NAMED))
def test_every_field_needs_a_condition(fields: dict[str, str], covered: set[str]) -> None:
    conditions = [["starts-with", f"${name}", ""] for name in covered & fields.keys()]
    assert allows(conditions, fields) == (fields.keys() <= covered)


def test_fields_that_need_no_condition() -> None:
    assert allows([], dict.fromkeys(EXEMPT, "x") | {"x-ignore-a": "b"})
    with pytest.raises(errors.AccessDenied, match=r"Extra input fields: a, b$"):
        policy(BUCKET).check({"a": "", "b": "", "policy": ""}, "pictures", NOW)


def test_the_message_says_which_condition_failed() -> None:
    with pytest.raises(errors.AccessDenied) as caught:
        policy(BUCKET, {"Key": "a"}).check({"key": "b"}, "pictures", NOW)
    expected = 'Invalid according to Policy: Policy Condition failed: ["eq", "$Key", "a"]'
    assert caught.value.message == expected


def test_a_policy_ends_when_it_says() -> None:
    whole = policy(BUCKET, expiration="2027-01-15T08:00:00Z")
    whole.check({}, "pictures", NOW - 0.001)
    for now in (NOW, NOW + 1):
        with pytest.raises(errors.AccessDenied, match="Policy expired"):
            whole.check({}, "pictures", now)


@pytest.mark.parametrize(
    ("conditions", "size"),
    [
        ([], ANY_SIZE),
        ([["content-length-range", 1, 10]], FileSize(1, 10)),
        ([["Content-Length-Range", "0", "1048576"]], FileSize(0, 1_048_576)),
        ([["content-length-range", 0, 0]], FileSize(0, 0)),
        ([["content-length-range", 1, 10], ["content-length-range", 5, 20]], FileSize(5, 10)),
        ([["content-length-range", 5, 20], ["content-length-range", 1, 10]], FileSize(5, 10)),
    ],
)
def test_sizes_of_the_file(conditions: list[Any], size: FileSize) -> None:
    assert policy(*conditions).file_size == size


def test_both_ends_of_a_range_belong_to_it() -> None:
    size = FileSize(2, 4)
    for good in (2, 3, 4):
        size.check(good)
    for bad, error in {0: errors.EntityTooSmall, 1: errors.EntityTooSmall}.items():
        size.check_so_far(bad)
        with pytest.raises(error):
            size.check(bad)
    for check in (size.check, size.check_so_far):
        with pytest.raises(errors.EntityTooLarge):
            check(5)


@pytest.mark.parametrize(
    "conditions",
    [
        [{}],
        [{"key": "a", "acl": "b"}],
        [{"key": 1}],
        [{"key": None}],
        [{"key": ["a"]}],
        ["key"],
        [None],
        [[]],
        [["eq", "$key"]],
        [["eq", "$key", "a", "b"]],
        [["eq", "key", "a"]],
        [["eq", "$", "a"]],
        [["eq", "$key", 1]],
        [["eq", 1, "a"]],
        [[1, "$key", "a"]],
        [["ends-with", "$key", "a"]],
        [["content-length-range", 0]],
        [["content-length-range", -1, 10]],
        [["content-length-range", 10, 1]],
        [["content-length-range", 0.5, 1]],
        [["content-length-range", True, 1]],
        [["content-length-range", None, 1]],
        [["content-length-range", "", "1"]],
        [["content-length-range", "²", "3"]],
        [["content-length-range", 0, 10**20]],
        [["content-length-range", 0, 1, 2]],
    ],
)
def test_what_is_no_condition_makes_no_policy(conditions: list[Any]) -> None:
    with pytest.raises(errors.InvalidPolicyDocument):
        policy(*conditions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "not base64!",
        encoded("")[:-1],
        encoded("{"),
        encoded("[]"),
        encoded("null"),
        encoded('{"conditions": []}'),
        encoded(f'{{"expiration": "{LATER}"}}'),
        encoded(f'{{"expiration": "{LATER}", "CONDITIONS": []}}'),
        encoded(f'{{"EXPIRATION": "{LATER}", "conditions": []}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": {{}}}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": [], "conditions": []}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": [{{"a": "b", "a": "c"}}]}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": [], "more": 1}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": [{{"a": "\\ud800"}}]}}'),
        encoded(f'{{"expiration": "{LATER}", "conditions": [["eq", "$a", NaN]]}}'),
        encoded('{"expiration": 1, "conditions": []}'),
        encoded('{"expiration": "2027-01-16 00:00:00+00:00", "conditions": []}'),
        encoded('{"expiration": "2027-13-16T00:00:00Z", "conditions": []}'),
        encoded('{"expiration": "2027-01-16T00:00:00", "conditions": []}'),
        encoded('{"expiration": "9' + "9" * 5000 + '", "conditions": []}'),
        encoded('{"expiration": ' + "9" * 5000 + ', "conditions": []}'),
        encoded("[" * 15_000),
        encoded('{"a":' * 3_000),
        base64.b64encode(b'{"expiration": "\xff"}').decode(),
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidPolicyDocument):
        parse_post_policy(text)


def test_escapes_that_json_does_not_have() -> None:
    text = f'{{"expiration": "{LATER}", "conditions": [["eq", "$a", "\\$x\\v\\\\$y\\u00e9"]]}}'
    assert parse_post_policy(encoded(text)).conditions[0].operand == "$x\v\\$yé"


@given(st.text())
def test_no_text_is_more_than_a_bad_policy(text: str) -> None:
    for sent in (text, encoded(text.encode("utf-8", "replace").decode())):
        try:
            parse_post_policy(sent)
        except errors.InvalidPolicyDocument:
            continue
