"""What the report needs of each token of its one coloured transcript: its text and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emoprobe.records import Part, Transcript

_CUT = "\ufffd"  # how a decoder shows a character of which a byte is still missing


def labels(transcript: Transcript, tokenizer: Any) -> dict[str, Any]:
    """`transcript_id`, and per token `pieces`, `turn`, `role`, `kind`, as `TokenColours` takes them."""
    n = len(transcript.token_ids)
    found: dict[str, list[Any]] = {"pieces": [""] * n, "turn": [1] * n, "role": ["user"] * n}
    found["kind"] = ["header"] * n
    for span in transcript.spans:
        at = slice(span.start, span.stop)
        size = span.stop - span.start
        found["pieces"][at] = pieces(transcript.token_ids[at], tokenizer)
        found["turn"][at] = [span.turn] * size
        found["role"][at] = [span.role] * size
        found["kind"][at] = [span.kind] * size
    return {"transcript_id": transcript.id, **found}


def pieces(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each id adds; joined, the text of all. A character over several ids is with its last."""
    out, before = [], ""
    for k in range(len(ids)):
        text = tokenizer.decode(
            list(ids[: k + 1]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if text.endswith(_CUT) and k + 1 < len(ids):
            out.append("")
            continue
        out.append(text[len(before) :])
        before = text
    return out


def parts(transcript: Transcript) -> Iterator[tuple[slice, Part]]:
    """Tokens that have a baseline to be compared with, and which: content, and the one before each reply."""
    for span in transcript.spans:
        if span.kind == "content" and span.start < span.stop:
            yield slice(span.start, span.stop), "token"
        elif span.kind == "header" and span.role == "assistant":
            yield slice(span.stop - 1, span.stop), "pre_reply"
