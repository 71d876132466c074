"""Names of datasets, there and back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vds.azureml.exceptions import UserErrorException
from vds.azureml.names import check_datastore_name, dataset_name, is_internal, shown_name
from vds.model.ref import NAME_CHARS_MAX, parse_name

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.text("ax5f_20./ml-é", min_size=1, max_size=30),
    st.lists(st.sampled_from(["aml.", "_x20_", "_x5f_", "_x", "_", "/", "a", ".", "x20_", "é", ""]), min_size=1).map("".join),
).filter(bool)


@given(TEXTS)
def test_a_name_comes_back(name: str) -> None:
    try:
        inner = dataset_name(name)
    except UserErrorException as err:
        assume("too long" not in err.message)
        raise
    assert parse_name(inner, "dataset") == inner
    assert shown_name(inner) == name


@given(TEXTS, TEXTS)
def test_two_names_stay_two(one: str, other: str) -> None:
    assume(max(len(one), len(other)) < 20)
    assert (dataset_name(one) == dataset_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("customers", "customers"),
        ("team/customers", "team/customers"),
        ("diabetes dataset", "diabetes_x20_dataset"),
        ("Kunden_2024", "Kunden_2024"),
        ("größe", "gr_xc3b6__xc39f_e"),
        ("_private", "aml._private"),
        ("aml.x", "aml.x"),
        ("a//b", "a/aml./b"),
    ],
)
def test_names_read_well(name: str, inner: str) -> None:
    assert dataset_name(name) == inner
    assert shown_name(inner) == name


@pytest.mark.parametrize("name", ["", None, 3, "\ud800", "x" * (NAME_CHARS_MAX + 1)])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(UserErrorException):
        dataset_name(name)  # type: ignore[arg-type]


def test_the_longest_name_is_taken() -> None:
    assert dataset_name("x" * NAME_CHARS_MAX)


@pytest.mark.parametrize("name", ["", "a b", "_x", "a/b", "é", None])
def test_datastore_names(name: object) -> None:
    with pytest.raises(UserErrorException):
        check_datastore_name(name)  # type: ignore[arg-type]
    assert check_datastore_name("my_Store-2") == "my_Store-2"


def test_internal_namespaces() -> None:
    assert is_internal("azureml/datastores")
    assert is_internal("AzureML")
    assert not is_internal("azureml_store")
