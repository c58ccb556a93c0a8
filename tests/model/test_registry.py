from __future__ import annotations

import json
import subprocess
import sys

import pytest

from emoprobe.errors import UserError
from emoprobe.model import registry, shapes, shipped
from tests.model import tiny


def test_short_names_of_the_issue_are_there():
    names = registry.names()
    for size in ("27b", "12b", "4b", "1b"):
        assert f"gemma-3-{size}-it" in names
        assert registry._registered(f"gemma-3-{size}-pt").template_sibling == f"gemma-3-{size}-it"
    assert {"organism", "organism-base", "qwen3-32b", "olmo-3.1-32b-instruct"} <= set(names)


def test_every_sibling_and_recipe_exists():
    table = registry._table()
    for entry in table["models"].values():
        assert entry["recipe"] in table["recipes"]
        assert entry.get("template_sibling", "organism") in table["models"]


def test_a_hub_id_goes_by_its_short_name():
    assert registry.resolve("google/Gemma-3-27B-it") == registry.resolve("gemma-3-27b-it")
    assert registry.resolve("gemma-3-27b-it").n_layers == 62


def test_an_unregistered_hub_id_is_unknown_in_shape():
    source = registry.resolve("someone/some-model")
    assert (source.kind, source.name, source.shape, source.n_layers) == (
        "hub",
        "someone--some-model",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("organsim", "unknown model 'organsim'; did you mean organism"),
        ("gemma-3-27b", "did you mean gemma-3-27b-.t"),
        ("./nowhere", "no folder './nowhere'"),
        ("a/b/c", "no folder 'a/b/c'"),
        ("", "unknown model ''"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        registry.resolve(name)


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(UserError, match=r"has no config.json: it is not a transformers model"):
        registry.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not a model's config"):
        registry.resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is not a model's config"):
        registry.resolve(str(tmp_path))


def test_a_shipped_model_that_is_not_there_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "_roots", lambda kind: [tmp_path])
    with pytest.raises(
        UserError, match="model 'organism' is not in artifacts/models; make it with: make organism"
    ):
        registry.resolve("organism")


def test_the_current_directory_comes_before_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "probes" / "organism" / "mine"
    mine.mkdir(parents=True)
    assert shipped.find("probes", "organism", "mine") == mine.relative_to(tmp_path)
    assert "mine" in shipped.names("probes", "organism")
    assert shipped.find("probes", "organism", "none") is None


@pytest.mark.parametrize("kind", list(tiny.MAKERS))
def test_shape_from_config_counts_what_the_model_has(kind, folders, loaded):
    shape = registry.resolve(str(folders[kind])).shape
    decoder, net = loaded[kind].decoder, loaded[kind].net
    beside = sum(p.numel() for name, p in net.named_parameters() if "vision" in name or "multi_modal" in name)
    assert shapes.params(shape) == sum(p.numel() for p in net.parameters()) - beside
    assert (shape.n_layers, shape.d_model) == (tiny.N_LAYERS, tiny.D_MODEL)
    assert shape.n_sliding == decoder.layer_types.count("sliding_attention")
    assert shape.sliding_window == loaded[kind].sliding_window
    cache = net(input_ids=loaded[kind].tokenizer("a b c", return_tensors="pt").input_ids).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert shapes.kv_bytes_per_token(shape, 4) == kept / cache.get_seq_length()


@pytest.mark.parametrize("kind", list(tiny.MAKERS))
def test_flops_are_those_that_torch_counts(kind, loaded, folders):
    """torch counts every query against every key of the pass, window or not."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, n = loaded[kind], 12
    shape = registry.resolve(str(folders[kind])).shape
    assert n < tiny.WINDOW
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.net.set_attn_implementation("eager")
        model.net(input_ids=torch.ones(1, n, dtype=torch.long), use_cache=False)
        model.net.set_attn_implementation("sdpa")
    rope = counter.get_total_flops() - n * shapes.flops_per_token(shape, n)
    assert 0 <= rope < 0.01 * counter.get_total_flops()


def test_the_published_sizes():
    counts = {
        "gemma-3-27b-it": 27_432_406_640,  # transformers' class on the meta device
        "qwen3-8b": 8_190_735_360,  # the hub's own count
        "qwen3-32b": 32_762_123_264,
    }
    for name, count in counts.items():
        assert shapes.params(registry.resolve(name).shape) == count
    gemma = registry.resolve("gemma-3-27b-it").shape
    assert shapes.resid_bytes_per_token(gemma) == 666_624
    assert shapes.resid_bytes_per_token(gemma, n_layers=1) == 10_752


def test_what_a_config_does_not_say_is_unknown():
    minimal = shapes.from_config({"num_hidden_layers": 4, "hidden_size": 64})
    assert minimal is not None
    assert (
        shapes.params(minimal)
        is shapes.flops_per_token(minimal, 10)
        is shapes.kv_bytes_per_token(minimal)
        is None
    )
    experts = {"num_attention_heads": 4, "intermediate_size": 9, "vocab_size": 9, "num_experts": 8}
    mixture = shapes.from_config({"num_hidden_layers": 4, "hidden_size": 64, **experts})
    assert mixture is not None
    assert shapes.params(mixture) is None
    assert shapes.from_config({"n_layer": 4}) is None


def test_a_sliding_layer_costs_no_more_than_its_window():
    gemma = registry.resolve("gemma-3-27b-it").shape
    costs = [shapes.flops_per_token(gemma, n) for n in (512, 1024, 2048)]
    per_key = 4 * 32 * 128
    assert costs[1] - costs[0] == 62 * 512 * per_key
    assert costs[2] - costs[1] == 10 * 1024 * per_key


def test_nothing_here_needs_torch():
    code = (
        "import sys\n"
        "from emoprobe.model import adapters, devices, layers, registry, shapes, shipped\n"
        "registry.resolve('gemma-3-27b-it'); registry.resolve('someone/some-model')\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_table_is_plain_data():
    text = json.dumps(registry._table())
    assert "/work" not in text
    assert "/tmp" not in text
