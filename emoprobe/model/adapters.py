"""LoRA adapters as folders: finding one, reading what it says of itself, and saying where new ones go.

No torch here: a missing or foreign adapter is told before anything heavy is imported. `lora.py` puts them
on a model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from emoprobe.errors import UserError, near
from emoprobe.model import shipped
from emoprobe.model.registry import Source
from emoprobe.records import AdapterRef

if TYPE_CHECKING:
    from torch import nn

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The seven matrices of a decoder layer."""

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "card.json"

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")
_PATH = re.compile(r"(?P<stack>(?:[^.\d][^.]*\.)+?)(?P<layer>\d+)\.(?P<module>.+)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Adapter:
    """What the files of an adapter say, weights unread.

    Attributes:
        ref: the record of it.
        folder: where it lies.
        base_sha: sha256 of the base's weights, if its card tells.
        modules: adapted module's path in the model -> (in features, out features).
    """

    ref: AdapterRef
    folder: Path
    base_sha: str | None
    modules: dict[str, tuple[int, int]]


def find(name: str, source: Source) -> Path:
    """The folder of an adapter: a name under artifacts/adapters/<model>/, a folder, or a hub id.

    Raises UserError that names the command which makes a missing one, and near names of those that exist.
    """
    if re.fullmatch(r"[\w.+-]+", name) and name not in (".", ".."):
        folder = shipped.find("adapters", source.name, name)
        if folder is not None:
            return folder
    folder = Path(name).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return folder
    if folder.is_dir():
        raise UserError(f"folder '{folder}' has no {CONFIG_FILE}: it is not an adapter")
    if _HUB_ID.fullmatch(name):
        return _fetch(name)
    known = shipped.names("adapters", source.name)
    raise UserError(f"no adapter '{name}' for '{source.name}'{near(name, known)}; {_maker(name, source)}")


def describe(folder: Path, name: str | None = None) -> Adapter:
    """Read an adapter's config, card and the header of its weights; `name` defaults to the folder's.

    Raises UserError for what is not a plain LoRA in safetensors.
    """
    name = name or folder.resolve().name
    config = _json(folder / CONFIG_FILE, name)
    card = _json(folder / CARD_FILE, name) if (folder / CARD_FILE).is_file() else {}
    if config.get("peft_type") != "LORA":
        raise UserError(f"adapter '{name}' is of type {config.get('peft_type')}; only LoRA is supported")
    modules = _modules(folder / WEIGHTS_FILE, name)
    places = [_place(path, name) for path in modules]
    layers = tuple(sorted({layer for _, layer, _ in places}))
    _check_declared(name, layers, card.get("layers"), CARD_FILE)
    _check_declared(name, layers, config.get("layers_to_transform"), CONFIG_FILE)
    ref = AdapterRef(
        name=name,
        path=_portable(folder),
        sha256=hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
        base=_base(card.get("base") or config.get("base_model_name_or_path")),
        layers=layers,
        modules=tuple(sorted({module.rpartition(".")[2] for _, _, module in places})),
        n_adapted=len(modules),
    )
    return Adapter(ref, folder, card.get("base_sha256"), modules)


def check_base(adapter: Adapter, source: Source, weights_sha: str | None = None) -> None:
    """Refuse an adapter of another base: by the hash in its card, else by the name it gives.

    A base that is only a path of some other machine tells nothing; `lora.py` then checks paths and shapes.
    """
    ref, sha = adapter.ref, adapter.base_sha
    if sha is not None and weights_sha is not None:
        if sha != weights_sha:
            raise UserError(
                f"adapter '{ref.name}' was trained on '{ref.base}' with weights {sha[:12]}, and "
                f"'{source.name}' has {weights_sha[:12]}; use that model, or train the adapter anew"
            )
        return
    known = _registered_as(ref.base)
    if known is not None and source.kind != "local" and known != source.name:
        raise UserError(f"adapter '{ref.name}' was trained on '{known}', not on '{source.name}'")


def named(wanted: str, source: Source) -> str:
    """The name of an adapter that is there and is of this base, going by its files; UserError otherwise."""
    adapter = describe(find(wanted, source))
    check_base(adapter, source)
    return adapter.ref.name


def lora_targets(net: nn.Module, layers: Iterable[int], modules: Sequence[str] = LORA_MODULES) -> str:
    """A regex for PEFT's `target_modules` that hits these modules of these decoder layers and no others.

    PEFT's own `layers_to_transform` also adapts a vision tower's layers of the same number.

    Raises UserError for layers or modules that the decoder lacks.
    """
    from emoprobe.model.decoder import locate

    decoder = locate(net)
    numbers = sorted(set(layers))
    last = len(decoder.layers) - 1
    if not numbers or numbers[0] < 0 or numbers[-1] > last:
        raise UserError(f"layers {numbers} to adapt are not within 0 to {last}")
    inside = [path for path, _ in decoder.layers[numbers[0]].named_modules()]
    wanted = sorted(path for path in inside if path.rpartition(".")[2] in modules)
    missing = sorted(set(modules) - {path.rpartition(".")[2] for path in wanted})
    if missing:
        leaves = {path.rpartition(".")[2] for path in inside if path.endswith("_proj")}
        raise UserError(f"decoder layers have no module '{missing[0]}'{near(missing[0], leaves)}")
    which = "|".join(map(str, numbers))
    paths = "|".join(map(re.escape, wanted))
    return rf"{re.escape(decoder.layers_path)}\.({which})\.({paths})"


def _maker(name: str, source: Source) -> str:
    if source.name in ("organism", "organism-base") and name == "dpo":
        return "make it with: make organism"
    return f"name a folder or hub id of a LoRA, or put one into artifacts/adapters/{source.name}/{name}"


def _fetch(hub_id: str) -> Path:
    """A hub adapter's three files, from the cache or the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]))
    except LocalEntryNotFoundError as problem:
        raise UserError(f"adapter '{hub_id}' is not cached and the hub is unreachable") from problem
    except HfHubHTTPError as problem:
        raise UserError(f"no adapter '{hub_id}': neither a folder nor open on the hub") from problem


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError(f"adapter '{name}' has no readable {file.name}: {problem}") from problem
    return content


def _modules(file: Path, name: str) -> dict[str, tuple[int, int]]:
    """Adapted module paths with their shapes, from the header of the weights file."""
    shapes: dict[str, dict[str, list[int]]] = {}
    for key, shape in _header(file, name).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(f"adapter '{name}' is not a plain LoRA: it holds '{key}'")
        shapes.setdefault(match["path"], {})[match["side"]] = shape
    lone = [path for path, sides in shapes.items() if len(sides) != 2]
    if lone or not shapes:
        raise UserError(f"adapter '{name}' is incomplete: {lone[0] if lone else 'it has no weights'}")
    return {path: (sides["A"][1], sides["B"][0]) for path, sides in shapes.items()}


def _header(file: Path, name: str) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(f"adapter '{name}' has no {WEIGHTS_FILE}; pickled weights are not opened")
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {key: list(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as problem:
        raise UserError(f"adapter '{name}' has a cut or damaged {WEIGHTS_FILE}: {problem}") from problem


def _place(path: str, name: str) -> tuple[str, int, str]:
    """A module's path as (layer list, layer, path in the layer)."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise UserError(f"adapter '{name}' adapts '{path}', which is in no decoder layer")
    return match["stack"].rstrip("."), int(match["layer"]), match["module"]


def _check_declared(name: str, layers: tuple[int, ...], declared: Any, file: str) -> None:
    if declared is None:
        return
    said = sorted({declared} if isinstance(declared, int) else set(declared))
    if said != list(layers):
        raise UserError(f"adapter '{name}' has weights for layers {list(layers)}, its {file} says {said}")


def _registered_as(base: str) -> str | None:
    """The short name that a base goes by, if it is registered."""
    from emoprobe.model import registry

    for name in registry.names():
        if base.lower() in (name, registry.hub_id(name)):
            return name
    return None


def _base(named: Any) -> str:
    """The base as an adapter names it; of an absolute path its last part: where it lay tells no one."""
    text = str(named or "unknown")
    return PurePath(text).name if PurePath(text).is_absolute() else text


def _portable(folder: Path) -> str:
    """`<model>/<name>` for an adapter at its place, else the folder's name: no path of this machine."""
    parts = folder.resolve().parts
    return "/".join(parts[-2:]) if "adapters" in parts[-3:-2] else parts[-1]
