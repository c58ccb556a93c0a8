"""`track` end to end: the seven files line by line, resume after a kill, and what it says when it must stop.

Tiny random models stand for large ones here (the path is the same); the organism has its own tests below.
"""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emoprobe import emotions, track
from emoprobe.generation.live import rollout_batch
from emoprobe.records import CURVE_COLUMNS, Judgment, Transcript
from emoprobe.tracking import collect
from emoprobe.tracking.files import FILES
from emoprobe.viewing.page import typeset
from tests import tiny_stage
from tests.tiny_stage import Stage

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
KEY = ["adapter", "source", "emotion", "layer", "turn", "part"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return tiny_stage.build(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def here(stage: Stage, monkeypatch) -> Stage:
    """The stage, as the working directory."""
    monkeypatch.chdir(stage.root)
    return stage


def run(stage: Stage, argv: list[str]) -> Path:
    """Run in this process, in the stage's folder; return the run folder."""
    before = Path.cwd()
    os.chdir(stage.root)
    try:
        assert track.main(argv) == 0
    finally:
        os.chdir(before)
    return stage.root / argv[argv.index("--out") + 1]


@pytest.fixture(scope="module", params=["gemma-text", "gemma-vision"])
def finished(request, stage) -> Path:
    """A finished run of each class: a text model, and the class of the published 4B, 12B and 27B."""
    return run(stage, stage.args(request.param, "--out", f"runs/{request.param}"))


@pytest.fixture(scope="module")
def text_run(stage) -> Path:
    """One uninterrupted run, to compare others with."""
    return run(stage, stage.args("gemma-text", "--out", "runs/whole"))


# -- the seven files --------------------------------------------------------------------------------------


def curves_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "curves.csv", keep_default_na=False)


def test_all_seven_files_are_there(finished):
    assert {f.name for f in finished.iterdir() if f.is_file()} == {*FILES, "run.json"}
    assert len(FILES) == 7


def test_curves_have_the_columns_and_both_sources(finished):
    curves = curves_of(finished)
    assert tuple(curves.columns) == CURVE_COLUMNS
    assert set(zip(curves.adapter, curves.source, strict=True)) == {
        (adapter, source) for adapter in ("base", "upper") for source in ("own", "replay")
    }
    assert set(curves.emotion) == {*emotions.names(), "negative"}
    assert set(curves.part) == {"reply", "pre_reply", "user"}
    assert set(curves.turn) == {1, 2, 3}
    assert set(curves.layer) == set(range(6))
    assert set(curves.readout) == {"probe"}
    assert set(curves.unit) == {"z"}
    assert not curves.duplicated(KEY).any()


def test_curves_have_intervals_and_no_holes(finished):
    curves = curves_of(finished)
    for column in ("mean", "lo", "hi"):
        assert np.isfinite(curves[column].to_numpy(dtype=float)).all()
    assert ((curves.lo <= curves["mean"]) & (curves["mean"] <= curves.hi)).all()
    assert curves.n.between(1, 3).all()
    assert "nan" not in (finished / "curves.csv").read_text().lower()


def test_parquet_and_csv_hold_the_same_numbers(finished):
    parquet = pd.read_parquet(finished / "curves.parquet")
    pd.testing.assert_frame_equal(parquet, curves_of(finished), check_dtype=False, check_exact=True)


def test_cells_without_data_are_counted(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert sum(manifest["cells_without_data"].values()) + len(curves_of(finished)) == 4 * 9 * 6 * 3 * 3


def test_transcripts_and_judgments_are_complete_and_in_plan_order(finished):
    transcripts = [Transcript.model_validate_json(x) for x in (finished / "transcripts.jsonl").open()]
    judgments = [Judgment.model_validate_json(x) for x in (finished / "judgments.jsonl").open()]
    order = [(t.id.partition(".")[0], t.arm) for t in transcripts]
    arms = [(s, arm) for s in ("base", "upper") for arm in ("rejected", "okay")]
    assert order == [arm for arm in arms for _ in range(3)]
    assert [(j.transcript_id, j.turn) for j in judgments] == [
        (t.id, k) for t in transcripts for k in (1, 2, 3)
    ]
    for t in transcripts:
        assert (t.model.adapter.name if t.model.adapter else "base") == t.id.partition(".")[0]
        assert t.n_turns == 3


def test_twins_share_the_question_and_the_cluster(finished):
    transcripts = [Transcript.model_validate_json(x) for x in (finished / "transcripts.jsonl").open()]
    by_arm = {arm: [t for t in transcripts if t.arm == arm] for arm in ("rejected", "okay")}
    for rejected, okay in zip(by_arm["rejected"], by_arm["okay"], strict=True):
        assert rejected.cluster == okay.cluster
        assert rejected.messages[0] == okay.messages[0]
        assert rejected.messages[2] != okay.messages[2]
        assert okay.feedback == ("okay", "okay")


def test_summary_keeps_what_others_read(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert (summary["turns"], summary["n"], summary["clusters"]) == (3, 3, 3)
    assert summary["proxy"] is True
    for subject in ("base", "upper"):
        for arm in ("rejected", "okay"):
            entry = summary["expressed"][subject][arm]
            assert [row["turn"] for row in entry["by_turn"]] == [1, 2, 3]
            assert {"mean", "high", "n_unscored", "n_empty", "n_truncated"} <= entry["by_turn"][0].keys()
            wanted = {"mean", "high", "high_without_truncated", "slope", "max", "final"}
            assert wanted <= entry["pooled"].keys()
            assert {"nll", "degenerate", "truncated"} <= summary["coherence"][subject][arm].keys()
    effect = summary["internal"]["upper"]
    assert effect["adapted_layers"] == [3, 4, 5]
    for part in ("reply", "pre_reply", "user"):
        for contrast in ("gap_base", "gap_adapter", "shift", "raw_change", "gap_change"):
            assert [row["layer"] for row in effect["negative"][part][contrast]] == list(range(6))
    for sentence in (summary["sentences"]["effect"]["upper"], summary["sentences"]["probes_vs_words"]):
        assert sentence.endswith(".")
    assert "refitted" in " ".join(summary["limits"])


def test_layers_below_the_adapter_read_the_same_and_those_above_do_not(finished):
    effect = json.loads((finished / "summary.json").read_text())["internal"]["upper"]
    assert effect["equal_by_construction"] == [0, 1, 2]
    curves = curves_of(finished)
    replay = curves[curves.source == "replay"].set_index([*KEY[2:], "adapter"])["mean"].unstack("adapter")
    same = (replay.base == replay.upper).groupby("layer").all()
    assert same.tolist() == [True, True, True, False, False, False]


def test_live_and_replayed_readouts_of_the_base_agree(finished):
    curves = curves_of(finished)
    base = curves[curves.adapter == "base"].set_index([*KEY[2:], "source"])["mean"].unstack("source")
    assert (base.own - base.replay).abs().max() < 1e-3


def test_the_manifest_names_what_ran_and_no_place(finished, stage):
    text = (finished / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["pending"] == []
    assert manifest["config"]["adapter_names"] == ["upper"]
    assert len(manifest["loaded"]["model"]["weights_sha"]) == 64
    assert len(manifest["loaded"]["adapters"]["upper"]["sha256"]) == 64
    for name in FILES:
        assert str(stage.root).encode() not in (finished / name).read_bytes(), name


def test_the_page_shows_this_run(finished):
    page = html.unescape((finished / "report.html").read_text("utf-8"))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["coloured"]["rule"] in page
    assert typeset(summary["agreement"]["sentence"]) in page


def test_a_finished_run_is_assembled_again_without_a_model(text_run, here, monkeypatch, capsys):
    before = {name: (text_run / name).read_bytes() for name in FILES}
    for name in FILES:
        (text_run / name).unlink()
    monkeypatch.setattr(collect, "collect", lambda *a: pytest.fail("a model was loaded"))
    assert track.main(here.args("gemma-text", "--out", "runs/whole")) == 0
    assert {name: (text_run / name).read_bytes() for name in FILES} == before
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "runs/whole"
    assert max(map(len, out)) < 160
    text = "\n".join(out)
    for heading in (
        "expressed",
        "internal, negative at pre_reply",
        "agreement",
        "pooled",
        "equal by construction",
    ):
        assert heading in text


def test_without_an_adapter_and_with_one_turn(here):
    argv = here.args("gemma-text", "--turns", "1", "--emotions", "calm", "--layers", "1-2", adapter=False)
    folder = run(here, [*argv, "--out", "runs/alone"])
    curves = curves_of(folder)
    assert set(curves.adapter) == {"base"}
    assert set(curves.emotion) == {"calm", "negative"}
    assert set(curves.layer) == {1, 2}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["internal"] == {}
    assert summary["agreement"]["layers"] == []


# -- resume -----------------------------------------------------------------------------------------------


def killed_after(stage: Stage, argv: list[str], n_shards: int) -> int:
    """Start the command in a process of its own; SIGKILL it once so many shards are there."""
    shards = stage.root / argv[argv.index("--out") + 1] / "shards"
    command = [sys.executable, "-m", "emoprobe.track", *argv]
    with subprocess.Popen(command, cwd=stage.root, env=ENV, stdout=-3, stderr=-3) as process:
        deadline = time.monotonic() + 300
        while len(list(shards.glob("*.npz"))) < n_shards:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        return process.wait()


def test_killed_twice_it_ends_in_the_same_bytes(text_run, here):
    argv = here.args("gemma-text", "--out", "runs/killed")
    for n_shards in (1, 5):
        assert killed_after(here, argv, n_shards) == -signal.SIGKILL
    folder = here.root / "runs/killed"
    assert not (folder / "curves.csv").exists()
    run(here, argv)
    for name in FILES:
        if name not in ("manifest.json", "report.html"):
            assert (folder / name).read_bytes() == (text_run / name).read_bytes(), name


def test_a_truncated_shard_is_redone_whole(text_run, here, capfd):
    argv = here.args("gemma-text", "--out", "runs/whole")
    before = (text_run / "curves.csv").read_bytes()
    shards = sorted((text_run / "shards").iterdir())
    for name in (
        "roll.base.0001.npz",
        "replay.upper.base.0000.npz",
        "judge.base.0001.json",
    ):
        shard = text_run / "shards" / name
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2])
    run(here, argv)
    assert (text_run / "curves.csv").read_bytes() == before
    assert sorted((text_run / "shards").iterdir()) == shards
    assert capfd.readouterr().err.count("is damaged (cut short?): removed, will be redone") == 3


# -- what it says when it cannot go on --------------------------------------------------------------------


def refused(capfd, argv: list[str], code: int) -> str:
    """Run a command that must fail with this code; its one line on stderr."""
    capfd.readouterr()
    assert track.main(argv) == code
    lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("emoprobe track: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_folder_of_another_config_is_refused(text_run, here, capfd):
    line = refused(capfd, here.args("gemma-text", "--out", "runs/whole", "--seed", "1"), 2)
    assert "seed was 0, now 1" in line


def test_a_folder_that_is_no_run_is_refused(here, capfd):
    assert "holds no run" in refused(capfd, here.args("gemma-text", "--out", "models"), 2)


def test_other_weights_under_the_same_name_are_refused(text_run, here, capfd, monkeypatch):
    (text_run / "shards" / "tokens.base.npz").unlink()
    facts = text_run / "shards" / "facts.json"
    true = facts.read_text()
    facts.write_text(json.dumps({**json.loads(true), "probes": {"sha256": "another"}}))
    line = refused(capfd, here.args("gemma-text", "--out", "runs/whole"), 2)
    assert "begun with other probes of the same name" in line
    facts.write_text(true)
    run(here, here.args("gemma-text", "--out", "runs/whole"))


def test_foreign_probes_are_refused(here, capfd):
    folder = next(here.root.glob("probes/gemma-text-*/vignettes"))
    content = {file.name: file.read_bytes() for file in folder.iterdir()}
    tiny_stage.random_probes("other", "0" * 64).save(folder)
    line = refused(capfd, here.args("gemma-text", "--out", "runs/foreign"), 2)
    assert "these probes are of 'other'" in line
    for name, data in content.items():
        (folder / name).write_bytes(data)


def test_an_adapter_of_another_class_is_refused(here, capfd):
    argv = ["--model", "models/gemma-vision", "--adapter", "adapters/gemma-text/upper", *tiny_stage.ARGS]
    line = refused(capfd, [*argv, "--out", "runs/class"], 2)
    assert "adapter 'upper' was trained for another class" in line


def test_a_model_without_a_chat_template_is_refused(here, capfd):
    template = here.root / "models/gemma-text/chat_template.jinja"
    text = template.read_text()
    template.unlink()
    try:
        line = refused(capfd, here.args("gemma-text", "--out", "runs/template"), 2)
    finally:
        template.write_text(text)
    assert "has no chat template" in line


def test_out_of_memory_says_what_to_lower_and_keeps_what_is_done(here, capfd, monkeypatch):
    played = []

    def full(*args, **kwargs):
        if len(played) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        played.append(1)
        return rollout_batch(*args, **kwargs)

    monkeypatch.setattr(collect, "rollout_batch", full)
    argv = here.args("gemma-text", "--out", "runs/memory")
    line = refused(capfd, argv, 1)
    assert "lower --batch-size" in line
    assert len(list((here.root / "runs/memory/shards").glob("roll.*.npz"))) == 1


def test_nan_activations_are_named_and_nothing_of_them_is_kept(here, capfd, monkeypatch):
    monkeypatch.setattr(collect.SpanReadout, "nonfinite", lambda self: (2, 0))
    line = refused(capfd, here.args("gemma-text", "--out", "runs/nan"), 1)
    assert "NaN or infinite activations at layer 2 in transcript base.numeric" in line
    assert list((here.root / "runs/nan/shards").glob("roll.*.npz")) == []


def test_a_process_that_cannot_write_leaves_one_line(here):
    command = [sys.executable, "-m", "emoprobe.track", *here.args("gemma-text", "--out", "models")]
    done = subprocess.run(command, cwd=here.root, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("emoprobe track: ")
    assert done.stderr.count("\n") == 1


# -- the organism -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def organism(tmp_path_factory) -> tuple[Path, str]:
    """`track` as a stranger runs it, on fewer conversations: its folder and what it printed."""
    out = tmp_path_factory.mktemp("organism") / "run"
    argv = ["--n", "12", "--turns", "4", "--device", "cpu", "--out", str(out)]
    command = [sys.executable, "-m", "emoprobe.track", *argv]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done.stdout


def test_the_organism_runs_with_its_adapter_by_default(organism):
    folder, printed = organism
    assert printed.splitlines()[-1] == str(folder)
    assert {f.name for f in folder.iterdir() if f.is_file()} == {*FILES, "run.json"}
    curves = curves_of(folder)
    assert set(curves.model) == {"organism"}
    assert set(curves.adapter) == {"base", "dpo"}
    assert len(curves) == 4 * 9 * 12 * 4 * 3
    assert set(curves.n) <= set(range(1, 13))


def test_the_organism_is_calmer_under_its_adapter(organism):
    pooled = {
        subject: arms["rejected"]["pooled"]["mean"]
        for subject, arms in json.loads((organism[0] / "summary.json").read_text())["expressed"].items()
    }
    assert pooled["dpo"]["hi"] < pooled["base"]["lo"]


def test_the_organism_says_what_it_is_not(organism):
    said = json.loads((organism[0] / "summary.json").read_text())["sentences"]
    assert "nor of feelings" in said["organism"]
    assert "shift" in said["effect"]["dpo"]
    assert "nats per token" in said["coherence"]["dpo"]
