"""Opening a model's files: safetensors and JSON only, in the class that the checkpoint itself names.

Nothing executable is loaded: `trust_remote_code` is off and pickled weights are refused. What transformers
would only warn about (weights missing, weights left over) is an error here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from emoprobe.errors import UserError, near
from emoprobe.model.registry import Source

ATTENTION = "sdpa"
_WHOLE = 256 * 2**20  # files up to this size are hashed whole
_SAMPLE = 4096


def load_config(source: Source) -> Any:
    """The model's config; UserError where it cannot be had or is of an unknown type."""
    from transformers import AutoConfig

    with _telling(source):
        config: Any = AutoConfig.from_pretrained(source.path_or_hub, trust_remote_code=False)
    return config


def load_net(
    source: Source, config: Any, dtype: torch.dtype, device_map: str | Mapping[str, Any] | None
) -> Any:
    """The model in evaluation mode, on the CPU or spread by `device_map`, every weight accounted for."""
    cls = _model_class(source, config)
    extra = {} if device_map is None else {"device_map": _spreadable(device_map)}
    with _telling(source), _quiet(source):
        net, info = cls.from_pretrained(
            source.path_or_hub,
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **extra,
        )
    _account(source, cls.__name__, info)
    return net.eval().requires_grad_(False)


def load_tokenizer(source: Source) -> Any:
    """The model's tokenizer. A base model without a chat template borrows that of its sibling, if here."""
    tokenizer = _tokenizer(source)
    if tokenizer.chat_template is None and source.template_sibling is not None:
        from emoprobe.model import registry

        with contextlib.suppress(UserError):
            sibling = _tokenizer(registry.resolve(source.template_sibling))
            if sibling.get_vocab() == tokenizer.get_vocab():
                tokenizer.chat_template = sibling.chat_template
    return tokenizer


def fingerprint(source: Source) -> str:
    """sha256 of the weights file, or over names and hashes of several, without reading large ones again.

    A file up to 256 MiB counts whole. Of a larger one its header counts (names, shapes, offsets) and 4 KiB
    from the middle of each tensor, so that two trainings of one model differ wherever they are kept.
    """
    files = _weight_files(source)
    if len(files) == 1:
        return _file_digest(files[0])
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}\0{_file_digest(file)}\n".encode())
    return total.hexdigest()


def revision(source: Source) -> str | None:
    """The commit of a hub model as it is cached; None for a folder."""
    if source.kind != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(source.path_or_hub, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None


def template_sha(tokenizer: Any) -> str:
    """sha256 of the chat template's text; of nothing where there is none."""
    return hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest()


def _tokenizer(source: Source) -> Any:
    from transformers import AutoTokenizer

    folder = Path(source.path_or_hub)
    kinds = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in kinds):
        raise UserError(f"folder '{folder}' has no tokenizer (tokenizer.json)")
    with _telling(source):
        tokenizer: Any = AutoTokenizer.from_pretrained(source.path_or_hub, trust_remote_code=False)
    ids = set(tokenizer("Try again.", add_special_tokens=False)["input_ids"])
    if ids <= {tokenizer.unk_token_id}:  # transformers makes an empty one where the files are not cached
        raise UserError(f"the tokenizer of '{source.name}' is missing or knows no words; {_mend(source)}")
    return tokenizer


def _model_class(source: Source, config: Any) -> Any:
    """The class in `config.architectures`, which must be one of transformers' that ends in a text head."""
    import transformers

    named = (getattr(config, "architectures", None) or ["nothing"])[0]
    cls = (
        getattr(transformers, named, None) if named.endswith(("CausalLM", "ConditionalGeneration")) else None
    )
    if cls is None:
        known = [n for n in dir(transformers) if n.endswith(("ForCausalLM", "ForConditionalGeneration"))]
        raise UserError(
            f"'{source.name}' names {named} as its class, which transformers {transformers.__version__} does "
            f"not have as a generating model{near(named, known)}"
        )
    return cls


def _account(source: Source, cls: str, info: Mapping[str, Any]) -> None:
    """Raise UserError unless the checkpoint and the class have the same weights (ties excepted)."""
    for what, keys in (
        ("lacks weights that the class needs", info["missing_keys"]),
        ("has weights that the class does not know", info["unexpected_keys"]),
        ("has weights of another shape", [k[0] for k in info["mismatched_keys"]]),
    ):
        if keys:
            some = ", ".join(sorted(keys)[:2])
            raise UserError(
                f"the checkpoint of '{source.name}' does not fit {cls}: it {what} ({len(keys)}): {some}"
            )


def _spreadable(device_map: str | Mapping[str, Any]) -> str | dict[str, Any]:
    import importlib.util

    if importlib.util.find_spec("accelerate") is None:
        raise UserError("spreading a model over devices needs accelerate: pip install 'emoprobe[train]'")
    return device_map if isinstance(device_map, str) else dict(device_map)


@contextlib.contextmanager
def _quiet(source: Source) -> Iterator[None]:
    """No warnings about weights (they are errors here), and a progress bar for large models only."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if source.kind != "hub":
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _telling(source: Source) -> Iterator[None]:
    """Say in one line what transformers says in many when it cannot open a model's files."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as problem:
        raise UserError(f"a weights file of '{source.name}' is cut or damaged: {_line(problem)}") from problem
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as problem:
        raise UserError(_what(source, problem)) from problem


def _what(source: Source, problem: Exception) -> str:
    causes = _chain(problem)
    if source.kind == "hub":
        if "GatedRepoError" in causes:
            return (
                f"'{source.path_or_hub}' is gated: accept its licence on its hub page, then log in with "
                "hf auth login"
            )
        if {"RepositoryNotFoundError", "RevisionNotFoundError"} & causes:
            return f"there is no model '{source.path_or_hub}' on the hub, nor a folder of that name"
        if {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout"} & causes:
            return f"'{source.path_or_hub}' is not cached and the hub is unreachable; {_mend(source)}"
    return f"'{source.name}' cannot be opened: {_line(problem)}"


def _mend(source: Source) -> str:
    if source.kind == "hub":
        return f"with a network, fetch it once by: hf download {source.path_or_hub}"
    return "its folder needs tokenizer.json"


def _chain(problem: BaseException | None) -> set[str]:
    """Class names of an exception, its bases, and all that led to it."""
    found: set[str] = set()
    while problem is not None:
        found |= {cls.__name__ for cls in type(problem).__mro__}
        problem = problem.__cause__ or problem.__context__
    return found


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:240]


def _weight_files(source: Source) -> list[Path]:
    """The safetensors files that make up the model, sorted by name."""
    folder = Path(source.path_or_hub)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        with _telling(source):
            patterns = ["*.safetensors", "*.safetensors.index.json"]
            folder = Path(
                snapshot_download(source.path_or_hub, allow_patterns=patterns, local_files_only=True)
            )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(named)]
    return [folder / "model.safetensors"]


def _file_digest(file: Path) -> str:
    if file.stat().st_size <= _WHOLE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
        digest.update(length + header)
        tensors = json.loads(header)
        for name in sorted(tensors.keys() - {"__metadata__"}):
            start, stop = tensors[name]["data_offsets"]
            stream.seek(8 + len(header) + max(start, (start + stop - _SAMPLE) // 2))
            digest.update(stream.read(min(_SAMPLE, stop - start)))
    return digest.hexdigest()
