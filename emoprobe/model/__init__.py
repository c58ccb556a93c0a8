"""One loaded model, read through hooks: base and adapters on the same weights.

No torch: `registry.py` (names and shapes, data in `models.json`), `shipped.py` (where models, adapters and
probes lie), `shapes.py` (parameters, FLOPs and bytes from a config), `layers.py` and `devices.py` (what a
user writes), `adapters.py` (finding and describing an adapter), `chat.py` (messages to ids and spans).
With torch: `hooked.py` (HookedModel), `weights.py` (loading), `decoder.py` (the text decoder, by
structure), `checks.py` (what a model must show at load), `lora.py` (putting adapters on, and proving it).
"""
