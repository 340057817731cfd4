"""VL-BERT's body: what its sequence is made of, what it must not see, and that one pass serves all objectives."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from test_published_weights import bert

from crossgrain.data.types import RawRegions, Text
from crossgrain.models.single_stream import SingleStream
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.embeddings import geometry_embedding
from crossgrain.nn.fast_rcnn import FastRCNN
from crossgrain.nn.transformer import BertLayer
from tiny_models import WORDS
from tiny_regions import FEATURE, LENGTH, PAIRS, REGIONS
from tiny_vlbert import ALONE, tiny_vlbert, vlbert_batch, vlbert_config, vlbert_learner


def close(actual, expected, **options):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-5} | options)


def fuse(model, regions, text):
    return model.fuse(model.encode_image(regions), model.encode_text(text))


def sides(variant="clean"):
    batch = vlbert_batch()
    return batch.image[variant], batch.text[variant]


def sequence(model, regions, text):
    """What goes into the first layer: the normalised embeddings of words, regions and [END]."""
    seen = []
    hook = model.stream.layers[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    _ = fuse(model, regions, text).cls
    hook.remove()
    return seen[0]


@torch.no_grad()
def test_the_verbs_give_words_regions_and_the_end():
    model, (regions, text) = tiny_vlbert(), sides()
    image, words = model.encode_image(regions), model.encode_text(text)
    assert image.x.shape == (PAIRS, 1 + REGIONS, model.dim)
    assert torch.equal(image.mask[:-ALONE, 1:], regions.mask[:-ALONE]) and not image.mask[-ALONE:, 1:].any()
    fused = model.fuse(image, words)
    assert (fused.text.shape, fused.image.shape) == ((PAIRS, LENGTH, 16), (PAIRS, REGIONS + 1, 16))
    at = torch.tensor([[4, 0]]).repeat(PAIRS, 1)
    again = model.fuse(image, words)
    close(again.image_tokens(at), fused.image[:, [4, 0]])
    close(again.words(at), fused.text[:, [4, 0]])
    close(again.cls, fused.text[:, 0])


@pytest.mark.parametrize("row", [0, 1, PAIRS - 1])
@torch.no_grad()
def test_every_element_is_the_normalised_sum_of_word_visual_feature_segment_and_position(row):
    """By hand, from the paper's figure: a pair, a pair with padding on both sides, and a text alone."""
    model, (regions, text) = tiny_vlbert(), sides()
    embedding, alone = model.text_embedding, row >= PAIRS - ALONE
    count = int(text.mask[row].sum())
    visual = model.visual_embedding(regions.features[[row]], regions.boxes[[row]])[0]
    on_words = model.word_visual_norm(model.visual_of_text_alone if alone else visual[0])
    words = embedding.token(text.ids[row, :count]) + on_words + embedding.segment.weight[0]
    expected = [embedding.norm(words + embedding.position.weight[:count])]
    if not alone:
        here = model.region_visual_norm(visual) + model.region_word + embedding.segment.weight[2]
        expected.append(embedding.norm(here + embedding.position.weight[count])[regions.mask[row]])
    end = model.end + embedding.segment.weight[2] + embedding.position.weight[count + 1]
    expected.append(embedding.norm(end)[None])
    there = torch.cat([text.mask[row], regions.mask[row] & (not alone), torch.tensor([True])])
    close(sequence(model, regions, text)[row][there], torch.cat(expected))


@torch.no_grad()
def test_geometry_follows_the_code_or_the_paper():
    box = torch.tensor([[0.2, 0.1, 0.6, 0.4]])
    numbers = {"centre": [0.4, 0.25, 0.4, 0.3], "corners": [0.2, 0.1, 0.6, 0.4]}
    for form, four in numbers.items():
        waves = torch.tensor([1.0, 1000**0.5])
        angles = 100 * torch.tensor(four)[:, None] / waves
        close(geometry_embedding(box, 2, form)[0], torch.cat([angles.sin(), angles.cos()], 1).flatten())
    regions, text = sides()
    official, paper = (fuse(tiny_vlbert(geometry=kind), regions, text).cls for kind in ("official", "paper"))
    assert not torch.allclose(official[0], paper[0], atol=1e-3)


@torch.no_grad()
def test_padding_does_not_matter():
    model, (regions, text) = tiny_vlbert(), sides("masked")
    expected = fuse(model, regions, text)
    blank = torch.zeros(PAIRS, 3, dtype=torch.bool)
    more = torch.full((PAIRS, 3, FEATURE), 7.0).half()
    wider = replace(
        regions,
        features=torch.cat([regions.features.where(regions.mask[..., None], 9.0), more], 1),
        boxes=torch.cat([regions.boxes, torch.rand(PAIRS, 3, 4)], 1),
        mask=torch.cat([regions.mask, blank], 1),
        hidden=torch.cat([regions.hidden, blank], 1),
    )
    longer = Text(
        ids=torch.cat([text.ids.where(text.mask, 7), torch.full((PAIRS, 3), 9)], 1),
        mask=torch.cat([text.mask, blank], 1),
    )
    fused = fuse(model, wider, longer)
    close(fused.text[:, :LENGTH][text.mask], expected.text[text.mask])
    seen = (regions.mask & (regions.image >= 0)[:, None])[..., None]
    close(fused.image[:, :REGIONS].where(seen, 0.0), expected.image[:, :REGIONS].where(seen, 0.0))
    close(fused.image[:, -1], expected.image[:, -1])  # [END]
    shown = fuse(model, replace(regions, mask=torch.ones_like(regions.mask)), text)
    assert not torch.allclose(shown.cls[1], expected.cls[1], atol=1e-3)


@torch.no_grad()
def test_a_text_alone_sees_no_image():
    model, (regions, text) = tiny_vlbert(), sides()
    other = replace(regions, features=regions.features.flip(0) + 1, boxes=regions.boxes.flip(0))
    before, after = fuse(model, regions, text).text, fuse(model, other, text).text
    assert torch.equal(before[-ALONE:], after[-ALONE:])
    assert not torch.allclose(before[:-ALONE], after[:-ALONE], atol=1e-3)


@torch.no_grad()
def test_rows_that_were_taken_meet_as_before():
    model, (regions, text) = tiny_vlbert(), sides()
    image, words = model.encode_image(regions), model.encode_text(text)
    rows = torch.tensor([3, 0, 5, 0])
    close(model.fuse(image.take(rows), words.take(rows)).cls, model.fuse(image, words).cls[rows])


@torch.no_grad()
def test_what_is_hidden_cannot_be_seen():
    """Not in its own feature, and not in the whole image's, which is the mean of the others."""
    model, (regions, text) = tiny_vlbert(), sides("masked")
    changed = replace(regions, features=regions.features.masked_fill(regions.hidden[..., None], 5.0))
    assert torch.equal(fuse(model, changed, text).text, fuse(model, regions, text).text)
    seen = regions.mask[2] & ~regions.hidden[2]
    seen[0] = False
    close(model.features(regions)[2, 0].half(), regions.features[2][seen].float().mean(0).half(), rtol=1e-2, atol=1e-2)
    assert torch.equal(model.features(regions)[2, 1], model.hidden_feature.to(torch.float32))
    given = tiny_vlbert(whole_image="given")
    assert torch.equal(given.features(regions)[:, 0].half(), regions.features[:, 0])


@torch.no_grad()
def test_at_first_no_picture_changes_a_word():
    """The visual norms scale by 0 in the beginning: training starts from BERT as it was."""
    model, (regions, text) = tiny_vlbert(visual_scale=0.0), sides()
    before = sequence(model, regions, text)[:, :LENGTH]
    after = sequence(model, replace(regions, features=regions.features + 1), text)[:, :LENGTH]
    assert torch.equal(before, after)


@pytest.mark.parametrize("visual_scale", [0.0, 1.0])
def test_one_batch_is_learnt(visual_scale):
    learner, batch = vlbert_learner(visual_scale=visual_scale), vlbert_batch()
    optimizer = torch.optim.AdamW(learner.parameters(), 3e-3)
    for _ in range(120):
        loss, logs = learner(batch)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in learner.parameters())
        optimizer.step()
    assert logs["mlm/accuracy"] == logs["mlm/text_only_accuracy"] == 1
    assert logs["mlm/loss"] < 0.2
    probs = batch.targets["regions"].probs[[2, 2, 3, 3], [0, 1, 0, 1]]
    entropy = -(probs * probs.log()).sum(-1).mean()  # the least that a cross-entropy with these can be
    assert logs["region_class/loss"] < entropy + 0.1


def test_one_pass_serves_both_objectives_and_both_kinds_of_rows(monkeypatch):
    learner, batch = vlbert_learner(), vlbert_batch()
    calls, real, layer = Counter(), SingleStream.forward, BertLayer.forward

    def stream(self, x, *args):
        calls["stream", len(x)] += 1
        return real(self, x, *args)

    def count(self, x, *args, **kwargs):
        calls["layer", x.shape[1]] += 1
        return layer(self, x, *args, **kwargs)

    monkeypatch.setattr(SingleStream, "forward", stream)
    monkeypatch.setattr(BertLayer, "forward", count)
    learner(batch)
    whole = LENGTH + REGIONS + 1
    # two layers see everything; the last is computed at the two hidden words and at the two hidden regions of each row
    assert calls == {("stream", PAIRS): 1, ("layer", whole): 2, ("layer", 2): 2}


@torch.no_grad()
def test_a_bert_fills_words_and_layers_and_leaves_the_rest(tmp_path):
    state = bert()
    save_file(state, tmp_path / "model.safetensors")
    torch.manual_seed(1)
    scratch = VLBERT(vlbert_config())
    torch.manual_seed(1)
    model = VLBERT(vlbert_config(bert=str(tmp_path / "model.safetensors")))
    own = model.state_dict()
    assert torch.equal(own["text_embedding.token.weight"], state["bert.embeddings.word_embeddings.weight"])
    segments = state["bert.embeddings.token_type_embeddings.weight"]
    assert torch.equal(own["text_embedding.segment.weight"][:2], segments)
    assert not torch.equal(own["text_embedding.segment.weight"][2], segments[0])  # a fresh row, as in the original
    for name in model.new_parameters():
        assert torch.equal(own[name], scratch.state_dict()[name]), name
    covered = {name.split(".")[0] for name, _ in model.named_parameters()} - {
        name.split(".")[0] for name in model.new_parameters()
    }
    assert covered == {"text_embedding", "stream"}


def test_base_and_large_have_the_published_sizes():
    large = {"dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}
    sizes = {}
    for name, changes in {"base": {}, "large": large}.items():
        with torch.device("meta"):
            model = VLBERT(VLBERT.Config(vocab_size=30522, **changes))
        sizes[name] = sum(p.numel() for p in model.parameters()) / 1e6
    # BERT without its pooler (108.9 and 334.1 million), the visual part of 4096 x D and some vectors
    assert sizes == {"base": pytest.approx(112.0, abs=0.1), "large": pytest.approx(338.3, abs=0.1)}


def test_a_text_that_leaves_no_position_for_regions_is_refused():
    model = tiny_vlbert()
    ids = torch.zeros(1, 15, dtype=torch.long)
    with pytest.raises(ValueError, match="15 words need max_length 17, it is 16"):
        model.encode_text(Text(ids=ids, mask=ids == 0))


def raw_regions(seed=0):
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 0.5], [0.5, 0.4, 0.9, 0.9]]).expand(2, 3, 4)
    hidden = torch.tensor([[False, True, False], [False, False, False]])
    return RawRegions(
        pixels=torch.randint(0, 256, (2, 3, 64, 64), generator=draw, dtype=torch.uint8),
        size=torch.tensor([[64, 64], [48, 64]]),
        boxes=boxes,
        mask=torch.tensor([[True, True, True], [True, True, False]]),
        image=torch.tensor([0, 1, -1]),
        hidden=hidden,
    )


def test_end_to_end_the_backbone_learns_and_hidden_pixels_do_not_matter():
    backbone = FastRCNN.Config(name="resnet18", pooled_size=2, frozen_stages=(1, 2))
    model = tiny_vlbert(fast_rcnn=backbone)
    assert (model.reads, model.config.reads, model.hidden_feature) == ("raw_regions", "raw_regions", None)
    assert VLBERT.Config().reads == "regions"
    regions = raw_regions()
    text = Text(ids=torch.randint(5, WORDS, (3, 6)), mask=torch.ones(3, 6, dtype=torch.bool))
    fused = fuse(model, regions, text)
    painted = regions.pixels.clone()
    painted[0, :, 10:30, 10:30] = 77  # inside the hidden region's box
    close(fuse(model, replace(regions, pixels=painted), text).text, fused.text)
    fused.text[:2].square().sum().backward()
    trained = {name for name, p in model.fast_rcnn.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("layer2" in name for name in trained) and any("layer4" in name for name in trained)
    assert not [name for name in trained if "layer1" in name or "bn" in name or name.startswith("body.conv1")]
