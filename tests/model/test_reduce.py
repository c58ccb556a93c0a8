"""Reducers against plain arithmetic on kept residuals, in both number formats, within their memory."""

from __future__ import annotations

import weakref

import pytest
import torch

from emoprobe.activations.reduce import SpanMean, SpanReadout, TokenReadout, TokenStore, blocks, check_finite
from emoprobe.activations.slots import Slots
from emoprobe.errors import RunError

LAYERS, D_MODEL, N_SLOTS = (1, 4), 24, 6


def passes(dtype=torch.float32, shapes=((3, 200), (2, 1), (1, 7))):
    """(tags, {layer: residual}) of some forward passes; half of the tokens are not counted."""
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        tags = torch.randint(-N_SLOTS, N_SLOTS, shape, generator=generator).clamp(min=-1)
        resid = {k: (5 * torch.randn(*shape, D_MODEL, generator=generator)).to(dtype) for k in LAYERS}
        yield tags, resid


def feed(reducer, dtype=torch.float32):
    for tags, resid in passes(dtype):
        reducer.begin(tags)
        for layer in reducer.layers:
            reducer.layer(layer, resid[layer])
        reducer.begin(None)
    return reducer


def kept(dtype=torch.float32):
    """Tags [token] and fp64 residuals [token, layer, d_model] of all passes."""
    tags, values = [], []
    for t, resid in passes(dtype):
        tags.append(t.flatten())
        values.append(torch.stack([resid[k].flatten(0, 1).double() for k in LAYERS], dim=1))
    return torch.cat(tags), torch.cat(values)


@pytest.fixture
def weights():
    return torch.randn(len(LAYERS), D_MODEL, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_span_readout_is_the_mean_of_projections(weights, dtype):
    readout = feed(SpanReadout(weights, LAYERS, N_SLOTS), dtype)
    tags, values = kept(dtype)
    for slot in range(N_SLOTS):
        expected = torch.einsum("tld,lde->tle", values[tags == slot], weights.double()).mean(dim=0)
        # fp32 sums of exact bf16 values: no bf16 rounding of the product
        torch.testing.assert_close(readout.means()[slot].double(), expected, rtol=1e-5, atol=1e-4)
    assert readout.counts.tolist() == [int((tags == slot).sum()) for slot in range(N_SLOTS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_span_mean_is_the_mean_of_residuals(dtype):
    mean = feed(SpanMean(LAYERS, N_SLOTS, D_MODEL), dtype).means()
    tags, values = kept(dtype)
    for slot in range(N_SLOTS):
        torch.testing.assert_close(
            mean[slot].double(), values[tags == slot].mean(dim=0), rtol=1e-5, atol=1e-4
        )


def test_token_readout_and_store_put_each_token_in_its_row(weights):
    tags = torch.tensor([[2, -1, 0], [-1, 4, 1]])
    resid = torch.randn(2, 3, D_MODEL)
    readout, store = TokenReadout(weights[:1], (7,), 5), TokenStore((7,), 5, D_MODEL)
    for reducer in (readout, store):
        reducer.begin(tags)
        reducer.layer(7, resid)
        reducer.begin(None)
        reducer.layer(7, torch.full_like(resid, 9.0))
    scores = readout.scores()
    for row in range(2):
        for token in range(3):
            if tags[row, token] >= 0:
                expected = resid[row, token] @ weights[0]
                torch.testing.assert_close(scores[tags[row, token], 0], expected)
                assert torch.equal(store.values()[7][tags[row, token]], resid[row, token])
    assert scores[3].isnan().all()  # never passed


def test_a_slot_that_got_no_token_is_nan_not_zero(weights):
    reducer = SpanReadout(weights, LAYERS, 2)
    assert reducer.means().isnan().all()
    reducer.begin(torch.tensor([[1, -1]]))
    reducer.layer(1, torch.ones(1, 2, D_MODEL))
    assert reducer.means()[0].isnan().all()
    assert reducer.means()[1, 0].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [SpanReadout, SpanMean, TokenReadout, TokenStore])
def test_nan_in_a_counted_token_names_layer_and_transcript(weights, kind, value):
    slots = Slots([("calm", 1), ("loud", 2)])
    args = (weights, LAYERS, len(slots)) if "Readout" in kind.__name__ else None
    reducer = kind(*args) if args else kind(LAYERS, len(slots), D_MODEL)
    resid = torch.zeros(1, 3, D_MODEL)
    resid[0, 2] = value
    reducer.begin(torch.tensor([[0, 1, slots.index("loud", 2, "reply")]]))
    reducer.layer(1, torch.zeros(1, 3, D_MODEL))
    reducer.layer(4, resid)
    with pytest.raises(RunError, match=r"layer 4 in transcript loud, turn 2, reply"):
        check_finite(reducer, slots)


def test_nan_in_a_pad_is_nobodys(weights):
    reducer = SpanReadout(weights, LAYERS, 2)
    resid = torch.zeros(1, 2, D_MODEL)
    resid[0, 0] = float("nan")
    reducer.begin(torch.tensor([[-1, 1]]))
    reducer.layer(1, resid)
    check_finite(reducer, Slots([("a", 1)]))
    assert torch.equal(reducer.means()[1, 0], torch.zeros(8))


def test_reducers_hold_no_residual(weights):
    reducer = SpanReadout(weights, LAYERS, N_SLOTS)
    resid = torch.randn(2, 50, D_MODEL)
    held = weakref.ref(resid)
    reducer.begin(torch.zeros(2, 50, dtype=torch.long))
    reducer.layer(1, resid)
    del resid
    assert held() is None


def test_a_bf16_residual_is_never_fp32_whole():
    resid = torch.zeros(4, 512, D_MODEL, dtype=torch.bfloat16)
    sizes = [block.shape[0] for _, block in blocks(resid)]
    assert sum(sizes) == 2048
    assert max(sizes) <= 2048 // 16
    plain = torch.zeros(4, 512, D_MODEL)
    ((_, whole),) = blocks(plain)
    assert whole.data_ptr() == plain.data_ptr()


def test_shapes_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="weights have 2 layers, 1 are to be read"):
        SpanReadout(weights, (1,), 3)
    with pytest.raises(ValueError, match="at least one row"):
        SpanMean((1,), 0, 4)
