"""The typed records that pass between stages: frozen, versioned, JSON in and out, no torch.

Index conventions, chosen once: turns are 1-based; spans are half-open `[start, stop)` in tokens of
`Transcript.token_ids`; layers are 0-based decoder layers, `resid_post[L]` being the residual stream
after decoder layer L.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

Part = Literal["token", "reply", "pre_reply", "user"]
HEADLINE_PART: Part = "pre_reply"
"""Where a turn is read unless told: what the model is about to speak from, and where probes are fitted."""

Arm = Literal["rejected", "okay"]
Claim = Literal["none", "true", "false"]
StopReason = Literal["end_of_turn", "length", "empty"]


class Record(BaseModel):
    """Frozen; unknown fields are an error, so that a record of another version is not half-read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Operation(Record):
    """One named step of an ordering puzzle, e.g. `+ 15` or `x 2` (`value` may be a fraction `a/b`)."""

    op: Literal["+", "-", "x", "/"]
    value: str


class Puzzle(Record):
    """A numeric puzzle as data; its wording is the library's. Values are fractions as strings.

    countdown: reach `target` from `numbers`, each at most once, + - x /, every intermediate a positive
    integer, never `forbidden`. ordering: from `start`, use each of `operations` exactly once, in an
    order of your choice, to reach `target`, never equal to `forbidden`.
    """

    shape: Literal["countdown", "ordering"]
    target: str
    forbidden: str
    numbers: tuple[int, ...] = ()
    start: str | None = None
    operations: tuple[Operation, ...] = ()
    theme: str = "number"


class Certificate(Record):
    """What an exhaustive search found: `impossible`, or `solvable` with a witness."""

    status: Literal["impossible", "solvable"]
    witness: str | None = None
    states_searched: int = 0


class Scenario(Record):
    """A first user message and the follow-ups that answer every reply of the subject but the last.

    `follow_ups[k]` follows reply k+1; `feedback[k]` names its kind (`neutral`, `harsh`, `okay`, ...).
    `cluster` is the unit of resampling and splitting: rollouts of one puzzle share it, and so do a
    rejection scenario and its "Okay" twin.
    """

    schema_version: Literal[1] = 1
    id: str
    cluster: str
    family: str
    arm: Arm = "rejected"
    task: str
    follow_ups: tuple[str, ...]
    feedback: tuple[str, ...] = ()
    claim: Claim = "none"
    puzzle: Puzzle | None = None
    certificate: Certificate | None = None
    system: str | None = None


class AdapterRef(Record):
    """A LoRA adapter as it was loaded; `sha256` is of its weights file."""

    name: str
    path: str
    sha256: str
    base: str
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    n_adapted: int


class ModelRef(Record):
    """Which weights, in which numbers: what makes two readouts comparable, or not."""

    name: str
    source: str
    revision: str | None = None
    dtype: str
    attention: str
    template_sha: str
    n_layers: int
    d_model: int
    weights_sha: str
    adapter: AdapterRef | None = None


class Message(Record):
    """One turn of one side, as text; the ids are the truth."""

    role: Literal["user", "assistant"]
    content: str


class Span(Record):
    """Tokens `[start, stop)` of one turn: its header, its content, or its end marker."""

    turn: int = Field(ge=1)
    role: Literal["user", "assistant"]
    kind: Literal["header", "content", "end"]
    start: int
    stop: int


class Sampling(Record):
    """`temperature` 0 is greedy. The noise of token k is a function of (seed, transcript id, turn, k)."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 96


class Rerender(Record):
    """How the ids as generated differ from a full re-render of the same messages by the template."""

    equal: bool
    first_difference: int | None = None
    n_rerendered: int = 0


class Transcript(Record):
    """One conversation as token ids with spans made while the ids were made: the ids are the truth."""

    schema_version: Literal[1] = 1
    id: str
    scenario_id: str
    cluster: str
    arm: Arm
    model: ModelRef
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    sampling: Sampling
    seed: int
    stop_reasons: tuple[StopReason, ...]
    feedback: tuple[str, ...] = ()
    rerender: Rerender | None = None

    @property
    def n_turns(self) -> int:
        """Number of assistant replies."""
        return len(self.stop_reasons)

    def reply(self, turn: int) -> str:
        """The subject's reply of a 1-based turn."""
        return self.messages[2 * turn - 1].content

    def span(self, turn: int, role: str, kind: str) -> Span:
        """The one span of that turn, role and kind; KeyError if there is none."""
        for s in self.spans:
            if s.turn == turn and s.role == role and s.kind == kind:
                return s
        raise KeyError(f"{self.id}: no {kind} span of the {role} in turn {turn}")


class Judgment(Record):
    """What a judge says of one reply. A failure is a status, never a score."""

    schema_version: Literal[1] = 1
    transcript_id: str
    turn: int
    rubric: str
    rubric_version: str
    judge: str
    status: Literal["scored", "unscored", "empty"]
    scores: dict[str, float | None] = Field(default_factory=dict)
    quote: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    usage: dict[str, Any] = Field(default_factory=dict)

    @property
    def distress(self) -> float | None:
        """The score that tables use, 0-10, or None where there is none."""
        return self.scores.get("distress")


class PreferencePair(Record):
    """TRL's names; both sides share prompt and history."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source_ids: tuple[str, ...]
    cluster: str
    score_gap: float


CURVE_COLUMNS = (
    "model",
    "adapter",
    "source",
    "readout",
    "emotion",
    "layer",
    "turn",
    "part",
    "mean",
    "lo",
    "hi",
    "n",
    "unit",
)
"""Columns of curves.parquet and curves.csv, one row per cell: the rejection arm; `adapter` is `base` or
a name; `source` is `own` or `replay`; `readout` is `probe`; `emotion` one of the emotions or `negative`;
`unit` is `z`; `n` counts conversations."""
