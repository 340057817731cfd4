"""Pixel-BERT's body: what its sequence is made of, what of a canvas it sees, that one pass serves both objectives."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from test_published_weights import bert

from crossgrain.config import UserError
from crossgrain.data.types import Pixels, Text
from crossgrain.models.pixelbert import PixelBERT, draw_pixels
from crossgrain.models.single_stream import SingleStream
from crossgrain.nn.cnn import CNN
from crossgrain.nn.resnet import build
from crossgrain.training.optimizer import OptimizerConfig, SGDPart, build_optimizer, set_rate
from tiny_pixels import (
    CANVAS,
    IMAGES,
    LENGTH,
    PAIRS,
    SIZES,
    VALID,
    cnn_config,
    pixel_batch,
    pixelbert_config,
    pixelbert_learner,
    tiny_pixelbert,
)

CELLS = 12


def close(actual, expected, **options):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-5} | options)


def fuse(model, batch):
    return model.fuse(model.encode_image(batch.image["clean"]), model.encode_text(batch.text["clean"]))


def alone(pixels: Pixels, number: int) -> Pixels:
    """One picture without a canvas around it."""
    height, width = SIZES[number]
    return Pixels.whole(pixels.pixels[number : number + 1, :, :height, :width])


@torch.no_grad()
def test_the_verbs_give_words_and_pixels_of_each_pair():
    model, batch = tiny_pixelbert(), pixel_batch()
    image, words = model.encode_image(batch.image["clean"]), model.encode_text(batch.text["clean"])
    assert (image.x.shape, words.x.shape) == ((PAIRS, CELLS, model.dim), (PAIRS, LENGTH, model.dim))
    assert image.mask.sum(1).tolist() == [count for count in VALID for _ in range(2)]
    fused = model.fuse(image, words)
    assert (fused.text.shape, fused.image.shape) == (words.x.shape, image.x.shape)
    close(model.fuse(image, words).cls, fused.text[:, 0])


@torch.no_grad()
def test_a_pixel_is_a_pooled_cell_of_the_last_map_projected_with_one_shared_vector():
    model, pixels = tiny_pixelbert(), pixel_batch().image["clean"].pixels[:1]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    last = model.cnn.body.forward_features(x)  # timm's own way through
    assert last.shape[2:] == (6, 8)
    pooled = last[0].unflatten(2, (4, 2)).unflatten(1, (3, 2)).amax((2, 4)).flatten(1).T  # (12, C)
    expected = pooled @ model.projection.weight.T + model.semantic.weight
    close(model.encode_image(Pixels.whole(pixels)).x[0], expected)
    normalised = tiny_pixelbert(normalised_pixels=True).encode_image(Pixels.whole(pixels)).x
    close(normalised.mean(-1), torch.zeros(1, CELLS), atol=1e-4)


@torch.no_grad()
def test_padding_does_not_matter():
    """Not what stands on the canvas beside a picture, nor how large the canvas is, nor the padding of the text."""
    model, batch = tiny_pixelbert(), pixel_batch()
    pixels, text = batch.image["clean"], batch.text["clean"]
    expected = fuse(model, batch)
    beside = torch.arange(CANVAS[0])[:, None] >= pixels.size[:, 0, None, None]
    beside = beside | (torch.arange(CANVAS[1]) >= pixels.size[:, 1, None, None])
    repainted = replace(pixels, pixels=pixels.pixels.masked_fill(beside[:, None], 255))
    assert not torch.equal(repainted.pixels, pixels.pixels)
    longer = Text(
        ids=torch.cat([text.ids.where(text.mask, 7), torch.full((PAIRS, 3), 9)], 1),
        mask=torch.cat([text.mask, torch.zeros(PAIRS, 3, dtype=torch.bool)], 1),
    )
    fused = fuse(model, replace(batch, image={"clean": repainted}, text={"clean": longer}))
    close(fused.text[:, :LENGTH][text.mask], expected.text[text.mask])
    mask = model.encode_image(pixels).mask
    close(fused.image[mask], expected.image[mask])
    larger = replace(pixels, pixels=torch.nn.functional.pad(pixels.pixels, (0, 64, 0, 128), value=200))
    reach = fuse(model, replace(batch, image={"clean": larger})).cls - expected.cls  # of convolutions over the border
    seen = fuse(model, replace(batch, image={"clean": replace(pixels, size=None)})).cls - expected.cls
    assert reach.abs().max() < 2e-3 < 0.1 * seen[4].abs().max()


@torch.no_grad()
def test_a_picture_on_a_canvas_has_the_cells_that_it_has_alone():
    """As many, and where it fills the canvas the same."""
    model, pixels = tiny_pixelbert(), pixel_batch().image["clean"]
    together = model.cnn(pixels)
    for number in range(IMAGES):
        cells = model.cnn(alone(pixels, number))
        rows, columns = cells.x.shape[1:3]
        assert rows * columns == VALID[number]
        assert together.mask[number, :rows, :columns].all() and together.mask[number].sum() == VALID[number]
    close(together.x[0], model.cnn(alone(pixels, 0)).x[0])


@torch.no_grad()
def test_the_pool_takes_nothing_from_the_canvas(monkeypatch):
    """The third picture has 1 x 3 cells of 32 pixels: each of its two pooled cells would reach beyond them."""
    last = torch.rand(IMAGES, 4, 6, 8)
    loud = last.clone()
    loud[2] = 9.0
    loud[2, :, :1, :3] = last[2, :, :1, :3]
    monkeypatch.setattr(CNN, "features", lambda self, x, *stages: loud)
    cells = CNN(cnn_config())(pixel_batch().image["clean"])
    close(cells.x[2, 0, :2], torch.stack([last[2, :, 0, :2].amax(1), last[2, :, 0, 2]]))
    close(cells.x[0], last[0].unflatten(2, (4, 2)).unflatten(1, (3, 2)).amax((2, 4)).permute(1, 2, 0))


@torch.no_grad()
def test_texts_of_one_picture_share_it_and_a_text_alone_has_none():
    model, batch = tiny_pixelbert(), pixel_batch()
    pixels, text = batch.image["clean"], batch.text["clean"]
    fused = fuse(model, replace(batch, image={"clean": replace(pixels, image=torch.tensor([2, 2, -1, 0, 0, 1]))}))
    for pair, number in ((0, 2), (1, 2), (3, 0), (5, 1)):
        same = replace(pixels, image=torch.full((PAIRS,), number))
        close(fused.cls[pair], model.fuse(model.encode_image(same), model.encode_text(text)).cls[pair])
    wordless = model.encode_image(pixels)
    nothing = wordless._replace(mask=torch.zeros_like(wordless.mask))
    close(fused.cls[2], model.fuse(nothing, model.encode_text(text)).cls[2])


@torch.no_grad()
def test_pixels_are_sampled_in_training_and_nowhere_else():
    model, batch = tiny_pixelbert(cnn=cnn_config(frozen_norm=True)), pixel_batch()
    pixels = batch.image["clean"]
    whole = model.encode_image(pixels)
    torch.manual_seed(3)
    first = model.train().encode_image(pixels)
    torch.manual_seed(3)
    again, other = model.encode_image(pixels), model.encode_image(pixels)
    assert first.x.shape == (PAIRS, 5, model.dim)
    assert torch.equal(first.x, again.x) and not torch.equal(other.x, first.x)
    assert first.mask.sum(1).tolist() == [5, 5, 5, 5, 2, 2]  # the last picture has two cells
    assert torch.equal(first.x[0], first.x[1])  # one draw for all texts of a picture
    for pair in range(PAIRS):  # different cells, all of the picture
        distance = torch.cdist(first.x[pair][first.mask[pair]], whole.x[pair][whole.mask[pair]])
        chosen = distance.argmin(1)
        close(distance.amin(1), torch.zeros(len(chosen)), atol=1e-2)
        assert len(set(chosen.tolist())) == len(chosen)
    model.config = replace(model.config, sampled_pixels=None)
    assert model.encode_image(pixels).x.shape == whole.x.shape


def test_every_pixel_of_a_picture_is_as_likely_as_another():
    mask = (torch.arange(10) < 8).expand(4000, 10)
    drawn = torch.zeros(10).index_add(0, draw_pixels(mask, 4).flatten(), torch.ones(16_000))
    assert drawn[8:].sum() == 0
    assert drawn[:8].min() > 1850 and drawn[:8].max() < 2150  # 2000 each, 5 standard deviations


@torch.no_grad()
def test_positions_tell_the_same_picture_at_two_places_apart_and_follow_the_sample():
    grey = Pixels.whole(torch.full((1, 3, 320, 320), 128, dtype=torch.uint8))
    frozen = cnn_config(frozen_norm=True)
    plain, placed = (tiny_pixelbert(cnn=frozen, pixel_positions=placed) for placed in (False, True))
    middle = [plain.encode_image(grey).x[0, 12], placed.encode_image(grey).x[0, 12]]
    table = placed.row.weight[2] + placed.column.weight[2]
    close(middle[1] - placed.projection(placed.cnn(grey).x[0, 2, 2]) - placed.semantic.weight[0], table)
    at = torch.tensor([[24, 7]])
    expected = placed.row.weight[torch.tensor([4, 1])] + placed.column.weight[torch.tensor([4, 2])]
    close(placed.positions(5, 5, at)[0], expected)
    assert plain.row is None
    with pytest.raises(ValueError, match=r"3 x 40 cells, but model.max_cells is 32"):
        placed.positions(3, 40, None)


def test_one_batch_is_learnt_by_both_objectives():
    learner, batch = pixelbert_learner(), pixel_batch()
    optimizer = build_optimizer(learner, OptimizerConfig(sgd_parts=(SGDPart(prefix="cnn.", factor=1.0),)))
    set_rate(optimizer, 1e-2)
    history = []
    for step in range(24):
        torch.manual_seed(step)
        loss, logs = learner(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        history.append({name: logs[f"{name}/loss"].item() for name in learner.objectives})
    last = {name: sum(losses[name] for losses in history[-5:]) / 5 for name in history[0]}
    assert all(last[name] < 0.5 * history[0][name] for name in last), (history[0], last)


def test_one_pass_serves_both_objectives(monkeypatch):
    learner, batch, calls = pixelbert_learner(), pixel_batch(), Counter()
    for owner, name in (
        (SingleStream, "forward"),
        (PixelBERT, "encode_image"),
        (PixelBERT, "encode_text"),
        (CNN, "forward"),
    ):
        original = getattr(owner, name)

        def counted(self, *given, original=original, key=f"{owner.__name__}.{name}"):
            calls[key] += 1
            return original(self, *given)

        monkeypatch.setattr(owner, name, counted)
    learner(batch)
    assert set(calls.values()) == {1} and len(calls) == 4, calls


def test_every_parameter_gets_a_gradient():
    learner = pixelbert_learner(pixel_positions=True, normalised_pixels=True)
    for parameter in learner.model.cnn.parameters():
        torch.nn.init.constant_(parameter, 0.1) if parameter.dim() == 1 else None  # every block starts closed
    learner(pixel_batch())[0].backward()
    still = {name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == set()


def test_frozen_parts_of_the_cnn_stay_as_they_are():
    model = tiny_pixelbert(cnn=cnn_config(frozen_norm=True, frozen_stages=(1, 2))).train()
    before = {name: value.clone() for name, value in model.cnn.state_dict().items()}
    model.encode_image(pixel_batch().image["clean"]).x.square().sum().backward()
    norms = [module for module in model.cnn.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert all(torch.equal(value, before[name]) for name, value in model.cnn.state_dict().items())
    trained = {name for name, p in model.cnn.named_parameters() if p.grad is not None}
    later = ("body.layer2", "body.layer3", "body.layer4")
    assert trained == {name for name, p in model.cnn.named_parameters() if name.startswith(later) and p.dim() == 4}


def test_bfloat16_is_close_to_float32():
    learner, batch = pixelbert_learner(cnn=cnn_config(frozen_norm=True)), pixel_batch()
    torch.manual_seed(0)
    exact = learner(batch)[1]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, rough = learner(batch)
    assert loss.dtype == torch.float32
    for name in learner.objectives:
        assert rough[f"{name}/loss"].item() == pytest.approx(exact[f"{name}/loss"].item(), rel=0.05), name
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize("frozen_norm", [False, True])
def test_activation_checkpointing_gives_the_same_gradients_and_statistics(frozen_norm):
    results = []
    for checkpointing in (False, True):
        learner = pixelbert_learner(cnn=cnn_config(frozen_norm=frozen_norm), dropout=0.1, attention_dropout=0.1)
        if checkpointing:
            learner.model.enable_activation_checkpointing()
        torch.manual_seed(1)
        learner(pixel_batch())[0].backward()
        gradients = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
        results.append(gradients | dict(learner.named_buffers()))
    close(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_weights_of_a_resnet_and_of_a_bert_are_read(tmp_path):
    state = build("test_resnet", zero_init_last=True).state_dict()
    state = {name: torch.rand(value.shape) if value.is_floating_point() else value for name, value in state.items()}
    old = {name: value for name, value in state.items() if "num_batches" not in name} | {"fc.bias": torch.zeros(5)}
    save_file(old, tmp_path / "resnet.safetensors")
    save_file(bert(), tmp_path / "model.safetensors")
    weights = cnn_config(weights=str(tmp_path / "resnet.safetensors"))
    config = pixelbert_config(cnn=weights, bert=str(tmp_path))
    model = PixelBERT(config)
    assert all(torch.equal(model.cnn.body.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(model.token_embedding.weight, bert()["bert.embeddings.word_embeddings.weight"])
    assert config.from_scratch() == replace(config, bert=None, cnn=replace(weights, weights=None))
    with pytest.raises(UserError, match=r"does not fit this encoder"):
        CNN(replace(weights, name="resnet10t"))


def test_only_what_lies_between_cnn_and_bert_is_new():
    names = tiny_pixelbert(pixel_positions=True, normalised_pixels=True).new_parameters()
    assert {name.split(".")[0] for name in names} == {"projection", "semantic", "row", "column", "norm"}


def test_resnext_152_has_the_published_layers():
    with torch.device("meta"):
        cnn = CNN(CNN.Config(name="resnext152_32x8d"))
    assert [len(cnn.stage(number)) for number in (2, 3, 4, 5)] == [3, 8, 36, 3]
    assert (cnn.num_channels, cnn.stage(5)[0].conv2.groups) == (2048, 32)
    assert cnn.stage(2)[0].conv2.out_channels == 32 * 8


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: pixelbert_config(dim=18, num_heads=4), "dim 18 is not a multiple of num_heads 4"),
        (lambda: PixelBERT(pixelbert_config(vocab_size=None)), "vocab_size is not set"),
        (lambda: CNN(cnn_config(name="resnot50")), "'resnot50' is no ResNet"),
        (lambda: CNN(cnn_config(name="vit_tiny_patch16_224")), "'vit_tiny_patch16_224' is no ResNet"),
        (lambda: CNN(cnn_config(stages=4, frozen_stages=(5,))), r"frozen_stages \[5\]: this network has stages 1 to 4"),
        (lambda: CNN(cnn_config(name="resnet18", stride_in_1x1=True)), "stride_in_1x1 needs bottleneck blocks"),
    ],
)
def test_what_cannot_be_is_said_at_once(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@torch.no_grad()
def test_fewer_stages_and_no_pool_give_small_pictures_more_cells():
    pixels = Pixels.whole(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
    shapes = [
        tuple(CNN(cnn_config(stages=stages, pool=pool)).eval()(pixels).x.shape[1:3])
        for stages, pool in ((5, True), (5, False), (4, True), (4, False))
    ]
    assert shapes == [(2, 2), (4, 4), (4, 4), (8, 8)]
