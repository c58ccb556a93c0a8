"""A run folder: what was asked, what is done, and how to go on after a kill. No torch.

`run.json` holds verb and config; finished pieces are shards, each written whole or not at all. The same
command on the same folder resumes; another config is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from emoprobe.errors import RunError, UserError

SCHEMA = 1

NOT_IDENTITY = ("out", "dry_run")
"""Config fields that say where, not what: they do not make it another run."""

PACKAGES = (
    "emoprobe",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "pydantic",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "trl",
    "plotly",
)
"""Packages whose version can change a number; those installed stand in the manifest."""


class RunFolder:
    """A folder that one command fills, shard by shard. Make it with `RunFolder.open`."""

    def __init__(self, path: Path, verb: str, config: dict[str, Any]) -> None:
        self.path = path
        self.verb = verb
        self.config = config
        self._inputs: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: BaseModel,
        verb: str,
        resume: bool = True,
        ignore: Collection[str] = NOT_IDENTITY,
    ) -> RunFolder:
        """Create the folder, or go on with it where verb and config are the same.

        `ignore` names config fields that do not make it another run.
        Raises UserError for a folder of another config (the fields that differ are named), of another
        verb, of files that are no run, or, with `resume=False`, of any run.
        """
        folder = Path(path)
        wanted = config.model_dump(mode="json", exclude=set(ignore))
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; name a folder")
        before = _read_run(folder)
        if before is None:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic(folder / "run.json") as draft:
                draft.write_text(
                    _dump({"schema_version": SCHEMA, "verb": verb, "config": wanted}, 2), "utf-8"
                )
        else:
            if not resume:
                raise UserError(f"{folder} already holds a run; choose another folder")
            _refuse_other(folder, before, verb, wanted)
        for leftover in folder.rglob(".*.partial"):
            leftover.unlink(missing_ok=True)
        return cls(folder, verb, wanted)

    def file(self, name: str) -> Path:
        """The path of a file of this run, its parent made."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def has(self, name: str) -> bool:
        """Whether a shard of that name is there (whole or not: reading tells)."""
        return (self.path / name).is_file()

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        with atomic(self.file(name)) as draft:
            draft.write_text(text, "utf-8")
        return self.path / name

    def write_json(self, name: str, value: Any, indent: int | None = None) -> Path:
        """Write JSON whole or not at all; pydantic models anywhere inside are dumped. NaN is refused."""
        return self.write_text(name, _dump(value, indent))

    def write_npz(self, name: str, **arrays: NDArray[Any]) -> Path:
        """Write arrays whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types **kwds together with allow_pickle
        with atomic(self.file(name)) as draft:
            draft.write_bytes(buffer.getvalue())
        return self.path / name

    def read_json(self, name: str) -> Any | None:
        """The value of a shard, or None where it is missing or damaged (then removed, to be redone)."""
        if not self.has(name):
            return None
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except (ValueError, UnicodeDecodeError):
            self._discard(name)
            return None

    def read_npz(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a shard, or None where it is missing or damaged (then removed, to be redone)."""
        if not self.has(name):
            return None
        try:
            with np.load(self.path / name, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
            self._discard(name)
            return None

    def append_jsonl(self, name: str, records: Iterable[Any]) -> None:
        """Append one line per record and wait until they are on the disk.

        A last line that a kill cut short is taken away first.
        """
        lines = "".join(_dump(record) + "\n" for record in records).encode("utf-8")
        with self.file(name).open("ab+") as handle:
            _cut_unfinished(handle)
            handle.write(lines)
            handle.flush()
            os.fsync(handle.fileno())

    def read_jsonl(self, name: str) -> list[Any]:
        """All finished lines; a last line without its newline was cut and is left out.

        Raises RunError for a damaged line elsewhere.
        """
        if not self.has(name):
            return []
        *lines, cut = (self.path / name).read_bytes().split(b"\n")
        if cut:
            _warn(f"{self.path / name}: last line cut short, redone")
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except ValueError:
                raise RunError(f"{self.path / name}: line {number} is damaged; remove the file") from None
        return records

    def add_input(self, name: str, path: Path) -> str:
        """Record the sha256 of a file or folder that this run reads; returned, too."""
        self._inputs[name] = sha256(path)
        return self._inputs[name]

    def manifest(self, pending: Iterable[str] = ()) -> dict[str, Any]:
        """What another machine needs to judge or repeat this run; no paths, keys or times.

        `pending` names what is not done yet.
        """
        return {
            "schema_version": SCHEMA,
            "verb": self.verb,
            "config": _without_paths(self.config),
            "git": git_state(),
            "packages": package_versions(),
            "python": platform.python_version(),
            "platform": {"system": platform.system(), "machine": platform.machine()},
            "inputs": dict(sorted(self._inputs.items())),
            "pending": sorted(pending),
        }

    def _discard(self, name: str) -> None:
        _warn(f"{self.path / name} is damaged (cut short?): removed, will be redone")
        (self.path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A draft to write to; on a clean exit it is synced to disk and takes the place of `path`.

    The draft keeps the suffix out of sight of readers: a kill leaves `path` as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield draft
        with draft.open("rb+") as handle:
            os.fsync(handle.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_run(path: str | Path) -> dict[str, Any]:
    """`{"schema_version", "verb", "config"}` of a run folder; UserError where it is none."""
    found = _read_run(Path(path)) if (Path(path) / "run.json").is_file() else None
    if found is None:
        raise UserError(f"{path} is not a run folder (it has no run.json)")
    return found


def sha256(path: Path) -> str:
    """Of a file, or of a folder's file names and contents."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(path)
    for file in files:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from and whether tracked files differ; None outside one."""
    root = Path(__file__).resolve().parent.parent
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return None
    return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}


def package_versions() -> dict[str, str]:
    """Installed versions of `PACKAGES`."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read_run(folder: Path) -> dict[str, Any] | None:
    """run.json, or None for a folder that is missing or empty; UserError for anything else."""
    file = folder / "run.json"
    if not file.is_file():
        strangers = (
            [p for p in folder.iterdir() if not p.name.endswith(".partial")] if folder.exists() else []
        )
        if strangers:
            raise UserError(f"{folder} is not empty and holds no run; choose another folder")
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA:
        raise UserError(f"{file} cannot be read (damaged, or of another version); choose another folder")
    return found


def _refuse_other(folder: Path, before: dict[str, Any], verb: str, wanted: dict[str, Any]) -> None:
    if before["verb"] != verb:
        raise UserError(f"{folder} holds a run of '{before['verb']}', not '{verb}'; choose another folder")
    there = before["config"]
    missing = object()
    differing = [
        f"{key} was {_show(there, key)}, now {_show(wanted, key)}"
        for key in sorted({*there, *wanted})
        if there.get(key, missing) != wanted.get(key, missing)
    ]
    if differing:
        raise UserError(
            f"{folder} holds a run of another config: {'; '.join(differing)}; choose another folder"
        )


def _show(config: dict[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "absent"


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_jsonable)


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _cut_unfinished(handle: io.BufferedRandom | Any) -> None:
    """Truncate an open file after its last newline."""
    handle.seek(0)
    content: bytes = handle.read()
    if content and not content.endswith(b"\n"):
        handle.truncate(content.rfind(b"\n") + 1)


def _without_paths(value: Any) -> Any:
    """Absolute paths shortened to their last part: where a file lay is no one else's business."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and os.path.isabs(value):
        return PurePath(value).name
    return value


def _warn(text: str) -> None:
    print(f"emoprobe: {text}", file=sys.stderr)
