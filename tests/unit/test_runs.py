from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from pydantic import BaseModel

from emoprobe import runs
from emoprobe.errors import RunError, UserError
from emoprobe.records import Certificate
from emoprobe.runs import RunFolder


class Settings(BaseModel):
    model: str = "organism"
    turns: int = 8
    layers: tuple[int, ...] | None = None
    out: str = "somewhere"


@pytest.fixture
def folder(tmp_path):
    return RunFolder.open(tmp_path / "deep" / "run", Settings(), "track")


def test_the_same_config_resumes_wherever_it_says_the_folder_lies(folder):
    folder.write_json("shards/0.json", {"a": 1})
    again = RunFolder.open(folder.path, Settings(out="elsewhere"), "track")
    assert again.read_json("shards/0.json") == {"a": 1}
    assert runs.read_run(folder.path)["config"] == {"model": "organism", "turns": 8, "layers": None}


def test_another_config_is_refused_naming_the_fields(folder):
    with pytest.raises(UserError) as refusal:
        RunFolder.open(folder.path, Settings(turns=6, layers=(1, 2)), "track")
    assert "layers was null, now [1, 2]; turns was 8, now 6" in str(refusal.value)
    assert "model" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_another_verb_a_strangers_folder_and_a_file_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="holds a run of 'track', not 'capture'"):
        RunFolder.open(folder.path, Settings(), "capture")
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder.open(folder.path, Settings(), "track", resume=False)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no run"):
        RunFolder.open(tmp_path, Settings(), "track")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.open(tmp_path / "thesis.txt", Settings(), "track")
    with pytest.raises(UserError, match="not a run folder"):
        runs.read_run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "thesis.txt"]


def test_a_damaged_run_file_is_a_user_error_not_a_fresh_start(folder):
    (folder.path / "run.json").write_text('{"schema_ver')
    with pytest.raises(UserError, match="cannot be read"):
        RunFolder.open(folder.path, Settings(), "track")


@pytest.mark.parametrize("keep", [0, 1, 30, -1])
def test_a_truncated_shard_reads_as_missing_and_is_removed(folder, keep, capsys):
    arrays = {"sums": np.arange(300.0), "ids": np.array(["a", "b"])}
    folder.write_npz("batches/1.npz", **arrays)
    folder.write_json("batches/1.json", [{"turn": 1}] * 50)
    for name, read in (("batches/1.npz", folder.read_npz), ("batches/1.json", folder.read_json)):
        path = folder.path / name
        path.write_bytes(path.read_bytes()[:keep])
        assert read(name) is None
        assert not folder.has(name)
        assert read(name) is None
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all("removed, will be redone" in line for line in warnings)


def test_a_flipped_bit_in_an_array_is_noticed(folder):
    path = folder.write_npz("x.npz", x=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert folder.read_npz("x.npz") is None


def test_whole_shards_come_back_as_they_were(folder):
    folder.write_npz("x.npz", x=np.eye(3, dtype=np.float32), names=np.array(["a"]))
    back = folder.read_npz("x.npz")
    assert back is not None
    assert back["x"].dtype == np.float32
    assert back["names"].tolist() == ["a"]
    certificate = Certificate(status="impossible")
    folder.write_json("y.json", [certificate, np.float32(0.5), np.arange(2)])
    assert folder.read_json("y.json") == [certificate.model_dump(), 0.5, [0, 1]]


def test_nan_never_reaches_json(folder):
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("summary.json", {"mean": float("nan")})
    assert not folder.has("summary.json")


def test_a_failing_write_leaves_the_old_file_and_no_litter(folder):
    target = folder.write_text("curves.csv", "old")

    def write():
        with runs.atomic(target) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert target.read_text() == "old"
    assert sorted(p.name for p in folder.path.iterdir()) == ["curves.csv", "run.json"]


def test_a_cut_last_line_is_left_out_and_written_over(folder, capsys):
    folder.append_jsonl("t.jsonl", [{"id": 1}, {"id": 2}])
    path = folder.path / "t.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    assert folder.read_jsonl("t.jsonl") == [{"id": 1}]
    assert "cut short" in capsys.readouterr().err
    folder.append_jsonl("t.jsonl", [Certificate(status="solvable")])
    assert [sorted(r)[0] for r in folder.read_jsonl("t.jsonl")] == ["id", "states_searched"]
    assert folder.read_jsonl("none.jsonl") == []


def test_a_damaged_line_elsewhere_is_no_silent_loss(folder):
    folder.write_text("t.jsonl", '{"id": 1}\n{"id"\n{"id": 3}\n')
    with pytest.raises(RunError, match="line 2 is damaged"):
        folder.read_jsonl("t.jsonl")


def test_line_separators_in_what_a_model_wrote_stay_inside_their_line(folder):
    reply = "a\u2028b\x85c\r\n\x0b"
    folder.append_jsonl("t.jsonl", [{"reply": reply}])
    assert folder.read_jsonl("t.jsonl") == [{"reply": reply}]


def test_killed_while_writing_every_shard_is_whole_or_absent(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        from pydantic import BaseModel
        from emoprobe.runs import RunFolder

        class Settings(BaseModel):
            turns: int = 8

        folder = RunFolder.open(sys.argv[1], Settings(), "track")
        for i in range(10**6):
            folder.write_npz(f"b/{i}.npz", x=np.full(200_000, i))
            folder.append_jsonl("t.jsonl", [{"i": i, "pad": "x" * 20_000}])
        """
    )
    path = tmp_path / "run"
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
    deadline = time.monotonic() + 60
    while not (path / "b" / "6.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()

    class Same(BaseModel):
        turns: int = 8

    folder = RunFolder.open(path, Same(), "track")
    shards = sorted((path / "b").glob("*"))
    assert len(shards) >= 7
    assert all(p.suffix == ".npz" for p in shards)
    for shard in shards:
        content = folder.read_npz(f"b/{shard.name}")
        assert content is not None
        assert (content["x"] == int(shard.stem)).all()
    finished = [r["i"] for r in folder.read_jsonl("t.jsonl")]
    assert finished == list(range(len(finished)))
    assert len(finished) >= len(shards) - 1


def test_the_manifest_says_what_ran_and_gives_nothing_away(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.bin").write_bytes(b"1")
    folder = RunFolder.open(tmp_path / "run", Settings(model=str(weights)), "track")
    folder.add_input("model", weights)
    manifest = folder.manifest(pending=["replay-3", "replay-1"])
    text = json.dumps(manifest)
    assert manifest["config"]["model"] == "weights"
    assert manifest["pending"] == ["replay-1", "replay-3"]
    assert manifest["packages"]["numpy"] == np.__version__
    assert str(tmp_path) not in text
    assert "sk-secret" not in text
    assert json.dumps(folder.manifest(pending=["replay-1", "replay-3"])) == text


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = runs.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = runs.sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, runs.sha256(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError):
        runs.sha256(tmp_path / "none")


def test_git_state_is_that_of_the_checkout_the_package_lies_in(tmp_path, monkeypatch):
    package = tmp_path / "emoprobe"
    package.mkdir()
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    assert runs.git_state() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    state = runs.git_state()
    assert state is not None
    assert (len(state["commit"]), state["dirty"]) == (40, False)
    inner = tmp_path / "env" / "emoprobe"  # installed inside someone else's repository
    inner.mkdir(parents=True)
    monkeypatch.setattr(runs, "__file__", str(inner / "runs.py"))
    assert runs.git_state() is None
