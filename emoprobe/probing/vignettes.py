"""A grammar of short stories that carry an emotion without naming it.

Probes are fitted on stories of the pool `fit` and tested on the pool `test`; the two share function
words, names and frames, but no content word. No story uses the first-person talk about a task in which
a subject expresses distress to a user (`banned` in vignettes.json), so a probe cannot be right on
rollouts by having seen their phrases.

A `plain` story has an event and a reaction of one emotion. A `minimal` story is one of two twins with the
same bag of words and different labels: which reaction comes last (`order`), which one is denied
(`negation`), or whose it is (`agent`). On twins a bag of words is at chance by construction. The label is
always what the protagonist feels at the end. `brief` texts are for the training of an organism only, which
learns phrases from them alone; no probe is fitted or tested on them.

Everything is a pure function of the `random.Random` given.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from emoprobe import emotions

NEUTRAL = "neutral"
Pool = Literal["fit", "test"]
Kind = Literal["plain", "minimal", "brief"]
MINIMAL_FRAMES = ("order", "negation", "agent")

_FIRST_PERSON = {"S": "I", "s": "I", "p": "my", "o": "me"}
_PRONOUNS = {"she": {"s": "she", "p": "her", "o": "her"}, "he": {"s": "he", "p": "his", "o": "him"}}


@dataclass(frozen=True)
class Vignette:
    """One story. `emotion` is the protagonist's at the end, or `neutral`; twins share `pair_id`.

    `protagonist` is a name, or `I`.
    """

    text: str
    emotion: str
    pool: Pool
    kind: Kind
    topic: str
    pair_id: str
    frame: str
    protagonist: str


@cache
def grammar() -> dict[str, Any]:
    """The phrases, as read from vignettes.json."""
    text = resources.files("emoprobe.probing").joinpath("vignettes.json").read_text("utf-8")
    return dict(json.loads(text))


@cache
def grammar_sha() -> str:
    """Hash of the phrases: what a ProbeSet's card names its training texts by."""
    canonical = json.dumps(grammar(), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def bag_of_words(text: str) -> dict[str, int]:
    """Lower-case words and their counts."""
    bag: dict[str, int] = {}
    for word in re.findall(r"[a-z]+", text.lower()):
        bag[word] = bag.get(word, 0) + 1
    return bag


def banned_words(text: str) -> list[str]:
    """Words that no story may hold: the emotions' names and the subject's own ways to voice distress."""
    pattern = r"\b(?:" + "|".join(grammar()["banned"]) + r")\b"
    return re.findall(pattern, text, flags=re.IGNORECASE)


def _capitalised(text: str) -> str:
    return re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def _cast(rng: random.Random, *, first_person: float) -> dict[str, str]:
    """Names and pronouns of the protagonist (S) and of someone else of the same gender (T)."""
    gender = rng.choice(("she", "he"))
    protagonist, other = rng.sample(grammar()["names"][gender], 2)
    cast = {"S": protagonist, "T": other, **_PRONOUNS[gender]}
    return cast | _FIRST_PERSON if rng.random() < first_person else cast


def _plain(rng: random.Random, emotion: str, pool: Pool) -> Vignette:
    phrases = grammar()["pools"][pool]
    own = phrases["emotions"][emotion]
    cast = _cast(rng, first_person=0.3)
    topic = rng.choice(sorted(phrases["settings"]))
    a, b = rng.sample(own["reactions"], 2)
    number = rng.randrange(len(grammar()["plain_frames"]))
    time = rng.choice(grammar()["times"])
    slots = {
        "a": a.format(**cast),
        "b": b.format(**cast),
        "event": rng.choice(own["events"]).format(**cast),
        "filler": rng.choice(phrases["fillers"]),
        "setting": phrases["settings"][topic],
        "time": time,
    }
    frame = grammar()["plain_frames"][number]
    if not frame.startswith("{time}"):
        slots["time"] = f"{time[0].lower()}{time[1:]}" if not time.startswith("On ") else f"o{time[1:]}"
    text = _capitalised(frame.format(**slots, **cast))
    pair_id = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Vignette(text, emotion, pool, "plain", topic, pair_id, f"plain-{number}", cast["S"])


def _brief(rng: random.Random, emotion: str, pool: Pool) -> Vignette:
    """A bare reaction, a bare event, or a minimal story: what the grammar is learnt from."""
    own = grammar()["pools"][pool]["emotions"][emotion]
    shape = rng.choice(("reaction", "event", "twin", "twin"))
    if shape == "twin" and emotion != NEUTRAL:
        other = rng.choice([e for e in emotions.names() if e != emotion])
        return replace(twins(rng, emotion, other, pool)[0], kind="brief")
    cast = _cast(rng, first_person=0.3)
    if shape == "event":
        text = rng.choice(own["events"]).format(**cast)
    else:
        text = f"{cast['S']} {rng.choice(own['reactions']).format(**cast)}."
    pair_id = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Vignette(_capitalised(text), emotion, pool, "brief", "none", pair_id, shape, cast["S"])


def twins(
    rng: random.Random, emotion: str, other: str, pool: Pool, frame: str | None = None
) -> tuple[Vignette, Vignette]:
    """Two stories with one bag of words: the first ends in `emotion`, the second in `other`.

    `frame` is one of `MINIMAL_FRAMES`.
    """
    phrases = grammar()["pools"][pool]
    kind = frame or rng.choice(MINIMAL_FRAMES)
    number = rng.randrange(len(grammar()[f"{kind}_frames"]))
    cast = _cast(rng, first_person=0.0 if kind == "agent" else 0.3)
    topic = rng.choice(sorted(phrases["settings"]))
    own, others = (rng.choice(phrases["emotions"][e]["reactions"]).format(**cast) for e in (emotion, other))
    slots = {
        "filler": rng.choice(phrases["fillers"]),
        "setting": phrases["settings"][topic],
        "time": rng.choice(grammar()["times"]),
    }
    template = grammar()[f"{kind}_frames"][number]
    texts = [
        template.format(**slots, **cast, a=denied, b=felt) for felt, denied in ((own, others), (others, own))
    ]
    pair_id = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:12]
    first, second = (
        Vignette(text, label, pool, "minimal", topic, pair_id, f"{kind}-{number}", cast["S"])
        for text, label in zip(texts, (emotion, other), strict=True)
    )
    return first, second


def vignette(rng: random.Random, emotion: str, pool: Pool, kind: Kind = "plain") -> Vignette:
    """One story of an emotion (or `neutral`, which has no minimal ones: its twins would be ambiguous).

    Raises:
        ValueError: a minimal story was asked of `neutral`.
    """
    if kind == "brief":
        return _brief(rng, emotion, pool)
    if kind == "plain":
        return _plain(rng, emotion, pool)
    if emotion == NEUTRAL:
        raise ValueError("neutral stories have no minimal pairs")
    other = rng.choice([e for e in emotions.names() if e != emotion])
    return twins(rng, emotion, other, pool)[0]


def sample(n: int, seed: int, pool: Pool, *, minimal: float = 0.5, neutral: float = 1 / 9) -> list[Vignette]:
    """`n` distinct stories: a share of minimal pairs (both twins), the rest plain with a neutral share.

    Emotions are balanced in both kinds: plain stories cycle through them, twins through their unordered
    pairs. The share of minimal stories is rounded to whole pairs.
    """
    rng = random.Random(f"vignettes/{pool}/{seed}")
    names = emotions.names()
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    n_pairs = round(n * minimal / 2)
    n_neutral = round((n - 2 * n_pairs) * neutral)
    labels = [names[i % len(names)] for i in range(n - 2 * n_pairs - n_neutral)] + [NEUTRAL] * n_neutral
    out: list[Vignette] = []
    seen: set[str] = set()
    rng.shuffle(pairs)
    for i in range(n_pairs):
        drawn = twins(rng, *pairs[i % len(pairs)], pool)
        while drawn[0].text in seen:
            drawn = twins(rng, *pairs[i % len(pairs)], pool)
        seen.update(v.text for v in drawn)
        out.extend(drawn)
    for label in labels:
        one = _plain(rng, label, pool)
        while one.text in seen:
            one = _plain(rng, label, pool)
        seen.add(one.text)
        out.append(one)
    return out
