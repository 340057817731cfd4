"""X-VLM's captioning against numbers recorded from the original code: training, greedy decoding, beam search."""

from pathlib import Path

import pytest
import torch
from recorded import cases
from test_xvlm import CLOSE, pixels

from crossgrain.config import UserError
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Batch, Pixels, Text
from crossgrain.interop.xvlm_captioning import convert_xvlm_captioning
from crossgrain.objectives.interface import Views
from crossgrain.tasks.captioning_head import CaptionHead
from crossgrain.tasks.generation import Decoding

PROMPT = "a picture of "
WORDS = ["[PAD]", "[unused0]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", "picture", "of"]  # as the recorded one opens


def convert(case, weights=None):
    vision = case.meta.get("vision") or {}
    known = {"num_heads": case.meta.get("text_config", {}).get("num_attention_heads", 4)}
    if not case.meta["config"]["use_swin"]:
        heads = vision.get("num_attention_heads", vision.get("num_heads", 4))
        known["vision"] = {"num_heads": heads, "local_attention_depth": vision.get("local_attn_depth", 1)}
    return convert_xvlm_captioning(case.load("weights") if weights is None else weights, **known)


def writer_of(case):
    """The converted model, its head with the recorded vocabulary's special tokens, and the recorded tensors."""
    model, objectives = convert(case).build()
    tokenizer = Tokenizer([*WORDS, *(f"word{n}" for n in range(model.token_embedding.num_embeddings - len(WORDS)))])
    head, io = CaptionHead(CaptionHead.Config(prompt=PROMPT), model, tokenizer), case.load("io")
    assert set(head.adopt(model, {"mlm": objectives["mlm"].state_dict()})) == {"bias", "dense", "norm"}
    assert head.prompt.tolist() == io["prompt_ids"].flatten().tolist()[: len(head.prompt)]
    return model, head.eval(), io


def images_of(io, part):
    names = [f"{part}.image", "image", *(key for key in io if key.endswith(("image", "images")))]
    return pixels(next(io[name] for name in names if name in io))


@pytest.mark.parametrize("case", cases("xvlm", "caption_"))
def test_training_matches(case):
    model, head, io = writer_of(case)
    captions = Text(ids=io["train.text_ids"], mask=io["train.text_atts"].bool())
    image = Pixels.whole(images_of(io, "train"))
    text = captions.map(
        lambda tensor: torch.cat([tensor[:, :1], tensor[:, len(head.prompt) :], torch.zeros_like(tensor)], dim=1)
    )
    views = Views(model, Batch(image={"clean": image}, text={"clean": text}, group=torch.arange(len(captions.ids))))
    with torch.no_grad():
        hidden = model.decode(views.image(), captions)
        logits = head.words.logits(hidden, model.token_embedding.weight)
        recorded = io["train.out.logits"]
        torch.testing.assert_close(logits[:, : recorded.shape[1]], recorded, **CLOSE)
        loss = head(views).value.item()
    assert loss == pytest.approx(case.meta["train_loss"] if "train_loss" in case.meta else case.meta["loss"], rel=1e-4)


@pytest.mark.parametrize("case", cases("xvlm", "caption_"))
@pytest.mark.parametrize("variant", ["", "eos."])
@pytest.mark.parametrize(
    ("name", "decoding"),
    [
        ("greedy", Decoding(method="greedy", max_length=14, min_length=0)),
        ("greedy_rp15", Decoding(method="greedy", max_length=14, min_length=0, repetition_penalty=1.5)),
        ("beam3", Decoding(max_length=12, min_length=5)),
        ("beam3_rp15", Decoding(max_length=12, min_length=5, repetition_penalty=1.5)),
    ],
)
def test_generation_matches(case, variant, name, decoding):
    model, head, io = writer_of(case)
    if f"{variant}{name}.ids" not in io:
        pytest.skip(f"not recorded: {variant}{name}")
    if variant:
        head.words.bias.data[head.special.end] += 2.25
        decoding = Decoding(**{**vars(decoding), "min_length": 6 if decoding.method == "beam" else 0})
    ids = io[f"{variant}{name}.ids"]
    with torch.no_grad():
        image = model.encode_image(Pixels.whole(images_of(io, name)))
        written = head.write(model, model.begin(model.prepare(image)), decoding)
    expected = torch.nn.functional.pad(ids, (0, decoding.max_length - ids.shape[1]), value=head.special.pad)
    assert written.ids.tolist() == expected.tolist()
    if f"{variant}{name}.logprobs" in io:
        torch.testing.assert_close(written.score, io[f"{variant}{name}.logprobs"].view(-1), **CLOSE)


@pytest.mark.parametrize("case", cases("xvlm", "caption_"))
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    report = convert(case).report
    assert len(report.renamed) + len(report.dropped) == len(weights)
    spare = next(key for key in weights if key.endswith("layer.0.output.dense.weight"))
    with pytest.raises(UserError, match="nothing fills"):
        convert(case, {key: value for key, value in weights.items() if key != spare})
    with pytest.raises(UserError, match="no captioning checkpoint"):
        convert(case, {key: value for key, value in weights.items() if not key.startswith("text_decoder.")})


def test_the_recorded_vocabulary_opens_with_these_words(shared: Path):
    import json

    recorded = json.loads((shared / "golden" / "xvlm" / "data_side.json").read_text())["tokenizer"]["vocab"]
    assert recorded[: len(WORDS)] == WORDS
