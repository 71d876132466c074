"""What SECURITY.md says is there, is there: files, commands and limits."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from vds.blobs import driver, http1, packs
from vds.cli.main import cli
from vds.files import localmanifest, record
from vds.model import fields, lockfile, manifest, path, ref, storelog, version

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024 * 1024

LIMITS: dict[str, tuple[int, int]] = {
    "a record (version, event, claim, store log, format) | 1 MiB": (version.RECORD_BYTES_MAX, MIB),
    "one text 64 KiB": (fields.TEXT_BYTES_MAX, 64 * KIB),
    "1 to 10^16 − 1": (version.NUMBER_MAX, 10**16 - 1),
    "0 to 2^63 − 1": (fields.INT64_MAX, 2**63 - 1),
    "| 64, of": (version.LABELS_MAX, 64),
    "of 1 KiB each": (version.LABEL_BYTES_MAX, KIB),
    "a change list inside a record | 64 KiB": (version.INLINE_CHANGES_BYTES_MAX, 64 * KIB),
    "at most 4 096 rows": (manifest.FRAME_ROWS_MAX, 4096),
    "5/4 of what it claims, and 64 bytes": (manifest._compressed_bytes_max(4000), 5 * 4000 // 4 + 64),
    "1 024 bytes of UTF-8": (path.PATH_BYTES_MAX, 1024),
    "255 a segment": (path.SEGMENT_BYTES_MAX, 255),
    "a pack | 64 MiB": (packs.PACK_BYTES_MAX, 64 * MIB),
    "8 192 members": (packs.PACK_MEMBERS_MAX, 8192),
    "each under 1 MiB": (packs.MEMBER_BYTES_END, MIB),
    "4 000 keys": (storelog.KEYS_MAX, 4000),
    "20 000 ranges": (storelog.RANGES_MAX, 20_000),
    "200 characters; 8 KiB": (driver.KEY_CHARS_MAX, 200),
    "characters; 8 KiB": (driver.METADATA_BYTES_MAX, 8 * KIB),
    "names; tags | 200;": (ref.NAME_CHARS_MAX, 200),
    "200; 64 characters": (ref.TAG_CHARS_MAX, 64),
    "100 headers": (http1.HEADERS_MAX, 100),
    "lines of 64 KiB": (http1.LINE_BYTES_MAX, 64 * KIB),
    "an error's text of 64 KiB": (http1.REMARK_BYTES_MAX, 64 * KIB),
    "| 8 Mi characters": (lockfile.TEXT_CHARS_MAX, 8 * MIB),
    "lines of 4 Mi characters": (record._LINE_CHARS_MAX, 4 * MIB),
    "the end of a list in the cache | 4 MiB": (localmanifest.FOOTER_BYTES_MAX, 4 * MIB),
}


@pytest.mark.parametrize("words", LIMITS)
def test_a_limit_is_as_it_says(words: str) -> None:
    assert words in TEXT
    found, said = LIMITS[words]
    assert found == said


def test_files_are_there() -> None:
    named = re.findall(r"`((?:vds|tests)/[\w/.]+|[A-Z]+\.md)`", TEXT)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_commands_are_there() -> None:
    named = re.findall(r"`vds ([a-z][^`]*)`", TEXT)
    assert len(named) > 8
    for words in named:
        command: click.Command = cli
        rest = words.split()
        while rest and isinstance(command, click.Group):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options, words
