"""The command `vds`: its groups of commands, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from vds._version import __version__
from vds.cli import (
    adopt,
    cache,
    change,
    check,
    datasets,
    execute,
    fsck,
    history,
    index,
    lock,
    read,
    runs,
    share,
    stores,
    transactions,
    transfer,
    upkeep,
    upload,
)
from vds.cli.errors import (
    EXIT_BUG,
    EXIT_CLOSED_PIPE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OutputClosedError,
    document,
    document_line,
    error_document,
    error_lines,
    exit_code,
)
from vds.cli.interrupt import describe_interrupt, prepare_interrupts
from vds.cli.shell import Shell, has_colour, prepare_streams, printable
from vds.errors import VdsError, redact

_EPILOG = """\b
Examples:
  vds init ./store                                       a store in a directory, named in ./vds.toml
  vds upload out/ team/raw -m "first import"             a new version of the namespace team/raw
  vds register customers team/raw@1 --tag prod           what consumers read: customers:prod
  vds download customers:prod data/                      copy it here
  vds rollback team/raw --to 1                           a new version with the content of version 1

\b
Refs: team/raw  team/raw@12  team/raw@latest~2  team/raw@2026-03-01T12:00Z  customers:prod  customers:3
Exit: 0 ok, 1 "no", 2 usage, 3 not found, 4 conflict, 5 corruption, 6 unavailable, 7 outcome unknown, 8 denied,
      9 format, 10 some files failed, 11 no space, 70 bug, 130 interrupted, 141 nobody reads the output
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="vds %(version)s")
def cli() -> None:
    """Keep every version of the files that jobs write; read the good one; undo a bad one."""


_MODULES = (
    *(stores, index, upload, adopt, transfer, share, read, history, change, datasets, lock, transactions),
    *(execute, runs, check, fsck, upkeep, cache),
)
for _module in _MODULES:
    _module.add_to(cli)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    prepare_streams()
    args = sys.argv[1:] if argv is None else list(argv)
    shell = Shell()
    prepare_interrupts(shell)
    try:
        code = run(args, shell)
    except OutputClosedError:
        # Python flushes stdout once more at its end, which would print a second complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_CLOSED_PIPE
    sys.exit(code)


def run(args: list[str], shell: Shell) -> int:
    """Run one command and return its exit code; errors are printed to stderr."""
    shell.arguments = args
    try:
        # Click returns the code given to `ctx.exit`, or what the command returned, which is None.
        code = cli.main(args, prog_name="vds", standalone_mode=False, obj=shell) or 0
        shell.flush()
        return int(code)
    except OutputClosedError:
        raise
    except SystemExit as err:  # so click ends when the reader of a help text went away
        raise OutputClosedError from err
    except click.exceptions.NoArgsIsHelpError as err:
        print(err.format_message(), file=sys.stderr)
        return EXIT_USAGE
    except click.UsageError as err:
        return _report_usage(err, shell.json or "--json" in args)
    except (KeyboardInterrupt, click.exceptions.Abort):
        message, hint = describe_interrupt(shell)
        _report(shell, message, hint, document("interrupted", message, hint, EXIT_INTERRUPTED))
        return EXIT_INTERRUPTED
    except VdsError as err:
        _trace(shell)
        _report(shell, err.message, err.hint, error_document(err))
        return exit_code(err)
    except Exception as err:  # noqa: BLE001  # the outermost handler: whatever comes here is our own mistake
        _trace(shell)
        message, hint = (
            f"unexpected {type(err).__name__}: {redact(str(err))}",
            "this is a bug in vds; run again with -v for details",
        )
        _report(shell, message, hint, document("bug", message, hint, EXIT_BUG))
        return EXIT_BUG


def _report(shell: Shell, message: str, hint: str, shape: dict[str, object]) -> None:
    if shell.json:
        print(document_line(shape), file=sys.stderr)
        return
    for line in error_lines(message, hint):
        word, _, rest = printable(line).partition(":")
        print(f"{click.style(word, fg='red') if has_colour(sys.stderr) else word}:{rest}", file=sys.stderr)


def _report_usage(err: click.UsageError, as_json: bool) -> int:
    where = err.ctx.command_path if err.ctx is not None else "vds"
    hint = f"{where} --help"
    message = redact(err.format_message())  # it quotes what was typed, which may be an address with a signature
    if as_json:
        print(document_line(document("usage", message, hint, EXIT_USAGE)), file=sys.stderr)
        return EXIT_USAGE
    if err.ctx is not None:
        print(err.ctx.get_usage(), file=sys.stderr)
    for line in error_lines(message, hint):
        print(printable(line), file=sys.stderr)
    return EXIT_USAGE


def _trace(shell: Shell) -> None:
    if shell.verbose:
        print(redact(traceback.format_exc()), file=sys.stderr, end="")


if __name__ == "__main__":
    main()
