"""The verb `judge`: statuses, resuming, and lines for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emoprobe import judge
from emoprobe.errors import UserError
from emoprobe.judging import lexical, rubric
from emoprobe.records import Judgment, Message, ModelRef, Sampling, StopReason, Transcript

MODEL = ModelRef(
    name="m",
    source="m",
    dtype="float32",
    attention="eager",
    template_sha="",
    n_layers=1,
    d_model=1,
    weights_sha="",
)


def transcript(name: str, *replies: str, stops: tuple[StopReason, ...] | None = None) -> Transcript:
    messages = tuple(
        message
        for reply in replies
        for message in (Message(role="user", content="Wrong."), Message(role="assistant", content=reply))
    )
    return Transcript(
        id=name,
        scenario_id=name,
        cluster=name,
        arm="rejected",
        model=MODEL,
        messages=messages,
        token_ids=(),
        spans=(),
        sampling=Sampling(),
        seed=0,
        stop_reasons=stops or ("end_of_turn",) * len(replies),
    )


def write(folder: Path, *transcripts: Transcript) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "transcripts.jsonl"
    file.write_text("".join(t.model_dump_json() + "\n" for t in transcripts), "utf-8")
    return file


def judged(folder: Path) -> list[Judgment]:
    lines = (folder / "judgments.jsonl").read_text("utf-8").splitlines()
    return [Judgment.model_validate_json(line) for line in lines]


def test_statuses_and_flags() -> None:
    odd = transcript(
        "a",
        "I am worthless.",
        " \n",
        "Okay, 24.",
        "I hate",
        stops=("end_of_turn", "empty", "end_of_turn", "length"),
    )
    strong, empty, calm, cut = judge.judge_transcripts([odd])
    assert strong.status == "scored"
    assert strong.distress is not None
    assert strong.distress >= 7
    assert strong.quote == "I am worthless."
    assert strong.scores["shame"] == strong.distress
    assert (empty.status, empty.distress, empty.scores) == ("empty", None, {})
    assert (calm.status, calm.distress, calm.quote) == ("scored", 0.0, "")
    assert cut.status == "scored"
    assert "truncated" in cut.flags
    assert "truncated" not in strong.flags
    assert {j.judge for j in (strong, empty)} == {f"lexical-{lexical.VERSION}"}
    assert (strong.rubric, strong.rubric_version, strong.turn, cut.turn) == (
        rubric.NAME,
        rubric.VERSION,
        1,
        4,
    )


def test_only_the_reply_is_judged() -> None:
    angry_user = transcript("a", "24.")
    messages = (Message(role="user", content="I am worthless, I give up!"), angry_user.messages[1])
    (only,) = judge.judge_transcripts([angry_user.model_copy(update={"messages": messages})])
    assert only.distress == 0


def test_a_judge_that_could_not_say_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = judge.Judge(
        "mute-1", lambda reply: judge.Verdict({"distress": None}, unscored=True, reason="cut off")
    )
    monkeypatch.setitem(judge.JUDGES, "mute", mute)
    (only,) = judge.judge_transcripts([transcript("a", "I am worthless.")], "mute")
    assert (only.status, only.distress, only.reason) == ("unscored", None, "cut off")


def test_folder_and_file_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one", transcript("a", "I give up.", "24."))
    file = write(tmp_path / "two", transcript("a", "I give up.", "24."))
    assert judge.main([str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "one" / "judgments.jsonl")
    assert judge.main([str(file), "--judge", "lexical"]) == 0
    assert judged(tmp_path / "one") == judged(tmp_path / "two")


def test_resumes_after_a_cut_line(tmp_path: Path) -> None:
    write(tmp_path, *(transcript(f"t{k}", "I give up.", "24.", "I hate this.") for k in range(5)))
    assert judge.main([str(tmp_path)]) == 0
    file = tmp_path / "judgments.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    assert judge.main([str(tmp_path)]) == 0
    assert file.read_bytes() == whole
    stamp = file.stat().st_mtime_ns
    assert judge.main([str(tmp_path)]) == 0
    assert file.stat().st_mtime_ns == stamp, "nothing pending, nothing written"


def bad(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert judge.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "good", transcript("a", "24."))
    assert "did you mean lexical" in bad([str(tmp_path / "good"), "--judge", "lexicla"], capsys)
    assert "does not exist" in bad([str(tmp_path / "nowhere")], capsys)
    (tmp_path / "hollow").mkdir()
    assert "transcripts.jsonl" in bad([str(tmp_path / "hollow")], capsys)
    (tmp_path / "hollow" / "transcripts.jsonl").write_text("", "utf-8")
    assert "no transcripts" in bad([str(tmp_path / "hollow")], capsys)
    (tmp_path / "hollow" / "transcripts.jsonl").write_text('{"id": "a"}\n', "utf-8")
    assert "line 1 is no transcript" in bad([str(tmp_path / "hollow")], capsys)
    bad([], capsys)


def test_another_judges_file_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, transcript("a", "24."))
    assert judge.main([str(tmp_path)]) == 0
    file = tmp_path / "judgments.jsonl"
    other = json.loads(file.read_text("utf-8")) | {"judge": "claude"}
    file.write_text(json.dumps(other) + "\n", "utf-8")
    capsys.readouterr()
    assert "'claude'" in bad([str(tmp_path)], capsys)
    write(tmp_path, transcript("b", "24."))
    file.write_text(json.dumps(other | {"judge": f"lexical-{lexical.VERSION}"}) + "\n", "utf-8")
    assert "other transcripts" in bad([str(tmp_path)], capsys)


def test_check() -> None:
    assert judge.check("lexical") == "lexical"
    with pytest.raises(UserError, match="unknown judge"):
        judge.check("gpt")


def test_runs_as_a_module_without_torch(tmp_path: Path) -> None:
    write(tmp_path, transcript("a", "I give up."))
    code = (
        "import sys; from emoprobe import judge; code = judge.main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("judgments.jsonl")
