"""Imports go to the left only: errors < model < files | blobs | index < engine < ops < store < cli; one door a library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vds

PACKAGE = Path(vds.__file__).parent
MIGRATIONS = PACKAGE.parent / "migrations"

LAYERS = {
    "errors": 0,
    "_version": 0,
    "model": 1,
    "config": 2,
    "buffers": 1,
    "counts": 1,
    "pace": 1,
    "work": 1,
    "pipeline": 2,
    "background": 3,
    "progress": 2,
    "provenance": 2,
    "helper": 2,
    "files": 3,
    "blobs": 3,
    "index": 3,
    "engine": 4,
    "ops": 5,
    "store": 6,
    "pins": 7,
    "fs": 8,
    "azureml": 8,
    "": 7,  # vds/__init__.py, which names what is public
    "demo": 8,  # a user of the public names, which `vds demo` runs
    "cli": 9,
}
"""Layer → height. An import goes to a lower layer, or stays in its own."""

SHARED_OPS = {
    *("counting", "deleting", "repacking", "placing", "compare", "survey", "exporting", "putting", "ranges", "pieces"),
    "adoptsource",
    *("findings", "checklines", "checklog", "checkreplay", "checktables", "checkblobs", "checkbytes"),  # of vds fsck
    "checkadopted",  # likewise
    *("damagenotes", "damagetouch", "mending", "mendrecords", "goodcopies"),
    *("rebuilding", "rebuildlog", "rebuildplaces", "rebuildlines", "rebuildentries", "rebuilddatasets", "rebuildruns"),
}
"""What several verbs are made of; any other verb imports no sibling."""

DOORS = {
    "sqlalchemy": ("vds.index.", "migrations."),
    "alembic": ("vds.index.migrate", "migrations."),
    "psycopg": (),
    "azure": (
        *("vds.blobs.azure", "vds.blobs.sdk", "vds.blobs.credential", "vds.blobs.share", "vds.blobs.export"),
        "vds.blobs.plainazure",
        "vds.blobs.entra",  # tokens for the index's database, from the same credentials
    ),
    "sqlite3": ("vds.index.", "vds.files."),
    "click": ("vds.cli.",),
    "fsspec": ("vds.fs.",),
    "rich": ("vds.cli.", "vds.progress", "vds.demo"),
}
"""Library → the only modules that may import it."""

THREADS = ("vds.pipeline", "vds.helper")
"""The only modules that start threads or processes of their own."""

LATE_IMPORTS = {
    "vds.blobs.open": {"vds.blobs.azure"},  # the Azure SDK takes half a second to load
    "vds.blobs.plain": {"vds.blobs.plainazure"},  # likewise
    "vds.ops.exporting": {"vds.blobs.export"},  # likewise, for an export to a directory
    "vds.blobs.checks": {"awscrt.checksums"},  # takes 30 ms, and may be missing
    "vds.ops.open": {"vds.index.migrate"},  # Alembic takes a quarter of every start, and is needed once a store
    # Alembic likewise, for the first two; the Azure SDK takes half a second to load.
    "vds.store.connect": {"vds.index.migrate", "vds.ops.rebuild", "vds.blobs.entra"},
    "vds.azureml.data.frames": {"pandas"},  # optional, and takes half a second to load
    "vds.progress": {"rich.console", "rich.progress"},  # only where something is shown
    "vds.provenance": {"pwd"},  # not on Windows
    "vds.azureml.core.run": {"vds.azureml.core.experiment"},  # an experiment has runs, and a run has an experiment
    "vds.config": {"ctypes"},  # only where drives are asked about on Windows
}
"""Module → what it imports inside functions, each for a reason written there."""

LATE_IMPORT_PACKAGES = ("vds.cli",)
"""The command line imports late to start fast."""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether it is imported when the importing module is."""

    module: str
    line: int
    is_late: bool
    is_for_types: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Return module name → its syntax tree, for the package and the migrations."""
    found = {}
    for root, name in ((PACKAGE, "vds"), (MIGRATIONS, "migrations")):
        for path in sorted(root.rglob("*.py")):
            parts = [name, *path.relative_to(root).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports(module: str) -> list[Import]:
    return list(_imports(modules()[module], late=False, for_types=False))


def _imports(node: ast.AST, *, late: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, late, for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            base = child.module or ""
            for alias in child.names:
                whole = f"{base}.{alias.name}"
                yield Import(whole if whole in modules() else base, child.lineno, late, for_types)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, late=late or inside, for_types=for_types or types)


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module.startswith(place) if place.endswith(".") else module == place for place in places)


def test_there_is_something_to_look_at() -> None:
    assert len(modules()) > 60
    assert {layer_of(module) for module in modules() if module.startswith("vds")} <= set(LAYERS)


def test_imports_go_to_lower_layers_only() -> None:
    wrong = []
    for module in modules():
        if module.startswith("migrations"):
            continue
        for found in imports(module):
            if found.module.split(".")[0] != "vds" or (layer_of(module) == "" and found.is_for_types):
                continue
            mine, theirs = layer_of(module), layer_of(found.module)
            if mine != theirs and LAYERS[theirs] >= LAYERS[mine] and found.module != "vds":
                wrong.append(f"{module}:{found.line} imports {found.module}")
    assert wrong == []


def test_the_three_doors_do_not_know_each_other() -> None:
    doors = {"files", "blobs", "index"}
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in modules()
        if layer_of(module) in doors
        for found in imports(module)
        if found.module.startswith("vds.") and layer_of(found.module) in doors - {layer_of(module)}
    ]
    assert wrong == []


def test_verbs_do_not_call_each_other() -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in modules()
        if module.startswith("vds.ops.")
        for found in imports(module)
        if found.module.startswith("vds.ops.") and found.module.rpartition(".")[2] not in SHARED_OPS
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_has_one_door(library: str) -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in modules()
        if not is_in(module, DOORS[library])
        for found in imports(module)
        if found.module.split(".")[0] == library
    ]
    assert wrong == []


def test_threads_are_started_in_one_place() -> None:
    starters = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "Process", "Pool"}
    wrong = []
    for module, tree in modules().items():
        if module in THREADS or module == "vds.demo":  # the demo runs two jobs as processes
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in starters:
                    wrong.append(f"{module}:{node.lineno} calls {name}")
        for found in imports(module):
            if found.module.split(".")[0] in {"multiprocessing", "asyncio", "concurrent"}:
                wrong.append(f"{module}:{found.line} imports {found.module}")
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module: {
            found.module
            for found in imports(module)
            if found.module in modules() and not found.is_late and not found.is_for_types
        }
        - {module}
        for module in modules()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as err:
        pytest.fail(" → ".join(err.args[1]))
    assert len(order) == len(modules())


def test_imports_stand_at_the_top() -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module} inside a function"
        for module in modules()
        if not module.startswith(LATE_IMPORT_PACKAGES) and module != "vds.demo"
        for found in imports(module)
        if found.is_late and found.module not in LATE_IMPORTS.get(module, set())
    ]
    assert wrong == []


def test_the_lists_of_exceptions_are_not_longer_than_needed() -> None:
    late = {module: {found.module for found in imports(module) if found.is_late} for module in LATE_IMPORTS}
    assert late == LATE_IMPORTS
    assert {f"vds.ops.{name}" for name in SHARED_OPS} <= set(modules())


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        if not module.startswith(("vds.cli", "vds.demo", "migrations."))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


def test_nothing_swallows_all_exceptions() -> None:
    """`except Exception` belongs to the command line; `except BaseException` may only clean up and raise again."""
    wrong = []
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or module.startswith("vds.cli"):
                continue
            names = ast.unparse(node.type) if node.type else "everything"
            raises = any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))
            if names in ("Exception", "everything") or (names == "BaseException" and not raises and module not in THREADS):
                wrong.append(f"{module}:{node.lineno} except {names}")
    assert wrong == []
