"""Published weights, from files in the forms their authors give them."""

import pickle
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from crossgrain.config import UserError, config_owner
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.weights import read_tensors, read_vision_weights, read_weights
from tiny_models import VISION, WORDS, tiny_config

DIM, LAYERS = 16, 3


def bert(prefix="bert.", weight="weight", bias="bias", words=WORDS, layers=LAYERS):
    """A BERT's state dict; `weight` and `bias` are what its norms call them (the first releases: gamma and beta)."""
    draw = torch.Generator().manual_seed(1)
    state = {}

    def put(name, *shape):
        state[prefix + name] = torch.randn(*shape, generator=draw)

    def norm(name):
        put(f"{name}.LayerNorm.{weight}", DIM)
        put(f"{name}.LayerNorm.{bias}", DIM)

    def linear(name, rows, columns):
        put(f"{name}.weight", rows, columns)
        put(f"{name}.bias", rows)

    for name, rows in (("word", words), ("position", 20), ("token_type", 2)):
        put(f"embeddings.{name}_embeddings.weight", rows, DIM)
    norm("embeddings")
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", DIM, DIM)
        linear(f"{layer}.attention.output.dense", DIM, DIM)
        norm(f"{layer}.attention.output")
        linear(f"{layer}.intermediate.dense", 32, DIM)
        linear(f"{layer}.output.dense", DIM, 32)
        norm(f"{layer}.output")
    return state | {"cls.predictions.bias": torch.zeros(words)}


def check_bert_is_inside(model, state):
    plain = {
        key.removeprefix("bert.").replace("gamma", "weight").replace("beta", "bias"): v for key, v in state.items()
    }
    embedding = model.text_embedding
    assert torch.equal(embedding.token.weight, plain["embeddings.word_embeddings.weight"])
    assert torch.equal(embedding.position.weight, plain["embeddings.position_embeddings.weight"][:16])
    assert torch.equal(embedding.norm.bias, plain["embeddings.LayerNorm.bias"])
    for i, layer in enumerate([*model.text_layers, *model.cross_layers]):
        theirs = f"encoder.layer.{i}"
        stacked = torch.cat([plain[f"{theirs}.attention.self.{part}.weight"] for part in ("query", "key", "value")])
        assert torch.equal(layer.attention.qkv.weight, stacked)
        assert torch.equal(layer.mlp_norm.weight, plain[f"{theirs}.output.LayerNorm.weight"])
        assert torch.equal(layer.mlp.contract.weight, plain[f"{theirs}.output.dense.weight"])


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("pytorch_model.bin", {"weight": "gamma", "bias": "beta"}),
        ("model.safetensors", {}),
        ("pytorch_model.bin", {"prefix": ""}),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_bert_fills_both_text_halves_and_not_the_cross_attention(tmp_path, file, form, as_folder):
    state = bert(**form)
    save = save_file if file.endswith(".safetensors") else torch.save
    save(state, tmp_path / file)
    where = tmp_path if as_folder else tmp_path / file
    torch.manual_seed(3)
    fresh = XVLM(tiny_config())
    torch.manual_seed(3)
    model = XVLM(tiny_config(bert=str(where)))
    check_bert_is_inside(model, state)
    untouched = {name for name in model.new_parameters() if "temperature" not in name}
    tensors, before = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(tensors[name], before[name]) for name in untouched)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (
            {"words": WORDS - 1},
            rf"word_embeddings.weight has shape \({WORDS - 1}, 16\), this model needs \({WORDS}, 16\)",
        ),
        ({"words": WORDS + 1}, f"word_embeddings has {WORDS + 1} rows, this model {WORDS}"),
        ({"layers": 2}, r"has no 'encoder.layer.2.attention.self.query.weight': not a BERT of this size"),
    ],
)
def test_a_bert_of_another_size_is_refused(tmp_path, form, told):
    torch.save(bert(**form), tmp_path / "bert.bin")
    with pytest.raises(UserError, match=told):
        XVLM(tiny_config(bert=str(tmp_path / "bert.bin")))


def test_a_hub_name_without_a_network_says_what_to_do(monkeypatch):
    def offline(*arguments, **keywords):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"weights 'google/some-bert': no such file .* hub gave none .*ConnectionError"):
        XVLM(tiny_config(bert="google/some-bert"))


def test_a_name_that_timm_does_not_know_or_cannot_fetch_is_said(monkeypatch):
    import timm

    with pytest.raises(UserError, match="'swin_huge' are neither a file nor a model that timm knows"):
        read_vision_weights("swin_huge")

    def offline(*arguments, **keywords):
        raise ConnectionError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError\): give a file"):
        read_vision_weights("deit_base_patch16_224")


def original_swin(state):
    """Microsoft's naming: a stage ends with its downsampling (timm: the next one starts with it); buffers kept."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts)] = value
    extra = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long)}
    return renamed | extra | {"head.weight": torch.zeros(7, 16), "head.bias": torch.zeros(7)}


def original_clip(state):
    """OpenAI's naming."""
    names = {
        "patch_embed.proj": "conv1", "norm_pre": "ln_pre", "blocks.": "transformer.resblocks.", "norm1": "ln_1",
        "norm2": "ln_2", "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    renamed = {"visual.proj": torch.zeros(16, 5), "logit_scale": torch.zeros(())}
    for key, value in state.items():
        if key == "cls_token":
            key, value = "class_embedding", value[0, 0]
        elif key == "pos_embed":
            key, value = "positional_embedding", value[0]
        elif key.startswith("norm."):
            key = key.replace("norm.", "ln_post.")
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        renamed[f"visual.{key}"] = value
    return renamed


PUBLISHED = {
    "swin": original_swin,
    "deit": lambda state: state | {"head.weight": torch.zeros(7, 16), "head.bias": torch.zeros(7)},
    "clip": original_clip,
}


@pytest.mark.parametrize("kind", VISION)
def test_an_image_encoder_is_read_from_its_authors_file(tmp_path, kind):
    config = VISION[kind]
    encoder = config_owner(config)
    torch.manual_seed(5)
    expected = encoder(config).body.state_dict()
    theirs = PUBLISHED[kind](expected)
    assert set(theirs) != set(expected)
    torch.save({"model": theirs} if kind != "clip" else theirs, tmp_path / "weights.pth")
    torch.manual_seed(6)
    body = encoder(replace(config, weights=str(tmp_path / "weights.pth"))).body
    loaded = body.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", VISION)
def test_a_file_of_another_encoder_is_refused(tmp_path, kind):
    config = VISION[kind]
    body = config_owner(config)(config).body.state_dict()
    some = sorted(body)[0]
    damaged = tmp_path / "weights.pth"
    torch.save({name: value for name, value in body.items() if name != some}, damaged)
    with pytest.raises(UserError, match=f"weights.pth does not fit this encoder: missing .*{some}"):
        config_owner(config)(replace(config, weights=str(damaged)))

    torch.save(body | {"norm.weight": torch.zeros(3)}, damaged)
    with pytest.raises(UserError, match=r"weights.pth does not fit this encoder: .*size mismatch for norm.weight"):
        config_owner(config)(replace(config, weights=str(damaged)))


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save({"weight": torch.zeros(2), "more": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "bomb.bin").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "bomb.bin"):
        with pytest.raises(UserError, match=f"{name} cannot be loaded as plain tensors"):
            read_tensors(tmp_path / name)


def test_files_that_are_no_weights_are_named(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "folder").mkdir()
    mistakes = {
        "gone.pth": "no weights at .*gone.pth",
        "none.pth": "none.pth holds no tensors",
        "text.safetensors": "text.safetensors is not a safetensors file",
        "folder": "folder holds none of model.safetensors, pytorch_model.bin",
    }
    for name, told in mistakes.items():
        with pytest.raises(UserError, match=told):
            read_weights(str(tmp_path / name))
