"""Master keys as they are configured."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.config import Config, ConfigError
from s3gw.key_sources import master_keys, sources_of, with_kept_master_key
from s3gw.objects.keyring.master import (
    BadMasterKeys,
    MasterKeyMissing,
    MasterKeys,
    new_text,
    parse,
    read_file,
)

ONE, TWO = b"1" * 32, b"2" * 32


def text_of(*keys: bytes) -> str:
    return "\n".join(b64encode(key).decode() for key in keys)


def test_the_first_key_wraps_and_all_open() -> None:
    before, after = parse(text_of(ONE)), parse(text_of(TWO, ONE))
    wrapped = before.wrap(b"data key", b"context")
    assert after.unwrap(wrapped, b"context") == b"data key"
    assert not after.is_present(wrapped)
    assert after.is_present(after.wrap(b"data key", b"context"))
    with pytest.raises(MasterKeyMissing, match=before.present.hex()):
        parse(text_of(TWO)).unwrap(wrapped, b"context")


def test_base64_and_hexadecimal_lines_and_commas_are_the_same() -> None:
    expected = MasterKeys([ONE, TWO]).ids
    for text in (text_of(ONE, TWO), f" {ONE.hex()} ,{b64encode(TWO).decode()}\n"):
        assert parse(text).ids == expected


@given(st.text(max_size=100))
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    told = ""
    try:
        parse(text)
    except BadMasterKeys as error:
        told = str(error)
    assert len(text.strip()) < 8 or text.strip() not in told


def test_a_key_is_not_shown() -> None:
    keys = MasterKeys([ONE])
    assert "111" not in repr(keys)
    assert ONE[:8] not in keys.present
    assert "111" not in repr(Config(master_key=text_of(ONE)))


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(new_text())
    path.chmod(0o640)
    with pytest.raises(BadMasterKeys, match="chmod 600"):
        read_file(path)
    path.chmod(0o600)
    assert len(read_file(path).ids) == 1
    for content in (b"", b"\xff\xfe", b"short"):
        path.write_bytes(content)
        with pytest.raises(BadMasterKeys, match=str(path)):
            read_file(path)
    with pytest.raises(BadMasterKeys, match="cannot be read"):
        read_file(tmp_path / "nothing")


def test_settings_that_make_no_sense() -> None:
    for settings in (
        {"master_key": "short"},
        {"master_key_file": "/nothing/here"},
    ):
        with pytest.raises(ConfigError) as caught:
            master_keys(Config(**settings))
        assert "\n" not in str(caught.value)
    for settings in (
        {"master_key": text_of(ONE), "master_key_file": "file"},
        {"vault_address": "https://vault.test"},
        {"vault_master_key": "name"},
    ):
        with pytest.raises(ValueError, match=r"together|needs"):
            Config(**settings)


def test_the_key_of_the_data_directory_is_used_unless_one_is_named(tmp_path: Path) -> None:
    config = Config(data=str(tmp_path))
    assert with_kept_master_key(config) == config
    assert sources_of(config).master is None
    path = tmp_path / "master.key"
    path.write_bytes(new_text())
    path.chmod(0o600)
    assert with_kept_master_key(config).master_key_file == str(path)
    named = Config(data=str(tmp_path), master_key=text_of(ONE))
    assert with_kept_master_key(named) == named
