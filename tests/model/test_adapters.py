from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from emoprobe.activations.reduce import SpanMean
from emoprobe.errors import UserError
from emoprobe.model import adapters, lora, registry, weights
from emoprobe.model.hooked import HookedModel
from tests.model import tiny

TEXT, VISION = "model.layers", "model.language_model.layers"


@pytest.fixture(scope="module")
def made(folders, loaded, tmp_path_factory):
    """A good adapter on layers 3 and 4 for each class, and one on layer 1."""
    root = tmp_path_factory.mktemp("adapters")
    for kind in tiny.MAKERS:
        for name, layers in (("high", [3, 4]), ("low.1", [1])):
            targets = adapters.lora_targets(loaded[kind].net, layers, ("q_proj", "down_proj"))
            tiny.write_adapter(folders[kind], root / kind / name, targets)
    return root


@pytest.fixture(scope="module", params=list(tiny.MAKERS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def tuned(folders, made, kind):
    """A model with both adapters. Base is on."""
    names = [str(made / kind / name) for name in ("high", "low.1")]
    return HookedModel.load(str(folders[kind]), adapters=names, device="cpu")


@pytest.fixture
def ids():
    return torch.randint(8, 300, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def refused(folders, loaded):
    """Expect an adapter to be refused before it touches the model, in one line that matches."""

    def expect(message, adapter, kind="gemma-text"):
        source, model = registry.resolve(str(folders[kind])), loaded[kind]
        with pytest.raises(UserError, match=message) as caught:
            lora.Adapters.attach(model, [adapters.describe(adapters.find(str(adapter), source))])
        assert "\n" not in str(caught.value)
        assert not lora.adapted_modules(model.net, "adapter0")

    return expect


def load(folders, adapter, kind="gemma-text"):
    return HookedModel.load(str(folders[kind]), adapters=[str(adapter)], device="cpu")


def layer_means(model, ids):
    reducer = SpanMean(range(model.n_layers), 1, model.d_model)
    with model.read(reducer):
        model.forward(ids, tags=torch.zeros_like(ids), logits="none")
    return reducer.means()[0]


def test_the_base_under_adapters_is_the_base(tuned, loaded, kind, ids):
    assert tuned.active == "base"
    assert torch.equal(tuned.forward(ids), loaded[kind].forward(ids))
    with tuned.adapter("high"):
        assert not torch.equal(tuned.forward(ids), loaded[kind].forward(ids))
        with tuned.base():
            assert torch.equal(tuned.forward(ids), loaded[kind].forward(ids))


def test_layers_below_an_adapter_are_equal_on_the_same_text(tuned, ids):
    with tuned.base():
        base = layer_means(tuned, ids)
    with tuned.adapter("high"):
        high = layer_means(tuned, ids)
    assert torch.equal(base[:3], high[:3])
    assert not any(torch.equal(base[k], high[k]) for k in range(3, tuned.n_layers))


def test_switching_nests_and_comes_back(tuned, ids):
    keys, out = {tuned.state_key}, {}
    for name in tuned.adapters:
        with tuned.adapter(name):
            assert tuned.active == name
            assert tuned.ref.adapter.name == name
            keys.add(tuned.state_key)
            out[name] = tuned.forward(ids)
            with tuned.adapter("high"), pytest.raises(KeyError), tuned.base():
                raise KeyError
            assert tuned.active == name
            assert torch.equal(tuned.forward(ids), out[name])
    assert (tuned.active, tuned.ref.adapter) == ("base", None)
    assert len(keys) == 3
    assert not torch.equal(out["high"], out["low.1"])
    assert not any(p.requires_grad for p in tuned.net.parameters())


def test_equal_to_peft_itself(tuned, folders, made, kind, ids):
    import transformers
    from peft import PeftModel

    named = json.loads((folders[kind] / "config.json").read_text())["architectures"][0]
    net = getattr(transformers, named).from_pretrained(folders[kind], attn_implementation="sdpa")
    theirs = PeftModel.from_pretrained(net, str(made / kind / "high")).eval()
    with tuned.adapter("high"), torch.inference_mode():
        assert torch.equal(tuned.forward(ids, logits="all"), theirs(input_ids=ids).logits)


def test_what_an_adapter_says_of_itself(made, kind):
    described = adapters.describe(made / kind / "high")
    assert described.ref.layers == (3, 4)
    assert described.ref.modules == ("down_proj", "q_proj")
    assert described.ref.n_adapted == 4
    stack = VISION if kind == "gemma-vision" else TEXT
    assert described.modules[f"{stack}.3.self_attn.q_proj"] == (tiny.D_MODEL, 48)
    assert not described.ref.path.startswith("/")


# The regex, and the assertion on it


def test_targets_hit_the_decoder_and_never_the_vision_tower(loaded):
    net = loaded["gemma-vision"].net
    regex = adapters.lora_targets(net, range(1, 4))
    hit = sorted(path for path, _ in net.named_modules() if re.fullmatch(regex, path))
    assert len(hit) == 3 * 7
    assert {path.split(".")[3] for path in hit} == {"1", "2", "3"}
    assert all(path.startswith(f"{VISION}.") for path in hit)


def test_targets_do_not_take_layer_1_for_11(loaded):
    regex = adapters.lora_targets(loaded["qwen"].net, [1])
    assert re.fullmatch(regex, "model.layers.1.mlp.up_proj")
    assert not re.fullmatch(regex, "model.layers.11.mlp.up_proj")


def test_targets_that_are_not_there(loaded):
    net = loaded["qwen"].net
    with pytest.raises(UserError, match=r"layers \[5, 6\] to adapt are not within 0 to 5"):
        adapters.lora_targets(net, [5, 6])
    with pytest.raises(UserError, match="no module 'w_proj'; did you mean"):
        adapters.lora_targets(net, [5], ["w_proj"])


def test_what_was_trained_is_asserted(folders):
    """PEFT's own way of choosing layers puts LoRA on the tower as well; the assertion sees it."""
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3ForConditionalGeneration

    def trained(**lora_config):
        net = Gemma3ForConditionalGeneration.from_pretrained(folders["gemma-vision"])
        return get_peft_model(net, LoraConfig(r=2, **lora_config))

    loose = trained(target_modules=["q_proj"], layers_to_transform=[1, 2])
    with pytest.raises(UserError, match=r"also on 'model.vision_tower.*outside the text decoder"):
        lora.check_adapted(loose, [1, 2])
    exact = trained(target_modules=rf"{re.escape(VISION)}\.(1|2)\..*q_proj")
    assert lora.check_adapted(exact, [1, 2]) == 2
    with pytest.raises(UserError, match=r"is on layers \[1, 2\], wanted \[1, 2, 3\]"):
        lora.check_adapted(exact, [1, 2, 3])


# Adapters that must not pass


def test_an_adapter_of_the_text_class_on_the_vision_class(refused, made):
    """PEFT loads it with a warning and lora_B at zero: the base in disguise."""
    refused(
        r"trained for another class.*model.language_model.layers",
        made / "gemma-text" / "high",
        "gemma-vision",
    )


def test_an_adapter_of_the_vision_class_on_the_text_class(refused, made):
    refused("trained for another class", made / "gemma-vision" / "high", "gemma-text")


def test_an_adapter_on_the_vision_tower(refused, folders, tmp_path):
    folder = tiny.write_adapter(folders["gemma-vision"], tmp_path / "a", ["q_proj"])
    refused(r"adapts 'model.vision_tower.*outside the text decoder", folder, "gemma-vision")


def test_an_adapter_that_does_nothing(refused, folders, tmp_path):
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "a", ["q_proj"], zero=True)
    refused("does nothing: its lora_B is zero everywhere", folder)


def test_the_canary_sees_what_the_weights_do_not_show(folders, tmp_path):
    """lora_B is not zero, but the scale is."""
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "a", ["q_proj"])
    change(folder / "adapter_config.json", lora_alpha=0)
    with pytest.raises(UserError, match="does nothing: the logits of a test prompt are the base's own"):
        load(folders, folder)


def test_nan_in_an_adapter(refused, folders, tmp_path):
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "a", ["q_proj"])
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / "adapter_model.safetensors")
    refused("holds NaN or infinite weights", folder)


def test_an_adapter_of_another_width(refused, tmp_path, made):
    folder = shutil.copytree(made / "gemma-text" / "high", tmp_path / "a")
    tensors = load_file(folder / "adapter_model.safetensors")
    wider = {k: torch.ones(v.shape[0], 96) if "lora_A" in k else v for k, v in tensors.items()}
    save_file(wider, folder / "adapter_model.safetensors")
    refused(r"is for another model: .* is \(48, 48\) here, \(96, 48\) there", folder)


def test_the_card_names_the_base(refused, folders, tmp_path):
    sha = weights.fingerprint(registry.resolve(str(folders["gemma-text"])))
    card = {"base": "tiny", "base_sha256": sha}
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "a", ["q_proj"], card=card)
    assert load(folders, folder).adapters == ("a",)
    change(folder / "card.json", base_sha256="0" * 64)
    refused("was trained on 'tiny' with weights 000000000000, and 'gemma-text' has", folder)


@pytest.mark.parametrize("base", ["qwen3-8b", "Qwen/Qwen3-8B"])
def test_an_adapter_of_another_registered_model(tmp_path, folders, base):
    folder = tiny.write_adapter(folders["qwen"], tmp_path / "a", ["q_proj"], card={"base": base})
    described = adapters.describe(folder)
    with pytest.raises(UserError, match="trained on 'qwen3-8b', not on 'gemma-3-27b-it'"):
        adapters.check_base(described, registry.resolve("gemma-3-27b-it"))
    adapters.check_base(described, registry.resolve("qwen3-8b"))


@pytest.mark.parametrize("file", ["adapter_config.json", "card.json"])
def test_layers_declared_and_layers_there_must_agree(folders, made, tmp_path, file):
    folder = shutil.copytree(made / "gemma-text" / "high", tmp_path / "a")
    (folder / "card.json").write_text("{}")
    change(folder / file, layers=[3, 4, 5], layers_to_transform=[3, 4, 5])
    with pytest.raises(UserError, match=rf"weights for layers \[3, 4\], its {file} says \[3, 4, 5\]"):
        adapters.describe(folder)


def test_files_that_are_no_adapter(refused, folders, made, tmp_path):
    good = made / "gemma-text" / "high"
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(r"has no adapter_config.json: it is not an adapter", empty)
    pickled = shutil.copytree(good, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    refused("pickled weights are not opened", pickled)
    cut = shutil.copytree(good, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    refused("cut or damaged", cut)
    prompt = shutil.copytree(good, tmp_path / "prompt")
    change(prompt / "adapter_config.json", peft_type="PROMPT_TUNING")
    refused("of type PROMPT_TUNING; only LoRA", prompt)
    more = tiny.write_adapter(folders["qwen"], tmp_path / "more", ["q_proj"], modules_to_save=["lm_head"])
    refused(r"is not a plain LoRA: it holds .*lm_head", more, "qwen")


def test_names(folders, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dpo", "calm"):
        shutil.copytree(made / "qwen" / "high", tmp_path / "artifacts" / "adapters" / "qwen" / name)
    model = HookedModel.load(str(folders["qwen"]), adapters=["dpo", "calm"], device="cpu")
    assert model.adapters == ("dpo", "calm")
    with model.adapter("dpo"):
        assert model.ref.adapter.path == "qwen/dpo"
    with (
        pytest.raises(UserError, match="adapter 'dpoo' is not loaded; did you mean dpo"),
        model.adapter("dpoo"),
    ):
        pass
    with pytest.raises(UserError, match="two states named 'dpo'"):
        HookedModel.load(str(folders["qwen"]), adapters=["dpo", "dpo"], device="cpu")


def test_a_missing_adapter_is_answered_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts" / "adapters" / "organism" / "calm-dpo").mkdir(parents=True)
    organism = registry.Source("organism", "x", "organism", "shipped")
    monkeypatch.setattr(adapters.shipped, "_roots", lambda kind: [tmp_path / "artifacts" / kind])
    with pytest.raises(
        UserError, match=r"no adapter 'dpo' for 'organism'; .*calm-dpo.*make it with: make organism"
    ):
        adapters.find("dpo", organism)
    with pytest.raises(UserError, match=r"or put one into artifacts/adapters/organism/late"):
        adapters.find("late", organism)
    with pytest.raises(UserError, match="'who/what' is not cached and the hub is unreachable"):
        adapters.find("who/what", organism)
    with pytest.raises(UserError, match=r"no adapter '../../etc'"):
        adapters.find("../../etc", organism)


def test_no_adapter_was_named(loaded):
    with (
        pytest.raises(UserError, match="adapter 'dpo' is not loaded; none was named"),
        loaded["qwen"].adapter("dpo"),
    ):
        pass


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
