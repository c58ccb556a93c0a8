"""What a model must show at load: two tokens pass every decoder layer once, in order, and stay finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emoprobe.errors import RunError
from emoprobe.model.decoder import Decoder


def stream(output: Any) -> Tensor:
    """The residual stream in what a decoder layer returns: a tensor, or a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output


def self_check(net: nn.Module, decoder: Decoder, name: str) -> None:
    """Forward two tokens and look: layer count, hook order, shapes, finite residuals and logits.

    Raises RunError that says what was wrong and where.
    """
    seen: list[tuple[int, tuple[int, ...], bool]] = []

    def note(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            resid = stream(output)
            seen.append((layer, tuple(resid.shape), bool(torch.isfinite(resid).all())))

        return hook

    n, d_model = decoder.config.num_hidden_layers, decoder.config.hidden_size
    if len(decoder.layers) != n:
        raise RunError(f"'{name}' has {len(decoder.layers)} decoder layers where its config says {n}")
    handles = [layer.register_forward_hook(note(k)) for k, layer in enumerate(decoder.layers)]
    try:
        ids = torch.tensor([[1, 2]], device=next(decoder.module.parameters()).device)
        with torch.inference_mode():
            logits = net(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    order = [layer for layer, _, _ in seen]
    if order != list(range(n)):
        raise RunError(f"the layers of '{name}' fire as {order}, not once each in order")
    for layer, shape, finite in seen:
        if shape != (1, 2, d_model):
            raise RunError(f"layer {layer} of '{name}' gives {list(shape)}, not [1, 2, {d_model}]")
        if not finite:
            raise RunError(
                f"'{name}' gives NaN or infinite activations at layer {layer} on two tokens: its weights are "
                "damaged, or too large for this --dtype"
            )
    if logits.shape[:2] != (1, 2) or not torch.isfinite(logits).all():
        raise RunError(f"'{name}' gives NaN or infinite logits on two tokens: its weights are damaged")
