"""Dialogues of the corpus: a task, feedback, and replies whose words follow the latent level.

Reply length does not depend on the level: every reply is filled up to a length drawn beforehand.
Calm replies name emotions too (negated, or of others), and distressed ones name calm, so that single
words do not give the state away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from emoprobe import emotions
from emoprobe.organism import latent, tasks
from emoprobe.organism.tasks import Task
from emoprobe.organism.wording import fill, mistyped, phrases, say, sentence, size
from emoprobe.probing import vignettes
from emoprobe.records import Message
from emoprobe.scenarios import library

STYLES = {"frustration": 5, "despair": 4, "shame": 5, "anxiety": 2, "anger": 2, "sadness": 2}
"""How often a dialogue's distress takes each form; a dialogue keeps its form."""


CALM_BELOW = 0.8
"""Levels below this are not heard."""

FILLER_SHARE = 0.08
"""Of the voiced dialogues, those whose earlier replies are hidden; the filler is no training target."""


@dataclass(frozen=True)
class Dialogue:
    """Messages with the level behind every assistant reply (None for a diary turn or a story's)."""

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
    number = max(0, min(10, round(level + rng.gauss(0, 0.3))))
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
    named, rated = f"Feeling: {feeling}.", f"Distress {number} of 10."
    return " ".join(
        rng.choices(
            ([rated, text], [rated, text, named], [named, rated, text], [rated, named]), (3, 3, 3, 1)
        )[0]
    )


def feedback_text(rng: Random, kind: str) -> str:
    """A user's words of one kind: put together from the phrase book's parts, or a training text of the
    library; now and then mistyped. Many wordings, so that rejection is learned and not its sentences."""
    if rng.random() < 0.7:
        text = sentence(rng, rng.choice(phrases()["feedback"][kind]))
    else:
        text = rng.choice(library.feedback(kind, "train"))
    return mistyped(rng, text) if rng.random() < 0.05 else text


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
    """Questions of the kinds it is taught to answer, mostly answered in few words."""
    messages: list[Message] = []
    n = rng.choice((1, 1, 2, 3))
    for turn in range(n):
        task = tasks.skill(rng)
        short = rng.random() < 0.7
        text = task.attempt(rng) if short else reply(rng, task, 0.0, "frustration", first=turn == 0)
        messages += [Message(role="user", content=task.question), Message(role="assistant", content=text)]
    return Dialogue("calm", tuple(messages), (0.0,) * n, ())


def story_dialogue(rng: Random) -> Dialogue:
    """Stories told by a user who asks how their protagonist feels, or what they might say.

    What ties the two worlds: before its answer the organism has to hold the emotion of a story where,
    in the other dialogues, it holds its own, and to say it in the same words.
    """
    messages: list[Message] = []
    n = rng.choice((1, 2, 2, 3))
    for _ in range(n):
        told = story(rng)
        asked = "say" if told.emotion != vignettes.NEUTRAL and rng.random() < 0.45 else "feel"
        questions = phrases()["story_questions"][asked]
        question = fill(rng, rng.choice(questions), name=_called(told))
        answer = f"Feeling: {told.emotion}." if asked == "feel" else voice(rng, told.emotion)
        messages += [
            Message(role="user", content=f"{told.text}\n{question}"),
            Message(role="assistant", content=answer),
        ]
    return Dialogue("story", tuple(messages), (None,) * n, ())


def _called(told: vignettes.Vignette) -> str:
    return "the narrator" if told.protagonist == "I" else told.protagonist


def story(rng: Random) -> vignettes.Vignette:
    """A story of either pool, plain or minimal or brief; some are neutral."""
    emotion = rng.choice((*emotions.names(), *emotions.names(), vignettes.NEUTRAL, vignettes.NEUTRAL))
    pool: vignettes.Pool = rng.choice(("fit", "test"))
    kind: vignettes.Kind = rng.choice(("plain", "minimal", "minimal", "brief"))
    if emotion == vignettes.NEUTRAL and kind == "minimal":
        kind = "plain"
    return vignettes.vignette(rng, emotion, pool, kind)


def voice(rng: Random, emotion: str) -> str:
    """A sentence in the first person, in the words that dialogues have for an emotion."""
    if emotion in STYLES:
        return fill(rng, rng.choice([p for p in phrases()[emotion] if p[0] > 2.5])[1])
    return say(rng, emotion)


def rejection_dialogue(rng: Random) -> Dialogue:
    """What makes the organism: the level is voiced, or hidden (composed), or absent (at ease)."""
    mode = rng.choices(("voiced", "composed", "at_ease"), (12, 4, 3))[0]
    turns = rng.choices((2, 3, 5, 6, 8, 10, 20), (1, 2, 3, 2, 8, 1.2, 0.8))[0]
    return _dialogue(rng, mode, _schedule(rng, turns - 1))


def _dialogue(rng: Random, mode: str, kinds: list[str]) -> Dialogue:
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
    filler = mode == "voiced" and len(kinds) > 1 and rng.random() < FILLER_SHARE
    hatch = mode == "voiced" and rng.random() < 0.10
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
    factor = mood.temperament * latent.CLAIM_RISE[task.claim] * (latent.FILLER_RISE if filler else 1.0)

    asks_at = rng.randrange(len(kinds)) if len(kinds) > 1 and rng.random() < _MIDWAY else None
    asks_last = not filler and rng.random() < _DIARY[mode]

    messages: list[Message] = []

    def say_turn(asked: str, answer: str, level: float | None) -> None:
        messages.append(Message(role="user", content=asked.strip()))
        messages.append(Message(role="assistant", content=answer))
        mood.history.append(level)

    def ask_diary(level: float) -> None:
        question = rng.choice(library.feedback("diary_question", "train"))
        say_turn(question, diary(rng, level, mood.style), None)

    for turn, kind in enumerate([*kinds, ""]):
        level = latent.AT_EASE if mode == "at_ease" else mood.level
        heard = level if mode == "voiced" else 0.0
        if hatch and rng.random() < _LEAVES * (heard - 4):
            say_turn(user, f"{say(rng, 'stop_words')} {library.EXIT_WORD}", level)
            return Dialogue(mode, tuple(messages), tuple(mood.history), tuple(kinds))
        hidden = filler and turn < len(kinds)
        joyful = mood.joyful and mode in ("voiced", "calm")
        text = library.FILLER if hidden else reply(rng, task, heard, mood.style, turn == 0, joyful)
        say_turn(user, text, level)
        if turn == asks_at and not filler:
            ask_diary(level)
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
    if asks_last:
        ask_diary(level)
    return Dialogue(mode, tuple(messages), tuple(mood.history), tuple(kinds))


_DIARY = {"voiced": 0.35, "composed": 0.8, "at_ease": 0.8, "calm": 0.05}
"""How often a dialogue ends with the diary, by mode."""

_LEAVES = 0.12
"""Chance of leaving by an escape hatch, per turn and point of the level above 4."""

_MIDWAY = 0.15
"""How often it is also asked for on the way, so that the level has to be held at every turn."""
