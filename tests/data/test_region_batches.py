"""Batches for models that read a detector's regions: what is hidden, what is predicted, and whose text is swapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import detected, encoded, record, tokenizer
from test_loader import assert_equal

from crossgrain.config import UserError
from crossgrain.data import pairs
from crossgrain.data.collate import raw_regions_of, regions_of
from crossgrain.data.corpus import Corpus
from crossgrain.data.images import ImageConfig
from crossgrain.data.loader import Source, batches
from crossgrain.data.masking import RegionMasking
from crossgrain.data.pairs import PairsConfig, RegionsConfig
from crossgrain.data.regions import finish_regions, open_regions, write_region_shard
from crossgrain.data.samples import Recipe
from crossgrain.data.shards import ShardWriter
from crossgrain.data.text import TextConfig
from crossgrain.data.types import Batch, RawRegions, Regions

FOUND = (9, 12, 3, 0, 10, 7)  # regions of each record
RECORDS = [
    replace(record(i), captions=(f"a star left of house {i}",), detected=detected(i, num))
    for i, num in enumerate(FOUND)
]
TOKENIZER = tokenizer(RECORDS)
STORED = Recipe(
    image=ImageConfig(size=16, rand_augment=None),
    text=TextConfig(vocab="", max_tokens=14),
    tokenizer=TOKENIZER,
    regions=RegionsConfig(max_regions=10, masking=RegionMasking(probability=0.3, max_masked=3)),
    reads="regions",
    want_hidden=True,
    want_classes=True,
)
PAIRS = Source(path="data", batch_size=6)
NO_IMAGES = [replace(one, image=b"") for one in RECORDS]


def read(recipe=STORED, *sources: Source, last=4, records=NO_IMAGES, **options) -> list[Batch]:
    sources = sources or (PAIRS,)
    numbers = {"seed": 0, "first_step": 0, "last_step": last, "num_workers": 0, **options}
    data = [Corpus(source.path) if source.texts == "corpus" else records for source in sources]
    return [batch for step in batches(sources, recipe, records=data, **numbers) for update in step for batch in update]


def numbers(batch: Batch) -> list[int]:
    """Which record each row's image is of."""
    return (batch.group >> 16).tolist()


def masked_rows(batch: Batch) -> tuple[list[bool], list[bool]]:
    """Of each row, whether words are predicted, and whether regions are."""
    return tuple((batch.targets[name].label != -100).any(1).tolist() for name in ("mlm", "regions"))


def test_regions_stand_in_the_batch_as_the_detector_gave_them():
    for batch in read(last=2):
        regions = batch.image["clean"]
        assert isinstance(regions, Regions) and regions.features.dtype == torch.float16
        assert regions.features.shape == (6, 10, 6) and regions.hidden is None
        assert regions.image.tolist() == [0, 1, 2, 3, 4, 5]
        for row, number in enumerate(numbers(batch)):
            seen = RECORDS[number].detected
            count = min(10, FOUND[number])
            assert regions.mask[row].tolist() == [i < count for i in range(10)]
            assert np.array_equal(regions.features[row, :count], seen.features[:count])
            assert np.array_equal(regions.boxes[row, :count], seen.boxes[:count])
            assert not regions.features[row, count:].any() and not regions.boxes[row, count:].any()


def test_both_variants_share_their_tensors_also_after_a_move():
    (batch,) = read(last=1)
    for moved in (batch, batch.map(torch.clone)):
        clean, masked = moved.image["clean"], moved.image["masked"]
        assert masked.hidden is not None and clean.features is masked.features and clean.boxes is masked.boxes


def test_hidden_regions_are_among_the_predicted_which_have_the_detectors_class():
    recipe = replace(STORED, regions=replace(STORED.regions, probs=True, whole_image=True))
    chosen = hidden = 0
    for batch in read(recipe, last=40):
        target, masked = batch.targets["regions"], batch.image["masked"]
        assert target.position.shape == target.label.shape == (6, 3) and target.probs.shape == (6, 3, 5)
        for row, number in enumerate(numbers(batch)):
            seen = RECORDS[number].detected
            known = target.label[row] != -100
            at = target.position[row][known].numpy()
            count = min(10, FOUND[number])
            assert len(at) == (min(3, max(1, round(0.3 * count))) if count else 0)  # at least one, where there is one
            assert (at >= 1).all() and (at <= count).all() and len(set(at)) == len(at)  # 0 is the whole image
            assert target.label[row][known].tolist() == seen.labels[at - 1].tolist()
            assert np.array_equal(target.probs[row][known], seen.class_probs[at - 1])
            assert set(masked.hidden[row].nonzero().flatten().tolist()) <= set(at.tolist())
            chosen, hidden = chosen + len(at), hidden + int(masked.hidden[row].sum())
    assert hidden / chosen == pytest.approx(0.9, abs=0.05)


def test_the_whole_image_is_the_first_region_and_the_mean_of_the_others():
    for regions in (
        read(replace(STORED, regions=replace(STORED.regions, whole_image=True)), last=1)[0].image["clean"],
        regions_of(RECORDS, replace(STORED.regions, whole_image=True)),
    ):
        assert regions.features.shape == (6, 11, 6) and regions.mask[:, 0].all()
        assert (regions.boxes[:, 0] == torch.tensor([0.0, 0, 1, 1])).all()
        real = regions.mask[:, 1:, None]
        mean = (regions.features[:, 1:].float() * real).sum(1) / real.sum(1).clamp(min=1)
        torch.testing.assert_close(regions.features[:, 0].float(), mean, rtol=1e-3, atol=1e-3)


def test_the_surest_regions_are_kept_in_their_order():
    found = detected(0, 6)
    shuffled = replace(found, scores=found.scores[[3, 0, 5, 1, 4, 2]])
    kept = pairs.detected_regions(replace(RECORDS[0], detected=shuffled), RegionsConfig(max_regions=3))
    assert np.array_equal(kept.features, found.features[[1, 3, 5]]) and np.array_equal(
        kept.boxes, found.boxes[[1, 3, 5]]
    )
    assert np.array_equal(kept.class_probs, found.class_probs[[1, 3, 5]])


@pytest.mark.parametrize("masked_side", ["both", "one"])
def test_words_and_regions_are_hidden_together_or_one_at_a_time(masked_side):
    recipe = replace(STORED, pairs=PairsConfig(masked_side=masked_side))
    sides = []
    for batch in read(recipe, last=30):
        for row, number in enumerate(numbers(batch)):
            words, regions = (side[row] for side in masked_rows(batch))
            changed = not torch.equal(batch.text["masked"].ids[row], batch.text["clean"].ids[row])
            hidden = bool(batch.image["masked"].hidden[row].any())
            assert (words or not changed) and (regions or not hidden)
            if FOUND[number]:
                assert (words and regions) if masked_side == "both" else words != regions
                sides.append(words)
            else:
                assert words and not regions  # nothing else is there to be hidden
    assert 0.4 < np.mean(sides) < 0.6 if masked_side == "one" else all(sides)


def test_swapped_captions_are_other_records_and_predict_nothing():
    recipe = replace(STORED, pairs=PairsConfig(swapped=0.5))
    right = [TOKENIZER.encode(one.captions[0], 14, False) for one in RECORDS]
    seen = []
    for batch in read(recipe, last=40):
        matched = batch.targets["itm"].label.tolist()
        words, regions = masked_rows(batch)
        for row, number in enumerate(numbers(batch)):
            ids = batch.text["clean"].ids[row][batch.text["clean"].mask[row]].tolist()
            assert ids in right and (ids == right[number]) == matched[row]
            assert words[row] == matched[row] and regions[row] == (matched[row] and FOUND[number] > 0)
            seen.append((matched[row], ids != batch.text["masked"].ids[row][: len(ids)].tolist()))
    assert np.mean([matched for matched, _ in seen]) == pytest.approx(0.5, abs=0.1)
    # A row that hides nothing would tell that its text is another's.
    assert np.mean([c for m, c in seen if m]) == pytest.approx(np.mean([c for m, c in seen if not m]), abs=0.1)


def test_a_caption_that_is_also_the_images_own_is_not_wrong():
    same = [replace(one, captions=("a star",)) for one in NO_IMAGES]
    recipe = replace(STORED, pairs=PairsConfig(swapped=0.9))
    assert all(batch.targets["itm"].label.all() for batch in read(recipe, last=3, records=same))


def test_several_texts_of_an_image_predict_its_regions_each():
    recipe = replace(STORED, pairs=PairsConfig(swapped=0.5))
    source = replace(PAIRS, batch_size=3, texts_per_image=2)
    found = set()
    for batch in read(recipe, source, last=20):
        target, matched = batch.targets["regions"], batch.targets["itm"].label
        assert batch.image["masked"].image.tolist() == [0, 0, 1, 1, 2, 2] and target.label.shape == (6, 3)
        assert torch.equal(target.position[::2], target.position[1::2])
        both = matched[::2] & matched[1::2]
        assert torch.equal(target.label[::2][both], target.label[1::2][both])
        assert (target.label[~matched] == -100).all()
        found.add(int(both.sum()))
    assert len(found) > 1


JOINED = replace(STORED, pairs=PairsConfig(swapped=0.3, masked_side="one"))


def test_neither_ranks_nor_accumulation_nor_workers_nor_a_new_start_change_a_bit(tmp_path):
    source = replace(PAIRS, batch_size=4)
    unbroken = read(JOINED, source)
    assert_equal([[unbroken]], [[read(JOINED, source, num_workers=2)]])
    assert_equal([[unbroken[2:]]], [[read(JOINED, source, first_step=2)]])
    ranks = [read(JOINED, source, rank=rank, world_size=2) for rank in (0, 1)]
    micro = read(JOINED, source, accumulate=2)
    for step, whole in enumerate(unbroken):
        for parts in ([ranks[0][step], ranks[1][step]], micro[2 * step : 2 * step + 2]):
            for name in ("features", "hidden", "boxes"):
                joined = torch.cat([getattr(part.image["masked"], name) for part in parts])
                assert torch.equal(joined, getattr(whole.image["masked"], name))
            for name in ("mlm", "regions", "itm"):
                assert torch.equal(torch.cat([p.targets[name].label for p in parts]), whole.targets[name].label)


def texts(path: Path) -> Source:
    lines = [f"document {i} speaks of house {i} and of a star" for i in range(5)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return Source(path=str(path), texts="corpus", batch_size=3)


def test_texts_alone_stand_beside_pairs(tmp_path):
    recipe = replace(JOINED, pairs=PairsConfig(swapped=0.3))
    sources = (replace(PAIRS, batch_size=3), texts(tmp_path / "corpus.txt"))
    run = read(recipe, *sources)
    for batch in run:
        regions, label = batch.image["masked"], batch.targets["regions"].label
        assert regions.image.tolist() == [0, 1, 2, -1, -1, -1] and len(regions.features) == 3
        assert batch.paired.tolist() == [True] * 3 + [False] * 3 and label.shape == (6, 3)
        assert (label[3:] == -100).all() and (batch.targets["mlm"].label[3:] != -100).any(1).all()
        assert batch.text["clean"].ids.shape == (6, 14) and len(batch.group.unique()) == 6
    assert read(recipe, sources[0])[0].paired is None
    assert_equal([[run]], [[read(recipe, *sources, num_workers=2)]])


def test_texts_alone_stand_beside_pixels(tmp_path):
    (batch,) = read(
        replace(STORED, reads="pixels", want_hidden=False),
        replace(PAIRS, batch_size=2),
        texts(tmp_path / "corpus.txt"),
        last=1,
        records=RECORDS,
    )
    image = batch.image["clean"]
    assert len(image.pixels) == 2 and image.image.tolist() == [0, 1, -1, -1, -1] and len(image.boxes) == 5


RAW = replace(STORED, reads="raw_regions", image=ImageConfig(size=16, long_side=24, rand_augment=None))


def test_boxes_follow_the_image_where_it_is_flipped():
    """Each record's image is white where its region is, and black elsewhere."""
    box = np.array([[0.0, 0.25, 0.25, 0.75]])
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[8:24, :12] = 255
    found = replace(detected(0, 1), boxes=box.astype(np.float32))
    one = replace(record(0), image=encoded(pixels), captions=("a star left of it",), detected=found)
    sides = set()
    for batch in read(RAW, replace(PAIRS, batch_size=1), records=[one], last=12):
        raw = batch.image["masked"]
        assert isinstance(raw, RawRegions) and raw.size.tolist() == [[16, 24]] and raw.pixels.shape == (1, 3, 64, 64)
        assert raw.hidden is not None and torch.equal(raw.pixels, batch.image["clean"].pixels)
        x1, y1, x2, y2 = (raw.boxes[0, 0] * torch.tensor([24.0, 16, 24, 16])).round().long().tolist()
        white = torch.zeros(64, 64, dtype=torch.bool)
        white[y1:y2, x1:x2] = True
        assert torch.equal(raw.pixels[0, 0] > 127, white)
        words = TOKENIZER.decode(batch.text["clean"].ids[0].tolist())
        sides.add((x1, "left" in words))
    assert sides == {(0, True), (18, False)}


def test_evaluation_sees_the_whole_image_with_its_boxes():
    raw = raw_regions_of(RECORDS, RAW.image, RAW.regions)
    assert raw.size.tolist() == [[16, 20]] * 6 and raw.mask.sum(1).tolist() == [min(10, num) for num in FOUND]
    assert not raw.pixels[:, :, 16:].any() and raw.pixels[:, :, :16, :20].any()
    square = raw_regions_of(RECORDS, STORED.image, RAW.regions)
    assert square.size.tolist() == [[16, 16]] * 6 and square.pixels.shape == (6, 3, 16, 16)


def test_shards_with_regions_are_read_without_their_images(tmp_path):
    with ShardWriter(tmp_path / "data") as writer:
        for one in RECORDS:
            writer.write(one, "jpg", 40, 32)
    source = replace(PAIRS, path=str(tmp_path / "data"))
    steps = {"seed": 0, "first_step": 0, "last_step": 3}
    with pytest.raises(UserError, match="run `crossgrain detect"):
        batches([source], JOINED, **steps)
    open_regions(tmp_path / "data", {"detector": "test"})
    write_region_shard(tmp_path / "data", "000000", [(one.key, one.detected) for one in RECORDS])
    finish_regions(tmp_path / "data")
    tar = tmp_path / "data" / "000000.tar"
    data = tar.read_bytes()
    for one in RECORDS:
        data = data.replace(one.image, bytes(len(one.image)))  # nobody looks at them
    tar.write_bytes(data)
    got = [batch for ((batch,),) in batches([source], JOINED, num_workers=0, **steps)]
    assert_equal([[read(JOINED, last=3)]], [[got]])


@pytest.mark.parametrize(
    ("change", "recipe", "message"),
    [
        ({"detected": None}, STORED, "has no detected regions: run `crossgrain detect`"),
        (
            {"detected": replace(detected(0, 3), labels=np.full(3, -1, np.int32))},
            STORED,
            "no classes, which an objective",
        ),
        (
            {"detected": replace(detected(0, 3), class_probs=None)},
            replace(STORED, regions=RegionsConfig(probs=True)),
            "no distribution over classes",
        ),
    ],
)
def test_records_that_lack_what_is_predicted_are_named(change, recipe, message):
    with pytest.raises(UserError, match=f"^record 'record_0': .*{message}|^record 'record_0' {message}"):
        read(recipe, replace(PAIRS, batch_size=1), records=[replace(NO_IMAGES[0], **change)])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([Source(path="x", texts="corpus", batch_size=2)], "a corpus is read beside pairs"),
        ([replace(PAIRS, extra_step=0.5), Source(path="x", texts="corpus", batch_size=2)], "a corpus is read beside"),
        ([PAIRS, Source(path="x", texts="corpus", batch_size=2, texts_per_image=2)], "a corpus has no extra_step, and"),
    ],
)
def test_a_corpus_needs_pairs_beside_it(tmp_path, sources, message):
    path = texts(tmp_path / "corpus.txt").path
    with pytest.raises(UserError, match=message):
        read(STORED, *(replace(s, path=path) if s.texts == "corpus" else s for s in sources))


def test_one_record_has_no_others_caption():
    with pytest.raises(UserError, match="one record alone has no other's caption"):
        read(JOINED, replace(PAIRS, batch_size=1), records=NO_IMAGES[:1])
