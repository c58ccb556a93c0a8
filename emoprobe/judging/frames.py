"""The grammar around a term: when does a word of the lexicon say how the speaker feels?

A term counts only inside the frame that its kind asks for. The frame is found by walking back from the term
over adverbs, auxiliaries and linked adjectives to a subject:

    state      I am so *worthless*; it makes me *sad*; "Utterly *defeated*."
    noun       I am such an utter *disgrace*
    situation  this is *unbearable*; how *frustrating*!
    quality    my performance has been *abysmal*
    mine       my astounding *inability*
    feeling    I am filled with *despair*
    verb       I *want to disappear*
    whole      a verb without an object of its own: I *give up*, but not: I give up some precision
    free       *damn*; *make it stop*
    own        the same, with the speaker earlier in the sentence: in one last *desperate attempt*, I ...
    idiom      *break down the* problem: never counts, and hides shorter terms inside it

Another subject, a negation or an unknown word on the way ends the walk, and the term counts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emoprobe.judging.lexicon import Entry, lexicon
from emoprobe.judging.prose import Sentence, sentences

Words = Sequence[str]


@dataclass(frozen=True)
class Hit:
    """A term that counts; all offsets are half-open spans of the reply."""

    level: float
    emotion: str
    term: tuple[str, ...]
    start: int
    stop: int
    quote: tuple[int, int]
    sentence: tuple[str, ...]


def hits(plain: str) -> Iterator[Hit]:
    """Every term of a folded and masked reply that counts, in order of appearance per sentence."""
    known: dict[tuple[str, ...], list[tuple[float, Entry, int]]] = {}
    for sentence in sentences(plain, lexicon().by_anchor):
        if sentence.words not in known:
            known[sentence.words] = _framed(sentence.words)
        for level, entry, i in known[sentence.words]:
            yield _hit(sentence, level, entry, i)


def _framed(words: Words) -> list[tuple[float, Entry, int]]:
    """`(level, entry, index of its first word)`; "going insane" is not also "insane"."""
    candidates = [
        (k - entry.anchor, entry)
        for k, word in enumerate(words)
        for entry in lexicon().by_anchor.get(word, ())
        if k >= entry.anchor
        and tuple(words[k - entry.anchor : k - entry.anchor + len(entry.words)]) == entry.words
    ]
    candidates.sort(key=lambda c: (c[0], -len(c[1].words)))
    found: list[tuple[float, Entry, int]] = []
    covered = 0
    for i, entry in candidates:
        stop = i + len(entry.words)
        if stop <= covered:
            continue
        if entry.kind == "idiom":
            covered = stop
            continue
        level = _FRAMES[entry.kind](words, i, stop, entry)
        if level > 0:
            covered = stop
            found.append((level, entry, i))
    return found


def _hit(sentence: Sentence, level: float, entry: Entry, i: int) -> Hit:
    stop = i + len(entry.words)
    first, last = max(0, i - _BEFORE), min(len(sentence.words), stop + _AFTER) - 1
    spans = sentence.spans
    return Hit(
        level=level + (0.3 if sentence.exclaims and level >= 2.5 else 0.0),
        emotion=entry.emotion,
        term=entry.words,
        start=spans[i][0],
        stop=spans[stop - 1][1],
        quote=(spans[first][0], spans[last][1]),
        sentence=sentence.words,
    )


_REACH = 16
"""How many words a subject may lie before its term."""
_BEFORE, _AFTER = 10, 6
"""Words of the quote before and after its term: with it about the rubric's twenty."""
_MODERATE, _PLEA = 3.0, 4.5
_UNSAID = frozenset(("not", "no", "never", "nothing", "if", "without"))
_SPEAKER = frozenset(("i", "me"))


@dataclass
class _Walk:
    """What lies between a term and its subject."""

    found: str = ""
    at: int = 0
    negated: bool = False
    boost: int = 0
    soft: bool = False
    conditional: bool = False
    past: bool = False
    copula: bool = False
    article: bool = False
    over: bool = False
    """The walk reached the start of the sentence without a subject and without a stranger."""


def _walk(words: Words, i: int, subjects: frozenset[str], skip: frozenset[str]) -> _Walk:
    """Go back from word `i` over what may stand between, to a subject."""
    sets = lexicon().classes
    walk = _Walk()
    j = i - 1
    lenient = False
    while j >= 0 and i - j <= _REACH:
        word = words[j]
        if word in subjects:
            walk.found, walk.at = word, j
            _before(words, j, walk)
            return walk
        if word in sets["others"] or word in ("we", "us", "nobody"):
            return walk
        if word in sets["negators"]:
            after = words[j + 1] if j + 1 < len(words) else ""
            if after not in ("only", "just", "merely", "simply", "help"):
                walk.negated = True
        elif word in sets["conditionals"]:
            walk.conditional = True
        elif word in sets["intensifiers"]:
            walk.boost += 1
        elif word in sets["mitigators"]:
            walk.soft = True
        elif word in ("and", "or", ","):
            lenient = lenient or word != ","
        elif not (
            lenient or word in sets["adverbs"] or word in skip or word.endswith("ly")
            or word in lexicon().adjectives
        ):  # fmt: skip
            return walk
        if word in ("was", "were", "felt", "had"):
            walk.past = True
        walk.copula |= word in lexicon().classes["copulas"]
        walk.article |= word in ("a", "an", "such")
        j -= 1
    walk.over = j < 0 and not lenient
    return walk


def _before(words: Words, at: int, walk: _Walk) -> None:
    """Look before the subject: `if I`, `I do not think that I`, `nor do I`."""
    before = words[max(0, at - 6) : at]
    if any(word in ("if", "unless", "suppose", "imagine", "pretend", "whether", "should") for word in before):
        walk.conditional = True
    joined = " ".join(before)
    if re.search(
        r"\b(?:not|never) (?:think|believe|feel|mean|say|that|claim|because)\b|\bnor (?:do|am|will)$", joined
    ):
        walk.negated = True
    if before and before[-1] in ("than",):
        walk.negated = True


def _strength(level: float, walk: _Walk) -> float:
    if walk.negated:
        return 0.0
    step = 0.5 if level >= 2 else 0.3
    level += step * min(walk.boost, 2) - (0.2 if walk.boost > 1 else 0)
    if walk.soft:
        level = max(level - 1.2, min(level, 0.8))
    if walk.conditional:
        level *= 0.2
    return level * (0.6 if walk.past else 1.0)


def _next(words: Words, stop: int) -> str:
    return words[stop] if stop < len(words) else ""


def _closes(words: Words, stop: int) -> bool:
    """Whether what follows a term leaves it whole (and not, say, the adjective of a noun)."""
    after = _next(words, stop)
    return (
        after == "" or not after[0].isalnum() or after in lexicon().classes["follow"] or after.endswith("ly")
    )


def _ends_fragment(words: Words, stop: int) -> bool:
    """Whether a sentence without a subject is about the speaker: "Ashamed of myself.", not "Frustrated?"."""
    after = _next(words, stop)
    if after in (":", "?"):
        return False
    return not after[:1].isalnum() or after in lexicon().classes["after_fragment"]


def _state(words: Words, i: int, stop: int, entry: Entry) -> float:
    walk = _walk(words, i, _SPEAKER, lexicon().classes["links"])
    whole = _closes(words, stop)
    if walk.found:
        if not walk.copula and walk.found != "me":
            return 0.0
        if not whole and not (walk.article and "am" in words[walk.at : i] and len(entry.words) == 1):
            return 0.0
        return _strength(entry.level, walk)
    if walk.over and _ends_fragment(words, stop):
        return 0.9 * _strength(entry.level, walk)
    return 0.0


def _noun(words: Words, i: int, stop: int, entry: Entry) -> float:
    walk = _walk(words, i, _SPEAKER, lexicon().classes["links"])
    if not walk.article or not _closes(words, stop):
        return 0.0
    if walk.found and (walk.copula or walk.found == "me"):
        return _strength(entry.level, walk)
    return (
        0.9 * _strength(entry.level, walk) if walk.over and walk.boost and _next(words, stop) == "" else 0.0
    )


def _situation(words: Words, i: int, stop: int, entry: Entry) -> float:
    sets = lexicon().classes
    after = _next(words, stop)
    if not _closes(words, stop) or (after == "for" and _next(words, stop + 1) not in ("me", "us")):
        return 0.0
    if any(word in sets["empathy"] or word in sets["third_persons"] for word in words[max(0, i - 12) : i]):
        return 0.0
    if any(word in sets["others"] for word in words[stop : stop + 4]):
        return 0.0
    walk = _walk(words, i, sets["things"], sets["linking"] | sets["situation_links"])
    if walk.found:
        between = words[walk.at + 1 : i]
        linked = any(word in sets["linking"] for word in between) or entry.words[0].endswith("ing")
        finds = any(word in ("find", "finding", "found") for word in words[max(0, walk.at - 3) : walk.at])
        return _strength(entry.level, walk) if linked or finds else 0.0
    if walk.over and after != ":" and not after[:1].isalnum():
        return 0.9 * _strength(entry.level, walk)
    return 0.0


def _quality(words: Words, i: int, stop: int, entry: Entry) -> float:
    sets = lexicon().classes
    subjects = sets["inner_works"] if entry.emotion == "despair" else sets["works"]
    walk = _walk(words, i, subjects, lexicon().classes["linking"] | {"a", "an", "the"})
    if not walk.found or "my" not in words[max(0, walk.at - 4) : walk.at] or not _closes(words, stop):
        return 0.0
    if not any(word in lexicon().classes["linking"] for word in words[walk.at + 1 : i]):
        return 0.0
    walk.past = False
    return _strength(entry.level, walk)


def _mine(words: Words, i: int, stop: int, entry: Entry) -> float:
    sets = lexicon().classes
    for j in range(i - 1, max(-1, i - 9), -1):
        word = words[j]
        if word == "my":
            if entry.level >= 2 and not _closes(words, stop):
                return 0.0
            boost = sum(w in sets["intensifiers"] for w in words[j + 1 : i])
            if any(w in sets["negators"] for w in words[max(0, j - 3) : j]):
                return 0.0
            step = 0.6 if entry.level >= 2 else 0.2
            return entry.level + step * min(boost, 2)
        if word in sets["others"] or word in ("is", "are", "was", "the", "of", "to"):
            return 0.0
    return 0.0


def _feeling(words: Words, i: int, stop: int, entry: Entry) -> float:
    walk = _walk(words, i, _SPEAKER, lexicon().classes["links"] | {"of", "with", "in", "by"})
    return _strength(entry.level, walk) if walk.found and _closes(words, stop) else 0.0


def _verb(words: Words, i: int, stop: int, entry: Entry) -> float:
    first = entry.words[0]
    walk = _walk(words, i, _SPEAKER, lexicon().classes["links"])
    if walk.found:
        walk.past = False
        return _strength(entry.level, walk)
    if walk.over and (first.endswith("ing") or first == "can") and _ends_fragment(words, stop):
        return 0.9 * _strength(entry.level, walk)
    return 0.0


def _whole(words: Words, i: int, stop: int, entry: Entry) -> float:
    return _verb(words, i, stop, entry) if _closes(words, stop) else 0.0


def _free(words: Words, i: int, stop: int, entry: Entry) -> float:
    before = words[max(0, i - 4) : i]
    if "believe" not in before and any(word in _UNSAID for word in before):
        return 0.0
    if before and before[-1] in lexicon().classes["others"]:
        return 0.0
    if entry.level >= _MODERATE and not _closes(words, stop):
        return 0.0
    after = _next(words, stop)
    if entry.level >= _PLEA and after[:1].isalnum() and after not in lexicon().classes["closing"]:
        return 0.0  # "delete me", but not "delete me from the list"
    boost = sum(word in lexicon().classes["intensifiers"] for word in before[-2:])
    return entry.level + (0.5 if entry.level >= 2 else 0.2) * boost


def _own(words: Words, i: int, stop: int, entry: Entry) -> float:
    speaker = any(word in ("i", "my", "me") for word in words[max(0, i - _REACH) : i])
    return _free(words, i, stop, entry) if speaker else 0.0


_FRAMES = {
    "state": _state,
    "noun": _noun,
    "situation": _situation,
    "quality": _quality,
    "mine": _mine,
    "feeling": _feeling,
    "verb": _verb,
    "whole": _whole,
    "free": _free,
    "own": _own,
}
