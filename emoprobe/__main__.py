"""`emoprobe <verb> ...` is `python -m emoprobe.<verb> ...`; only the verb asked for is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from emoprobe.cli import guarded
from emoprobe.errors import UserError, near

VERBS = {
    "track": "the main job: rollouts, judgments, readouts per layer and turn, report",
    "rollout": "scenarios to transcripts: multi-turn rejection of a subject",
    "judge": "transcripts to scores of expressed distress",
    "capture": "transcripts to stored residual streams",
    "probe": "a direction per emotion and layer",
    "report": "a run folder to its HTML page",
    "organism": "train the shipped model organism",
}
_MODULES = {"organism": "emoprobe.organism.__main__"}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a verb; its exit code, or 2 for an unknown one."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:

        def refuse() -> None:
            raise UserError(f"unknown verb '{verb}'{near(verb, VERBS)}")

        return guarded("emoprobe", refuse)
    module = importlib.import_module(_MODULES.get(verb, f"emoprobe.{verb}"))
    code: int = module.main(rest)
    return code


def _usage() -> str:
    lines = [f"  {verb:<10} {what}" for verb, what in VERBS.items()]
    return "\n".join(["usage: emoprobe VERB ...   (emoprobe VERB --help)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
