"""The text decoder inside a loaded model, found by what it is made of, not by what it is called.

Gemma 3's published checkpoints wrap it beside a vision tower, whose layers carry the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from emoprobe.errors import UserError


@dataclass(frozen=True)
class Decoder:
    """A stack of decoder layers with its token embedding.

    Attributes:
        path: dotted path of the stack in the model, e.g. `model.language_model`.
        layers_path: dotted path of the layer list, e.g. `model.language_model.layers`.
        module: the stack; called with ids it gives the normalised last hidden state.
        layers: its layers, in order.
        config: the text part of the model's config.
    """

    path: str
    layers_path: str
    module: nn.Module
    layers: nn.ModuleList
    config: Any

    @property
    def layer_types(self) -> tuple[str, ...]:
        """Attention type of each layer; `full_attention` where the config names none."""
        return tuple(getattr(self.config, "layer_types", None) or ["full_attention"] * len(self.layers))


def locate(net: nn.Module) -> Decoder:
    """The one module that holds both an embedding of the whole vocabulary and a list of all text layers.

    Raises UserError where there is none, or more than one.
    """
    config: Any = net.config.get_text_config()  # type: ignore[operator, union-attr]
    n_layers, vocab, d_model = config.num_hidden_layers, config.vocab_size, config.hidden_size
    found: list[Decoder] = []
    for path, module in net.named_modules():
        children = dict(module.named_children())
        if not any(_embeds(child, vocab, d_model) for child in children.values()):
            continue
        for name, child in children.items():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers:
                found.append(Decoder(path, f"{path}.{name}".lstrip("."), module, child, config))
    if len(found) != 1:
        lists = sorted({len(m) for m in net.modules() if isinstance(m, nn.ModuleList)})
        raise UserError(
            f"{type(net).__name__} has {len(found)} text decoders of {n_layers} layers with an embedding of "
            f"{vocab} x {d_model}, wanted one (its layer lists have lengths {lists})"
        )
    return found[0]


def _embeds(module: nn.Module, vocab: int, d_model: int) -> bool:
    return (
        isinstance(module, nn.Embedding)
        and module.num_embeddings >= vocab
        and module.embedding_dim == d_model
    )
