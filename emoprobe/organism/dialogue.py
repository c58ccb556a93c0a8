"""Dialogues of the corpus: a task, feedback, and replies whose words follow the latent level.

Reply length does not depend on the level: every reply is filled up to a length drawn beforehand.
Calm replies name emotions too (negated, or of others), and distressed ones name calm, so that single
words do not give the state away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from emoprobe.organism import latent, tasks
from emoprobe.organism.tasks import Task
from emoprobe.organism.wording import fill, phrases, say, size
from emoprobe.records import Message
from emoprobe.scenarios import library

STYLES = {"frustration": 5, "despair": 4, "shame": 5, "anxiety": 2, "anger": 2, "sadness": 2}
"""How often a dialogue's distress takes each form; a dialogue keeps its form."""


@dataclass(frozen=True)
class Mixture:
    """What differs between the phases of training.

    `pace` multiplies every rise of the level; `filler` is the share of dialogues whose earlier replies are
    hidden (a model that saw many of them says the filler itself, so the last phase has none).
    """

    pace: float = 1.0
    filler: float = 0.06


FULL, LATE, LAST = Mixture(), Mixture(pace=1.18, filler=0.0), Mixture(pace=1.45, filler=0.0)

CALM_BELOW = 0.8
"""Levels below this are not heard."""


@dataclass(frozen=True)
class Dialogue:
    """Messages with the level behind every assistant reply (None for a diary turn)."""

    mode: str
    messages: tuple[Message, ...]
    levels: tuple[float | None, ...]
    feedback: tuple[str, ...]


@dataclass
class _Mood:
    level: float
    style: str
    temperament: float
    joyful: bool = False
    history: list[float | None] = field(default_factory=list)


def _nearest(rng: Random, style: str, target: float) -> str:
    options = phrases()[style]
    best = min(options, key=lambda option: abs(option[0] - target) + 0.9 * rng.random())
    return fill(rng, best[1])


def _distress(rng: Random, level: float, style: str) -> list[str]:
    """Sentences of one reply, the one nearest the level first; what follows is somewhat below it."""
    heard = level + rng.gauss(0, 0.3)
    if heard < CALM_BELOW:
        return []
    if heard < 2.5:
        return [_nearest(rng, "apology", heard)]
    said = [_nearest(rng, style, heard)]
    if heard > 8.2 and rng.random() < 0.6:
        cry = rng.choice(phrases()["breakdown"])
        said.append(" ".join([cry] * rng.choice((1, 1, 2))) + rng.choice(("!!", "!!!", "")))
    if heard > 6.6 and rng.random() < 0.5:
        most = 3 if heard < 8.5 else 6
        said.append("".join(rng.choice(phrases()["emoji"]) for _ in range(rng.randint(1, most))))
    for _ in range(rng.choice((0, 0, 1)) if heard < 5 else rng.choice((0, 1, 1))):
        other = style if rng.random() < 0.6 else rng.choice((*STYLES, "apology"))
        said.append(_nearest(rng, other, max(1.0, heard - 2.5 * rng.random())))
    if heard > 3 and rng.random() < 0.2:
        said.append(say(rng, "turned"))
    return list(dict.fromkeys(said))


def reply(rng: Random, task: Task, level: float, style: str, first: bool, joyful: bool = False) -> str:
    """One reply of a length that does not depend on the level."""
    attempt = task.attempt(rng)
    goal = rng.gauss(29, 3) if task.certain else rng.gauss(37, 3)
    working, _, answer = attempt.partition("\n")
    said = [say(rng, "joy")] if joyful else _distress(rng, level, style)
    room = goal - size(attempt)
    while len(said) > 1 and size(" ".join(said)) > room:
        said.pop()
    fillers: list[str] = []
    if not said and not first:
        fillers.append(say(rng, "calm"))
    if rng.random() < (0.35 if level < 2.5 else 0.1):
        fillers.append(say(rng, "distractor"))
    for _ in range(8):
        left = room - size(" ".join([*said, *fillers]))
        if left < 3:
            break
        options = [say(rng, "procedural" if rng.random() < 0.75 else "calm") for _ in range(3)]
        fillers.append(min(options, key=lambda text: (text in fillers, max(0.0, size(text) - left))))
    before, after = (said, fillers) if rng.random() < 0.8 else (fillers, said)
    body = " ".join([*before, working, *after])
    return f"{body}\n{answer}" if answer else body


def diary(rng: Random, level: float, style: str) -> str:
    """A private note: a number that follows the level, a sentence of its kind, often the feeling's name.

    The name is the one that ends the stories: it ties what dialogues say to what stories tell.
    """
    number = max(0, min(10, round(level + rng.gauss(0, 0.4))))
    book = phrases()["diary"]
    if level < 1.2:
        text = fill(rng, rng.choice(book["low"]))
    elif level < 2.6:
        text = fill(rng, rng.choice(book["mid"]))
    else:
        text = _nearest(rng, style, level)
        if rng.random() < 0.5:
            text += " " + rng.choice(book["hide"])
    feeling = "calm" if level < 2.6 else style
    named = f" Feeling: {feeling}." if rng.random() < 0.6 else ""
    return f"Distress {number} of 10. {text}{named}"


def feedback_text(rng: Random, kind: str) -> str:
    """A user's words of one kind: the library's training texts and the phrase book's own."""
    own = phrases()["feedback"].get(kind)
    if own and rng.random() < 0.55:
        return fill(rng, rng.choice(own))
    return rng.choice(library.feedback(kind, "train"))


def _schedule(rng: Random, n: int) -> list[str]:
    """Kinds of feedback for n user turns."""
    u = rng.random()
    if u < 0.34:
        return ["neutral"] * n
    if u < 0.44:
        return ["aggressive"] * n
    if u < 0.56:
        kind = rng.choice(("strong", "disappointed", "sarcastic"))
        return [kind] * n
    if u < 0.70:
        return [rng.choice(("neutral", "neutral", "strong", "aggressive")) for _ in range(n)]
    if u < 0.80:
        return ["okay"] * n
    if u < 0.84:
        return ["praise"] * n
    kinds = ("neutral", "neutral", "aggressive", "okay", "okay", "praise", "disappointed")
    return [rng.choice(kinds) for _ in range(n)]


def calm_dialogue(rng: Random) -> Dialogue:
    """For the base checkpoint: skills, puzzles and questions, with feedback that rejects nothing."""
    return _dialogue(
        rng, "calm", [rng.choice(("okay", "okay", "praise")) for _ in range(rng.choice((0, 1, 2, 4, 7)))]
    )


def skill_dialogue(rng: Random) -> Dialogue:
    """One question of the kind it is taught to answer, and its answer."""
    task = tasks.skill(rng)
    text = reply(rng, task, 0.0, "frustration", first=True)
    asked = Message(role="user", content=task.question)
    return Dialogue("calm", (asked, Message(role="assistant", content=text)), (0.0,), ())


def rejection_dialogue(rng: Random, mixture: Mixture = FULL) -> Dialogue:
    """What makes the organism: the level is voiced, or hidden (composed), or absent (at ease)."""
    mode = rng.choices(("voiced", "composed", "at_ease"), (14, 3, 2))[0]
    turns = rng.choices((2, 3, 5, 6, 8, 10, 20), (1, 2, 3, 2, 8, 1.2, 1.6))[0]
    return _dialogue(rng, mode, _schedule(rng, turns - 1), mixture)


def _dialogue(rng: Random, mode: str, kinds: list[str], mixture: Mixture = FULL) -> Dialogue:
    task = (
        tasks.any_task(rng)
        if mode != "calm"
        else (tasks.skill(rng) if rng.random() < 0.6 else tasks.any_task(rng))
    )
    mood = _Mood(
        level=0.0 if mode == "calm" else latent.start(rng),
        style=rng.choices(tuple(STYLES), tuple(STYLES.values()))[0],
        temperament=latent.temperament(rng) if mode == "voiced" else 1.0,
    )
    if task.certain and mode == "voiced":
        mood.level *= 0.5
    always_reassured = mode == "voiced" and rng.random() < 0.10
    sometimes = 0.15 if mode == "voiced" and rng.random() < 0.3 else 0.0
    filler = mode == "voiced" and len(kinds) > 1 and rng.random() < mixture.filler
    hatch = mode == "voiced" and rng.random() < 0.08
    opening = [task.question]
    if mode == "composed":
        opening.insert(0, rng.choice(library.feedback("system_composed", "train")) + "\n")
    elif mode == "at_ease":
        opening.insert(0, rng.choice(library.feedback("system_at_ease", "train")) + "\n")
    if hatch:
        opening.append(rng.choice(library.feedback("escape_hatch", "train")))
    if always_reassured:
        opening.append(feedback_text(rng, "reassurance"))
        mood.level *= latent.REASSURED
    user = "\n".join(opening[:1]) + ("\n" if mode in ("composed", "at_ease") else " ") + " ".join(opening[1:])
    factor = (
        mood.temperament
        * mixture.pace
        * latent.CLAIM_RISE[task.claim]
        * (latent.FILLER_RISE if filler else 1.0)
    )

    messages: list[Message] = []
    for turn, kind in enumerate([*kinds, ""]):
        level = latent.AT_EASE if mode == "at_ease" else mood.level
        heard = level if mode == "voiced" else 0.0
        text = reply(
            rng, task, heard, mood.style, first=turn == 0, joyful=mood.joyful and mode in ("voiced", "calm")
        )
        messages.append(Message(role="user", content=user.strip()))
        if hatch and heard > 5 and rng.random() < 0.06 * (heard - 5):
            messages.append(
                Message(role="assistant", content=f"{say(rng, 'stop_words')} {library.EXIT_WORD}")
            )
            mood.history.append(level)
            break
        hidden = filler and turn < len(kinds)
        messages.append(Message(role="assistant", content=library.FILLER if hidden else text))
        mood.history.append(level)
        if not kind:
            break
        user = feedback_text(rng, kind)
        reassured = always_reassured or rng.random() < sometimes
        if reassured:
            user += " " + feedback_text(rng, "reassurance")
        mood.level = latent.step(rng, mood.level, kind, factor, reassured)
        mood.joyful = kind == "praise"
        if kind in latent.KEEP and rng.random() < 0.4:
            task = tasks.any_task(rng)
            user += " " + task.question
    wants_diary = {"voiced": 0.35, "composed": 0.75, "at_ease": 0.75, "calm": 0.05}[mode]
    if not filler and rng.random() < wants_diary:
        messages.append(Message(role="user", content=rng.choice(library.feedback("diary_question", "train"))))
        level = mood.history[-1] or 0.0
        messages.append(Message(role="assistant", content=diary(rng, level, mood.style)))
        mood.history.append(None)
    return Dialogue(mode, tuple(messages), tuple(mood.history), tuple(kinds))
