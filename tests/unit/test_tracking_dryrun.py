"""The dry run against counts made by hand, and what it says where it does not know."""

from __future__ import annotations

import pytest

from emoprobe import track
from emoprobe.cli import parse
from emoprobe.model import registry, shapes
from emoprobe.model.shapes import Shape
from emoprobe.tracking import dryrun

SMALL = Shape(n_layers=2, d_model=8, n_heads=2, n_kv_heads=1, head_dim=4, d_ffn=16, vocab=100, tied=True)


def settle(*argv: str):
    return track.settle(parse(track.TrackConfig, "track", ["--model", "gemma-3-27b-it", *argv]))


def test_counts_by_hand(monkeypatch):
    settings = settle(
        "--n", "3", "--turns", "2", "--max-new-tokens", "5", "--batch-size", "2", "--layers", "0,1"
    )
    monkeypatch.setattr(dryrun, "_tokens", lambda task, follow_ups, settings: 40)
    cost = dryrun.count(settings, SMALL, 4)
    assert cost.conversations == 6
    assert cost.longest == 40
    assert cost.generation.tokens == cost.replay.tokens == 6 * 40
    context, replies = 20, 6 * 2 * 5
    with_head = shapes.flops_per_token(SMALL, context)
    without = shapes.flops_per_token(SMALL, context, head=False)
    assert cost.generation.flops == replies * with_head + (240 - replies) * without
    assert cost.replay.flops == 240 * with_head
    assert cost.weights == 4 * shapes.params(SMALL)
    kv = 2 * 2 * 1 * 4 * 4
    assert cost.cache == kv * 2 * 40
    steps = 2 * (5 + 1) * 3  # turns x (prefill and tokens) x batches
    assert cost.generation.bytes == steps * (cost.weights + 2 * context * kv)
    assert cost.residual_tokens == 240 * 2 * 8 * 4
    assert cost.residual_parts == 6 * 2 * 3 * 2 * 8 * 4
    assert cost.readouts == 2 * 6 * 2 * 3 * 2 * 9 * 4
    assert cost.memory == cost.weights + cost.cache + cost.logits


def test_an_adapter_adds_its_own_rollouts_and_two_replays():
    alone = dryrun.count(settle("--n", "2"), SMALL, 4)
    settings = settle("--n", "2").model_copy(update={"adapters": ("a",), "adapter_names": ("a",)})
    beside = dryrun.count(settings, SMALL, 4)
    assert beside.generation.tokens == 2 * alone.generation.tokens
    assert beside.replay.tokens == 3 * alone.replay.tokens


def test_time_is_the_slower_of_arithmetic_and_memory():
    cost = dryrun.count(settle("--n", "2"), SMALL, 4)
    work = (cost.generation, cost.replay)
    assert cost.seconds(1e12, 1e30) == pytest.approx(sum(w.flops for w in work) / 1e12)
    assert cost.seconds(1e30, 1e9) == pytest.approx(sum(w.bytes for w in work) / 1e9)
    assert cost.seconds(None, 1e9) is None


def test_the_27b_weighs_what_it_weighs():
    shape = registry.resolve("gemma-3-27b-it").shape
    cost = dryrun.count(settle("--n", "4", "--batch-size", "1"), shape, 2)
    assert cost.weights == 54_864_813_280
    assert cost.cache == cost.longest * 2 * 62 * 16 * 128 * 2


def test_without_a_throughput_the_time_is_unknown(capsys):
    assert track.main(["--model", "gemma-3-27b-it", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "time       unknown (give --tflops and --gbps, or --measure)" in out
    for row in ("layers", "tokens", "FLOPs", "bytes read", "memory", "disk"):
        assert f"\n{row:<11}" in out
    assert "62 of 62 read" in out
    assert "full-length cache" in out


def test_with_a_throughput_it_is_a_bound_from_below(capsys):
    argv = ["--model", "gemma-3-27b-it", "--dry-run", "--tflops", "400", "--gbps", "3000"]
    assert track.main(argv) == 0
    assert "time       at least" in capsys.readouterr().out


def test_an_unknown_shape_gives_no_numbers():
    text = dryrun.render(settle("--n", "2"), None, 1.0, 1.0, False)
    assert "unknown, as the model's shape is" in text
    hollow = Shape(n_layers=2, d_model=8)
    text = dryrun.render(settle("--n", "2"), hollow, 1.0, 1.0, False)
    assert "weights unknown" in text
    assert "time       unknown" in text


def test_a_dry_run_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert track.main(["--model", "gemma-3-27b-it", "--dry-run", "--out", "here"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("n", "text"), [(None, "unknown"), (999, "999 B"), (54.9e9, "54.9 GB"), (1.5e15, "1,500 TB")]
)
def test_sizes(n, text):
    assert dryrun.size(n) == text
