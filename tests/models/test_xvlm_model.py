"""X-VLM's body: what its three verbs give, and that they give the same on every way there."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from crossgrain.data.types import Pixels, Text
from crossgrain.models.interface import Tokens
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.boxes import patches_inside
from crossgrain.nn.transformer import CrossAttention
from crossgrain.nn.vision import Swin, ViT
from tiny_models import GRID, SIZE, VISION, WORDS, make_batch, tiny_config, tiny_learner, tiny_model

every_encoder = pytest.mark.parametrize("vision", VISION)
PAIRS, PATCHES = 6, 16


def close(actual, expected, **options):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-5} | options)


def encode(model, batch=None):
    batch = batch or make_batch()
    return model.encode_image(batch.image["clean"]), model.encode_text(batch.text["clean"])


@every_encoder
@torch.no_grad()
def test_the_verbs_give_one_row_for_each_pair(vision):
    model = tiny_model(vision)
    image, text = encode(model)
    fused = model.fuse(image, text)
    assert image.x.shape == (PAIRS, 1 + PATCHES, model.vision.dim)
    assert (image.mask.shape, image.mask.dtype) == ((PAIRS, 1 + PATCHES), torch.bool)
    assert text.x.shape == fused.text.shape == (PAIRS, 8, model.dim)
    assert fused.image.shape[1] == 0
    assert torch.equal(fused.cls, fused.text[:, 0])
    for embedding in (model.embed_image(image), model.embed_text(text)):
        assert embedding.shape == (PAIRS, 8)
        close(embedding.norm(dim=1), torch.ones(PAIRS))


@torch.no_grad()
def test_padding_does_not_matter():
    model, batch = tiny_model(), make_batch()
    text = batch.text["clean"]
    image, encoded = encode(model, batch)
    expected = model.fuse(image, encoded)
    rewritten = replace(text, ids=text.ids.where(text.mask, 7))
    longer = Text(
        ids=torch.cat([text.ids, torch.full((PAIRS, 5), 9)], 1),
        mask=torch.cat([text.mask, torch.zeros(PAIRS, 5, dtype=torch.bool)], 1),
    )
    assert not text.mask.all()
    for padded in (rewritten, longer):
        fused = model.fuse(image, model.encode_text(padded))
        close(fused.text[:, :8][text.mask], expected.text[text.mask])
        close(model.embed_text(model.encode_text(padded)), model.embed_text(encoded))
    assert not torch.allclose(
        model.fuse(image, model.encode_text(replace(rewritten, mask=torch.ones_like(text.mask)))).cls, fused.cls
    )


@every_encoder
@torch.no_grad()
def test_a_region_is_its_summary_and_the_patches_inside_its_box(vision):
    model, batch = tiny_model(vision), make_batch()
    image, text = encode(model, batch)
    inside = patches_inside(batch.image["clean"].boxes, GRID)
    assert image.mask[:, 0].all()
    assert torch.equal(image.mask[:, 1:], inside)
    assert not inside[1::2].all(1).any()
    # What is outside is not seen by the text.
    hidden = Tokens(image.x.masked_fill(~image.mask[..., None], 5.0), image.mask)
    close(model.fuse(hidden, text).cls, model.fuse(image, text).cls)
    if vision == "swin":
        mean = torch.stack([image.x[b, 1:][inside[b]].mean(0) for b in range(PAIRS)])
        close(image.x[:, 0], mean)


@torch.no_grad()
def test_the_last_layers_of_a_vit_see_nothing_outside_the_region():
    """With every layer local, pixels outside the box change the whole image but not the region."""
    vision = ViT.Config(image_size=SIZE, patch_size=8, dim=16, depth=1, num_heads=2, local_attention_depth=1)
    model = XVLM(tiny_config(vision=vision)).eval()
    pixels = make_batch().image["clean"].pixels[:1]
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]])
    rows = torch.zeros(2, dtype=torch.long)
    before = model.encode_image(Pixels(pixels=pixels, image=rows, boxes=boxes))
    changed = pixels.clone()
    changed[:, :, 16:, 16:] = 255 - changed[:, :, 16:, 16:]
    after = model.encode_image(Pixels(pixels=changed, image=rows, boxes=boxes))
    close(after.x[1][before.mask[1]], before.x[1][before.mask[1]])
    assert not torch.allclose(after.x[0, 0], before.x[0, 0], atol=1e-3)


@pytest.mark.parametrize("vision", ["swin", "deit"])
def test_one_batch_is_learnt_by_all_four_objectives(vision):
    learner, batch = tiny_learner(vision), make_batch()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    history = []
    for step in range(110):
        torch.manual_seed(step)
        loss, logs = learner(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        history.append({name: logs[f"{name}/loss"].item() for name in ("itc", "itm", "mlm", "box")})
    reached = {name: min(losses[name] for losses in history[-10:]) for name in history[0]}
    chance = {"itc": 1.79, "itm": 0.637, "mlm": 3.69, "box": history[0]["box"]}  # ln 6, entropy of 1/3, ln 40
    assert all(reached[name] < 0.7 * chance[name] for name in chance), reached


@every_encoder
def test_encoder_passes_are_shared_by_all_objectives(vision, monkeypatch):
    learner, batch, calls = tiny_learner(vision), make_batch(), Counter()

    def count(owner, name, rows):
        original = getattr(owner, name)

        def counted(self, first, *others):
            calls[name] += 1
            calls[f"{name} rows"] += rows(first)
            return original(self, first, *others)

        monkeypatch.setattr(owner, name, counted)

    count(XVLM, "encode_image", lambda image: len(image.pixels))
    count(XVLM, "encode_text", lambda text: len(text.ids))
    count(XVLM, "prepare", lambda tokens: len(tokens.x))
    count(XVLM, "fuse", lambda tokens: len(tokens.x))
    count(CrossAttention, "memory", len)
    learner(batch)
    depth, num_images = 2, 3
    assert (calls["encode_image"], calls["encode_image rows"]) == (1, num_images)
    assert (calls["encode_text"], calls["encode_text rows"]) == (2, 2 * PAIRS)  # the words, and the words with holes
    assert calls["prepare"] == 1
    # Matching meets three times (pair, wrong image, wrong text), masked words once, boxes once for each region.
    assert (calls["fuse"], calls["fuse rows"]) == (3, 3 * PAIRS + PAIRS + num_images)
    # Keys and values, once a layer: of the summaries of images and concepts, and of the distinct patch encodings.
    local = 0 if vision == "swin" else PAIRS
    assert calls["memory"] == 2 * depth
    assert calls["memory rows"] == depth * (num_images + PAIRS + num_images + local)


@every_encoder
@torch.no_grad()
def test_prepared_and_chosen_rows_meet_as_freshly_encoded_ones(vision):
    model = tiny_model(vision)
    image, text = encode(model)
    rows, texts = torch.tensor([5, 0, 0, 3]), torch.tensor([1, 2, 5, 3])
    expected = model.fuse(Tokens(image.x[rows], image.mask[rows]), text.take(texts)).cls  # stored, without memory
    assert image.take(rows).memory is not None
    for given in (image, model.prepare(image), model.prepare(image).take(torch.arange(PAIRS))):
        close(model.fuse(given.take(rows), text.take(texts)).cls, expected)


def test_reading_some_positions_gives_what_fusing_gives_there_with_its_gradients():
    gradients = []
    for ask in ("fuse", "read"):
        model = tiny_model()
        image, text = encode(model)
        at = torch.tensor([[0, 3], [5, 1], [2, 2], [0, 1], [7, 0], [6, 4]])
        if ask == "fuse":
            words = model.fuse(image, text).text[torch.arange(PAIRS)[:, None], at]
        else:
            words = model.fuse(image, text).words(at)
        words.square().sum().backward()
        gradients.append((words, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    close(gradients[1], gradients[0], atol=1e-4)
    close(model.fuse(image, text).cls, model.fuse(image, text).text[:, 0])


@every_encoder
@torch.no_grad()
def test_naming_the_rows_that_may_be_regions_changes_nothing_but_the_work(vision):
    model, batch = tiny_model(vision), make_batch()
    named = replace(batch.image["clean"], regions=torch.tensor([1, 3, 5]))
    image, text = encode(model, batch)
    again = model.encode_image(named)
    close(again.x, image.x)
    assert torch.equal(again.mask, image.mask)
    close(model.fuse(again, text).cls, model.fuse(image, text).cls)


@every_encoder
@torch.no_grad()
def test_the_whole_image_of_a_region_is_found_without_encoding_it_again(vision):
    model, batch = tiny_model(vision), make_batch()
    image, text = encode(model, batch)
    rows = torch.tensor([1, 5, 3])
    whole = model.whole_image(model.prepare(image), rows)
    expected = model.encode_image(Pixels.whole(batch.image["clean"].pixels)).take(torch.tensor([0, 2, 1]))
    close(whole.x, expected.x)
    assert whole.mask.all()
    close(model.fuse(whole, text.take(rows)).cls, model.fuse(expected, text.take(rows)).cls)


@every_encoder
def test_bfloat16_is_close_to_float32(vision):
    learner, batch = tiny_learner(vision), make_batch()
    torch.manual_seed(0)
    exact = learner(batch)[1]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, rough = learner(batch)
    assert loss.dtype == torch.float32
    for name in ("itc/loss", "itm/loss", "mlm/loss", "box/loss"):
        # a temperature of 0.07 makes rounding of the embeddings 14 times larger
        tolerance = 0.2 if name == "itc/loss" else 0.03
        assert rough[name].item() == pytest.approx(exact[name].item(), rel=tolerance), name
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@every_encoder
def test_activation_checkpointing_gives_the_same_gradients(vision):
    gradients = []
    for checkpointing in (False, True):
        learner = tiny_learner(vision, dropout=0.1, attention_dropout=0.1)
        if checkpointing:
            learner.model.enable_activation_checkpointing()
        torch.manual_seed(1)
        learner(make_batch())[0].backward()
        gradients.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    close(recomputed, plain, rtol=1e-5, atol=1e-7)


def test_checkpointing_keeps_less_in_memory():
    def kept(checkpointing):
        learner, stored = tiny_learner("deit"), 0
        if checkpointing:
            learner.model.enable_activation_checkpointing()

        def pack(tensor):
            nonlocal stored
            stored += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            learner(make_batch())
        return stored

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: tiny_config(dim=18, num_heads=4), "dim 18 is not a multiple of num_heads 4"),
        (lambda: Swin.Config(image_size=100), "image_size 100 is not a multiple of Swin's stride 32"),
        (lambda: Swin.Config(depths=(2, 2)), "2 depths but 4 num_heads"),
        (
            lambda: Swin.Config(embed_dim=18),
            r"widths \[18, 36, 72, 144\] are not multiples of num_heads \[4, 8, 16, 32\]",
        ),
        (lambda: ViT.Config(image_size=100), "image_size 100 is not a multiple of patch_size 16"),
        (lambda: ViT.Config(depth=2), "local_attention_depth 4 is not within 0 to 2"),
        (lambda: ViT.Config(dim=50, num_heads=4), "dim 50 is not a multiple of num_heads 4"),
        (lambda: XVLM(tiny_config(vocab_size=None)), "vocab_size is not set"),
    ],
)
def test_sizes_that_cannot_be_are_said_at_once(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_what_no_published_part_covers_is_new():
    names = tiny_model().new_parameters()
    tops = {name.split(".")[0] for name in names}
    assert tops == {"image_projection", "text_projection", "temperature", "cross_layers"}
    crossing = {name.split(".", 2)[2] for name in names if name.startswith("cross_layers")}
    assert crossing == {
        f"{part}.{kind}"
        for part in (
            "cross_attention.query",
            "cross_attention.key_value",
            "cross_attention.out",
            "cross_attention_norm",
        )
        for kind in ("weight", "bias")
    }


def test_an_architecture_can_be_had_without_its_published_weights():
    config = tiny_config(bert="bert-base", vision=replace(VISION["deit"], weights="somewhere"))
    plain = config.from_scratch()
    assert (plain.bert, plain.vision.weights) == (None, None)
    assert replace(plain, bert="bert-base", vision=config.vision) == config
    assert XVLM(plain).token_embedding.num_embeddings == WORDS
