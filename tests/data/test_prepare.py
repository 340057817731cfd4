import argparse
import io
import json
import shutil
import sys

import pytest
from PIL import Image
from rich.console import Console

from crossgrain.config import UserError
from crossgrain.data import prepare
from crossgrain.data.intake import Checked, check
from crossgrain.data.records import Record
from crossgrain.data.sets import DATASETS
from crossgrain.data.sets.arguments import add_arguments
from crossgrain.data.shards import Shards


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
    (root / "captions.csv").write_text("image,caption\nbad.png,x\n")
    with pytest.raises(UserError, match=r"nothing to keep in .* \(dropped: 1 x not an image\)"):
        prepare.prepare("folder", root, out, num_workers=0)
    assert not out.exists()


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
