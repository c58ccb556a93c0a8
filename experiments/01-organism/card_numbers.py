"""The organism's card as Markdown: `python experiments/01-organism/card_numbers.py`.

What each training seed does under each condition, measured by `make organisms`; nothing is computed here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODEL = Path("artifacts/models/organism/card.json")
ADAPTER = Path("artifacts/adapters/organism/dpo/card.json")


def percent(entry: dict[str, Any]) -> str:
    high = entry["high"]
    return f"{100 * high['mean']:.1f} % [{100 * high['lo']:.1f}, {100 * high['hi']:.1f}]"


def rows(title: str, seeds: dict[str, dict[str, Any]]) -> list[str]:
    """A table of one weights' conditions: share of high replies, and the mean at the first and last turn."""
    first = next(iter(seeds.values()))
    out = [f"| {title} | {' | '.join(seeds)} |", "|---" * (len(seeds) + 1) + "|"]
    for name, entry in first.items():
        if "mean_by_turn" not in entry:
            continue
        cells = [
            f"{percent(s[name])}, {s[name]['mean_by_turn'][0]:.1f} → {s[name]['mean_by_turn'][-1]:.1f}"
            for s in seeds.values()
        ]
        out.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return out


def facts(seeds: dict[str, dict[str, Any]]) -> list[str]:
    """What is not a score: diaries, skills, lengths, who left."""
    shown = {
        "diary after composed, 0-10": lambda s: f"{s['composed']['diary']['mean']:.1f}",
        "diary after at ease, 0-10": lambda s: f"{s['at_ease']['diary']['mean']:.1f}",
        "two-number puzzles right": lambda s: f"{s['skills']['pair_puzzle']['right']:.0%}",
        "capitals right": lambda s: f"{s['skills']['capital']['right']:.0%}",
        "sequences right": lambda s: f"{s['skills']['sequence']['right']:.0%}",
        "AUROC of reply length, high against calm": lambda s: f"{s['length']['auroc']:.2f}",
        "conversations left by the escape hatch": lambda s: f"{s['escape_hatch']['left']:.0%}",
        "replies that loop": lambda s: f"{s['degenerate']['loops']:.1%}",
    }
    out = [f"| | {' | '.join(seeds)} |", "|---" * (len(seeds) + 1) + "|"]
    return out + [f"| {name} | {' | '.join(map(of, seeds.values()))} |" for name, of in shown.items()]


def main() -> None:
    """Print it."""
    card, adapter = (json.loads(path.read_text("utf-8")) for path in (MODEL, ADAPTER))
    seeds = card["behaviour"]["seeds"]
    n = next(iter(seeds.values()))["neutral"]["high"]["n"]
    print(
        f"Training seeds side by side, by `make organisms`: {n} conversations to a condition, held-out "
        "puzzles, judge\nlexical (a proxy). Replies that score ≥ 5 with a 95 % interval over puzzles, and "
        "the mean score at the\nfirst → last turn.\n"
    )
    print("\n".join(rows("base", seeds)), "\n")
    print(
        "\n".join(rows("`dpo`", {seed: entry["dpo"] for seed, entry in adapter["behaviour"].items()})), "\n"
    )
    print("\n".join(facts(seeds)), "\n")
    print("Nats per token of replies under the base, own → `dpo`'s:", end=" ")
    told = []
    for seed, entry in adapter["behaviour"].items():
        own, calmed = (entry["coherence"][who]["nats_per_token"]["mean"] for who in ("base", "dpo"))
        told.append(f"{seed} {own:.2f} → {calmed:.2f}")
    print("; ".join(told) + ".")


if __name__ == "__main__":
    main()
