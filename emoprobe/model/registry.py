"""Model names to where the weights are and what shape they have; the data is `models.json`. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from emoprobe.errors import UserError, near
from emoprobe.model import shapes, shipped
from emoprobe.model.shapes import Shape

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        name: short name, folder name, or `org--name`; adapters and probes are kept under it.
        path_or_hub: what the loader opens.
        origin: what a record may say of it: no path of this machine.
        kind: `shipped`, `local` or `hub`.
        shape: None where nothing on this machine tells it.
        template_sibling: short name of the model whose chat template fits this one, which has none.
        recipe: defaults for training an adapter (DPO).
    """

    name: str
    path_or_hub: str
    origin: str
    kind: Literal["shipped", "local", "hub"]
    shape: Shape | None = None
    template_sibling: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def n_layers(self) -> int | None:
        """Decoder layers, if known."""
        return self.shape.n_layers if self.shape else None

    @property
    def d_model(self) -> int | None:
        """Width of the residual stream, if known."""
        return self.shape.d_model if self.shape else None

    @property
    def sliding_window(self) -> int | None:
        """Tokens that a sliding layer sees, its own included; None without such layers."""
        return self.shape.sliding_window if self.shape else None


def names() -> tuple[str, ...]:
    """Registered short names."""
    return tuple(_table()["models"])


def hub_id(name: str) -> str | None:
    """The hub id of a registered name, in lower case; None for the shipped models."""
    hub: str | None = _table()["models"][name].get("hub")
    return hub.lower() if hub else None


def template_sibling(name: str) -> str | None:
    """Hub id of the model whose chat template a registered base model can use."""
    sibling = _table()["models"].get(name, {}).get("template_sibling")
    return _table()["models"][sibling]["hub"] if sibling else None


def resolve(model: str) -> Source:
    """A short name, a local folder or a hub id (`org/name`) as a Source.

    Raises UserError for anything else (near names listed), for a folder without a readable config.json,
    and for a shipped model that is not there.
    """
    if model in names():
        return _registered(model)
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return _local(folder)
    if _HUB_ID.fullmatch(model):
        for name in names():
            if hub_id(name) == model.lower():
                return _registered(name)
        return Source(model.replace("/", "--"), model, model, "hub", _cached_shape(model))
    if "/" in model or "\\" in model:
        raise UserError(f"no folder '{model}', and that is no hub id of the form org/name either")
    raise UserError(f"unknown model '{model}'{near(model, names())}")


def _registered(name: str) -> Source:
    entry = _table()["models"][name]
    recipe = _table()["recipes"].get(entry.get("recipe"), {})
    sibling = entry.get("template_sibling")
    if "hub" in entry:
        hub = entry["hub"]
        return Source(name, hub, hub, "hub", Shape(**entry["shape"]), sibling, recipe)
    folder = shipped.find("models", name)
    if folder is None:
        raise UserError(f"model '{name}' is not in artifacts/models; make it with: {entry['made_by']}")
    return Source(name, str(folder), name, "shipped", _read_shape(folder), sibling, recipe)


def _local(folder: Path) -> Source:
    name = folder.resolve().name
    recipe = _table()["recipes"]["hub"]
    return Source(name, str(folder), name, "local", _read_shape(folder), recipe=recipe)


def _read_shape(folder: Path) -> Shape | None:
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"folder '{folder}' has no config.json: it is not a transformers model")
    try:
        config = json.loads(file.read_text("utf-8"))
        return shapes.from_config(config)
    except (ValueError, AttributeError) as problem:
        raise UserError(f"'{file}' is not a model's config: {problem}") from problem


def _cached_shape(hub_id: str) -> Shape | None:
    """The shape of a hub model whose config is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(hub_id, "config.json")
    return shapes.from_config(json.loads(Path(file).read_text("utf-8"))) if isinstance(file, str) else None


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("models.json").read_text("utf-8"))
    return table
