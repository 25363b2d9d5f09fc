"""The configuration: sources, their order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3gw import __version__, cli
from s3gw.app import advertised
from s3gw.config import Config, ConfigError, host_and_port, load


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s3gw.toml"
    file.write_text('region = "file"\nzone = "file"\ndrives = 9\n')
    environment = {"S3GW_REGION": "environment", "S3GW_ZONE": "environment", "HOME": "/nowhere"}
    config = load({"region": "flag"}, environment, str(file))
    assert (config.region, config.zone, config.drives) == ("flag", "environment", 9)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "s3gw.toml"
    file.write_text('etcd = ["http://a:1", "http://b:2"]\n')
    assert load({}, {"S3GW_CONFIG": str(file)}).etcd == ("http://a:1", "http://b:2")


def test_lists_in_the_environment_are_written_with_commas() -> None:
    assert load({}, {"S3GW_ETCD": "http://a:1,http://b:2"}).etcd == ("http://a:1", "http://b:2")


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"colour": "red"}, {}, "colour"),
        ({}, {"S3GW_COLOUR": "red"}, "colour"),
        ({"drives": "many"}, {}, "drives"),
        ({"drives": "0"}, {}, "drives must be between"),
        ({"root_access_key": "only-this"}, {}, "together"),
        ({"root_access_key": "key", "root_secret_key": "short"}, {}, "8 characters"),
        ({"profile": "4+2x"}, {}, "profile: not a scheme: '4.2x'"),
        ({"profile": "0+2"}, {}, "profile: "),
        ({"heartbeat_seconds": 14}, {}, "heartbeat_seconds"),
        ({"domains": ("a.test",), "website_domains": ("a.test",)}, {}, "a.test cannot be in"),
    ],
)
def test_what_is_wrong_is_named(
    flags: dict[str, object], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(flags, environment)


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "s3gw.toml"
    file.write_text("colour = 1\n")
    with pytest.raises(ConfigError, match="colour"):
        load({}, {}, str(file))


@pytest.mark.parametrize("content", ["not toml at all [", "\x00"])
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "s3gw.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="not TOML"):
        load({}, {}, str(file))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load({}, {}, str(tmp_path / "missing.toml"))


def test_secrets_are_in_no_representation() -> None:
    config = load({"root_access_key": "AKID", "root_secret_key": "very-secret-key"}, {})
    assert "very-secret-key" not in repr(config)
    assert "very-secret-key" not in json.dumps(config.shown())


def test_passwords_in_urls_are_not_shown() -> None:
    urls = ("https://root:pass@word/@etcd1:2379", "root:password@etcd2:2379", "http://[::1]:2379")
    shown = load({"etcd": list(urls), "root_access_key": "", "data": "/srv/a@b"}, {}).shown()
    assert shown["etcd"] == ("https://***@etcd1:2379", "***@etcd2:2379", "http://[::1]:2379")
    assert shown["data"] == "/srv/a@b"


def test_the_config_command_prints_the_effective_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3GW_ROOT_ACCESS_KEY", "AKID")
    monkeypatch.setenv("S3GW_ROOT_SECRET_KEY", "very-secret-key")
    assert cli.main(["config", "--region", "eu-1", "--etcd", "http://a:1,http://b:2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["region"] == "eu-1"
    assert shown["etcd"] == ["http://a:1", "http://b:2"]
    assert shown["root_secret_key"] == "***"
    assert set(shown) == set(Config.__struct_fields__)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"s3gw {__version__}\n"


def test_a_wrong_setting_ends_a_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--drives", "none"]) == cli.EXIT_USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("s3gw: ")


@pytest.mark.parametrize("text", ["9000", "host:", "host:x", "host:70000", ""])
def test_an_address_needs_host_and_port(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        host_and_port(text)


@pytest.mark.parametrize("listen", ["0.0.0.0:9100", "[::]:9100", ":9100"])
def test_a_node_on_all_addresses_must_name_the_one_to_reach_it_at(listen: str) -> None:
    with pytest.raises(ConfigError, match="--advertise"):
        advertised(load({"listen": listen}, {}))
    assert advertised(load({"listen": listen, "advertise": "n1:9100"}, {})) == "n1:9100"
