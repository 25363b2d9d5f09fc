"""Root's own keys: made once, kept whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from s3gw import launch
from s3gw.config import Config


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    config = Config(data=str(tmp_path / "not" / "there"))
    made = launch._with_credentials(config)
    assert launch._with_credentials(config) == made
    path = tmp_path / "not" / "there" / launch.CREDENTIALS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_start_that_died_while_it_kept_the_keys_is_followed_by_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(data=str(tmp_path))

    def killed(descriptor: int, mode: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", killed)
        with pytest.raises(KeyboardInterrupt):
            launch._with_credentials(config)
    assert launch._with_credentials(config).root_secret_key
