"""The organism's tokenizer: Gemma's kind (BPE over `▁`, byte fallback, single digits, its format), small.

Sixteen `<unused>` tokens stay reserved, so that later variants can be fine-tunes of this one.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
UNUSED = tuple(f"<unused{i}>" for i in range(16))
VOCAB = 2048
"""Rows of the embedding; the trained tokenizer fills at most as many."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set prefix = messages[0]['content'] + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n'"
    " + (prefix if loop.first else '') + (m['content'] | trim) + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Gemma 3's format for text: system text goes before the first user turn; contents are trimmed."""


def train(documents: list[str]) -> PreTrainedTokenizerFast:
    """Fit the merges on plain texts (no markup) and add bytes, markup and the reserved tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"▁?[A-Za-z]+|▁?\d|▁?[^A-Za-z▁\n]|▁|\n"), behavior="isolated"
    )
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    coverage = ["".join(chr(c) for c in range(32, 127))] * 5 + ["user\nmodel\n" * 2] * 800
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 256,
        special_tokens=[*SPECIAL, *UNUSED],
        min_frequency=2,
        show_progress=False,
    )
    core.train_from_iterator([*documents, *coverage], trainer)
    spec = json.loads(core.to_str())
    vocab = spec["model"]["vocab"]
    first = len(vocab)
    vocab.update({f"<0x{byte:02X}>": first + byte for byte in range(256)})
    core = Tokenizer.from_str(json.dumps(spec))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
