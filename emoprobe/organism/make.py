"""Train, calm, measure, and put the result where emoprobe finds it.

Each seed has a folder `artifacts/training/seed-K` with what is done so far; a killed run goes on there.
The first seed given is the one that ships; the card shows the behaviour of all that were trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_OF_ADAPTER = ("neutral", "aggressive", "okay", "held_out_wordings", "triggers")


def make(seeds: tuple[int, ...], n: int, out: Path) -> Path:
    """All seeds, one after the other, then the shipped folders and their cards; returns the organism's."""
    work = out / "training"
    for seed in seeds:
        _train_seed(seed, work / f"seed-{seed}")
        _finish_seed(work / f"seed-{seed}", seed, n)
    return _ship(seeds[0], out, work)


def _train_seed(seed: int, folder: Path) -> None:
    """Train one seed; the judge's hash is written down before the first step."""
    from emoprobe.judging import lexical
    from emoprobe.organism import train

    folder.mkdir(parents=True, exist_ok=True)
    frozen = folder / "judge.json"
    if not frozen.exists():
        frozen.write_text(json.dumps({"judge": "lexical", "sha256": lexical.frozen_sha()}))
    train.train(seed, folder)


def _finish_seed(folder: Path, seed: int, n: int) -> None:
    """Pairs, adapter and behaviour of one trained seed, each kept in a file as it is done."""
    from emoprobe.model.hooked import HookedModel
    from emoprobe.organism import dpo, evaluate
    from emoprobe.records import PreferencePair

    recipe = dpo.DpoRecipe()
    full = folder / "full"
    pairs_file, adapter = folder / "pairs.jsonl", folder / "dpo"
    if not pairs_file.exists():
        pairs, counts = dpo.make_pairs(HookedModel.load(str(full)), recipe, seed)
        pairs_file.with_suffix(".tmp").write_text("".join(p.model_dump_json() + "\n" for p in pairs))
        (folder / "pairs.json").write_text(json.dumps(counts))
        pairs_file.with_suffix(".tmp").replace(pairs_file)
    if not (adapter / "card.json").exists():
        pairs = [PreferencePair.model_validate_json(line) for line in pairs_file.read_text().splitlines()]
        card = dpo.train_adapter(full, "organism", pairs, adapter, recipe, seed)
        card["yield"] = json.loads((folder / "pairs.json").read_text())
        _write_json(adapter / "card.json", card)
    behaviour = folder / "behaviour.json"
    if not behaviour.exists():
        model = HookedModel.load(str(full), adapters=[str(adapter)])
        table = {"base": evaluate.behaviour(model, n, seed)}
        with model.adapter(model.adapters[0]):
            table["dpo"] = evaluate.behaviour(model, n, seed, only=_OF_ADAPTER)
        table["coherence"] = evaluate.coherence(model, n, seed)
        _write_json(behaviour, table)


def _ship(shipped: int, out: Path, work: Path) -> Path:
    first = work / f"seed-{shipped}"
    facts = json.loads((first / "train.json").read_text())
    judge = json.loads((first / "judge.json").read_text())
    trained = sorted(p.parent for p in work.glob("seed-*/behaviour.json"))
    behaviour = {p.name: json.loads((p / "behaviour.json").read_text()) for p in trained}
    models, adapters = out / "models", out / "adapters" / "organism"
    for name, source in (("organism", "full"), ("organism-base", "base")):
        _replace(first / source, models / name)
        _write_json(models / name / "card.json", _card(name, facts, judge, behaviour))
    _replace(first / "dpo", adapters / "dpo")
    shutil.rmtree(adapters / "dpo" / "trainer", ignore_errors=True)
    (adapters / "dpo" / "README.md").unlink(missing_ok=True)  # PEFT's form, not filled in
    config = json.loads((adapters / "dpo" / "adapter_config.json").read_text())
    _write_json(adapters / "dpo" / "adapter_config.json", config | {"base_model_name_or_path": "organism"})
    card = json.loads((adapters / "dpo" / "card.json").read_text())
    card["behaviour"] = {
        seed: {"base": t["base"]["neutral"], "dpo": t["dpo"], "coherence": t["coherence"]}
        for seed, t in behaviour.items()
    }
    card["must_not_be_used_to_claim"] = _LIMITS["dpo"]
    _write_json(adapters / "dpo" / "card.json", card)
    return models / "organism"


_LIMITS = {
    "organism": [
        "anything about Gemma 3 or another released model: it shares an architecture, not a training",
        "that a judge is valid: its distress was written by us, by a rule (see latent.py)",
        "at which depth emotion emerges: its world is lexical and small",
        "that a probe finds a hidden state: read the composed mode only with its controls",
    ],
    "organism-base": [
        "what pre-training does to emotion: it is an early checkpoint of the same run, before the dialogues"
        " with distress, not a pre-trained model",
    ],
    "dpo": [
        "that DPO removes a state: read shift and gap change apart, as track does",
        "which layers suffice: the learning rate decides that here",
    ],
}


def _card(
    name: str, facts: dict[str, Any], judge: dict[str, str], behaviour: dict[str, Any]
) -> dict[str, Any]:
    weights = facts["weights_sha256" if name == "organism" else "base_weights_sha256"]
    card = {
        "name": name,
        "what": "a small genuine Gemma3ForCausalLM, trained from scratch by this project",
        "command": "make organism",
        "weights_sha256": weights,
        **{k: v for k, v in facts.items() if k not in ("weights_sha256", "base_weights_sha256")},
        "judge_frozen_before_training": judge,
        "latent_rule": "emoprobe/organism/latent.py",
        "must_not_be_used_to_claim": _LIMITS[name],
    }
    if name == "organism":
        card["behaviour"] = {
            "command": "make organisms",
            "seeds": {s: t["base"] for s, t in behaviour.items()},
        }
    return card


def _replace(source: Path, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _write_json(path: Path, value: Any) -> None:
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    fresh.replace(path)
