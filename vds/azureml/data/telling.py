"""What vds says about an upload beside the SDK's own lines: on stderr, and only where there is something to know."""

from __future__ import annotations

from vds.azureml.notices import say
from vds.model.run import RUN_FIELD
from vds.store import UploadResult, Version

SHOWN_MAX = 5


def tell_of_upload(datastore: str, result: UploadResult) -> None:
    """Say which skipped files differ, and whose files were replaced and where they still are."""
    if result.changed_but_skipped:
        say(_changed_but_skipped(result))
    if result.created and result.modified:
        for replaced in result.version.replaced()[:SHOWN_MAX]:
            old = replaced.version
            say(
                f"replaced {_files(replaced.files)} that version {old.number} of {datastore!r} had written"
                f" ({_who(old)}); vds://{old.namespace}@{result.version.number - 1}/{result.target_path} still shows what was"
                " there"
            )


def _changed_but_skipped(result: UploadResult) -> str:
    paths = result.changed_but_skipped
    shown = ", ".join(paths[:SHOWN_MAX]) + (f" and {len(paths) - SHOWN_MAX} more" if len(paths) > SHOWN_MAX else "")
    return (
        f"WARNING: {_files(result.skipped)} were skipped because they are there already, and of {_files(len(paths))} the content"
        f" differs from the stored file: {shown}; pass overwrite=True to make a new version with them, strict=True to make"
        " this an error"
    )


def _who(version: Version) -> str:
    """Say which run wrote a version; where it was none that anybody recorded, which process."""
    known = version.provenance
    run = known.get(RUN_FIELD) or known.get("AZUREML_RUN_ID")
    process = f"process {known.get('pid', '?')} on {known.get('host', '?')}: {known.get('command', '?')}"
    moment = version.created_at.isoformat(timespec="seconds")
    return f"{f'run {run}' if run else process}, by {version.author}, {moment}"


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
