from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.errors import UserError
from emoprobe.model.devices import check_device, check_dtype
from emoprobe.model.layers import parse_layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", tuple(range(12))),
        ("3", (3,)),
        ("3-5", (3, 4, 5)),
        ("9-", (9, 10, 11)),
        ("7,3,5", (3, 5, 7)),
        ("0-1, 1-2 ,11", (0, 1, 2, 11)),
    ],
)
def test_what_may_be_written(text, layers):
    assert parse_layers(text, 12) == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("70", "no layer 70: this model has layers 0 to 11"),
        ("3-12", "no layer 12"),
        ("9-3", "layers '9-3' run backwards; write 3-9"),
        ("-3", "not of the form"),
        ("a", "not of the form"),
        ("3,,5", "not of the form"),
        ("", "not of the form"),
        ("1.5", "not of the form"),
    ],
)
def test_what_may_not(text, message):
    with pytest.raises(UserError, match=message):
        parse_layers(text, 12)


@given(st.sets(st.integers(0, 61), min_size=1))
def test_a_list_comes_back_sorted(chosen):
    assert parse_layers(",".join(map(str, chosen)), 62) == tuple(sorted(chosen))


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_devices_that_exist_somewhere(text):
    assert check_device(text) == text


def test_devices_and_dtypes_that_exist_nowhere():
    with pytest.raises(UserError, match="unknown device 'cdua'; did you mean cuda"):
        check_device("cdua")
    with pytest.raises(UserError, match="unknown device 'cuda:'"):
        check_device("cuda:")
    with pytest.raises(UserError, match="unknown dtype 'fp8'; one of auto, float32, bfloat16"):
        check_dtype("fp8")
