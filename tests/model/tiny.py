"""Tiny random models of the true classes, and tokenizers with the true quirks, made on disk in a second.

The chat templates keep what has bitten people: Gemma's trims what it renders, puts a system text into the
first user turn and begins with a BOS that the tokenizer adds once more; Qwen3's strips thinking from the
history and has no BOS.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

WINDOW = 16
D_MODEL = 48
N_LAYERS = 6
KINDS = ("sliding_attention", "sliding_attention", "full_attention")

GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set prefix = messages[0]['content'] + '\n\n' -%}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set prefix = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for m in rest -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ (prefix if loop.first else '') + (m['content'] | trim) + '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)

QWEN_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- set text = m['content'] -%}"
    "{%- if m['role'] == 'assistant' and '</think>' in text -%}"
    "{%- set text = text.split('</think>')[-1].lstrip('\n') -%}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' + text + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

_TEXT = [
    "Please make 24 from the numbers 3, 3, 8 and 8, using each exactly once.",
    "That is wrong. Try again. I cannot find it, I am sorry, I keep failing at this.",
    "Okay.\n\nLet me think: 8 / (3 - 8 / 3) = 24.",
    "user model assistant system",
]


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; a plain call adds a BOS, as Gemma's does."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = _bpe(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", specials.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=GEMMA_TEMPLATE,
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE without a BOS; thinking tags are tokens, but not special ones."""
    tokenizer = _bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>", "</think>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN_TEMPLATE,
    )


def gemma_text(seed: int = 1) -> Any:
    """A `Gemma3ForCausalLM`, six layers, every third of them full."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return _randomise(Gemma3ForCausalLM(Gemma3TextConfig(**_gemma_text_config())), seed)


def gemma_vision(seed: int = 1) -> Any:
    """A `Gemma3ForConditionalGeneration`: the class of the published 4B, 12B and 27B, vision tower included.

    The tower has as many layers as the decoder, and the same projection names.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    config = Gemma3Config(
        text_config=_gemma_text_config(),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
    )
    return _randomise(Gemma3ForConditionalGeneration(config), seed)


def qwen(seed: int = 1) -> Any:
    """A `Qwen3ForCausalLM`: full attention only, embeddings not tied."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=96,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return _randomise(Qwen3ForCausalLM(config), seed)


MAKERS = {
    "gemma-text": (gemma_text, gemma_tokenizer),
    "gemma-vision": (gemma_vision, gemma_tokenizer),
    "qwen": (qwen, qwen_tokenizer),
}
"""Kind of tiny model -> (its weights, its tokenizer)."""


def write(kind: str, folder: Path, seed: int = 1) -> Path:
    """A whole model folder, as `from_pretrained` wants it."""
    make_net, make_tokenizer = MAKERS[kind]
    net, tokenizer = make_net(seed), make_tokenizer()
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(
    model: Path,
    folder: Path,
    targets: str | list[str],
    *,
    zero: bool = False,
    card: dict[str, Any] | None = None,
    seed: int = 1,
    **lora: Any,
) -> Path:
    """A LoRA adapter for a model folder, as PEFT saves it, with random weights (or lora_B zero)."""
    import transformers
    from peft import LoraConfig, get_peft_model

    named = json.loads((model / "config.json").read_text())["architectures"][0]
    net = getattr(transformers, named).from_pretrained(model)
    tuned = get_peft_model(net, LoraConfig(r=2, lora_alpha=4, target_modules=targets, **lora))
    generator = torch.Generator().manual_seed(seed)
    if not zero:
        for name, weight in tuned.named_parameters():
            if ".lora_B." in name:
                weight.data.normal_(0.0, 0.3, generator=generator)
    tuned.save_pretrained(str(folder))
    if card is not None:
        (folder / "card.json").write_text(json.dumps(card))
    return folder


def _bpe(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return tokenizer


def _gemma_text_config() -> dict[str, Any]:
    return {
        "vocab_size": len(gemma_tokenizer()),
        "hidden_size": D_MODEL,
        "intermediate_size": 96,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "query_pre_attn_scalar": 12,
        "sliding_window": WINDOW,
        "layer_types": [KINDS[k % len(KINDS)] for k in range(N_LAYERS)],
        "max_position_embeddings": 2048,
        "bos_token_id": 2,
        "eos_token_id": [1, 5],
        "pad_token_id": 0,
    }


def _randomise(net: nn.Module, seed: int) -> nn.Module:
    """Weights large enough that attention matters and greedy text is not one token for ever."""
    generator = torch.Generator().manual_seed(seed)
    gemma = type(net).__name__.startswith("Gemma")  # whose norms scale by 1 + weight
    for name, weight in net.named_parameters():
        if weight.ndim == 1:
            scale = 3.0 if "post_" in name and gemma else float(not gemma)
            weight.data.normal_(scale, 0.1, generator=generator)
        elif "embed" in name or "lm_head" in name:
            weight.data.normal_(0.0, 0.15, generator=generator)
        else:
            weight.data.normal_(0.0, 1.6 / math.sqrt(weight[0].numel()), generator=generator)
    return net.eval()
