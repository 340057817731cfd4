"""Region features that others computed: every format in small with one of each mistake, and the way into a data set."""

import io
import json
import sys
import types
import zipfile
from base64 import b64encode
from collections import Counter

import numpy as np
import pytest
from pictures import picture

from crossgrain.config import UserError, load_recipe
from crossgrain.data import prepare
from crossgrain.data.features import FEATURE_FILES
from crossgrain.data.features.importing import import_features
from crossgrain.data.features.matching import Keys
from crossgrain.data.records import Dropped, Record
from crossgrain.data.regions import read_stamp
from crossgrain.data.sets import DATASETS
from crossgrain.data.shards import Shards, ShardWriter
from crossgrain.recipes import PretrainRecipe, pretrain

NUM, SIZE, CLASSES = 3, 6, 5
BOXES = np.array([[0, 0, 20, 10], [10, 5, 40, 20], [0, 0, 40.5, 20]], np.float32)  # the last half a pixel outside
FRACTIONS = [[0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1], [0, 0, 1, 1]]
PROBS = np.array(
    [[0.5, 0.1, 0.3, 0.1, 0], [0, 0, 0, 0.2, 0.8], [0.1, 0.6, 0.1, 0.1, 0.1]], np.float32
)  # background, then four classes


def features(seed=0):
    return np.random.default_rng(seed).random((NUM, SIZE), np.float32)


def b64(array, dtype=np.float32):
    return b64encode(np.asarray(array, dtype).tobytes()).decode()


def bottom_up(name, seed=0, **changes):
    values = {"id": name, "w": 40, "h": 20, "num": NUM, "boxes": b64(BOXES), "features": b64(features(seed))}
    return "\t".join(str(value) for value in {**values, **changes}.values())


def lxmert(name, seed=0, **changes):
    values = {"id": name, "h": 20, "w": 40, "objects": b64([7, 1599, 0], np.int64), "conf": b64([0.9, 0.8, 0.7])}
    values |= {"attrs": b64([399, 0, 1], np.int64), "attrs_conf": b64([1, 1, 1]), "num": NUM, "boxes": b64(BOXES)}
    return "\t".join(str(value) for value in {**values, "features": b64(features(seed)), **changes}.values())


def vlbert(seed=0, **changes):
    values = {"image_w": 40, "image_h": 20, "num_boxes": NUM, "boxes": b64(BOXES), "classes": b64(PROBS)}
    return json.dumps({**values, "features": b64(features(seed)), **changes})


def uniter(seed=0, **changes):
    boxes = np.concatenate([np.array(FRACTIONS), np.zeros((NUM, 2))], 1)
    values = {"norm_bb": boxes, "features": features(seed), "conf": np.array([0.9, 0.8, 0.7]), "soft_labels": PROBS}
    return {name: array for name, array in {**values, **changes}.items() if array is not None}


def npz(arrays, compressed=True) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def read(format, path):
    """(rows by image id, drops) of a feature file."""
    found = list(FEATURE_FILES[format].read(path))
    drops = [one for one in found if isinstance(one, Dropped)]
    return {one.image_id: one for one in found if not isinstance(one, Dropped)}, drops


def reasons(drops):
    return Counter(drop.reason for drop in drops)


MISTAKES = {
    "malformed line": {"boxes": f"{b64(BOXES)}\tmore"},
    "malformed number": {"num": "many"},
    "malformed base64": {"features": "#"},
    "wrong number of values": {"num": 2},
    "box outside the image": {"w": 38},
    "degenerate box": {"boxes": b64(BOXES[:, [2, 1, 0, 3]])},
    "malformed features": {"features": b64(features() * np.nan)},
    "malformed image name": {"id": ""},
}


@pytest.mark.parametrize(("format", "line"), [("bottom_up", bottom_up), ("lxmert", lxmert)])
def test_tables_give_their_rows_and_every_mistake_with_its_line(tmp_path, format, line):
    broken = [line("x", **change) for change in MISTAKES.values()]
    (tmp_path / "f.tsv").write_text("\n".join([line("a"), *broken, "", line("b", 1), line("none", num=0) + "\n"]))
    rows, drops = read(format, tmp_path / "f.tsv")
    assert [(drop.reason, drop.where) for drop in drops[:-1]] == [
        (reason, f"f.tsv:{number}") for number, reason in enumerate(MISTAKES, start=2)
    ]
    assert (drops[-1].reason, drops[-1].where) == ("wrong number of values", f"f.tsv:{len(MISTAKES) + 4}")
    assert list(rows) == ["a", "b"] and rows["b"].where == f"f.tsv:{len(MISTAKES) + 3}"
    found = rows["a"].regions
    assert rows["a"].size == (40, 20)
    np.testing.assert_allclose(found.boxes, FRACTIONS)
    np.testing.assert_allclose(found.features, features(), atol=1e-3)
    assert found.labels.tolist() == ([7, 1599, 0] if format == "lxmert" else [-1] * 3)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7] if format == "lxmert" else [1] * 3)
    assert found.attributes is None if format == "bottom_up" else found.attributes.tolist() == [399, 0, 1]


def test_an_image_without_boxes_and_labels_out_of_range(tmp_path):
    empty = dict.fromkeys(("objects", "conf", "attrs", "attrs_conf", "boxes", "features"), "")
    lines = [lxmert("a", num=0, **empty), lxmert("b", objects=b64([1600, 0, 0], np.int64))]
    (tmp_path / "f.tsv").write_text("\n".join(lines))
    rows, drops = read("lxmert", tmp_path / "f.tsv")
    assert list(rows) == ["a"] and len(rows["a"].regions) == 0
    assert reasons(drops) == {"label out of range": 1}


@pytest.mark.parametrize("place", ["folder", "zip", "file"])
def test_vlberts_json_is_sorted_by_probability_and_keeps_its_background(tmp_path, place):
    texts = {"good": vlbert(), "list": "[]", "cut": vlbert()[:-9], "short": vlbert(classes=b64(PROBS[:2]))}
    texts |= {"wide": vlbert(image_w=10**7), "less": json.dumps({"num_boxes": 1})}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in texts:
            archive.write(tmp_path / f"{name}.json", f"train/{name}.json")
    path = {"folder": tmp_path, "zip": tmp_path / "all.zip", "file": tmp_path / "good.json"}[place]
    rows, drops = read("vlbert", path)
    assert list(rows) == ["good"]
    found = rows["good"].regions
    np.testing.assert_allclose(found.boxes, np.array(FRACTIONS)[[1, 2, 0]])
    np.testing.assert_allclose(found.features, features()[[1, 2, 0]], atol=1e-3)
    np.testing.assert_allclose(found.class_probs, PROBS[[1, 2, 0]], atol=1e-3)
    assert found.labels.tolist() == [4, 1, 2] and found.scores.tolist() == pytest.approx([0.8, 0.6, 0.3])
    if place != "file":
        broken = {"malformed entry": 2, "malformed JSON": 1, "wrong number of values": 1, "malformed number": 1}
        assert reasons(drops) == broken
        assert all(name in "".join(drop.where for drop in drops) for name in texts if name != "good")


UNITER_MISTAKES = {
    "cut.npz": npz(uniter())[:-30],
    "pickle.npz": npz(uniter(features=np.array([object()] * NUM))),
    "less.npz": npz(uniter(norm_bb=None)),
    "shape.npz": npz(uniter(norm_bb=np.zeros(NUM))),
    "outside.npz": npz(uniter(norm_bb=np.full((NUM, 6), 2.0))),
    "rows.npz": npz(uniter(conf=np.zeros(2))),
    "probs.npz": npz(uniter(soft_labels=np.zeros((NUM, 1)))),
}
UNITER_REASONS = {"malformed npz": 2, "malformed entry": 1, "malformed features": 3, "box outside the image": 1}


def check_uniter(regions):
    np.testing.assert_allclose(regions.boxes, FRACTIONS)
    np.testing.assert_allclose(regions.features, features(), atol=1e-3)
    assert regions.labels.tolist() == [2, 4, 1] and regions.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_uniters_folder_of_npz(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/coco_1.npz").write_bytes(npz({**uniter(), "allow_pickle": True, "info": np.array([{}])}))
    (tmp_path / "plain_2.npz").write_bytes(npz(uniter(conf=None, soft_labels=None), compressed=False))
    for name, data in UNITER_MISTAKES.items():
        (tmp_path / name).write_bytes(data)
    rows, drops = read("uniter_npz", tmp_path)
    check_uniter(rows["coco_1"].regions)
    plain = rows["plain_2"].regions
    assert plain.labels.tolist() == [-1] * 3 and plain.class_probs is None
    assert reasons(drops) == UNITER_REASONS and {drop.where for drop in drops} == set(UNITER_MISTAKES)


class FakeLmdb(types.ModuleType):
    """The part of the package that is used, over a dict."""

    values: dict

    @classmethod
    def open(cls, path, **options):
        assert options["readonly"] and not options["create"]
        return cls("environment")

    def begin(self, buffers):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def cursor(self):
        return ((memoryview(key), memoryview(value)) for key, value in sorted(self.values.items()))


def packed(values):
    """What msgpack-numpy makes of a dict of arrays, before msgpack: the test's own msgpack is JSON with base64."""
    return json.dumps(
        {k: {"type": v.dtype.str, "shape": v.shape, "data": b64encode(v.tobytes()).decode()} for k, v in values.items()}
    ).encode()


def unpackb(data, raw, object_hook):
    from base64 import b64decode

    def array(v):
        kind = {b"nd": True, b"type": v["type"], b"kind": b"", b"shape": v["shape"], b"data": b64decode(v["data"])}
        return object_hook(kind)

    return object_hook({name: array(value) for name, value in json.loads(data).items()})


def test_uniters_lmdb_compressed_and_not(tmp_path, monkeypatch):
    (tmp_path / "data.mdb").touch()
    monkeypatch.setitem(sys.modules, "lmdb", FakeLmdb("lmdb"))
    monkeypatch.setitem(sys.modules, "msgpack", types.SimpleNamespace(unpackb=unpackb, UnpackException=EOFError))
    half = {name: array.astype(np.float16) for name, array in uniter().items()}
    good = {b"a.npz": npz(uniter()), b"b.npz": packed(half), b"__keys__": b"[]"}
    monkeypatch.setattr(
        FakeLmdb,
        "values",
        {**good, **{name.encode(): data for name, data in UNITER_MISTAKES.items()}, b"z.npz": b"no msgpack"},
        raising=False,
    )
    rows, drops = read("uniter_lmdb", tmp_path)
    assert list(rows) == ["a", "b"]
    check_uniter(rows["a"].regions)
    np.testing.assert_allclose(rows["b"].regions.features, features(), atol=1e-3)
    assert reasons(drops) == {**UNITER_REASONS, "malformed msgpack": 1}


def test_lmdb_without_its_package_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "data.mdb").touch()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="need the package lmdb: pip install lmdb"):
        read("uniter_lmdb", tmp_path)


@pytest.mark.parametrize("format", FEATURE_FILES)
def test_a_path_without_features_is_named(tmp_path, format):
    with pytest.raises(UserError, match=r"no .* at .*gone"):
        read(format, tmp_path / "gone")


@pytest.mark.parametrize(
    ("image_id", "found"),
    [
        ("val2014_COCO_val2014_000000000042", (0, "key")),
        ("a/b c.jpg", (1, "name")),
        ("somewhere/x.npz", (2, "name")),
        ("42", (0, "number")),
        ("coco_val2014_000000000042.npz", (0, "number")),
        ("7", "image id fits several records"),
        ("9", "image in no record"),
        ("", "image in no record"),
    ],
)
def test_image_ids_find_their_record(image_id, found):
    keys = Keys(["val2014_COCO_val2014_000000000042", "a_b_c", "x", "first_7", "second_07"])
    assert keys.find(image_id) == found


@pytest.fixture
def data(tmp_path):
    with ShardWriter(tmp_path / "data", records_per_shard=2) as writer:
        for i in range(5):
            record = Record(key=f"COCO_{i:04d}", image=picture(i), captions=("x",), split=("train", "val")[i % 2])
            writer.write(record, "jpg", 40, 32)
    return tmp_path / "data"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def table(path, lines):
    path.write_text("\n".join(lines))
    return path


def test_features_are_stored_with_their_records_whatever_the_order_of_the_file(data, tmp_path):
    lines = [bottom_up(str(i), i) for i in (4, 0, 1, 3)]
    more = [bottom_up("9"), bottom_up("COCO_0001", 9), bottom_up("2", features=b64(np.zeros((NUM, 7)))), "broken"]
    report = import_features(data, "bottom_up", table(tmp_path / "f.tsv", lines + more))
    assert (report.rows, report.matched, report.missing) == (7, 4, 1)
    assert report.matched_by == {"number": 4}
    assert report.dropped == {
        "image in no record": 1,
        "second row of a record": 1,
        "other size of features": 1,
        "malformed line": 1,
    }
    assert "regions of 4 records (4 by number); 1 records have none" in report.lines()
    found = [record.detected for record in Shards(data, regions=True)]
    assert found[2] is None
    for i in (0, 1, 3, 4):
        np.testing.assert_allclose(found[i].features, features(i), atol=1e-3)
    assert [record.key for record in Shards(data, "val", regions=True) if record.detected] == ["COCO_0001", "COCO_0003"]
    stamp = read_stamp(data)
    assert (stamp["detector"], stamp["feature_size"], stamp["num_classes"]) == ("bottom_up", SIZE, 0)
    assert len(stamp["weights"]) == 64 and stamp["nms"] is None
    assert not (data / ".features").exists()
    read_as_webdataset = list(DATASETS["webdataset"].reader()(data))
    assert len(read_as_webdataset) == 5  # the tars of regions are no samples


def test_the_same_file_again_changes_nothing_and_another_is_refused_unless_asked_for(data, tmp_path):
    path = table(tmp_path / "f.tsv", [lxmert(str(i), i) for i in range(5)])
    first = import_features(data, "lxmert", path)
    assert first.stamp["num_classes"] == 1600
    whole = contents(data)
    (data / "000001.regions.parquet").unlink()  # as if killed there
    assert import_features(data, "lxmert", path) == first
    assert contents(data) == whole
    other = table(tmp_path / "g.tsv", [lxmert("1", 8)])
    with pytest.raises(UserError, match="already holds regions of another detector"):
        import_features(data, "lxmert", other)
    nothing = table(tmp_path / "h.tsv", [lxmert("77")])
    with pytest.raises(
        UserError, match=r"(?s)no row of .*h.tsv fits a record.*1 x image in no record; first at h.tsv:1"
    ):
        import_features(data, "lxmert", nothing, overwrite=True)
    assert contents(data) == whole
    assert import_features(data, "lxmert", other, overwrite=True).matched == 1


def test_a_file_of_no_use_leaves_the_data_as_they_were(data, tmp_path):
    before = contents(data)
    with pytest.raises(UserError, match="choose from bottom_up, lxmert"):
        import_features(data, "caffe", tmp_path / "f.tsv")
    with pytest.raises(UserError, match=r"(?s)can be read as bottom_up.*10 columns instead of 6"):
        import_features(data, "bottom_up", table(tmp_path / "f.tsv", [lxmert("1")]))
    with pytest.raises(UserError, match="fits a record"):
        import_features(data, "lxmert", table(tmp_path / "f.tsv", [lxmert("77")]))
    assert contents(data) == before


def test_features_alone_become_a_data_set_with_placeholders(tmp_path):
    table(tmp_path / "f.tsv", [lxmert("COCO_1"), lxmert("COCO_2", 2, w=400), lxmert("COCO_3"), lxmert("COCO_2"), "x"])
    table(
        tmp_path / "c.csv",
        ["image_id,caption", "1,one", "COCO_2,two", "COCO_2.jpg,zwei", "COCO_2,deux", "8,gone", "1, "],
    )
    flags = {"file": tmp_path / "f.tsv", "format": "lxmert", "captions": tmp_path / "c.csv"}
    report = prepare.prepare(
        "features", tmp_path, tmp_path / "out", flags=flags, split="train", num_workers=0, vocab_size=0
    )
    assert report.kept == 2 and report.lines()[-1].startswith("regions of 2 records")
    assert dict(report.dropped) == {
        "no caption": 1,
        "malformed line": 1,
        "duplicate key": 1,
        "empty caption": 1,
        "unknown image id": 2,
    }
    first, second = Shards(tmp_path / "out", "train", regions=True)
    assert first.captions == ("one",) and second.captions == ("two", "deux")
    assert second.extra == {"source": "f.tsv:2", "image": "placeholder"}
    np.testing.assert_allclose(second.detected.features, features(2), atol=1e-3)
    shards = Shards(tmp_path / "out")
    assert shards.column("width").tolist() == [64, 64] and shards.column("height").tolist() == [32, 8]


def test_the_true_sample_of_bottom_up_features_loads_and_trains(shared, tmp_path):
    sample = shared / "formats/bottom_up_obj36_10images.tsv"
    rows, drops = read("lxmert", sample)
    assert len(rows) == 10 and not drops
    for row in rows.values():
        assert (
            row.regions.features.shape == (36, 2048)
            and 0 <= row.regions.labels.min() <= row.regions.labels.max() < 1600
        )
        assert (row.regions.features >= 0).all() and 0 < row.regions.scores.min() <= row.regions.scores.max() <= 1
    captions = ["image_id,caption", *(f"{name},a picture of number {i}" for i, name in enumerate(rows))]
    flags = {"file": sample, "format": "lxmert", "captions": table(tmp_path / "c.csv", captions)}
    prepare.prepare("features", tmp_path, tmp_path / "out", flags=flags, split="train", num_workers=0, vocab_size=200)
    found = Shards(tmp_path / "out", "train", regions=True)
    assert [len(record.detected) for record in found] == [36] * 10 and found.has_regions()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TEN_ROWS.format(data=tmp_path / "out"), encoding="utf-8")
    assert pretrain(load_recipe(PretrainRecipe, recipe), tmp_path / "run").status == "finished"
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, share in (("loss", 0.9), ("region_feature/loss", 0.9), ("region_class/loss", 0.8)):
        assert lines[-1][name] < share * lines[0][name], name


TEN_ROWS = """
model: {{type: imagebert, dim: 32, depth: 2, num_heads: 2, mlp_dim: 64, max_length: 32, dropout: 0.0}}
objectives:
  - {{type: mlm, image: masked}}
  - {{type: region_class, num_classes: 1600}}
  - {{type: region_feature, weight: 0.01}}
  - {{type: itm, negatives: swapped, image: masked, text: masked, head: linear}}
text: {{vocab: {data}/vocab.txt, max_tokens: 20, end_token: true}}
regions: {{max_regions: 36}}
pairs: {{swapped: 0.2, masked_side: one}}
stages: [{{steps: 60, lr: 5e-3, schedule: {{warmup_steps: 5}}, sources: [{{path: {data}, batch_size: 10}}]}}]
train: {{precision: float32, log_every: 10, num_workers: 0, tensorboard: false}}
"""
