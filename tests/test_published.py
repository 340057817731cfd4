"""Published checkpoints as runs: all weights arrive, the run answers, and what does not fit is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossgrain.cli import main
from crossgrain.commands.convert import FORMATS as NAMES
from crossgrain.config import UserError
from crossgrain.data.types import Pixels
from crossgrain.published import ACCOUNT, FORMATS, convert
from crossgrain.recipes import load_run
from tiny_runs import draw_scenes

GOLDEN = Path(__file__).parent / "golden"
CLIP = ("model.vision.num_heads=4", "model.vision.local_attention_depth=1")
CASES = [
    ("xvlm", "xvlm/pretrain_swin", ()),
    ("xvlm_retrieval", "xvlm/retrieval_swin", ()),
    ("xvlm_vqa", "xvlm/vqa_swin", ("answers=10",)),
    ("xvlm_vqa", "xvlm/vqa_clipvit", ("answers=10", *CLIP)),
    ("xvlm_nlvr2", "xvlm/nlvr_swin", ()),
    ("xvlm_grounding", "xvlm/bbox_swin", ()),
    ("xvlm_captioning", "xvlm/caption_clipvit", CLIP),
    ("vlbert", "vlbert/pretrain", ()),
    ("vlbert", "vlbert/pretrain_multitask", ()),
    ("vlbert_vqa", "vlbert/vqa_mlm", ("answers=13",)),
    ("vlbert_vqa", "vlbert/vqa_2fc", ("answers=13",)),
    ("vlbert_vcr", "vlbert/vcr_sigmoid", ()),
    ("vlbert_grounding", "vlbert/refcoco", ()),
]
FINE_TUNING = """
initial_weights: {run}
task: {{type: retrieval}}
stages: [{{steps: 2, lr: 1.0e-4, sources: [{{path: {data}, batch_size: 4}}]}}]
train: {{precision: float32, num_workers: 0, tensorboard: false}}
"""


WORDS = {
    "text_encoder.embeddings.word_embeddings.weight": (9, 8),
    "text_encoder.embeddings.position_embeddings.weight": (7, 8),
    "text_encoder.encoder.layer.0.intermediate.dense.weight": (8, 8),
}


def vocabulary(folder):
    """100 words, with the special ones where the recorded cases have them."""
    file = folder / "vocab.txt"
    words = ["[PAD]", "[unused]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", "picture", "of", "red", "star"]
    file.write_text("\n".join([*words, *(f"word{number}" for number in range(100 - len(words)))]) + "\n")
    return file


def overrides(folder, given=()):
    """What the tensors of a recorded case do not tell, with a vocabulary and as many answers as `answers=N` says."""
    told = [f"text.vocab={vocabulary(folder)}", "text.max_tokens=40", "model.num_heads=4"]
    for override in given:
        if override.startswith("answers="):
            (folder / "answers.txt").write_text("".join(f"word{n}\n" for n in range(int(override[8:]))))
            override = f"answers={folder / 'answers.txt'}"
        told.append(override)
    return told


def weights(name):
    return GOLDEN / f"{name}.weights.safetensors"


def checkpoint_file(name, folder):
    """A recorded checkpoint; that of VCR, recorded without what reads the regions' features, with zeros there."""
    if "vcr" not in name:
        return weights(name)
    extractor = "image_feature_extractor.obj_downsample.1."
    zeros = {f"{extractor}weight": torch.zeros(32, 2048 + 16), f"{extractor}bias": torch.zeros(32)}
    save_file(load_file(weights(name)) | zeros, folder / "vcr.safetensors")
    return folder / "vcr.safetensors"


@pytest.mark.parametrize(("format_name", "case", "given"), CASES, ids=[case for _, case, _ in CASES])
def test_a_run_has_every_tensor_of_the_checkpoint(format_name, case, given, tmp_path):
    file = checkpoint_file(case, tmp_path)
    found = convert(format_name, file, tmp_path / "run", overrides(tmp_path, given))
    learner = load_run(tmp_path / "run").learner
    model = learner.model.state_dict()
    assert found.model and all(torch.equal(model[key], tensor) for key, tensor in found.model.items())
    heads = [tensor for head in learner.objectives.values() for tensor in head.state_dict().values()]
    theirs = [tensor for head in found.objectives.values() for tensor in head.values()]
    filled = [tensor for tensor in theirs if any(torch.equal(tensor, ours) for ours in heads)]
    assert len(filled) == len(theirs) > 0
    account = json.loads((tmp_path / "run" / ACCOUNT).read_text())
    assert len(account["renamed"].keys() | account["dropped"].keys()) == len(load_file(file))
    assert account["file"] == file.name and len(account["sha256"]) == 64


def test_every_format_is_tried_and_known_to_the_command_line():
    assert {name for name, _, _ in CASES} == set(FORMATS) == set(NAMES)


def test_a_converted_run_computes_what_the_original_did(tmp_path):
    convert("xvlm", weights("xvlm/pretrain_swin"), tmp_path / "run", overrides(tmp_path))
    model = load_run(tmp_path / "run").learner.model
    recorded = load_file(GOLDEN / "xvlm" / "pretrain_swin.io.safetensors")
    images = (recorded["gen.image"].float() - 128) / 64
    with torch.no_grad():
        tokens = model.encode_image(Pixels.whole(images))
        assert torch.allclose(model.embed_image(tokens), recorded["gen.out.image_feat"], atol=2e-5, rtol=1e-4)


def test_a_converted_run_is_evaluated_and_fine_tuned_from_raw_images(tmp_path, capsys):
    data, run = draw_scenes(tmp_path / "data"), tmp_path / "run"
    checkpoint = shutil.copy(weights("xvlm/pretrain_swin"), tmp_path / "4m_base.safetensors")
    told = overrides(tmp_path)
    assert main(["convert", "xvlm", str(checkpoint), *told, "--out", str(run)]) == 0
    assert "tensors read" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--data", str(data), "--limit", "4", "--out", str(tmp_path / "scores")]) == 0
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert {"retrieval", "grounding"} <= scores.keys()
    recipe = tmp_path / "retrieval.yaml"
    recipe.write_text(FINE_TUNING.format(run=run, data=data))
    assert main(["finetune", str(recipe), "--out", str(tmp_path / "tuned")]) == 0
    assert "taken over besides the model: retrieval" in capsys.readouterr().out
    assert load_run(tmp_path / "tuned").state.step == 2


@pytest.mark.parametrize(
    ("format_name", "case", "given", "complaint"),
    [
        ("xvlm", "vlbert/pretrain", (), "is no X-VLM checkpoint"),
        ("xvlm_vqa", "xvlm/pretrain_swin", (), "is no X-VLM for questions"),
        ("xvlm_retrieval", "xvlm/bbox_swin", (), "has nothing for"),
        ("xvlm_vqa", "xvlm/vqa_swin", (), "answer"),
        ("vlbert_vqa", "vlbert/vqa_mlm", ("answers=7",), "13"),
        ("xvlm", "xvlm/pretrain_swin", ("model.dim=64",), r"has shape \(100, 32\), not \(100, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(format_name, case, given, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        convert(format_name, weights(case), tmp_path / "run", overrides(tmp_path, given))
    assert not (tmp_path / "run").exists()


def test_another_vocabulary_and_a_folder_in_use_are_refused(tmp_path):
    told = overrides(tmp_path)
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(file.read_text().split("\n")[:90]) + "\n")
    with pytest.raises(UserError, match=r"has 90 words.*100.*text\.vocab=FILE"):
        convert("xvlm", weights("xvlm/pretrain_swin"), tmp_path / "run", told)
    with pytest.raises(UserError, match="not empty"):
        convert("xvlm", weights("xvlm/pretrain_swin"), tmp_path, told)


def test_a_stranger_among_the_keys_is_refused(tmp_path):
    state = load_file(weights("xvlm/pretrain_swin")) | {"surprise": torch.zeros(1)}
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"unknown keys.*surprise"):
        convert("xvlm", tmp_path / "odd.safetensors", tmp_path / "run", overrides(tmp_path))


@pytest.mark.parametrize(
    ("format_name", "state", "complaint"),
    [
        ("xvlm", {"visual_encoder.pos_embed": (1, 5, 8), **WORDS}, r"no X-VLM checkpoint: it has no vision_encoder"),
        ("xvlm", {"vision_encoder.patch_embed.proj.weight": (8, 3, 4, 4), **WORDS}, "it has no pos_embed"),
        ("xvlm", WORDS | {"text_encoder.embeddings.word_embeddings.weight": (9,)}, "its tensors have other forms"),
        ("vlbert", {"vlbert.word_embeddings.weight": (9,)}, "no VL-BERT checkpoint: its tensors have other forms"),
    ],
)
def test_tensors_of_another_architecture_are_named(format_name, state, complaint, tmp_path):
    save_file({key: torch.zeros(shape) for key, shape in state.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=complaint):
        convert(format_name, tmp_path / "odd.safetensors", tmp_path / "run", overrides(tmp_path))


def test_a_checkpoint_on_roberta_is_refused(tmp_path):
    state = load_file(weights("vlbert/pretrain")) | {"vlbert.position_embeddings.weight": torch.zeros(514, 32)}
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "roberta.safetensors")
    with pytest.raises(UserError, match="built on RoBERTa"):
        convert("vlbert", tmp_path / "roberta.safetensors", tmp_path / "run", overrides(tmp_path))


def test_a_checkpoint_without_a_head_makes_no_run(tmp_path):
    heads = ("vlbert.mlm_head.", "vlbert.mvrc_head.", "vlbert.relationsip_head.")
    state = {k: v.clone() for k, v in load_file(weights("vlbert/pretrain")).items() if not k.startswith(heads)}
    save_file(state, tmp_path / "headless.safetensors")
    with pytest.raises(UserError, match=r"makes no run of VL-BERT, pre-trained: .*name at least one"):
        convert("vlbert", tmp_path / "headless.safetensors", tmp_path / "run", overrides(tmp_path))


def test_names_may_be_those_of_a_model_on_several_gpus_among_numbers(tmp_path):
    state = {f"module.{key}": value for key, value in load_file(weights("xvlm/pretrain_swin")).items()}
    torch.save({"model": {**state, 0: torch.zeros(1)}}, tmp_path / "wrapped.pth")
    found = convert("xvlm", tmp_path / "wrapped.pth", tmp_path / "run", overrides(tmp_path))
    assert len(found.report.renamed) > 0


def test_a_pickle_with_code_is_refused_in_plain_words(tmp_path):
    torch.save({"model": Path("x")}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"cannot be loaded as plain tensors: Unsupported global: GLOBAL [\w.]+$"):
        convert("xvlm", tmp_path / "odd.pth", tmp_path / "run", overrides(tmp_path))
