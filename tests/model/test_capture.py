"""Residual streams on disk: the right numbers, lazily, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch

from emoprobe import capture, rollout
from emoprobe.activations import store
from emoprobe.activations.store import Activations
from emoprobe.errors import RunError, UserError
from emoprobe.generation import replay
from tests.model import tiny


@pytest.fixture(scope="module")
def played(folders, tmp_path_factory):
    """A finished run of three conversations of two turns."""
    out = tmp_path_factory.mktemp("runs") / "played"
    words = ["--n", "3", "--turns", "2", "--max-new-tokens", "6", "--category", "triggers"]
    assert rollout.main(["--model", str(folders["gemma-text"]), *words, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(played, tmp_path):
    """A copy of the run to write into."""
    return shutil.copytree(played, tmp_path / "run")


def states(model, transcript):
    with torch.inference_mode():
        out = model.net(torch.tensor([transcript.token_ids]), output_hidden_states=True)
    return out.hidden_states


def test_parts_are_the_means_of_a_plain_forward(run, loaded, capsys):
    assert capture.main([str(run), "--parts", "--layers", "1-3"]) == 0
    out = capsys.readouterr()
    assert out.out.strip() == str(run / "activations-parts")
    assert "18 rows x 3 layers x 48 = 10.4 kB in 1 shard" in out.err
    kept = Activations.open(run / "activations-parts")
    assert kept.layers == (1, 2, 3)
    assert (kept.key.site, kept.key.reducer, kept.key.source, kept.key.dtype) == (
        "resid_post",
        "span_mean",
        "replay",
        "float32",
    )
    assert kept.key.model == loaded["gemma-text"].ref
    for t in capture.read_transcripts(run):
        hidden = states(loaded["gemma-text"], t)
        for turn in (1, 2):
            rows = kept.select(transcript=t.id, turn=turn, part="reply")
            span = t.span(turn, "assistant", "content")
            if span.start == span.stop:
                assert len(rows) == 0
                continue
            expected = torch.stack([hidden[k + 1][0, span.start : span.stop].mean(dim=0) for k in (1, 2, 3)])
            torch.testing.assert_close(kept.load(rows)[0], expected, rtol=1e-4, atol=1e-4)
            assert kept.rows.n_tokens[rows[0]] == span.stop - span.start


def test_tokens_come_back_lazily_from_several_shards(run, loaded, monkeypatch):
    monkeypatch.setattr(capture, "SHARD_BYTES", 60_000)
    assert capture.main([str(run), "--tokens", "--layers", "0,4"]) == 0
    kept = Activations.open(run / "activations-tokens")
    assert len(kept.header.shard_rows) == 3
    transcripts = capture.read_transcripts(run)
    assert len(kept) == sum(len(t.token_ids) for t in transcripts)
    assert kept.rows.token_id.tolist() == [i for t in transcripts for i in t.token_ids]
    last = transcripts[-1]
    hidden = states(loaded["gemma-text"], last)
    rows = kept.select(transcript=last.id)
    assert kept.rows.position[rows].tolist() == list(range(len(last.token_ids)))
    torch.testing.assert_close(kept.load(rows, layers=[4])[:, 0], hidden[5][0], rtol=1e-4, atol=1e-4)
    mixed = [int(rows[-1]), 0, int(rows[3]), 5]
    every = kept.load()
    assert every.shape == (len(kept), 2, 48)
    assert torch.equal(kept.load(mixed, layers=[4, 0]), every[mixed][:, [1, 0]])
    parts = kept.rows.part.dropna().unique().tolist()
    assert set(parts) <= {"user", "pre_reply", "reply"}
    assert len(kept.select(part="pre_reply")) == 6


def test_an_adapter_is_replayed_and_named(run, folders, tmp_path):
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "calm", ["q_proj"])
    for more in ([], ["--adapter", str(folder)]):
        out = tmp_path / f"kept{len(more)}"
        assert capture.main([str(run), "--parts", *more, "--out", str(out)]) == 0
    plain, tuned = Activations.open(tmp_path / "kept0"), Activations.open(tmp_path / "kept2")
    assert plain.key.model.adapter is None
    assert tuned.key.model.adapter is not None
    assert not torch.allclose(plain.load(), tuned.load())


def test_an_interrupted_capture_goes_on_with_the_missing_shards(run, monkeypatch, capsys):
    monkeypatch.setattr(capture, "SHARD_BYTES", 60_000)
    words = [str(run), "--tokens", "--layers", "0,4"]
    out = run / "activations-tokens"
    assert capture.main(words) == 0
    whole = [store.shard_path(out, k).read_bytes() for k in range(3)]
    (out / store.HEADER).unlink()
    cut = store.shard_path(out, 1)
    cut.write_bytes(whole[1][: len(whole[1]) // 2])
    with pytest.raises(UserError, match="no finished activations"):
        Activations.open(out)
    done = []
    real = replay.replay_batch
    monkeypatch.setattr(
        replay, "replay_batch", lambda m, t, *a, **k: (done.append(len(t)), real(m, t, *a, **k))
    )
    assert capture.main(words) == 0
    assert done == [1]
    assert [store.shard_path(out, k).read_bytes() for k in range(3)] == whole


def test_a_truncated_shard_is_one_line(run):
    assert capture.main([str(run), "--parts"]) == 0
    out = run / "activations-parts"
    path = store.shard_path(out, 0)
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:4], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"00000\.safetensors is missing, cut short or damaged"):
            Activations.open(out)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        Activations.open(out)


def test_a_layer_or_row_that_is_not_stored_is_refused(run):
    assert capture.main([str(run), "--parts", "--layers", "2"]) == 0
    kept = Activations.open(run / "activations-parts")
    with pytest.raises(UserError, match="holds no layer 3; it has 2"):
        kept.load(layers=[3])
    with pytest.raises(IndexError):
        kept.load([len(kept)])
    assert kept.load([]).shape == (0, 1, 48)


def test_more_than_the_disk_holds_is_refused_before_anything_is_loaded(run, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(capture.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    assert capture.main([str(run), "--tokens"]) == 2
    assert "do not fit: 1 B are free" in capsys.readouterr().err
    assert not (run / "activations-tokens").exists()


def test_nan_is_never_written(tmp_path):
    values = {3: torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])}
    with pytest.raises(RunError, match="layer 3 in transcript b"):
        store.write_shard(tmp_path, 0, values, ["transcript a", "transcript b"])
    assert not store.shard_path(tmp_path, 0).exists()


def test_shards_of_other_weights_are_not_gone_on_with(run, capsys):
    assert capture.main([str(run), "--parts"]) == 0
    key = run / "activations-parts/key.json"
    key.write_text(key.read_text().replace('"weights_sha": "', '"weights_sha": "0'))
    assert capture.main([str(run), "--parts"]) == 2
    assert "begun with other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "choose what to write: --parts or --tokens"),
        (["--parts", "--tokens"], "choose what to write: --parts or --tokens"),
        (["--parts", "--layers", "70"], "no layer 70: this model has layers 0 to 5"),
        (["--parts", "--layers", "5-3"], "run backwards"),
        (["--parts", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--parts", "--adapter", "nothing-here"], "nothing-here"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, capsys, words, said):
    assert capture.main([str(run), *words]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_no_finished_run_is_refused(run, tmp_path, capsys):
    assert capture.main([str(tmp_path / "nothing"), "--parts"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    lines = (run / "transcripts.jsonl").read_text()
    (run / "transcripts.jsonl").write_text(lines[: len(lines) // 2])
    assert capture.main([str(run), "--parts"]) == 2
    assert "is damaged" in capsys.readouterr().err
    (run / "transcripts.jsonl").unlink()
    assert capture.main([str(run), "--parts"]) == 2
    assert "has no transcripts.jsonl" in capsys.readouterr().err


def test_text_of_another_template_is_refused(run, capsys):
    rows = [json.loads(line) for line in (run / "transcripts.jsonl").read_text().splitlines()]
    rows[1]["model"]["template_sha"] = "other"
    (run / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert capture.main([str(run), "--parts"]) == 2
    assert "another chat template" in capsys.readouterr().err


def test_bf16_values_keep_their_dtype(tmp_path):
    values = {0: torch.randn(4, 8, dtype=torch.bfloat16)}
    names = [f"row {k}" for k in range(4)]
    store.write_shard(tmp_path, 0, values, names)
    ref = {"name": "m", "source": "m", "dtype": "bfloat16", "attention": "sdpa", "template_sha": "0"}
    key = {"model": {**ref, "n_layers": 1, "d_model": 8, "weights_sha": "0"}, "reducer": "token"}
    header = store.Header.model_validate(
        {"key": {**key, "dtype": "bfloat16"}, "layers": [0], "d_model": 8, "shard_rows": [4]}
    )
    store.write_index(tmp_path, header, pd.DataFrame({"transcript_id": names}))
    kept = Activations.open(tmp_path)
    assert torch.equal(kept.load(np.array([3, 1]))[:, 0], values[0][[3, 1]])
