"""The command line against the real services: a team's store in a container, its index in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.mark.services
def test_a_teams_store_from_init_to_download(tmp_path: Path, container_url: str, database_url: str) -> None:
    vds = Cli(tmp_path)
    team = {"VDS_INDEX": database_url}
    password = database_url.split("@")[0].rsplit(":", 1)[1]
    source = tmp_path / "out"
    source.mkdir()
    (source / "a.txt").write_text("one")
    (source / "big.bin").write_bytes(b"x" * 3_000_000)

    made = vds("init", container_url, environ=team)
    assert made.code == 0, made.err
    assert password not in (tmp_path / "vds.toml").read_text() + made.out + made.err

    assert vds("upload", "out", "team/raw", "-q", environ=team).out.strip() == "vds://team/raw@1/"
    (source / "a.txt").write_text("two")
    assert vds("upload", "out", "team/raw", "--tag", "customers:prod", environ=team).code == 0
    assert vds("rollback", "team/raw", "--to", "1", environ=team).code == 0

    assert vds("cat", "customers:prod/a.txt", environ=team).out == "two"
    assert vds("cat", "team/raw@latest/a.txt", environ=team).out == "one"
    assert vds("download", "customers:prod", "copy", environ=team).code == 0
    assert (tmp_path / "copy" / "big.bin").read_bytes() == (source / "big.bin").read_bytes()

    doctor = vds("doctor", "--write-test", environ=team)
    assert doctor.code == 0, doctor.err
    assert password not in doctor.out + doctor.err


@pytest.mark.services
def test_an_index_that_is_away_is_said_so_without_its_password(tmp_path: Path, container_url: str) -> None:
    vds = Cli(tmp_path)
    away = {"VDS_INDEX": "postgresql://vds:hunter2@127.0.0.1:9/vds"}  # the discard port: nothing answers
    failed = vds("init", container_url, environ=away)
    assert failed.code == 6
    assert "hunter2" not in failed.out + failed.err
    assert "hint:" in failed.err
