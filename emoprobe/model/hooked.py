"""HookedModel: one loaded model, its adapters, and readers that see the residual stream as it passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from emoprobe.errors import UserError, near
from emoprobe.model import adapters as folders
from emoprobe.model import checks, devices, registry, weights
from emoprobe.model import decoder as decoders
from emoprobe.records import AdapterRef, ModelRef

if TYPE_CHECKING:
    from emoprobe.model.lora import Adapters

BASE = "base"
"""Name of the state without an adapter."""

Mask = Bool[Tensor, "batch 1 query key"] | Float[Tensor, "batch 1 query key"]


class Reader(Protocol):
    """What `HookedModel.read` hands residual streams to (`activations.reduce.Reducer` is one)."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers it wants, 0-based."""
        ...

    def begin(self, tags: Int[Tensor, "batch token"] | None) -> None:
        """A forward pass is coming; its tags, or None: nothing of it is counted."""
        ...

    def layer(self, index: int, resid: Float[Tensor, "batch token d_model"]) -> None:
        """`resid_post[index]` of the pass. To be reduced at once: whoever keeps it keeps the batch alive."""
        ...


R = TypeVar("R", bound=Reader)


class HookedModel:
    """A causal language model with a reading hook on each decoder layer. Made by `load`.

    Attributes:
        source: where it came from.
        name: of the base, as adapters and probes are filed under it.
        tokenizer: transformers' tokenizer.
        net: the transformers model; adapters sit inside it.
        layers: decoder layers; `resid_post[L]` is what `layers[L]` returns.
        n_layers, d_model: their number and width.
        dtype: number format of the weights.
        device: where token ids go in.
        layer_types: attention type of each layer.
        sliding_window: tokens that a sliding layer sees, its own included; None without such layers.
        eos_ids: ids that end a turn.
        active: `base`, or the name of the adapter that is on.
        weights_sha: of the base's weights files.
    """

    def __init__(
        self, source: registry.Source, net: Any, tokenizer: Any, weights_sha: str, dtype: torch.dtype
    ) -> None:
        self.source = source
        self.name = source.name
        self.net = net
        self.tokenizer = tokenizer
        self.weights_sha = weights_sha
        self.dtype = dtype
        self.active = BASE
        self.decoder = decoders.locate(net)
        self.layers: nn.ModuleList = self.decoder.layers
        self.n_layers = len(self.layers)
        self.d_model: int = self.decoder.config.hidden_size
        self.layer_types = self.decoder.layer_types
        sliding = "sliding_attention" in self.layer_types
        self.sliding_window: int | None = self.decoder.config.sliding_window if sliding else None
        self.device: torch.device = net.get_input_embeddings().weight.device
        self.eos_ids = _eos_ids(net, tokenizer)
        self._readers: list[Reader] = []
        self._adapters: Adapters | None = None
        self._revision = weights.revision(source)
        self._template_sha = weights.template_sha(tokenizer)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        adapters: Sequence[str] = (),
        device: str = "auto",
        dtype: str = "auto",
        device_map: str | Mapping[str, Any] | None = None,
    ) -> HookedModel:
        """Load a model and put its adapters beside it; the base is active until `adapter` is entered.

        Args:
            name: short name, local folder or hub id.
            adapters: names under artifacts/adapters/<model>/, folders or hub ids.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; `spread`: over all GPUs.
            dtype: `auto` (fp32 on a CPU, bf16 elsewhere), `float32` or `bfloat16`.
            device_map: accelerate's, to say which layer goes where, instead of `device`.

        Raises UserError for what cannot be found, opened or put together, RunError for a model that fails
        its check: two tokens must pass all layers once, in order, and stay finite.
        """
        where = devices.pick_device(device)
        if device == devices.SPREAD and device_map is None:
            device_map = "auto"
        number = devices.pick_dtype(dtype, where)
        source = registry.resolve(name)
        described = [folders.describe(folders.find(adapter, source)) for adapter in adapters]
        for adapter in described:
            folders.check_base(adapter, source)
        config = weights.load_config(source)
        tokenizer = weights.load_tokenizer(source)
        net = weights.load_net(source, config, number, device_map)
        if device_map is None:
            net = net.to(where)
        model = cls(source, net, tokenizer, weights.fingerprint(source), number)
        checks.self_check(net, model.decoder, model.name)
        if described:
            from emoprobe.model.lora import Adapters

            model._adapters = Adapters.attach(model, described)
        return model

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        return () if self._adapters is None else self._adapters.names

    @property
    def mask_kinds(self) -> frozenset[str]:
        """Attention types that a mask is needed for."""
        return frozenset(self.layer_types)

    @property
    def adapter_ref(self) -> AdapterRef | None:
        """The active adapter."""
        return None if self._adapters is None or self.active == BASE else self._adapters.refs[self.active]

    @property
    def ref(self) -> ModelRef:
        """Identity of what is active now, for records."""
        return ModelRef(
            name=self.name,
            source=self.source.origin,
            revision=self._revision,
            dtype=str(self.dtype).removeprefix("torch."),
            attention=weights.ATTENTION,
            template_sha=self._template_sha,
            n_layers=self.n_layers,
            d_model=self.d_model,
            weights_sha=self.weights_sha,
            adapter=self.adapter_ref,
        )

    @property
    def state_key(self) -> str:
        """Changes with the weights and the active adapter: what keys and values were computed with."""
        adapter = self.adapter_ref
        state = BASE if adapter is None else f"{adapter.name}@{adapter.sha256[:12]}"
        return f"{self.name}@{self.weights_sha[:12]}+{state}"

    def base(self) -> contextlib.AbstractContextManager[HookedModel]:
        """Within, no adapter is on: the base's own numbers to the last bit."""
        return self.adapter(BASE)

    @contextlib.contextmanager
    def adapter(self, name: str) -> Iterator[HookedModel]:
        """Within, this adapter (or `base`) is on; what was on before is on again after."""
        before = self.active
        self._switch(name)
        try:
            yield self
        finally:
            self._switch(before)

    @contextlib.contextmanager
    def read(self, reader: R) -> Iterator[R]:
        """Within, each `forward` hands `reader` the residual streams it asks for; logits do not change.

        Several readers may be nested. Nothing is held here: not the streams, and after the context not the
        reader.
        """
        wrong = [layer for layer in reader.layers if not 0 <= layer < self.n_layers]
        if wrong:
            raise UserError(f"no layer {wrong[0]}: '{self.name}' has layers 0 to {self.n_layers - 1}")
        handles = [self.layers[k].register_forward_hook(_hand_over(reader, k)) for k in reader.layers]
        self._readers.append(reader)
        try:
            yield reader
        finally:
            self._readers = [r for r in self._readers if r is not reader]
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def forward(
        self,
        ids: Int[Tensor, "batch token"],
        positions: Int[Tensor, "batch token"] | None = None,
        mask: Mask | Mapping[str, Mask] | None = None,
        cache: Any = None,
        tags: Int[Tensor, "batch token"] | None = None,
        logits: Literal["last", "all", "none"] = "last",
    ) -> Tensor | None:
        """One pass of the text decoder.

        Args:
            ids: token ids, on `device`.
            positions: of each token in its conversation; 0, 1, ... behind the cache if None.
            mask: one per attention type (`mask_kinds`), `[batch, 1, query, key]`, added to the scores or
                bool; causal, with no pads, if None. Rows of different lengths need their own.
            cache: keys and values so far; updated.
            tags: of each token, for the readers; -1 is never counted.
            logits: behind the last token `[batch, vocab]`, of all `[batch, token, vocab]`, or None.
        """
        readers = tuple(self._readers)
        for reader in readers:
            reader.begin(tags)
        inputs = {
            "input_ids": ids,
            "position_ids": positions,
            "attention_mask": self._mask(mask),
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        try:
            if logits == "none":
                self.decoder.module(**inputs)
                return None
            out: Tensor = self.net(**inputs, logits_to_keep=1 if logits == "last" else 0).logits
        finally:
            for reader in readers:
                reader.begin(None)  # a pass that does not come through here is counted nowhere
        return out[:, -1] if logits == "last" else out

    def _mask(self, mask: Mask | Mapping[str, Mask] | None) -> Mask | dict[str, Mask] | None:
        """A mask per attention type as the class takes it: Llama-like ones know one only."""
        if mask is None or not isinstance(mask, Mapping):
            return mask
        missing = self.mask_kinds - mask.keys()
        if missing:
            raise ValueError(f"no mask for {', '.join(sorted(missing))}")
        if getattr(self.decoder.config, "layer_types", None) is None:
            return mask["full_attention"]
        return dict(mask)

    def _switch(self, name: str) -> None:
        if name != BASE and name not in self.adapters:
            loaded = near(name, self.adapters) or "; none was named when the model was loaded"
            raise UserError(f"adapter '{name}' is not loaded{loaded}")
        if self._adapters is not None:
            self._adapters.activate(None if name == BASE else name)
        self.active = name


def _hand_over(reader: Reader, layer: int) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that keeps nothing and returns nothing, so that the layer's output stays what it is."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        reader.layer(layer, checks.stream(output))

    return hook


def _eos_ids(net: Any, tokenizer: Any) -> tuple[int, ...]:
    """All ids by which model or tokenizer say that a turn is over."""
    found: set[int] = set()
    for place in (net.generation_config, net.config, net.config.get_text_config(), tokenizer):
        value = getattr(place, "eos_token_id", None)
        found |= {value} if isinstance(value, int) else set(value or ())
    return tuple(sorted(found))
