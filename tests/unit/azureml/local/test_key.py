"""What the result of a step depends on, and which step waits for which."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.code import Code
from vds.azureml.local.graph import order_steps
from vds.azureml.local.spec import Input, InputPath, Output, OutputPath, Port, StepSpec, is_below_run, place_of
from vds.azureml.local.stepkey import FILES_MAX, digest_of, key_parts

RUN = "01jk0000000000000000000000"
CODE = Code(Path("src"), {"a.py": "b3:1", "b.py": "b3:2"})


def spec(name: str, *, reads: tuple[Port, ...] = (), makes: tuple[Port, ...] = (), **more: Any) -> StepSpec:
    inputs = [Input(port.name, port) for port in reads]
    return StepSpec(name, "a.py", Path("src"), inputs=inputs, outputs=[Output(port) for port in makes], **more)


def test_each_part_counts_and_is_named() -> None:
    port = Port("out")
    step = spec("one", makes=(port,), arguments=["--x", "1", InputPath("raw"), OutputPath(port)])
    inputs, outputs = {"raw": "digest"}, {"out": "store/place"}
    parts = key_parts(step, CODE, inputs, outputs)
    others = [
        (key_parts(step, Code(Path("else"), {**CODE.digests, "a.py": "b3:9"}), inputs, outputs), {"code a.py"}),
        (key_parts(step, Code(Path("else"), {"a.py": "b3:1"}), inputs, outputs), {"code b.py"}),
        (key_parts(step, CODE, {"raw": "other"}, outputs), {"input raw"}),
        (key_parts(step, CODE, inputs, {"out": "store/else"}), {"output out"}),
        (
            key_parts(replace(step, arguments=["--x", "2", InputPath("raw"), OutputPath(port)]), CODE, inputs, outputs),
            {"arguments"},
        ),
        (key_parts(replace(step, script="b.py"), CODE, inputs, outputs), {"script"}),
        (key_parts(replace(step, environment={"described": "x"}), CODE, inputs, outputs), {"environment described"}),
        (key_parts(replace(step, variables={"A": "x"}), CODE, inputs, outputs), {"variable A"}),
    ]
    keys = {digest_of(parts)}
    for other, names in others:
        assert {name for name in {*parts, *other} if parts.get(name) != other.get(name)} == names
        keys.add(digest_of(other))
    assert len(keys) == len(others) + 1


def test_what_does_not_count() -> None:
    step = spec("one", arguments=["x"])
    parts = key_parts(step, CODE, {}, {})
    assert key_parts(replace(step, name="two", timeout_s=5, after=["z"]), Code(Path("moved"), CODE.digests), {}, {}) == parts
    assert digest_of(dict(reversed(parts.items()))) == digest_of(parts)


def test_very_much_code_is_one_part() -> None:
    many = Code(Path("src"), {f"{number}.py": "b3:1" for number in range(FILES_MAX + 1)})
    fewer = Code(Path("src"), dict(list(many.digests.items())[:-1]))
    parts = key_parts(spec("one"), many, {}, {})
    assert parts["code"] == many.digest
    assert not any(name.startswith("code ") for name in parts)
    assert sum(name.startswith("code ") for name in key_parts(spec("one"), fewer, {}, {})) == FILES_MAX


def test_any_order_of_a_graph_is_one_that_can_be_run() -> None:
    draw = random.Random(7)
    for _ in range(50):
        ports = [Port(f"p{number}") for number in range(8)]
        steps = [
            spec(f"s{number}", makes=(port,), reads=tuple(draw.sample(ports[:number], draw.randint(0, number))))
            for number, port in enumerate(ports)
        ]
        draw.shuffle(steps)
        done: set[str] = set()
        for name, needed in order_steps(steps).items():
            assert needed <= done
            done.add(name)
        assert len(done) == len(steps)


def test_graphs_that_cannot_be() -> None:
    one, two = Port("one"), Port("two")
    with pytest.raises(UserErrorException, match="wait for each other: a -> a"):
        order_steps([spec("a", makes=(one,), reads=(one,))])
    with pytest.raises(UserErrorException, match="step 'a' is to run after 'z', which is no step"):
        order_steps([spec("a", after=["z"])])
    with pytest.raises(UserErrorException, match="step 'a' has two outputs called 'one'"):
        order_steps([spec("a", makes=(one, Port("one")))])
    with pytest.raises(UserErrorException, match="'one' is put out by two steps, 'a' and 'b'"):
        order_steps([spec("a", makes=(one,)), spec("b", makes=(one, two))])
    with pytest.raises(UserErrorException, match="two steps are called 'a'"):
        order_steps([spec("a"), spec("a")])


@pytest.mark.parametrize(
    ("place", "at", "own"),
    [
        ("", f"azureml/{RUN}/out", f"azureml/{RUN}/out"),
        ("kept/{run-id}", f"kept/{RUN}", f"kept/{RUN}"),
        ("/a/{output-name}/{run-id}/", f"a/out/{RUN}", f"a/out/{RUN}"),
        ("shared", "shared", f"azureml/{RUN}/out"),
        ("{output-name}", "out", f"azureml/{RUN}/out"),
    ],
)
def test_places(place: str, at: str, own: str) -> None:
    port = Port("out", place=place)
    assert (place_of(port, RUN), port.own_place(RUN)) == (at, own)
    assert port.is_shared is (at != own)


@pytest.mark.parametrize(
    ("path", "is_below"),
    [
        (f"azureml/{RUN}/out/a", True),
        (f"dataset/{RUN}/out", True),
        (f"azureml/{RUN}", False),
        ("azureml/x/y", False),
        ("a", False),
    ],
)
def test_what_is_below_a_run(path: str, is_below: bool) -> None:
    assert is_below_run(path) is is_below
