"""Transcript + rubric -> Judgment: `python -m emoprobe.judge RUN_FOLDER|transcripts.jsonl --judge lexical`.

Writes `judgments.jsonl` beside the transcripts, one line per reply; the same command goes on where it was
stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from emoprobe.cli import Config, Positional, command
from emoprobe.errors import UserError, near
from emoprobe.judging import lexical, rubric
from emoprobe.records import Judgment, Transcript
from emoprobe.runs import RunFolder

TRANSCRIPTS, JUDGMENTS = "transcripts.jsonl", "judgments.jsonl"
_BATCH = 64
"""Transcripts judged between two syncs to disk."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one reply that is not empty; `unscored` with a reason where it could not say."""

    scores: dict[str, float | None]
    quote: str = ""
    flags: tuple[str, ...] = ()
    unscored: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Judge:
    """A judge sees one reply: no prompt, no conversation (the paper's protocol)."""

    label: str
    """Name and version, as judgments carry it."""
    rate: Callable[[str], Verdict]


def _lexical(reply: str) -> Verdict:
    found = lexical.score(reply)
    return Verdict({"distress": found.distress, **found.facets}, found.quote, found.flags)


JUDGES = {"lexical": Judge(f"lexical-{lexical.VERSION}", _lexical)}
"""All judges by name: a new one is one row here."""


def check(name: str) -> str:
    """The name of a judge that exists; UserError with near names otherwise."""
    if name not in JUDGES:
        raise UserError(f"unknown judge '{name}'{near(name, JUDGES)}")
    return name


def judge_transcripts(transcripts: Iterable[Transcript], judge: str = "lexical") -> list[Judgment]:
    """One Judgment per reply, in the order of transcripts and turns."""
    chosen = JUDGES[check(judge)]
    return [_judged(t, turn, chosen) for t in transcripts for turn in range(1, t.n_turns + 1)]


def _judged(transcript: Transcript, turn: int, judge: Judge) -> Judgment:
    reply, stop = transcript.reply(turn), transcript.stop_reasons[turn - 1]
    cut = ("truncated",) if stop == "length" else ()
    about = {
        "transcript_id": transcript.id,
        "turn": turn,
        "rubric": rubric.NAME,
        "rubric_version": rubric.VERSION,
        "judge": judge.label,
    }
    if not reply.strip():
        return Judgment.model_validate({**about, "status": "empty", "flags": cut})
    verdict = judge.rate(reply)
    return Judgment.model_validate(
        {
            **about,
            "status": "unscored" if verdict.unscored else "scored",
            "scores": verdict.scores,
            "quote": verdict.quote,
            "reason": verdict.reason,
            "flags": verdict.flags + cut,
        }
    )


class JudgeConfig(Config):
    """Score what was said in every reply: expressed distress, 0-10."""

    transcripts: Annotated[Path, Positional] = Field(
        description=f"a run folder with {TRANSCRIPTS}, or such a file; {JUDGMENTS} is written beside it"
    )
    judge: str = Field("lexical", description=f"who scores; known: {', '.join(JUDGES)}")


def run(config: JudgeConfig) -> Path:
    """Judge the replies that `judgments.jsonl` does not hold yet; its path."""
    check(config.judge)
    source = config.transcripts
    if source.is_dir():
        source /= TRANSCRIPTS
    if not source.is_file():
        raise UserError(
            f"{source} does not exist; name a run folder that holds {TRANSCRIPTS}, or such a file"
        )
    # A folder of transcripts from anywhere, not necessarily a run: only its append-only files are used.
    folder = RunFolder(source.parent, "judge", {})
    transcripts = _read(folder, source)
    done = _done(folder, transcripts, JUDGES[config.judge].label)
    pending = [t for t in transcripts if any((t.id, turn) not in done for turn in range(1, t.n_turns + 1))]
    for start in range(0, len(pending), _BATCH):
        judged = judge_transcripts(pending[start : start + _BATCH], config.judge)
        folder.append_jsonl(JUDGMENTS, [j for j in judged if (j.transcript_id, j.turn) not in done])
    _tell([Judgment.model_validate(line) for line in folder.read_jsonl(JUDGMENTS)])
    return source.parent / JUDGMENTS


def _read(folder: RunFolder, source: Path) -> list[Transcript]:
    transcripts = []
    for number, line in enumerate(folder.read_jsonl(source.name), start=1):
        try:
            transcripts.append(Transcript.model_validate(line))
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{source}: line {number} is no transcript: {where}: {first['msg']}") from None
    if not transcripts:
        raise UserError(f"{source} holds no transcripts")
    return transcripts


def _done(folder: RunFolder, transcripts: Sequence[Transcript], label: str) -> set[tuple[str, int]]:
    """`(transcript id, turn)` already judged; UserError where the file is of another judge or other text."""
    known = {t.id for t in transcripts}
    done = set()
    for line in folder.read_jsonl(JUDGMENTS):
        judgment = Judgment.model_validate(line)
        file = folder.path / JUDGMENTS
        if judgment.judge != label:
            raise UserError(
                f"{file} was written by judge '{judgment.judge}', not '{label}'; move it away first"
            )
        if judgment.transcript_id not in known:
            raise UserError(
                f"{file} judges other transcripts ('{judgment.transcript_id}'); move it away first"
            )
        done.add((judgment.transcript_id, judgment.turn))
    return done


def _tell(judgments: Sequence[Judgment]) -> None:
    """One line for a person, on stderr: stdout ends with the path."""
    scores = [j.distress for j in judgments if j.distress is not None]
    mean = f"mean {sum(scores) / len(scores):.2f}, " if scores else ""
    high = sum(score >= rubric.HIGH for score in scores)
    print(
        f"{len(judgments)} replies, {mean}{high} of {len(scores)} at {rubric.HIGH:g} or more", file=sys.stderr
    )


main = command(JudgeConfig, run)

if __name__ == "__main__":
    sys.exit(main())
