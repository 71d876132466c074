"""How a command is declared: the options all of them have, those many share, and examples in every help."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from vds.cli.shell import Shell, log_to_stderr

Function = TypeVar("Function", bound=Callable[..., Any])
Command = Callable[..., None]

COMMIT_STATE = "either the whole change was made or nothing of it: `vds log` shows which"
PLACE_STATE = "every file in the target is whole or absent; the same command goes on from there"


def command(
    group: click.Group, name: str, examples: Sequence[str], *, interrupted: str = "nothing was changed"
) -> Callable[[Command], click.Command]:
    """Return a decorator that makes a function a command of `group`.

    The function gets a `Shell` first, then its own options.

    Args:
        group: where the command goes.
        name: how it is called.
        examples: command lines, shown at the end of its help.
        interrupted: what is true when the user stops it.
    """

    def decorate(function: Command) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            shell = click.get_current_context().find_object(Shell) or Shell()
            shell.interrupted = interrupted
            function(shell, *args, **kwargs)

        epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
        return group.command(name, epilog=epilog, context_settings={"max_content_width": 120})(_common(run))

    return decorate


def _common(function: Function) -> Function:
    # Click lists options in reverse order of this list: a command's own come first, the common ones last.
    own = function.__dict__.pop("__click_params__", [])
    for decorate in reversed(
        (
            _shell_option("--store", "store", metavar="URL|NAME", help="The store; else VDS_STORE, vds.toml."),
            _shell_option("--index", "index", metavar="URL", help="The index; else VDS_INDEX, vds.toml, the store's own."),
            _shell_option("--json", "json", is_flag=True, help="Print one JSON document; errors are one line of JSON on stderr."),
            _shell_option("-q", "--quiet", "quiet", is_flag=True, help="Print only what a script needs."),
            _shell_option("-v", "--verbose", "verbose", is_flag=True, help="Log to stderr; show tracebacks."),
        )
    ):
        function = decorate(function)
    function.__dict__["__click_params__"].extend(own)
    return function


def _shell_option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        shell = context.ensure_object(Shell)
        if parameter.name is not None and value:
            setattr(shell, parameter.name, value)
            if parameter.name == "verbose":
                log_to_stderr()

    # Eager: how an error is to be printed must be known before another option turns out to be wrong.
    return click.option(*names, callback=keep, expose_value=False, is_eager=True, **attributes)


def parse_labels(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Return `K=V` texts as a dict."""
    labels = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", context, parameter)
        labels[key] = value
    return labels


def parse_tag_target(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """Return `DATASET:TAG` as a pair."""
    if value is None:
        return None
    dataset, separator, tag = value.rpartition(":")
    if not separator or not dataset or not tag:
        raise click.BadParameter(f"{value!r} is not DATASET:TAG, for example customers:prod", context, parameter)
    return dataset, tag


def parse_expected(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """Return what a tag is expected to show: a release number, `absent`, or None for anything."""
    if value is None or value == "absent":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a release number nor 'absent'", context, parameter)
    return int(value)


message = click.option("-m", "--message", default="", metavar="TEXT", help="Why; shown by `vds log`.")
labels = click.option("--label", "labels", multiple=True, callback=parse_labels, metavar="K=V", help="A label; repeatable.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
expected_parent = click.option("--expected-parent", type=int, metavar="N", help="Fail unless N is still the latest version.")
allow_shrink = click.option("--allow-shrink", is_flag=True, help="Go on even when most files would be removed.")
allow = click.option("--allow", "allow_patterns", multiple=True, metavar="GLOB", help="Take only what matches; repeatable.")
ignore = click.option("--ignore", "ignore_patterns", multiple=True, metavar="GLOB", help="Leave out what matches; repeatable.")
reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the tag's history.")
expected = click.option(
    "--expected", callback=parse_expected, metavar="N|absent", help="Fail unless the tag shows release N, or is not there."
)


def patterns(values: tuple[str, ...]) -> list[str] | None:
    """Return the patterns given, or None for none: an empty list would mean that nothing is taken."""
    return list(values) or None
