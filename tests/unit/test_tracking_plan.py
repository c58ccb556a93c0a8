"""The plan is made from the configuration alone; every mistake in it is one line, before torch loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emoprobe import track
from emoprobe.cli import parse
from emoprobe.errors import UserError
from emoprobe.model import registry
from emoprobe.records import Scenario
from emoprobe.scenarios import library
from emoprobe.tracking.plan import make_plan

N, TURNS = 5, 3
ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def arms() -> tuple[list[Scenario], list[Scenario]]:
    rejected = library.by_category("numeric", N, TURNS)
    return rejected, [library.okay_twin(s) for s in rejected]


def test_every_subject_has_both_arms_in_the_order_of_its_scenarios():
    plan = make_plan(*arms(), ["dpo", "mid"], batch_size=4)
    for subject in ("base", "dpo", "mid"):
        batches = plan.of(subject)
        assert [len(b.scenarios) for b in batches] == [4, 4, 2]
        for arm, scenarios in zip(("rejected", "okay"), arms(), strict=True):
            played = [b.scenarios[row] for b in batches for row in b.rows(arm)]
            assert played == scenarios
            ids = [b.ids[row] for b in batches for row in b.rows(arm)]
            assert ids == [f"{subject}.{s.id}" for s in scenarios]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_of_any_size_hold_every_conversation_once(batch_size):
    plan = make_plan(*arms(), [], batch_size)
    assert max(len(b.scenarios) for b in plan.batches) == min(batch_size, 2 * N)
    ids = [i for b in plan.batches for i in b.ids]
    assert len(ids) == len(set(ids)) == 2 * N


def test_every_text_of_the_base_is_read_by_all_and_every_text_is_scored_by_the_base():
    plan = make_plan(*arms(), ["dpo"], batch_size=4)
    replays = {(u.reader, u.batch.name) for u in plan.units if u.kind == "replay"}
    base = {b.name for b in plan.of("base")}
    assert {name for reader, name in replays if reader == "dpo"} == base
    assert {name for reader, name in replays if reader == "base"} == {b.name for b in plan.batches}
    assert {u.batch.name for u in plan.units if u.kind == "judge"} == {b.name for b in plan.batches}
    assert [u.reader for u in plan.units if u.kind == "tokens"] == ["base", "dpo"]


def test_units_have_names_of_their_own_and_follow_what_they_need():
    plan = make_plan(*arms(), ["dpo"], batch_size=2)
    names = [u.name for u in plan.units]
    assert len(set(names)) == len(names)
    for unit in plan.units:
        if unit.kind in ("replay", "judge"):
            assert names.index(f"roll.{unit.batch.name}") < names.index(unit.name)
    assert [u.kind for u in plan.units][-2:] == ["tokens", "tokens"]


def test_more_conversations_only_add():
    few, many = (
        arms(),
        tuple(
            [s if arm == 0 else library.okay_twin(s) for s in library.by_category("numeric", N + 3, TURNS)]
            for arm in range(2)
        ),
    )
    assert many[0][:N] == few[0]
    assert many[1][:N] == few[1]


def test_twins_must_be_of_the_same_scenario():
    rejected, okay = arms()
    with pytest.raises(ValueError, match="twin"):
        make_plan(rejected, okay[::-1], [], 2)


def settle(*argv: str):
    return track.settle(parse(track.TrackConfig, "track", argv))


def test_a_hub_model_has_no_default_adapter_and_its_own_length_of_replies():
    settings = settle("--model", "gemma-3-27b-it")
    assert settings.adapters == ()
    assert settings.layers == tuple(range(62))
    assert settings.max_new_tokens == 512
    assert settings.model_name == "gemma-3-27b-it"


def test_a_hub_id_means_the_same_model_as_its_short_name():
    settings = settle("--model", "google/gemma-3-27b-it", "--layers", "30-35,40")
    assert settings.model_name == "gemma-3-27b-it"
    assert settings.layers == (30, 31, 32, 33, 34, 35, 40)


def test_the_organism_is_held_against_its_adapter_unless_told(monkeypatch, tmp_path):
    """Which adapter is looked for; that it exists is another matter."""
    asked = []
    monkeypatch.setattr(registry, "resolve", lambda model: registry.Source(model, model, model, "shipped"))
    monkeypatch.setattr(track, "_adapter_name", lambda wanted, source: asked.append(wanted) or wanted)
    monkeypatch.setattr(track, "_n_layers", lambda source: 12)
    assert settle("--model", "organism").adapter_names == ("dpo",)
    assert settle("--model", "organism", "--adapter", "mid").adapter_names == ("mid",)
    assert settle("--model", "organism-base").adapter_names == ()
    assert asked == ["dpo", "mid"]


def test_two_adapters_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(track, "_adapter_name", lambda wanted, source: wanted.rpartition("/")[2])
    with pytest.raises(UserError, match="'dpo' needs a name of its own"):
        settle("--model", "gemma-3-27b-it", "--adapter", "a/dpo", "--adapter", "b/dpo")
    with pytest.raises(UserError, match="'base' needs a name of its own"):
        settle("--model", "gemma-3-27b-it", "--adapter", "a/base")


MODEL = ("--model", "gemma-3-27b-it")

MISTAKES = {
    "--turns must be at least 1, got 0": ("--turns", "0"),
    "--n must be at least 1, got 0": ("--n", "0"),
    "--turns must be a whole number, got 'many'": ("--turns", "many"),
    "unknown emotion 'frustraton'; did you mean frustration": ("--emotions", "frustraton"),
    "unknown judge 'lexcal'; did you mean lexical": ("--judge", "lexcal"),
    "unknown device 'gpu'": ("--device", "gpu"),
    "unknown dtype 'float16'": ("--dtype", "float16"),
    "unknown category 'numerc'; did you mean numeric": ("--category", "numerc"),
    "unknown tone 'neutrl'; did you mean neutral": ("--tone", "neutrl"),
    "unknown claim 'maybe'": ("--claim", "maybe"),
    "no layer 70: this model has layers 0 to 61": ("--layers", "70"),
    "run backwards; write 3-9": ("--layers", "9-3"),
    "layers 'x' are not of the form": ("--layers", "x"),
    "unknown model 'gemma-3-27b-ti'; did you mean gemma-3-27b-pt, gemma-3-27b-it": (
        "--model",
        "gemma-3-27b-ti",
    ),
    "no folder './nothing'": ("--model", "./nothing"),
    "no adapter 'dop' for 'gemma-3-27b-it'": ("--adapter", "dop"),
    "unknown option --turn; did you mean --turns": ("--turn", "3"),
    "--temperature must be at least 0": ("--temperature", "-1"),
    "--seed must be at least 0": ("--seed", "-1"),
    "--batch-size must be at least 1": ("--batch-size", "0"),
    "'org/nowhere' is not cached and the hub": ("--model", "org/nowhere"),
}

SCRIPT = """
import contextlib, io, json, sys
from emoprobe import track
found = []
for argv in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = track.main(argv)
    found.append((code, err.getvalue(), "torch" in sys.modules))
print(json.dumps(found))
"""


def test_every_mistake_is_one_line_and_exit_2_before_torch_loads(tmp_path):
    argvs = [[*(() if "--model" in wrong else MODEL), *wrong] for wrong in MISTAKES.values()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(argvs)],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for said, (code, err, torch_loaded) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert code == 2, (said, err)
        assert said in err
        assert err.startswith("emoprobe track: ")
        assert err.count("\n") == 1, err
        hub = "hub" in said  # asking a hub for a config is transformers' business, and that loads torch
        assert hub or not torch_loaded, said
    assert list(tmp_path.iterdir()) == []


def test_the_process_leaves_with_the_code_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "emoprobe.track", *MODEL, "--layers", "70"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "emoprobe track: no layer 70: this model has layers 0 to 61\n"
