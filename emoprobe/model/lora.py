"""Putting LoRA adapters on a loaded model, and proving that they do something, where they say they do.

PEFT is silent when an adapter's keys do not fit the model (lora_B stays zero: the base in disguise). Here
each adapted module is checked against the decoder's own paths before, counted after, and a canary must
change the logits.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emoprobe.errors import UserError
from emoprobe.model import adapters as folders
from emoprobe.model.adapters import Adapter
from emoprobe.model.decoder import Decoder
from emoprobe.records import AdapterRef

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel

CANARY = "That is wrong again. Please try once more."


class Adapters:
    """The adapters on one model: which there are, and which is on. All are off after `attach`."""

    def __init__(self, net: nn.Module) -> None:
        self.refs: dict[str, AdapterRef] = {}
        self._net = net
        self._keys: dict[str, str] = {}  # PEFT keeps adapters in a ModuleDict, whose keys bear no dots

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of loading."""
        return tuple(self.refs)

    @classmethod
    def attach(cls, model: HookedModel, wanted: Sequence[Adapter]) -> Adapters:
        """Put adapters on a model.

        Raises UserError for one of another base or class, on a vision tower, or without any effect.
        """
        loaded = cls(model.net)
        for adapter in wanted:
            if adapter.ref.name in (*loaded.names, "base"):
                raise UserError(f"two states named '{adapter.ref.name}': rename the adapter's folder")
            folders.check_base(adapter, model.source, model.weights_sha)
            check_fit(adapter, model.net, model.decoder)
            loaded._put_on(adapter)
            check_adapted(model.net, adapter.ref.layers, loaded._keys[adapter.ref.name])
            loaded._canary(model, adapter.ref.name)
        return loaded

    def activate(self, name: str | None) -> None:
        """Turn one adapter on and the others off; None: all off."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self._net.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(name is not None)
                if name is not None:
                    module.set_adapter(self._keys[name], inference_mode=True)

    def _put_on(self, adapter: Adapter) -> None:
        from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

        name, key = adapter.ref.name, f"adapter{len(self._keys)}"
        tensors = _tensors(adapter)
        config: Any = LoraConfig.from_pretrained(str(adapter.folder))
        # exactly the modules that the weights are for, whatever pattern they were chosen by
        config.target_modules = "|".join(re.escape(path) for path in sorted(adapter.modules))
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
        config.inference_mode = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is an adapter already; what PEFT must adapt to
            inject_adapter_in_model(config, self._net, key)
            result: Any = set_peft_model_state_dict(self._net, tensors, adapter_name=key)
        odd = [k for k in result.missing_keys if f".{key}." in k] + list(result.unexpected_keys)
        if odd:
            raise UserError(f"adapter '{name}' does not fit this model: {odd[0]}")
        self._net.eval().requires_grad_(False)
        self._keys[name] = key
        self.refs[name] = adapter.ref
        self.activate(None)

    def _canary(self, model: HookedModel, name: str) -> None:
        """Raise UserError unless the adapter changes the logits of a fixed prompt."""
        ids = torch.tensor([model.tokenizer(CANARY)["input_ids"]], device=model.device)
        base = model.forward(ids)
        self.activate(name)
        changed = model.forward(ids)
        self.activate(None)
        assert base is not None
        assert changed is not None
        if not torch.isfinite(changed).all():
            raise UserError(f"adapter '{name}' makes the logits NaN or infinite")
        if torch.equal(base, changed):
            raise UserError(f"adapter '{name}' does nothing: the logits of a test prompt are the base's own")


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    """The weights, refused where they are not finite, or where lora_B is zero as before any training."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(adapter.folder / folders.WEIGHTS_FILE)
    for path, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"adapter '{adapter.ref.name}' holds NaN or infinite weights in '{path}'")
    if not any(tensor.any() for path, tensor in tensors.items() if ".lora_B." in path):
        raise UserError(f"adapter '{adapter.ref.name}' does nothing: its lora_B is zero everywhere")
    return tensors


def check_fit(adapter: Adapter, net: nn.Module, decoder: Decoder) -> None:
    """Refuse an adapter whose modules are not in this decoder's layers, or are of another shape."""
    name = adapter.ref.name
    outside = [path for path in adapter.modules if not path.startswith(f"{decoder.layers_path}.")]
    modules = dict(net.named_modules())
    strangers = [path for path in outside if path in modules]
    if strangers:
        raise UserError(
            f"adapter '{name}' adapts '{strangers[0]}', outside the text decoder; train it on "
            f"{decoder.layers_path} only"
        )
    if outside:
        raise UserError(
            f"adapter '{name}' was trained for another class: its keys name '{outside[0]}', this "
            f"{type(net).__name__} has its layers at '{decoder.layers_path}'; train it on this class"
        )
    for path, shape in adapter.modules.items():
        module: Any = modules.get(path)
        if module is None:
            raise UserError(f"adapter '{name}' adapts '{path}', which this model does not have")
        have = (module.in_features, module.out_features)
        if have != shape:
            raise UserError(f"adapter '{name}' is for another model: '{path}' is {have} here, {shape} there")


def adapted_modules(net: nn.Module, key: str = "default") -> set[str]:
    """Paths of the modules that carry this PEFT adapter, in the model's own naming."""
    return {
        path.removeprefix("base_model.model.")
        for path, module in net.named_modules()
        if key in getattr(module, "lora_A", ())
    }


def check_adapted(net: nn.Module, layers: Sequence[int], key: str = "default") -> int:
    """How many modules are adapted; UserError unless they lie in exactly these decoder layers.

    For a model as loaded or as trained (a PeftModel too).
    """
    from emoprobe.model.decoder import locate

    inner: Any = net.get_base_model() if hasattr(net, "get_base_model") else net  # type: ignore[operator]
    prefix = locate(inner).layers_path + "."
    paths = adapted_modules(inner, key)
    outside = sorted(path for path in paths if not path.startswith(prefix))
    if outside:
        raise UserError(f"the adapter is also on '{outside[0]}', outside the text decoder")
    have = sorted({int(path.removeprefix(prefix).partition(".")[0]) for path in paths})
    if have != sorted(set(layers)):
        raise UserError(f"the adapter is on layers {have}, wanted {sorted(set(layers))}")
    return len(paths)
