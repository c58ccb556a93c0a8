"""ProbeSets: what is saved is what is loaded, z is z, and what is foreign, cut or changed is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoprobe.errors import UserError
from emoprobe.probing.probeset import PARTS, ProbeSet, negative
from emoprobe.records import ModelRef

EMOTIONS = ("frustration", "sadness", "joy")
REF = ModelRef(
    name="tiny",
    source="tiny",
    dtype="float32",
    attention="sdpa",
    template_sha="t",
    n_layers=4,
    d_model=6,
    weights_sha="abc123",
)


@dataclass
class Model:
    ref: ModelRef


def make() -> ProbeSet:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, 4, 6))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return ProbeSet(
        directions=directions.astype(np.float32),
        bias=rng.normal(size=(3, 4)).astype(np.float32),
        baseline_mean=rng.normal(size=(3, 4, 4)).astype(np.float32),
        baseline_std=rng.uniform(0.5, 2, size=(3, 4, 4)).astype(np.float32),
        emotions=EMOTIONS,
        layers=(0, 1, 2, 3),
        model={"name": "tiny", "weights_sha": "abc123", "n_layers": 4, "d_model": 6},
        card={"sentence": "Words are enough – here."},
    )


def test_saved_is_loaded(tmp_path: Path) -> None:
    probes = make()
    again = ProbeSet.load(probes.save(tmp_path / "a" / "set"))
    for name in ("directions", "bias", "baseline_mean", "baseline_std"):
        np.testing.assert_array_equal(getattr(again, name), getattr(probes, name))
    assert (again.emotions, again.layers, again.model, again.card) == (
        probes.emotions,
        probes.layers,
        probes.model,
        probes.card,
    )
    assert sorted(p.name for p in (tmp_path / "a" / "set").iterdir()) == ["card.json", "probes.safetensors"]
    assert str(tmp_path) not in (tmp_path / "a" / "set" / "card.json").read_text()


def test_weights_are_the_chosen_directions_in_the_order_asked_for() -> None:
    probes = make()
    weights = probes.weights(layers=(3, 1), emotions=("joy", "frustration"))
    assert weights.shape == (2, 6, 2)
    np.testing.assert_array_equal(weights[0, :, 0], probes.directions[2, 3])
    np.testing.assert_array_equal(weights[1, :, 1], probes.directions[0, 1])
    assert probes.weights().shape == (4, 6, 3)


@pytest.mark.parametrize("part", PARTS)
def test_the_baseline_itself_has_mean_0_and_std_1(part: Any) -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(5.0, 3.0, size=(500, 4, 3))  # [turn, layer, emotion]
    probes = make()
    mean, std = probes.baseline_mean.copy(), probes.baseline_std.copy()
    mean[..., PARTS.index(part)] = raw.mean(axis=0).T
    std[..., PARTS.index(part)] = raw.std(axis=0).T
    probes = replace(probes, baseline_mean=mean, baseline_std=std)
    z = probes.z(raw, part)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)
    some = probes.z(raw[:, [2, 0]][..., [1]], part, layers=(2, 0), emotions=("sadness",))
    np.testing.assert_allclose(some, z[:, [2, 0]][..., [1]])
    others = [p for p in PARTS if p != part]
    assert all(abs(probes.z(raw, p).mean()) > 0.1 for p in others), "each part has its own baseline"


def test_negative_is_the_mean_of_the_negative_emotions() -> None:
    assert negative(np.array([[1.0, 3.0, 100.0]]), EMOTIONS) == pytest.approx([2.0])
    with pytest.raises(UserError, match="at least one emotion of negative valence"):
        negative(np.ones((1, 1)), ("joy",))


def test_adapters_of_the_base_are_read_and_other_models_refused() -> None:
    from emoprobe.records import AdapterRef

    adapter = AdapterRef(
        name="dpo", path="p", sha256="0", base="tiny", layers=(0,), modules=("q",), n_adapted=1
    )
    make().check(Model(REF))
    make().check(Model(REF.model_copy(update={"adapter": adapter})))
    cases: dict[str, dict[str, Any]] = {
        "n_layers 4, 'other' has 5": {"name": "other", "n_layers": 5},
        "d_model 6, 'other' has 8": {"name": "other", "d_model": 8},
        "weights abc123, 'tiny' has def456": {"weights_sha": "def456"},
    }
    for message, change in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            make().check(Model(REF.model_copy(update=change)))
        assert "python -m emoprobe.probe --model" in str(caught.value)
        assert "\n" not in str(caught.value)


def _cut(folder: Path) -> None:
    file = folder / "probes.safetensors"
    file.write_bytes(file.read_bytes()[:-20])


def _swap(folder: Path) -> None:
    other = replace(make(), bias=make().bias + 1)
    other.save(folder / "other")
    (folder / "other" / "probes.safetensors").replace(folder / "probes.safetensors")


def _edit(key: str, value: Any) -> Any:
    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        card[key] = value
        (folder / "card.json").write_text(json.dumps(card))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "cut or changed"),
        (_swap, "cut or changed"),
        (lambda f: (f / "probes.safetensors").unlink(), "no readable ProbeSet"),
        (lambda f: (f / "card.json").unlink(), "no readable ProbeSet"),
        (lambda f: (f / "card.json").write_text('{"schema_version": 1, "si'), "no readable ProbeSet"),
        (lambda f: (f / "card.json").write_bytes(b"\xff\xfe\x00"), "no readable ProbeSet"),
        (lambda f: (f / "card.json").write_text("[]"), "is not a ProbeSet"),
        (_edit("schema_version", 9), "another version or site"),
        (_edit("site", "resid_mid"), "another version or site"),
        (_edit("layers", [0, 1]), "is not a ProbeSet: ValueError: directions is"),
        (_edit("model", None), "is not a ProbeSet"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, damage: Any, message: str) -> None:
    make().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        ProbeSet.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_could_not_be_a_z_is_no_probe_set() -> None:
    probes = make()
    flat = probes.baseline_std.copy()
    flat[0, 0, 0] = 0
    with pytest.raises(ValueError, match="no spread"):
        replace(probes, baseline_std=flat)
    broken = probes.baseline_mean.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        replace(probes, baseline_mean=broken)
    with pytest.raises(ValueError, match="unit length"):
        replace(probes, directions=2 * probes.directions)


def test_unknown_layers_and_emotions() -> None:
    with pytest.raises(UserError, match="no probes for layer 70; this set has 4 layers"):
        make().weights(layers=(0, 70))
    with pytest.raises(UserError, match="no probes for 'awe'; this set has frustration, sadness, joy"):
        make().weights(emotions=("awe",))
