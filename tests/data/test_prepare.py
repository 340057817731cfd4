import argparse
import io
import json
import shutil
import sys

import pytest
from PIL import Image
from rich.console import Console

from crossgrain import cli
from crossgrain.config import UserError
from crossgrain.data import prepare
from crossgrain.data.intake import Checked, check
from crossgrain.data.records import Dropped, Record, Region
from crossgrain.data.sets import DATASETS, Source
from crossgrain.data.sets.arguments import add_arguments
from crossgrain.data.shards import Shards
from crossgrain.data.text import Tokenizer, train_vocab


def picture(mode="RGB", format="PNG", size=(32, 24), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    rows = ["image,caption"]
    for i in range(40):
        Image.new("RGB", (32, 24), (i, 2 * i, 3 * i)).save(root / f"{i}.png")
        rows += [f"{i}.png,a small picture of number {i}", f"{i}.png,number {i} again"]
    (root / "bad.png").write_bytes(b"no image")
    (root / "captions.csv").write_text("\n".join([*rows, "bad.png,x", "gone.png,x"]))
    return root


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_bytes_do_not_depend_on_the_number_of_workers(root, tmp_path):
    reports = [prepare.prepare("folder", root, tmp_path / f"{n}", num_workers=n, vocab_size=300) for n in (0, 2)]
    assert reports[0] == reports[1]
    assert files(tmp_path / "0") == files(tmp_path / "2")
    report = json.loads((tmp_path / "0/validation.json").read_text())
    assert report["kept"] == 40 == len(Shards(tmp_path / "0")) == sum(report["kept_by_split"].values())
    assert report["dropped"] == {"image missing": 1, "not an image": 1}
    assert report["first_dropped"]["image missing"] == {"where": "captions.csv:83", "detail": "gone.png"}
    words = (tmp_path / "0/vocab.txt").read_text().splitlines()
    assert words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] and "number" in words
    assert len(words) == report["vocabulary"]


def test_an_image_that_kills_its_decoder_is_counted_and_the_rest_is_kept(root, tmp_path, monkeypatch):
    (root / "captions.csv").write_text("image,caption\n0.png,x\n1.png,kill\n2.png,y\n")
    monkeypatch.setattr(prepare, "check", _killed_by_one)
    report = prepare.prepare("folder", root, tmp_path / "out", num_workers=1, vocab_size=0)
    assert (report.kept, dict(report.dropped)) == (2, {"decoder crashed": 1})
    assert report.first_dropped["decoder crashed"]["where"] == "captions.csv:3"


def _killed_by_one(item):
    if item.captions == ("kill",):
        sys.exit(1)
    return check(item)


def test_limit_and_split_choose_what_is_kept(root, tmp_path):
    report = prepare.prepare("folder", root, tmp_path / "out", limit=5, split="test", num_workers=0, vocab_size=0)
    assert report.kept_by_split == {"test": 5}
    assert not (tmp_path / "out/vocab.txt").exists()


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        (picture(), "png"),
        (picture("L"), "png"),
        (picture(format="JPEG"), "jpg"),
        (picture(format="WEBP"), "webp"),
    ],
)
def test_ordinary_files_are_kept_byte_for_byte(data, extension):
    (result,) = check(Record(key="a", image=data))
    assert isinstance(result, Checked)
    assert (result.record.image, result.extension, result.width, result.height) == (data, extension, 32, 24)


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "format", "size"),
    [
        (picture(format="JPEG", exif=TURNED.tobytes()), "JPEG", (24, 32)),
        (picture("CMYK", "JPEG"), "JPEG", (32, 24)),
        (picture("RGBA"), "PNG", (32, 24)),
        (picture("I;16"), "PNG", (32, 24)),
        (picture("P", "GIF"), "PNG", (32, 24)),
        (picture(transparency=(0, 0, 0)), "PNG", (32, 24)),
        (picture(save_all=True, append_images=[Image.new("RGB", (32, 24), "red")]), "PNG", (32, 24)),
    ],
)
def test_what_decoders_read_differently_is_encoded_anew_as_upright_rgb(data, format, size):
    (result,) = check(Record(key="a", image=data))
    assert isinstance(result, Checked)
    image = Image.open(io.BytesIO(result.record.image))
    assert (
        (image.format, image.mode, image.size)
        == (format, "RGB", size)
        == (format, "RGB", (result.width, result.height))
    )
    assert not image.getexif() and not getattr(image, "is_animated", False)


BOX = Region(box=(0.0, 0.0, 0.5, 1.0), label="dog")


def oriented(format, orientation) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(format=format, exif=exif)


@pytest.mark.parametrize("format", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_a_turned_image_loses_its_boxes(format):
    extra = {"source": "a:1", "expressions": [{"text": "dog", "index": 0}], "questions": [{"question": "a dog?"}]}
    record = Record(key="a", image=oriented(format, 6), captions=("one",), regions=(BOX,), extra=extra)
    lost, kept = check(record)
    assert isinstance(lost, Dropped) and lost.reason == "region: image with an EXIF rotation"
    assert isinstance(kept, Checked) and (kept.width, kept.height, kept.record.regions) == (24, 32, ())
    assert set(kept.record.extra) == {"source", "questions"}


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_an_orientation_that_turns_nothing_costs_no_box(orientation):
    data = oriented("JPEG", orientation)
    (kept,) = check(Record(key="a", image=data, regions=(BOX,)))
    assert isinstance(kept, Checked) and (kept.record.regions, kept.record.image) == ((BOX,), data)


def test_a_turned_image_with_nothing_but_boxes_is_dropped():
    dropped = check(Record(key="a", image=oriented("JPEG", 6), regions=(BOX,), extra={"source": "a:1"}))
    assert [(one.reason, one.where) for one in dropped] == [
        ("region: image with an EXIF rotation", "a:1"),
        ("no region", "a:1"),
    ]


def test_a_record_that_nothing_expected_is_counted_with_its_place():
    def thunk():
        raise KeyError("surprise")

    (dropped,) = check(thunk)
    assert dropped.reason == "unexpected KeyError"


def test_mistakes_of_the_user_get_one_line(root, tmp_path):
    out = tmp_path / "out"
    for message, arguments in {
        "unknown source 'cocoo'": ("cocoo", root, out),
        "looked for": ("folder", tmp_path / "nowhere", out),
        "belongs to no finished data set": ("folder", root, tmp_path / "mine"),
    }.items():
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine/0.tar").touch()
        with pytest.raises(UserError, match=message):
            prepare.prepare(*arguments, num_workers=0)
    with pytest.raises(UserError, match="limit must be at least 1, not 0"):
        prepare.prepare("folder", root, out, limit=0)
    with pytest.raises(UserError, match="vocab size must be at least 7, not 3"):
        prepare.prepare("folder", root, out, vocab_size=3)
    (root / "captions.csv").write_text("image,caption\nbad.png,x\n")
    with pytest.raises(UserError, match=r"nothing to keep in .* \(dropped: 1 x not an image\)"):
        prepare.prepare("folder", root, out, num_workers=0)
    assert not out.exists()


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["words.bin", "tokenizer.json"])
def test_a_vocabulary_that_is_none_is_named_before_any_work(root, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00abc")
    monkeypatch.setattr(prepare, "check", interrupt)
    with pytest.raises(UserError, match=rf"{name}: not readable as a vocabulary"):
        prepare.prepare("folder", root, tmp_path / "out", num_workers=0, vocab=tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_the_words_of_a_tokenizer_file_become_a_vocabulary(root, tmp_path):
    words = train_vocab(["a small picture of number"], 60)
    model = {"type": "WordPiece", "vocab": {word: number for number, word in enumerate(words)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    report = prepare.prepare(
        "folder", root, tmp_path / "out", num_workers=0, limit=2, vocab=tmp_path / "tokenizer.json"
    )
    assert report.vocabulary == len(words) and Tokenizer.load(tmp_path / "out").tokens == words


def prepare_command(root, out, *more):
    words = ["prepare", "folder", "--root", root, "--out", out, "--workers", "0", "--no-vocab", *more]
    return cli.main([str(word) for word in words])


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_an_interruption_leaves_is_told(root, tmp_path, monkeypatch, capsys, overwrite):
    out = tmp_path / "out"
    more = ("--overwrite",) if overwrite else ()
    if overwrite:
        assert prepare_command(root, out) == 0
    before = files(out) if overwrite else {}
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "check", interrupt)
        assert prepare_command(root, out, *more) == 130
    told = "crossgrain: interrupted; nothing of this run is kept, and the same command starts over\n"
    assert capsys.readouterr().err == told
    assert (files(out) if out.exists() else {}) == before
    assert prepare_command(root, out, *more) == 0


def test_an_interruption_behind_the_shards_is_told_as_such(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Source, "finish", interrupt)
    assert prepare_command(root, tmp_path / "out") == 130
    assert "may lack what its source adds last, and --overwrite starts over" in capsys.readouterr().err


def test_the_command_line_has_every_source_with_its_flags(root, tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(
        ["folder", "--root", str(root), "--out", str(tmp_path / "out"), "--workers", "0", "--limit", "3"]
    )
    console = Console(file=io.StringIO(), force_terminal=True)
    report = prepare.prepare_arguments(arguments, console)
    assert report.lines()[0].startswith("kept 3 (")
    assert "prepare folder" in console.file.getvalue()
    line = "coco --root r --out o --captions a b --instances c --images i --karpathy k --json"
    options = parser.parse_args(line.split())
    assert len(options.captions) == 2 and options.json
    pairs = {"folder", "coco", "flickr8k", "flickr30k", "conceptual-captions", "sbu", "webdataset", "features"}
    asked = {"vqa", "visual-genome-qa", "gqa", "snli-ve", "xvlm-finetune"}
    assert pairs | asked | {"visual-genome", "xvlm", "scenes"} <= set(DATASETS)


def test_all_broken_files_stand_in_a_folder_and_each_is_counted(shared, tmp_path):
    names = sorted(file for file in (shared / "robustness").rglob("*") if file.is_file())
    for file in names:
        shutil.copy(file, tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(f"{f.name},a picture\n" for f in names))
    report = prepare.prepare("folder", tmp_path, tmp_path / "out", num_workers=2, vocab_size=0)
    assert report.kept >= 9 and report.kept + report.num_dropped == len(names)


def test_real_photos_are_prepared_whole(shared, tmp_path):
    report = prepare.prepare("coco", shared / "photos/coco", tmp_path / "out", num_workers=0, limit=40, vocab_size=0)
    assert report.kept == 40 and report.regions > 40
    assert report.num_dropped == 0
