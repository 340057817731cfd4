import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import picture, record, tokenizer

from crossgrain.config import UserError
from crossgrain.data.asks import Reading
from crossgrain.data.collate import pad_texts
from crossgrain.data.images import ImageConfig
from crossgrain.data.loader import Source, batches
from crossgrain.data.pairs import PairsConfig
from crossgrain.data.records import Region
from crossgrain.data.samples import Recipe
from crossgrain.data.shards import Shards, ShardWriter
from crossgrain.data.text import TextConfig, Tokenizer, encode_text, train_vocab
from crossgrain.data.types import Batch

RECORDS = [record(i) for i in range(6)]
TOKENIZER = tokenizer(RECORDS)
TEXT = TextConfig(vocab="", max_tokens=14)
RECIPE = Recipe(image=ImageConfig(size=16), text=TEXT, tokenizer=TOKENIZER)
PAIRS = Source(path="data", batch_size=4, texts_per_image=2)
REGIONS = Source(path="data", batch_size=2, texts="regions", texts_per_image=3)


def read(
    *sources: Source, first=0, last=3, records=RECORDS, num_workers=0, recipe=RECIPE, **options
) -> list[list[list[Batch]]]:
    numbers = {"seed": 0, "first_step": first, "last_step": last, "num_workers": num_workers, **options}
    return list(batches(sources, recipe, records=[records] * len(sources), **numbers))


def tensors(value) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for step in value:
        for update in step:
            for batch in update:
                batch.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_equal(one, other):
    one, other = tensors(one), tensors(other)
    assert len(one) == len(other) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_all_shapes_are_fixed_by_the_recipe():
    for step in read(PAIRS, REGIONS, last=4):
        ((batch,),) = step
        image, hidden, box = batch.image["clean"], batch.targets["mlm"], batch.targets["box"]
        assert image.pixels.shape == (6, 3, 16, 16) and image.pixels.dtype == torch.uint8
        assert image.image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5]
        assert batch.text["clean"].ids.shape == batch.text["masked"].ids.shape == (14, 14)
        assert hidden.position.shape == hidden.label.shape == (14, 8)
        assert box.rows.tolist() == [8, 9, 10, 11, 12, 13] and torch.equal(box.boxes, image.boxes[box.rows])
        assert torch.equal(box.valid, ((box.boxes != torch.tensor([0.0, 0, 1, 1])).any(1)))


def test_hidden_tokens_are_what_stood_there():
    ((((batch,),),)) = read(PAIRS, last=1)
    clean, masked, hidden = batch.text["clean"], batch.text["masked"], batch.targets["mlm"]
    known = hidden.label != -100
    assert known.any(1).all()
    assert torch.equal(clean.ids.gather(1, hidden.position)[known], hidden.label[known])
    untouched = torch.ones_like(clean.ids).scatter(1, hidden.position, 0).bool()
    untouched[:, 0] = True
    assert torch.equal(clean.ids[untouched], masked.ids[untouched])


def test_rows_of_one_concept_share_a_group_and_no_others_do():
    ((((batch,),),)) = read(PAIRS, REGIONS, last=1)
    concept: dict[int, set] = {}
    image = batch.image["clean"]
    for group, number, box in zip(batch.group.tolist(), image.image.tolist(), image.boxes, strict=True):
        concept.setdefault(group, set()).add((number, tuple(box.tolist())))
    whole = {(0.0, 0.0, 1.0, 1.0)}
    # A group is one box of one image; but an image of two sources is one concept as a whole.
    assert all(len(seen) == 1 or {box for _, box in seen} == whole for seen in concept.values())
    assert len(concept) >= 4 + 2
    apart = replace(REGIONS, path="other")
    ((((batch,),),)) = read(PAIRS, apart, last=1)
    assert not set(batch.group[:8].tolist()) & set(batch.group[8:].tolist())


def test_workers_change_nothing():
    sources = (PAIRS, replace(REGIONS, extra_step=0.5))
    alone = read(*sources, last=6)
    assert_equal(alone, read(*sources, last=6, num_workers=2))
    assert {len(step) for step in alone} == {1, 2}


def test_a_run_that_starts_at_any_step_reads_what_an_unbroken_run_reads():
    unbroken = read(PAIRS, REGIONS, last=5)
    assert_equal(unbroken[3:], read(PAIRS, REGIONS, first=3, last=5))
    assert not torch.equal(tensors(unbroken[:1])[0], tensors(unbroken[1:2])[0])


def test_ranks_and_micro_batches_together_read_what_one_process_reads():
    (((whole,),),) = read(PAIRS, last=1)
    ((parts,),) = read(PAIRS, last=1, accumulate=2)
    ranks = [read(PAIRS, last=1, rank=rank, world_size=2)[0][0][0] for rank in (0, 1)]
    for pieces in (parts, ranks):
        assert torch.equal(torch.cat([piece.image["clean"].pixels for piece in pieces]), whole.image["clean"].pixels)
        assert torch.equal(torch.cat([piece.text["masked"].ids for piece in pieces]), whole.text["masked"].ids)


def test_every_record_comes_once_an_epoch():
    groups = [batch.group[::2] for ((batch,),) in read(PAIRS, last=3)]  # 3 steps of 4 images are 2 epochs of 6
    for epoch in torch.cat(groups).split(6):
        assert len(epoch.unique()) == 6


def test_records_without_the_wanted_texts_are_passed_over():
    records = [replace(RECORDS[0], captions=()), RECORDS[1], replace(RECORDS[2], regions=())]
    (((batch,),),) = read(PAIRS, last=1, records=records)
    assert set((batch.group >> 16).tolist()) == {1, 2}
    (((batch,),),) = read(REGIONS, last=1, records=records)
    assert set((batch.group >> 16).tolist()) == {0, 1}
    assert (batch.group[:3] & 0xFFFF != 0).all() or (batch.group[3:] & 0xFFFF != 0).all()


def told(batch: Batch) -> list[str]:
    return [TOKENIZER.decode(ids) for ids in batch.text["clean"].ids.tolist()]


SWAPPED = replace(RECIPE, pairs=PairsConfig(swapped=1.0), image=ImageConfig(size=16, flip=0.0))


def test_records_without_captions_give_none_to_others():
    records = [replace(one, captions=(f"house {i}",) if i in (1, 4) else ()) for i, one in enumerate(RECORDS)]
    seen = {i: set() for i in range(6)}
    for ((batch,),) in read(REGIONS, last=24, records=records, recipe=SWAPPED):
        for number, text in zip((batch.group >> 16).tolist(), told(batch), strict=True):
            seen[number].add(text)
    both = {"house 1", "house 4"}
    assert seen == {0: both, 1: {"house 4"}, 2: both, 3: both, 4: {"house 1"}, 5: both}


def test_data_without_captions_have_none_to_swap():
    bare = [replace(one, captions=()) for one in RECORDS]
    with pytest.raises(UserError, match=r"data, split 'train': no record has captions for another to take"):
        read(REGIONS, records=bare, recipe=SWAPPED)


@pytest.mark.parametrize("kind", ["objects", "phrases"])
def test_records_without_the_wanted_kind_of_region_are_passed_over(tmp_path, kind):
    box = RECORDS[0].regions[0].box
    other = {"phrases": ("a star",)} if kind == "objects" else {"label": "star"}
    records = [replace(one, regions=(Region(box=box, **other),)) if i < 3 else one for i, one in enumerate(RECORDS)]
    with ShardWriter(tmp_path / "data") as writer:
        for one in records:
            writer.write(one, "jpg", 40, 32)
    source = replace(REGIONS, region_texts=kind)
    for data in (records, Shards(tmp_path / "data", "train")):
        got = read(source, last=6, records=data)
        assert {number for ((batch,),) in got for number in (batch.group >> 16).tolist()} == {3, 4, 5}
    with pytest.raises(UserError, match=f"no record has regions with {kind}"):
        read(source, records=records[:3])


def test_references_are_true_of_the_mirrored_image():
    both = Tokenizer(train_vocab([*RECORDS[0].captions, "right"], 200))
    reading = Reading(tokenizer=both, text=TEXT, num_references=2)
    for flip in (0.0, 1.0):
        recipe = replace(RECIPE, image=ImageConfig(size=16, flip=flip), reading=reading, tokenizer=both)
        (((batch,),),) = read(replace(PAIRS, texts_per_image=1), last=1, recipe=recipe)
        rows = (*batch.targets["references"].ids.flatten(0, 1), *batch.text["clean"].ids)
        assert {both.decode(ids.tolist()).split().count("right") for ids in rows} == {int(flip)}


def test_without_an_objective_that_predicts_words_none_is_hidden():
    (((batch,),),) = read(PAIRS, last=1, recipe=replace(RECIPE, want_masked=False))
    assert torch.equal(batch.text["masked"].ids, batch.text["clean"].ids)
    assert set(batch.targets) == {"box"} and len(batch.targets["box"].rows) == 0


def test_images_that_keep_their_shape_stand_in_the_upper_left_of_a_canvas():
    turned = [replace(one, image=picture(i, (32, 40) if i % 2 else (40, 32))) for i, one in enumerate(RECORDS)]
    for canvas, shape in (("batch", (64, 64)), ("largest", (36, 36))):
        image = ImageConfig(size=24, long_side=36, canvas=canvas, crop_scale=(0.2, 0.5))
        for ((batch,),) in read(PAIRS, records=turned, recipe=replace(RECIPE, image=image)):
            pixels, size = batch.image["clean"].pixels, batch.image["clean"].size
            assert pixels.shape == (4, 3, *shape)
            for one, (height, width), group in zip(pixels, size.tolist(), batch.group[::2].tolist(), strict=True):
                assert (height, width) == ((30, 24) if (group >> 16) % 2 else (24, 30))
                inside = one[:, :height, :width]
                assert inside[:, -1].any() and inside[:, :, -1].any() and inside.sum() == one.sum()


def test_texts_are_padded_to_a_length_with_the_padding_id():
    text = pad_texts([encode_text(one, TOKENIZER, TEXT) for one in ("a star", "house")], 14, TOKENIZER.pad)
    assert text.ids.shape == (2, 14) and text.mask.sum(1).tolist() == [3, 2]
    assert (text.ids[~text.mask] == TOKENIZER.pad).all()


def test_shards_are_read_like_records(tmp_path):
    with ShardWriter(tmp_path / "data") as writer:
        for one in RECORDS:
            writer.write(one, "jpg", 40, 32)
    source = replace(PAIRS, path=str(tmp_path / "data"))
    assert_equal(read(PAIRS), read(source, records=Shards(tmp_path / "data", "train")))
    steps = {"seed": 0, "first_step": 0, "last_step": 3}
    from_path = list(batches([source], RECIPE, num_workers=2, **steps))
    assert_equal(read(PAIRS), from_path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_record_stops_the_run_with_its_key(num_workers):
    records = [replace(one, image=one.image[:-200]) for one in RECORDS]
    with pytest.raises(UserError, match=r"^record 'record_\d': its image cannot be read: truncated"):
        read(PAIRS, records=records, num_workers=num_workers)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "no source is part of every step"),
        ([replace(PAIRS, extra_step=0.5)], {}, "no source is part of every step"),
        ([PAIRS], {"world_size": 7}, "data, split 'train': 7 ranks, but only 6 samples"),
        ([PAIRS], {"accumulate": 3}, "batch_size 4 is not a multiple of 3"),
        ([replace(PAIRS, texts_per_image=0)], {}, "texts_per_image must be at least 1, not 0"),
        ([REGIONS], {"records": [replace(RECORDS[0], regions=())]}, "data, split 'train': no record has regions"),
    ],
)
def test_mistakes_are_named_before_a_step_is_read(sources, options, message):
    with pytest.raises(UserError, match=message):
        read(*sources, **options)


def train_for_ever(report) -> None:
    torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL = 0.5  # how often torch's workers look for their parent
    steps = {"seed": 0, "first_step": 0, "last_step": 10**6}
    running = batches([PAIRS], RECIPE, num_workers=2, records=[RECORDS], **steps)
    next(running)
    report.send([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_workers_outlive_ctrl_c_but_not_their_main_process():
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    main = fork.Process(target=train_for_ever, args=(send,))
    main.start()
    workers = receive.recv()
    assert len(workers) == 2
    for pid in workers:
        assert os.getpgid(pid) == pid  # out of reach of what is sent to the whole job
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert all(alive(pid) for pid in workers)
    main.kill()
    main.join()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
