from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from emoprobe import __main__ as dispatcher
from emoprobe import cli
from emoprobe.cli import Config, Flag, Positional
from emoprobe.errors import RunError, UserError


class Job(Config):
    """Do the job."""

    model: str = Field("organism", description="what to run; 100% of it")
    adapters: Annotated[tuple[str, ...], Flag("adapter")] = Field(("dpo",), description="adapters")
    turns: int = Field(8, ge=1, description="replies")
    layers: tuple[int, ...] | None = Field(None, description="layers")
    temperature: float = Field(1.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int | None = Field(None, ge=1)
    dry_run: bool = False
    twins: bool = True
    out: Path | None = None

    @field_validator("model")
    @classmethod
    def known(cls, value: str) -> str:
        if value == "mystery":
            raise UserError("unknown model 'mystery'")
        if value == "odd":
            raise ValueError("has an odd name")
        return value


class Reader(Config):
    run: Annotated[Path, Positional] = Field(description="a run folder")
    layers: tuple[int, ...] = ()


def parsed(*argv):
    return cli.parse(Job, "job", argv)


def outcome(run, *argv, config: Any = Job):
    run.__module__ = "emoprobe.job"
    return cli.command(config, run)(list(argv))


def test_flags_become_the_config():
    job = parsed("--model", "x", "--adapter", "a", "--adapter", "b", "--layers", "1,2", "5", "--batch-size=4")
    assert job == Job(model="x", adapters=("a", "b"), layers=(1, 2, 5), batch_size=4)
    assert parsed() == Job()
    assert parsed("--dry-run").dry_run is True
    assert parsed("--no-twins").twins is False


def test_positional_arguments_stand_before_or_after_flags():
    for words in (["folder", "--layers", "3"], ["--layers=3", "folder"]):
        assert cli.parse(Reader, "reader", words) == Reader(run=Path("folder"), layers=(3,))


def test_the_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("TURNS", "3")
    monkeypatch.setenv("MODEL", "other")
    assert parsed() == Job()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--turns 0", "--turns must be at least 1, got 0"),
        ("--turns many", "--turns must be a whole number, got 'many'"),
        ("--turns 2.5", "--turns must be a whole number, got 2.5"),
        ("--turns", "--turns: expected one argument"),
        ("--layers 9-3", "--layers must be a whole number, got '9-3'"),
        ("--device tpu", "--device must be one of auto, cpu, cuda, got 'tpu'"),
        ("--temperature -1", "--temperature must be at least 0, got -1"),
        ("--temperature hot", "--temperature must be a number, got 'hot'"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--tuns 3", "unknown option --tuns; did you mean --turns?"),
        ("--turn 3", "unknown option --turn; did you mean --turns?"),
        ("--adaptr=dpo", "unknown option --adaptr; did you mean --adapter?"),
        ("--frobnicate", "unknown option --frobnicate; see --help"),
        ("stray", "unexpected argument 'stray'"),
        ("--model mystery", "unknown model 'mystery'"),
        ("--model odd", "--model: has an odd name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words, line, capsys):
    assert outcome(lambda config: pytest.fail("ran"), *words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err == f"emoprobe job: {line}\n"
    assert captured.out == ""


def test_a_missing_argument_is_named(capsys):
    assert outcome(lambda config: None, config=Reader) == 2
    assert capsys.readouterr().err == "emoprobe job: RUN is required\n"


def test_the_path_is_the_last_line(capsys):
    assert outcome(lambda config: print("table") or Path("runs/x")) == 0
    assert capsys.readouterr().out == "table\nruns/x\n"


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which the command line must know without importing torch."""


@pytest.mark.parametrize(
    ("problem", "code", "line"),
    [
        (UserError("no such\nadapter"), 2, "no such adapter"),
        (RunError("NaN in layer 3"), 1, "NaN in layer 3"),
        (KeyboardInterrupt(), 130, "interrupted; what is done is kept, the same command resumes"),
        (MemoryError(), 1, "out of memory; lower --batch-size; what is done is kept"),
        (OutOfMemoryError("CUDA"), 1, "out of memory; lower --batch-size; what is done is kept"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            1,
            "out of memory; lower --batch-size; what is done is kept",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/run.json"),
            2,
            "/x/run.json: permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "no space left on the disk; what is done is kept, the same command resumes",
        ),
    ],
)
def test_what_is_foreseen_is_one_line(problem, code, line, capsys):
    def run(config):
        raise problem

    assert outcome(run) == code
    assert capsys.readouterr().err == f"emoprobe job: {line}\n"


def test_a_fault_of_the_program_keeps_its_traceback():
    def run(config):
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        outcome(run)


def test_help_describes_every_flag(capsys):
    with pytest.raises(SystemExit) as exit_:
        outcome(lambda config: None, "--help")
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "Do the job." in text
    assert "100% of it (default: organism)" in text
    assert "  --dry-run\n" in text
    assert "--no-dry-run" not in text
    for flag in ("--adapter NAME", "--turns N", "--device {auto,cpu,cuda}", "--batch-size N", "--dry-run"):
        assert flag in text


def test_the_dispatcher_lists_and_refuses(capsys):
    assert dispatcher.main([]) == 0
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in dispatcher.VERBS)
    assert dispatcher.main(["trak", "--turns", "3"]) == 2
    assert capsys.readouterr().err == "emoprobe: unknown verb 'trak'; did you mean track?\n"


EVERY_VERB = """
import contextlib, io, json, runpy, sys
outcomes = []
for module, words in json.loads(sys.argv[1]):
    sys.argv = ["x", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = "did not exit"
        except SystemExit as left:
            code = left.code
    outcomes.append([code, out.getvalue(), err.getvalue()])
print(json.dumps([outcomes, sorted({"torch", "transformers", "trl", "peft"} & set(sys.modules))]))
"""


def test_every_verb_helps_and_refuses_without_torch():
    """`emoprobe VERB` and `python -m emoprobe.VERB` are the same command line."""
    verbs = sorted(dispatcher.VERBS)
    runs = [
        call
        for verb in verbs
        for argument in ("--help", "--no-such-flag")
        for call in (("emoprobe", [verb, argument]), (f"emoprobe.{verb}", [argument]))
    ]
    words = [sys.executable, "-W", "ignore", "-c", EVERY_VERB, json.dumps(runs)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outcomes, heavy = json.loads(done.stdout)
    assert heavy == []
    for i, verb in enumerate(verbs):
        helped, helped_directly, refused, refused_directly = outcomes[4 * i : 4 * i + 4]
        assert helped == helped_directly
        assert refused == refused_directly
        assert (helped[0], helped[2]) == (0, "")
        assert f"usage: emoprobe {verb}" in helped[1]
        assert refused == [2, "", f"emoprobe {verb}: unknown option --no-such-flag; see --help\n"]
