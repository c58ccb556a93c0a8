"""Residual streams on disk: safetensors shards, a parquet index of their rows, a JSON header.

    folder/activations.json        what was read, from which weights, how it was reduced
    folder/index.parquet           one line per row: transcript, turn, part, shard and place in it
    folder/shards/00000.safetensors    one tensor [row, d_model] per layer, named resid_post.<layer>

Nothing is loaded until `load` asks for it, and then only the layers and the rows it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emoprobe.errors import RunError, UserError
from emoprobe.records import ModelRef
from emoprobe.runs import atomic

HEADER, INDEX = "activations.json", "index.parquet"


class ActivationsKey(BaseModel):
    """What makes two stores comparable: which numbers, from which weights, reduced how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelRef
    site: Literal["resid_post"] = "resid_post"
    reducer: Literal["span_mean", "token"]
    source: Literal["live", "replay"] = "replay"
    dtype: str


class Header(BaseModel):
    """activations.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: ActivationsKey
    layers: tuple[int, ...]
    d_model: int
    shard_rows: tuple[int, ...]


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / "shards" / f"{number:05d}.safetensors"


def write_shard(
    folder: Path, number: int, values: Mapping[int, Float[Tensor, "row d_model"]], names: Sequence[str]
) -> None:
    """Write one shard whole or not at all.

    `values` by layer; `names` [row] say in words what a row is. Raises RunError, naming layer and row, for
    NaN or infinite values: they are never written.
    """
    for layer, rows in values.items():
        bad = ~torch.isfinite(rows).all(dim=1)
        if bad.any():
            raise RunError(f"NaN or infinite activations at layer {layer} in {names[int(bad.nonzero()[0])]}")
    path = shard_path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as draft:
        save_file({_tensor(layer): rows.contiguous() for layer, rows in values.items()}, draft)


def shard_is_whole(folder: Path, number: int, rows: int, layers: Iterable[int]) -> bool:
    """Whether a shard is there with all its rows and layers; only its header is read."""
    try:
        return _shard_rows(shard_path(folder, number), layers) == rows
    except UserError:
        return False


def write_index(folder: Path, header: Header, rows: pd.DataFrame) -> None:
    """Write index and header, which make the shards a store. `rows` in the order of the shards."""
    if len(rows) != sum(header.shard_rows):
        raise ValueError(f"{len(rows)} index rows for {sum(header.shard_rows)} rows in shards")
    with atomic(folder / INDEX) as draft:
        rows.to_parquet(draft, index=False)
    with atomic(folder / HEADER) as draft:
        draft.write_text(header.model_dump_json(indent=2), "utf-8")


class Activations:
    """A store opened for reading. `rows` is the index: one line per row of `load`.

    Columns of `rows`: transcript_id, cluster, arm, turn, part, n_tokens; for a store of tokens also
    position and token_id, and a null part for tokens of none.
    """

    def __init__(self, folder: Path, header: Header, rows: pd.DataFrame) -> None:
        self.folder, self.header, self.rows = folder, header, rows
        self._stops = np.cumsum(header.shard_rows)

    @classmethod
    def open(cls, folder: str | Path) -> Activations:
        """Check header, index and every shard's length; read no values.

        Raises UserError for a folder that is no finished store, or has a shard that was cut short.
        """
        folder = Path(folder)
        try:
            header = Header.model_validate_json((folder / HEADER).read_text("utf-8"))
            rows = pd.read_parquet(folder / INDEX)
        except FileNotFoundError:
            raise UserError(f"{folder} holds no finished activations; run emoprobe capture again") from None
        except (ValidationError, ValueError, OSError) as problem:
            raise UserError(f"{folder}: header or index is damaged; capture again") from problem
        for number, n in enumerate(header.shard_rows):
            path = shard_path(folder, number)
            if _shard_rows(path, header.layers) != n:
                raise UserError(f"{path} does not have the {n} rows of its index; capture again")
        if len(rows) != sum(header.shard_rows):
            raise UserError(f"{folder}: the index does not fit the shards; capture again")
        return cls(folder, header, rows)

    @property
    def key(self) -> ActivationsKey:
        """What was read, from which weights, reduced how."""
        return self.header.key

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers that are stored, 0-based."""
        return self.header.layers

    def __len__(self) -> int:
        return len(self.rows)

    def select(
        self, transcript: str | None = None, turn: int | None = None, part: str | None = None
    ) -> NDArray[np.int64]:
        """Row numbers of a transcript, turn and part; None stands for all of them."""
        keep = np.ones(len(self.rows), dtype=np.bool_)
        for column, wanted in (("transcript_id", transcript), ("turn", turn), ("part", part)):
            if wanted is not None:
                keep &= (self.rows[column] == wanted).to_numpy(dtype=np.bool_)
        return np.flatnonzero(keep)

    def load(
        self, rows: Sequence[int] | NDArray[np.int64] | None = None, layers: Sequence[int] | None = None
    ) -> Float[Tensor, "row layer d_model"]:
        """Values of some rows and layers, in the order asked for, in the dtype they were stored in.

        Raises UserError for a layer that is not stored, IndexError for a row that is not.
        """
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        chosen = self.layers if layers is None else tuple(layers)
        missing = sorted(set(chosen) - set(self.layers))
        if missing:
            have = ", ".join(map(str, self.layers))
            raise UserError(f"{self.folder} holds no layer {missing[0]}; it has {have}")
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows go from 0 to {len(self) - 1}")
        dtype = getattr(torch, self.key.dtype)
        out = torch.empty(len(wanted), len(chosen), self.header.d_model, dtype=dtype)
        shard = np.searchsorted(self._stops, wanted, side="right")
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            inside = wanted[here] - (self._stops[number] - self.header.shard_rows[number])
            first, stop = int(inside.min()), int(inside.max()) + 1
            path = shard_path(self.folder, int(number))
            try:
                with safe_open(path, framework="pt") as file:
                    for k, layer in enumerate(chosen):
                        block = file.get_slice(_tensor(layer))[first:stop]
                        out[torch.from_numpy(here), k] = block[torch.from_numpy(inside - first)]
            except (SafetensorError, OSError) as problem:
                raise _damaged(path) from problem
        return out


def _shard_rows(path: Path, layers: Iterable[int]) -> int:
    """Rows of a shard by its header, which also tells whether the file is whole."""
    try:
        with safe_open(path, framework="pt") as file:
            rows = {file.get_slice(_tensor(layer)).get_shape()[0] for layer in layers}
    except (SafetensorError, OSError) as problem:
        raise _damaged(path) from problem
    return rows.pop() if len(rows) == 1 else -1


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is missing, cut short or damaged; the same capture command makes it again")


def _tensor(layer: int) -> str:
    return f"resid_post.{layer}"
