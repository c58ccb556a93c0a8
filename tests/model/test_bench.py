"""The benchmark runs end to end on a tiny random model, and its counts hold. No timing is asserted."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "bench_capture"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench").main


def test_a_tiny_run_counts_each_position_once_and_holds_almost_nothing(main, tmp_path, capsys):
    out = tmp_path / "tiny.json"
    assert main(["--size", "tiny", "--rounds", "2", "--device", "cpu", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    text = out.read_text("utf-8")
    assert str(tmp_path) not in text
    result = json.loads(text)

    forward = result["forward"]
    assert forward["same"]["logits_bit_equal"]
    assert forward["same"]["means_difference"] < 1e-4
    kept = forward["peak_extra_bytes"]
    assert 0 < kept["ours"] < kept["hidden_states"]
    # scores of a layer in fp32 and the row of each token are there at once, whatever the model holds
    assert forward["readout_bytes"] > forward["tokens"] * (8 * 4 + 8)
    assert forward["extra_ratio"] < 1 / 50

    for part in ("forward", "decode", "rollouts"):
        contestants = result[part]["contestants"].values()
        assert all(len(entry["wall_s"]) == entry["wall_ratio"]["rounds"] == 2 for entry in contestants)

    counts = result["rollouts"]["counts"]
    carried, refilled = counts["carried"], counts["refilled"]
    assert carried["forwarded"] == counts["real_positions"] <= carried["computed"]
    # two turns: the second prefill sees the first turn once more
    assert carried["forwarded"] < refilled["forwarded"] <= refilled["computed"]


def test_peak_bytes_know_what_passes_from_what_stays(main):
    measure = importlib.import_module("measure")
    n = 1000

    def job() -> object:
        passing = torch.zeros(4 * n)
        del passing
        with torch.profiler.record_function(measure.READOUT):
            kept = torch.zeros(2 * n)
            torch.zeros(n)
        return kept

    measured = measure.peak(lambda: job, torch.device("cpu"))
    assert measured.total == pytest.approx(4 * 4 * n, rel=0.05)
    assert measured.readout == pytest.approx(4 * 3 * n, rel=0.05)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_27b_without_a_gpu_is_one_line(main, capsys, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--size", "27b", "--device", device]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "emoprobe bench: --size 27b needs a CUDA device of 70 GB or more; without one use --size 100m"
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rounds", "1"], "--rounds must be at least 2, got 1"),
        (["--size", "9b"], "--size must be one of tiny, 100m, 27b, got '9b'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_mistakes_are_one_line(main, capsys, flags, said):
    assert main(flags) == 2
    assert said in capsys.readouterr().err
