"""ImageBERT's body: what its sequence is made of, what it must not see, and that one pass serves all objectives."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from test_published_weights import bert

from crossgrain.data.types import Regions, Text
from crossgrain.models.imagebert import ImageBERT
from crossgrain.models.single_stream import SingleStream
from crossgrain.nn.transformer import BertLayer
from tiny_models import WORDS
from tiny_regions import (
    FEATURE,
    LENGTH,
    PAIRS,
    REGIONS,
    imagebert_config,
    imagebert_learner,
    region_batch,
    tiny_imagebert,
)


def close(actual, expected, **options):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-5} | options)


def fuse(model, regions, text):
    return model.fuse(model.encode_image(regions), model.encode_text(text))


@torch.no_grad()
def test_the_verbs_give_words_and_regions_of_each_pair():
    model, batch = tiny_imagebert(), region_batch()
    regions, text = batch.image["clean"], batch.text["clean"]
    image, words = model.encode_image(regions), model.encode_text(text)
    assert (image.x.shape, words.x.shape) == ((PAIRS, REGIONS, model.dim), (PAIRS, LENGTH, model.dim))
    assert torch.equal(image.mask, regions.mask)
    fused = model.fuse(image, words)
    assert (fused.text.shape, fused.image.shape) == (words.x.shape, image.x.shape)
    at = torch.tensor([[4, 0]]).repeat(PAIRS, 1)
    again = model.fuse(image, words)
    close(again.image_tokens(at), fused.image[:, [4, 0]])
    close(again.words(at), fused.text[:, [4, 0]])
    close(again.cls, fused.text[:, 0])


@torch.no_grad()
def test_a_region_is_the_normalised_sum_of_feature_location_segment_and_one_position():
    model, regions = tiny_imagebert(), region_batch().image["clean"]
    parts, (x1, y1, x2, y2) = model.region_embedding, regions.boxes[2, 3].tolist()
    five = torch.tensor([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
    total = (
        parts.feature.weight @ regions.features[2, 3].float()
        + parts.feature.bias
        + parts.location.weight @ five
        + parts.location.bias
        + model.text_embedding.segment.weight[1]
        + parts.position.weight[0]
    )
    expected = (total - total.mean()) / total.var(unbiased=False).sqrt()  # a fresh LayerNorm scales by 1
    close(model.encode_image(regions).x[2, 3], expected, rtol=1e-3)


@torch.no_grad()
def test_with_normalised_parts_a_location_counts_as_much_as_a_feature():
    """Features a hundred times as large drown the location in the plain sum, and not where each part is normalised."""
    regions = region_batch().image["clean"]
    loud = replace(regions, features=regions.features * 100)
    moved = replace(loud, boxes=loud.boxes.flip(0))
    changes = []
    for normalised in (False, True):
        model = tiny_imagebert(normalised_parts=normalised)
        model.region_embedding.location.weight.normal_(std=0.1)
        changes.append((model.encode_image(loud).x - model.encode_image(moved).x).abs().mean())
    assert changes[1] > 10 * changes[0]


@torch.no_grad()
def test_padding_does_not_matter():
    model, batch = tiny_imagebert(), region_batch()
    regions, text = batch.image["clean"], batch.text["clean"]
    expected = fuse(model, regions, text)
    more, blank = torch.full((PAIRS, 3, FEATURE), 7.0).half(), torch.zeros(PAIRS, 3, dtype=torch.bool)
    padded_regions = Regions(
        features=torch.cat([regions.features.where(regions.mask[..., None], 9.0), more], 1),
        boxes=torch.cat([regions.boxes, torch.rand(PAIRS, 3, 4)], 1),
        mask=torch.cat([regions.mask, blank], 1),
        image=regions.image,
    )
    padded_text = Text(
        ids=torch.cat([text.ids.where(text.mask, 7), torch.full((PAIRS, 3), 9)], 1),
        mask=torch.cat([text.mask, blank], 1),
    )
    assert not regions.mask.all() and not text.mask.all()
    fused = fuse(model, padded_regions, padded_text)
    close(fused.text[:, :LENGTH][text.mask], expected.text[text.mask])
    close(fused.image[:, :REGIONS][regions.mask], expected.image[regions.mask])
    seen = fuse(model, replace(regions, mask=torch.ones_like(regions.mask)), text)
    assert not torch.allclose(seen.cls, expected.cls, atol=1e-3)


@torch.no_grad()
def test_pairs_of_one_image_share_it_and_a_text_alone_has_none():
    model, batch = tiny_imagebert(), region_batch()
    regions, text = batch.image["clean"], batch.text["clean"]
    expected = fuse(model, regions, text)
    rows = torch.tensor([3, 3, -1, 0, 5, -1])
    fused = fuse(model, replace(regions, image=rows), text)
    close(fused.cls[1], fuse(model, regions, Text(ids=text.ids[[1] * 6], mask=text.mask[[1] * 6])).cls[3])
    close(fused.image[4][:2], fuse(model, regions, Text(ids=text.ids[[4] * 6], mask=text.mask[[4] * 6])).image[5][:2])
    assert not model.encode_image(replace(regions, image=rows)).mask[[2, 5]].any()
    nothing = replace(regions, mask=torch.zeros_like(regions.mask))
    close(fused.cls[[2, 5]], fuse(model, nothing, text).cls[[2, 5]])
    assert not torch.allclose(fused.cls[2], expected.cls[2], atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"global_feature": True}, {"normalised_parts": True}])
@torch.no_grad()
def test_what_is_hidden_cannot_be_seen(options):
    """The features of hidden regions change nothing but what is compared with them: no token, no prediction."""
    model, batch = tiny_imagebert(**options), region_batch()
    regions, text = batch.image["masked"], batch.text["masked"]
    changed = replace(regions, features=regions.features.masked_fill(regions.hidden[..., None], 5.0))
    assert not torch.equal(changed.features, regions.features)
    before, after = fuse(model, regions, text), fuse(model, changed, text)
    assert torch.equal(after.text, before.text) and torch.equal(after.image, before.image)
    shown = fuse(model, replace(changed, hidden=None), text)
    assert not torch.allclose(shown.cls[2], after.cls[2], atol=1e-3)


def test_hidden_features_teach_the_projection_nothing():
    gradients = []
    for value in (5.0, -5.0):
        model, batch = tiny_imagebert(), region_batch()
        regions = batch.image["masked"]
        changed = replace(regions, features=regions.features.masked_fill(regions.hidden[..., None], value))
        fuse(model, changed, batch.text["masked"]).cls.square().sum().backward()
        gradients.append(model.region_embedding.feature.weight.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


@torch.no_grad()
def test_the_global_feature_is_the_mean_of_what_is_not_hidden():
    model, regions = tiny_imagebert(global_feature=True), region_batch().image["masked"]
    x, (mask, hidden) = model.region_embedding.project(regions), (regions.mask, regions.hidden)
    others = regions.features.float()[:, 1:]
    for pair in range(PAIRS):
        visible = (mask & ~hidden)[pair, 1:]
        close(x[pair, 0], model.region_embedding.feature.weight @ others[pair][visible].mean(0))
    clean = replace(regions, hidden=None)
    given = regions.features[:, 0].float() @ model.region_embedding.feature.weight.T
    close(model.region_embedding.project(clean)[:, 0], given)


def test_one_batch_is_learnt_by_all_four_objectives():
    learner, batch = imagebert_learner(), region_batch()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        loss, logs = learner(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: logs[f"{name}/loss"].item() for name in learner.objectives})
    assert all(history[-1][name] < 0.2 * history[0][name] for name in history[0]), (history[0], history[-1])


def test_one_pass_serves_all_four_objectives(monkeypatch):
    """The layers but the last one run once over everything, the last one where something is asked and nowhere else."""
    learner, batch, calls, sizes = imagebert_learner(), region_batch(), Counter(), []
    depth, stream, layer, embed = 3, SingleStream.forward, BertLayer.forward, ImageBERT.encode_image

    def count(name, original, record=lambda *given: None):
        def counted(self, *given):
            calls[name] += 1
            record(*given)
            return original(self, *given)

        return counted

    monkeypatch.setattr(SingleStream, "forward", count("stream", stream))
    monkeypatch.setattr(ImageBERT, "encode_image", count("encode_image", embed))
    monkeypatch.setattr(BertLayer, "forward", count("layer", layer, lambda x, *_: sizes.append(x.shape[1])))
    learner(batch)
    assert (calls["stream"], calls["encode_image"]) == (1, 1)
    everywhere, asked = sizes[: depth - 1], sorted(sizes[depth - 1 :])
    assert everywhere == [LENGTH + REGIONS] * (depth - 1)
    assert asked == [1, 2, 2]  # [CLS]; two words; two regions, once for both objectives that predict them


def test_every_parameter_gets_a_gradient():
    learner = imagebert_learner()
    learner(region_batch())[0].backward()
    still = {name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == set()


def test_bfloat16_is_close_to_float32_and_half_precision_features_need_no_care():
    learner, batch = imagebert_learner(), region_batch()
    exact = learner(batch)[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss, rough = learner(batch)
    assert loss.dtype == torch.float32
    for name in learner.objectives:
        assert rough[f"{name}/loss"].item() == pytest.approx(exact[f"{name}/loss"].item(), rel=0.03), name
    loss.backward()
    assert all(p.grad.isfinite().all() for p in learner.parameters())


def test_activation_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        learner = imagebert_learner(dropout=0.1, attention_dropout=0.1)
        if checkpointing:
            learner.model.enable_activation_checkpointing()
        torch.manual_seed(1)
        learner(region_batch())[0].backward()
        gradients.append({name: p.grad for name, p in learner.named_parameters()})
    close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


def test_only_the_embedding_of_regions_is_new_to_bert():
    names = tiny_imagebert().new_parameters()
    assert {name.split(".")[0] for name in names} == {"region_embedding"}
    assert {name.split(".")[1] for name in names} == {"feature", "location", "position", "norm"}


def test_a_bert_fills_words_layers_and_both_segments(tmp_path):
    state = bert()
    save_file(state, tmp_path / "model.safetensors")
    model = ImageBERT(imagebert_config(bert=str(tmp_path)))
    assert torch.equal(model.text_embedding.segment.weight, state["bert.embeddings.token_type_embeddings.weight"])
    assert torch.equal(model.token_embedding.weight, state["bert.embeddings.word_embeddings.weight"])
    assert torch.equal(model.stream.layers[2].mlp.expand.bias, state["bert.encoder.layer.2.intermediate.dense.bias"])


def test_an_architecture_can_be_had_without_its_published_weights():
    config = imagebert_config(bert="bert-base")
    assert config.from_scratch() == replace(config, bert=None)
    assert ImageBERT(config.from_scratch()).token_embedding.num_embeddings == WORDS
    with pytest.raises(ValueError, match="dim 18 is not a multiple of num_heads 4"):
        imagebert_config(dim=18, num_heads=4)
    with pytest.raises(ValueError, match="vocab_size is not set"):
        ImageBERT(imagebert_config(vocab_size=None))
