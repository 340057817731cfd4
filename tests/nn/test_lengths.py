import pytest
import torch

from crossgrain.models.interface import Fused
from crossgrain.nn import lengths
from crossgrain.nn.lengths import groups_by_length
from crossgrain.nn.transformer import LastLayer
from tiny_models import make_batch, tiny_model

close = torch.testing.assert_close


def mask_of(*ends, length=10):
    return torch.arange(length) < torch.tensor(ends)[:, None]


def test_short_and_long_rows_are_parted_where_that_saves_most(monkeypatch):
    monkeypatch.setattr(lengths, "FEWEST", 1)
    short, long = groups_by_length(mask_of(10, 2, 9, 3, 2))
    assert (short.rows.tolist(), short.length) == ([1, 4, 3], 3)
    assert (long.rows.tolist(), long.length) == ([2, 0], 10)
    (all_short,) = groups_by_length(mask_of(3, 3, 3))
    assert (all_short.rows.tolist(), all_short.length) == ([0, 1, 2], 3)
    holes = mask_of(10, 10, 10, 10)
    assert groups_by_length(holes) is None
    holes[:, 3] = False  # a hole inside is no end
    assert groups_by_length(holes) is None


def test_small_batches_and_compiled_graphs_stay_whole(monkeypatch):
    assert groups_by_length(mask_of(10, 2)) is None
    monkeypatch.setattr(lengths, "FEWEST", 1)
    assert groups_by_length(mask_of(10, 2)) is not None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert groups_by_length(mask_of(10, 2)) is None


@pytest.mark.parametrize("look", ["words", "whole"])
def test_grouped_rows_are_what_they_are_in_the_whole_batch_with_their_gradients(monkeypatch, look):
    results = []
    for fewest in (10**9, 1):
        monkeypatch.setattr(lengths, "FEWEST", fewest)
        model, batch = tiny_model(), make_batch()
        text = batch.text["clean"]
        image, words = model.encode_image(batch.image["clean"]), model.encode_text(text)
        assert (groups_by_length(text.mask) is None) == (fewest > 1)
        fused = model.fuse(image, words)
        assert isinstance(fused, Fused) and isinstance(fused._last, LastLayer) == (fewest > 1)
        at = text.mask.sum(1, keepdim=True) - 1  # the last word of each
        x = fused.words(at) if look == "words" else fused.text * text.mask[..., None]
        x.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((words.x * text.mask[..., None], fused.cls, x, gradients))
    close(results[1], results[0], atol=1e-5, rtol=1e-4)
