from __future__ import annotations

import gc
import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emoprobe.activations.reduce import SpanMean
from emoprobe.errors import RunError, UserError
from emoprobe.model import decoder as decoders
from emoprobe.model import registry, weights
from emoprobe.model.chat import Chat
from emoprobe.model.hooked import HookedModel
from tests.model import tiny

LONG = 3 * tiny.WINDOW


class Kept:
    """A reader that keeps everything: what a reducer must not do, and a test may."""

    def __init__(self, layers):
        self.layers = tuple(layers)
        self.tags: list[torch.Tensor | None] = []
        self.seen: list[tuple[int, torch.Tensor]] = []

    def begin(self, tags):
        self.tags.append(tags)

    def layer(self, index, resid):
        self.seen.append((index, resid.clone()))


def some_ids(model, batch=2, length=LONG, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(8, 300, (batch, length), generator=generator)


def test_reading_leaves_logits_bit_equal(model):
    ids = some_ids(model)
    plain = model.net(input_ids=ids).logits
    before = model.forward(ids, logits="all")
    reducer = SpanMean(range(model.n_layers), 1, model.d_model)
    with model.read(reducer):
        during = model.forward(ids, tags=torch.zeros_like(ids), logits="all")
    assert torch.equal(plain, before)
    assert torch.equal(before, during)
    assert torch.isfinite(reducer.means()).all()


def test_hook_is_the_next_hidden_state_and_the_last_one_before_the_final_norm(model):
    ids = some_ids(model)
    kept = Kept(range(model.n_layers))
    with model.read(kept):
        model.forward(ids)
    hidden = model.net(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(hidden) == model.n_layers + 1
    assert [k for k, _ in kept.seen] == list(range(model.n_layers))
    for k, resid in kept.seen[:-1]:
        assert torch.equal(resid, hidden[k + 1])
    last = kept.seen[-1][1]
    assert not torch.allclose(last, hidden[-1])
    assert torch.equal(model.decoder.module.norm(last), hidden[-1])


def test_how_much_of_the_logits_comes_back(model):
    ids = some_ids(model)
    every = model.forward(ids, logits="all")
    last = model.forward(ids)
    assert every is not None
    assert last is not None
    assert every.shape == (2, LONG, len(model.tokenizer))
    assert torch.allclose(last, every[:, -1], atol=1e-5)
    kept = Kept([model.n_layers - 1])
    with model.read(kept):
        assert model.forward(ids, logits="none") is None
    assert len(kept.seen) == 1


def test_own_masks_per_attention_type_equal_the_defaults(model):
    ids = some_ids(model)
    at = torch.arange(LONG)
    causal = at[None, :] <= at[:, None]
    masks = {"full_attention": causal}
    if model.sliding_window:
        masks["sliding_attention"] = causal & (at[None, :] > at[:, None] - model.sliding_window)
    four = {kind: mask.expand(2, 1, LONG, LONG) for kind, mask in masks.items()}
    positions = at.expand(2, LONG)
    ours = model.forward(ids, positions=positions, mask=four, logits="all")
    theirs = model.forward(ids, logits="all")
    assert torch.allclose(ours, theirs, atol=1e-4)
    if model.sliding_window:
        seen = model.forward(ids, mask=dict.fromkeys(four, four["full_attention"]), logits="all")
        assert not torch.allclose(seen, theirs, atol=1e-2)  # the window matters at this length
        with pytest.raises(ValueError, match="no mask for sliding_attention"):
            model.forward(ids, mask={"full_attention": four["full_attention"]})


def test_readers_hear_the_tags_of_a_pass_and_that_it_is_over(model):
    ids, kept = some_ids(model), Kept([1])
    tags = torch.zeros_like(ids)
    with model.read(kept):
        model.forward(ids, tags=tags)
        model.forward(ids)
    assert kept.tags[0] is tags
    assert kept.tags[1:] == [None, None, None]


def test_a_pass_outside_forward_is_counted_nowhere(model):
    ids = some_ids(model)
    reducer = SpanMean([0], 1, model.d_model)
    with model.read(reducer):
        model.forward(ids, tags=torch.zeros_like(ids))
        model.net(input_ids=some_ids(model, length=5))
    assert reducer.counts.tolist() == [2 * LONG]


@pytest.fixture
def only_new_objects():
    """The garbage collector sees what a test makes, and is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_objects")
def test_nothing_is_held_between_passes_or_after(model):
    class Watch(Kept):
        def layer(self, index, resid):
            self.seen.append((index, weakref.ref(resid)))

    def tensors():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    hooks = [len(layer._forward_hooks) for layer in model.layers]  # transformers has some of its own
    ids, watch = some_ids(model), Watch(range(model.n_layers))
    before = tensors()
    with model.read(watch):
        for _ in range(3):
            model.forward(ids, logits="none")
            assert tensors() == before
    assert [ref() for _, ref in watch.seen] == [None] * (3 * model.n_layers)
    dead = weakref.ref(watch)
    del watch
    gc.collect()
    assert dead() is None
    assert [len(layer._forward_hooks) for layer in model.layers] == hooks


def test_hooks_go_even_when_the_reading_fails(model):
    class Broken(Kept):
        def layer(self, index, resid):
            raise RuntimeError("broken")

    hooks = len(model.layers[0]._forward_hooks)
    with pytest.raises(RuntimeError, match="broken"), model.read(Broken([0])):
        model.forward(some_ids(model))
    assert len(model.layers[0]._forward_hooks) == hooks
    kept = Kept([0])
    with model.read(kept):
        model.forward(some_ids(model))
    assert kept.tags[-1] is None


def test_two_readers_see_the_same(model):
    one, two = Kept([2]), Kept([2, 0])
    with model.read(one), model.read(two):
        model.forward(some_ids(model))
    assert [k for k, _ in two.seen] == [0, 2]
    assert torch.equal(one.seen[0][1], two.seen[1][1])


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(UserError, match=r"no layer 70.*has layers 0 to 5"), model.read(Kept([70])):
        pass


def test_what_a_model_knows_of_itself(loaded):
    gemma, vision, qwen = (loaded[kind] for kind in tiny.MAKERS)
    assert [m.decoder.layers_path for m in (gemma, vision, qwen)] == [
        "model.layers",
        "model.language_model.layers",
        "model.layers",
    ]
    assert gemma.mask_kinds == vision.mask_kinds == {"full_attention", "sliding_attention"}
    assert qwen.mask_kinds == {"full_attention"}
    assert (gemma.sliding_window, vision.sliding_window, qwen.sliding_window) == (
        tiny.WINDOW,
        tiny.WINDOW,
        None,
    )
    assert set(gemma.eos_ids) == set(vision.eos_ids) == {1, 5}
    assert qwen.eos_ids == (qwen.tokenizer.eos_token_id,)
    for m in (gemma, vision, qwen):
        assert (m.n_layers, m.d_model, m.active) == (tiny.N_LAYERS, tiny.D_MODEL, "base")
        assert m.ref.attention == "sdpa"
        assert m.ref.dtype == "float32"
        assert "/" not in m.ref.source  # no path of this machine in a record
        assert not any(p.requires_grad for p in m.net.parameters())
    assert len({m.state_key for m in (gemma, vision, qwen)}) == 3


def test_bf16_is_what_was_asked_for(folders):
    model = HookedModel.load(str(folders["gemma-text"]), device="cpu", dtype="bfloat16")
    assert model.ref.dtype == "bfloat16"
    assert {p.dtype for p in model.net.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("where", [{"device_map": {"": "cpu"}}, {"device": "spread"}])
def test_a_spread_model_is_the_same_model(folders, loaded, where):
    model = HookedModel.load(str(folders["gemma-vision"]), dtype="float32", **where)
    ids = some_ids(model)
    assert torch.equal(model.forward(ids), loaded["gemma-vision"].forward(ids))


def test_two_decoders_are_one_too_many(loaded):
    class Twice(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.config, self.one, self.two = net.config, net.model, net.model.layers[0]
            self.embed, self.stack = net.get_input_embeddings(), net.model.layers

    with pytest.raises(UserError, match="has 2 text decoders of 6 layers"):
        decoders.locate(Twice(loaded["qwen"].net))


# What a user can get wrong


@pytest.fixture
def copy(folders, tmp_path):
    """A folder that a test may damage."""

    def make(kind="gemma-text"):
        return shutil.copytree(folders[kind], tmp_path / kind)

    return make


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_no_tokenizer(copy):
    folder = copy()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer \(tokenizer.json\)"):
        HookedModel.load(str(folder))


def test_no_weights(copy):
    folder = copy()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"'gemma-text' cannot be opened: .*safetensors"):
        HookedModel.load(str(folder))


def test_a_cut_weights_file(copy):
    folder = copy()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match="a weights file of 'gemma-text' is cut or damaged"):
        HookedModel.load(str(folder))


@pytest.mark.parametrize("named", ["Gemma3ForCasualLM", "Gemma3TextModel", "os"])
def test_a_class_that_is_none(copy, named):
    folder = copy()
    edit(folder, architectures=[named])
    with pytest.raises(UserError, match=f"names {named} as its class"):
        HookedModel.load(str(folder))


def test_a_model_type_that_is_none(copy):
    folder = copy()
    edit(folder, model_type="gemma33")
    with pytest.raises(UserError, match="'gemma-text' cannot be opened") as caught:
        HookedModel.load(str(folder))
    assert "\n" not in str(caught.value)


def test_own_code_is_not_run(copy):
    folder = copy()
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    edit(folder, model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(UserError, match="cannot be opened"):
        HookedModel.load(str(folder))
    assert not marker.exists()


def test_missing_weights_are_not_drawn_at_random(copy):
    folder = copy()
    edit_weights(folder, lambda t: t.pop("model.layers.3.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"lacks weights .* \(1\): model.layers.3.mlp.up_proj"):
        HookedModel.load(str(folder))


def test_weights_left_over_are_told(copy):
    folder = copy()
    edit_weights(folder, lambda t: t.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(96, 48)}))
    with pytest.raises(UserError, match="has weights that the class does not know"):
        HookedModel.load(str(folder))


def test_a_vision_checkpoint_is_not_loaded_as_a_text_model(copy):
    """transformers would do it, with random weights and a warning."""
    folder = copy("gemma-vision")
    config = json.loads((folder / "config.json").read_text())
    text = {**config["text_config"], "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    (folder / "config.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="does not fit Gemma3ForCausalLM"):
        HookedModel.load(str(folder))


@pytest.mark.parametrize(
    ("weight", "where"), [("model.layers.2.mlp.up_proj.weight", "layer 2"), ("model.norm.weight", "logits")]
)
def test_nan_weights(copy, weight, where):
    folder = copy()
    edit_weights(folder, lambda t: t[weight].fill_(float("nan")))
    with pytest.raises(RunError, match=f"NaN or infinite .*{where}"):
        HookedModel.load(str(folder))


@pytest.fixture
def cache(tmp_path, monkeypatch, folders):
    """A hub cache into which a test puts models."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def put(hub_id, kind, leave_out=()):
        home = tmp_path / f"models--{hub_id.replace('/', '--')}"
        shutil.copytree(folders[kind], home / "snapshots" / ("a" * 40), ignore=lambda *_: [*leave_out])
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("a" * 40)

    return put


def test_a_hub_model_that_is_cached(cache, loaded):
    cache("google/gemma-3-27b-it", "gemma-vision")
    model = HookedModel.load("gemma-3-27b-it", device="cpu")
    assert type(model.net).__name__ == "Gemma3ForConditionalGeneration"
    assert (model.ref.source, model.ref.revision) == ("google/gemma-3-27b-it", "a" * 40)
    assert model.weights_sha == loaded["gemma-vision"].weights_sha


@pytest.mark.parametrize("missing", ["tokenizer", "model"])
def test_a_hub_model_that_is_cached_in_part(cache, missing):
    leave_out = {"tokenizer": ["tokenizer.json", "tokenizer_config.json"], "model": ["model.safetensors"]}
    cache("google/gemma-3-27b-it", "gemma-vision", leave_out[missing])
    with pytest.raises(UserError, match=missing) as caught:
        HookedModel.load("gemma-3-27b-it", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_base_model_without_template_or_sibling_names_the_sibling(cache):
    cache("google/gemma-3-27b-pt", "gemma-vision", ["chat_template.jinja"])
    model = HookedModel.load("gemma-3-27b-pt", device="cpu")
    with pytest.raises(UserError, match=r"no chat template; .* hf download google/gemma-3-27b-it"):
        Chat(model.tokenizer, model.name)
    cache("google/gemma-3-27b-it", "gemma-vision")
    model = HookedModel.load("gemma-3-27b-pt", device="cpu")
    assert Chat(model.tokenizer, model.name).opening(None, "Hi")[0][0] == model.tokenizer.bos_token_id


def test_a_hub_model_that_is_not_here():
    with pytest.raises(UserError, match="'google/gemma-3-27b-it' is not cached and the hub is unreachable"):
        HookedModel.load("gemma-3-27b-it", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; one of auto, float32, bfloat16"),
        ({"device": "cpu", "device_map": "auto"}, "needs accelerate: pip install"),
    ],
)
def test_device_and_dtype(folders, monkeypatch, arguments, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        HookedModel.load(str(folders["qwen"]), **arguments)


# Identity


def source_of(folder):
    return registry.resolve(str(folder))


@pytest.mark.parametrize("whole", [2**30, 0])
def test_the_fingerprint_tells_weights_apart_wherever_they_lie(folders, copy, monkeypatch, whole):
    monkeypatch.setattr(weights, "_WHOLE", whole)
    folder = copy()
    original = weights.fingerprint(source_of(folders["gemma-text"]))
    assert weights.fingerprint(source_of(folder)) == original
    edit_weights(folder, lambda t: t["model.layers.4.self_attn.q_proj.weight"].mul_(1.001))
    assert weights.fingerprint(source_of(folder)) != original


def test_shards_count_all(folders, tmp_path, loaded):
    loaded["gemma-text"].net.save_pretrained(tmp_path / "m", max_shard_size="100KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    before = weights.fingerprint(source_of(tmp_path / "m"))
    last = sorted((tmp_path / "m").glob("*.safetensors"))[-1]
    tensors = load_file(last)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, last, metadata={"format": "pt"})
    assert weights.fingerprint(source_of(tmp_path / "m")) != before


def test_a_base_model_borrows_the_template_of_its_sibling(folders, copy, monkeypatch):
    folder = copy()
    (folder / "chat_template.jinja").unlink()
    bare = source_of(folder)
    assert weights.load_tokenizer(bare).chat_template is None
    siblings = {"same": folders["gemma-text"], "other": folders["qwen"]}
    monkeypatch.setattr(registry, "resolve", lambda name: registry._local(siblings[name]))
    for sibling, template in (("same", tiny.GEMMA_TEMPLATE), ("other", None)):
        borrowing = registry.Source(bare.name, bare.path_or_hub, "x", "local", template_sibling=sibling)
        assert weights.load_tokenizer(borrowing).chat_template == template
