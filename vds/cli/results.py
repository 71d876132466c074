"""How what a write did is told: shared by every command that makes a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vds.cli.shapes import result_shape
from vds.cli.shell import Shell
from vds.cli.text import count_text, size_text

if TYPE_CHECKING:
    from vds.store import UploadResult

PATHS_SHOWN_MAX = 10


def answer_result(shell: Shell, result: UploadResult, verb: str, extra: dict[str, Any] | None = None) -> None:
    """Print what a write did; notes about what needs attention go to stderr."""
    if result.created_namespace:
        shell.note(f"{'would create' if result.dry_run else 'created'} namespace {result.namespace!r}")
    for path in list(result.changed_but_skipped)[:PATHS_SHOWN_MAX]:
        shell.note(f"skipped although it differs: {path}")
    if len(result.changed_but_skipped) > PATHS_SHOWN_MAX:
        shell.note(f"… and {len(result.changed_but_skipped) - PATHS_SHOWN_MAX} more")
    note_tags_left(shell, result)
    lines = [_summary(result, verb), *_plan_of_bytes(result)]
    # What goes away is named: a mirror or a copy of the wrong directory shows here.
    lines += [f"- {path}" for path in result.removed_paths[:PATHS_SHOWN_MAX]]
    if result.removed > PATHS_SHOWN_MAX:
        lines.append(f"… and {result.removed - PATHS_SHOWN_MAX} more removed")
    shape = {**result_shape(result), **(extra or {})}
    shell.answer(text=[*lines, result.uri], quiet=result.uri, document=shape)


def note_tags_left(shell: Shell, result: UploadResult) -> None:
    """Name the dataset tags that still show what was undone, each with the command that moves it."""
    for left in result.tags_left_behind:
        shell.note(f"{left.tag} still shows version {left.version} (release {left.release}); to move it:\n  {left.command}")


def _summary(result: UploadResult, verb: str) -> str:
    facts = [f"{verb} {count_text(result.uploaded)} ({_detail(result)})"]
    if result.skipped:
        facts.append(f"{result.skipped} unchanged or skipped")
    if result.removed:
        facts.append(f"{result.removed} removed")
    if not result.created and not result.dry_run:
        facts.append("no new version was made")
    return ", ".join(facts)


def _detail(result: UploadResult) -> str:
    if result.dry_run:
        return f"{result.added} new, {result.modified} changed"
    saved = f", {size_text(result.bytes_saved)} saved" if result.bytes_saved else ""
    return f"{size_text(result.bytes_sent)} sent{saved}"


def _plan_of_bytes(result: UploadResult) -> list[str]:
    """Say what a dry run would send; nothing of an operation that moves no bytes, such as a rollback."""
    if not result.dry_run or not (result.bytes_new or result.bytes_saved):
        return []
    return [f"would send {size_text(result.bytes_new)}, {size_text(result.bytes_saved)} need not be sent again"]
