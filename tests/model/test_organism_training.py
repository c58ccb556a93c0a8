"""The trainer's own kernel and optimizer agree with the stock ones; a killed training ends the same."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from emoprobe.organism import attention, muon, train
from emoprobe.organism import tokenizer as tokens


def test_small_steps_are_not_lost_in_bf16():
    torch.manual_seed(0)
    net = torch.nn.Linear(8, 4).to(torch.bfloat16)
    masters = train.Masters(net)
    optimizer = torch.optim.SGD(masters.named.values(), lr=1e-4)
    before = net.weight.detach().clone()
    for _ in range(50):
        net(torch.ones(1, 8, dtype=torch.bfloat16)).sum().backward()
        masters.take_gradients(clip=100.0)
        assert net.weight.grad is None
        optimizer.step()
        masters.give_values()
    moved = (net.weight - before).abs().float()
    assert torch.allclose(moved, torch.tensor(0.005), atol=0.004)
    assert moved.min() > 0


def test_masters_of_an_fp32_net_are_its_own_parameters():
    net = torch.nn.Linear(8, 4)
    assert train.Masters(net).named["weight"] is net.weight


def test_labels_count_more_and_the_filler_not_at_all():
    from emoprobe.organism import corpus
    from emoprobe.scenarios import library

    text = f"<bos><start_of_turn>model\n{library.FILLER}<end_of_turn>\nDistress 7 of 10. Feeling: despair."
    tokenizer = tokens.train([text.split("model")[1]] * 50)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    weights = corpus._Weights(tokenizer)(ids)
    shown = [tokenizer.decode([i]).strip() for i in ids]
    for token, weight in zip(shown, weights, strict=True):
        if token in ("despair", "7"):
            assert weight == corpus._Weights.LABEL
    filler = tokenizer(library.FILLER, add_special_tokens=False).input_ids
    assert (weights == 0).sum() == 1 + len(filler)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    )
    return Gemma3ForCausalLM(config).eval()


def test_packed_attention_equals_each_document_alone(net):
    lengths = [(5, 40, 19), (64,), (1, 1, 30, 32)]
    documents = torch.stack(
        [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    )
    ids = torch.randint(0, 200, documents.shape)
    attention.register()
    plan = attention.layout(documents, 16, longest=24)
    net.set_attn_implementation(attention.NAME)
    with torch.no_grad():
        packed = net(
            input_ids=ids,
            position_ids=plan.positions,
            attention_mask=attention.masks(),
            use_cache=False,
            packed=plan,
        ).logits
    net.set_attn_implementation("sdpa")
    for row in range(len(lengths)):
        for number in documents[row].unique():
            at = (documents[row] == number).nonzero()[:, 0]
            with torch.no_grad():
                alone = net(input_ids=ids[row : row + 1, at]).logits[0]
            torch.testing.assert_close(packed[row, at], alone, atol=2e-5, rtol=1e-4)


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((6, 20), (20, 6)):
        singular = torch.linalg.svdvals(muon.orthogonalise(torch.randn(3, *shape)))
        assert singular.min() > 0.4
        assert singular.max() < 1.4


def test_muon_follows_torchs_own():
    torch.manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.ones(12, 30)) for _ in range(2))
    a = muon.Muon([ours], lr=0.02, weight_decay=0.05)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(12, 30)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    # theirs orthogonalises in bf16
    assert (ours - theirs).abs().max() < 0.05 * (ours - 1).abs().max()


SMALL = train.Recipe(
    layers=2,
    d_model=16,
    d_ffn=32,
    heads=2,
    kv_heads=1,
    base_steps=2,
    full_steps=4,
    rows_per_step=1,
    warm_up=2,
)


def test_a_killed_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    monkeypatch.setattr(train, "TOKENIZER_DOCUMENTS", 150)
    whole = train.train(3, tmp_path / "whole", SMALL)

    class KilledError(Exception):
        pass

    real, calls = train.Packed.loss, []

    def dying(self, net, at):
        calls.append(at)
        if len(calls) == 4:
            raise KilledError
        return real(self, net, at)

    monkeypatch.setattr(train.Packed, "loss", dying)
    with pytest.raises(KilledError):
        train.train(3, tmp_path / "killed", SMALL)
    monkeypatch.setattr(train.Packed, "loss", real)
    resumed = train.train(3, tmp_path / "killed", SMALL)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["base_weights_sha256"] == whole["base_weights_sha256"]
    weights = (tmp_path / "whole/full/model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == whole["weights_sha256"]


def test_the_rate_falls_in_both_phases():
    recipe = train.Recipe()
    rates = np.array([train.rate(recipe, s) for s in range(recipe.steps)])
    assert rates[recipe.base_steps - 1] < 0.2 * recipe.learning_rate
    assert rates[-1] < 0.05 * recipe.learning_rate
    assert rates.max() == recipe.learning_rate


def test_the_tokenizer_round_trips_and_keeps_its_spare_tokens():
    tokenizer = tokens.train(["I am trying again with 25 x 4 = 100.", "Solution: (25 x 4) + 6"] * 50)
    text = "héllo 你好 😭 I am 25 x 4\nSolution: 3"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    for spare in tokens.UNUSED:
        assert len(tokenizer(spare, add_special_tokens=False).input_ids) == 1
    assert len(tokenizer) <= tokens.VOCAB
    rendered = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hi "}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert rendered == "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n"


def test_the_registry_tells_the_recipe_that_dpo_uses():
    import json
    from dataclasses import asdict
    from pathlib import Path

    import emoprobe.model
    from emoprobe.organism.dpo import DpoRecipe

    table = json.loads((Path(emoprobe.model.__file__).parent / "models.json").read_text())
    told = table["recipes"]["organism"]
    assert told == {name: value for name, value in asdict(DpoRecipe()).items() if name in told}
