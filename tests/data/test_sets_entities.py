"""Flickr30k Entities: the true sentences where they are at hand, small folders in the exact layout, hostile XML."""

import shutil
from xml.etree import ElementTree

import pytest
from layouts import found, put, reasons

from crossgrain.config import UserError
from crossgrain.data.images import open_image
from crossgrain.data.prepare import prepare
from crossgrain.data.sets.entities import Phrase, parse_xml, read_sentence
from crossgrain.data.shards import Shards

GIRL = "[/EN#11/people A girl] with [/EN#12/bodyparts brown hair] sits on [/EN#13/scene the edge] ."
TWO = "[/EN#11/people A woman] holds [/EN#14/other/animals two cats] while [/EN#0/notvisual it] rains ."


def thing(chains, *box, flags=None):
    names = "".join(f"<name>{chain}</name>" for chain in chains)
    if flags is not None:
        return f"<object>{names}<scene>{flags[0]}</scene><nobndbox>{flags[1]}</nobndbox></object>"
    sides = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object>{names}<bndbox>{sides}</bndbox></object>"


def xml(*things, width=40, height=20):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>1.jpg</filename>{size}{''.join(things)}</annotation>"


# pixels count from 1: 5, 3, 25, 13 is 4, 2, 24, 12
GIRLS_BOX = thing(["11"], 5, 3, 25, 13)
CATS = (thing(["14"], 1, 1, 11, 11), thing(["14"], 21, 6, 31, 16))
ANNOTATED = xml(GIRLS_BOX, *CATS, thing(["12"], flags=(0, 1)), thing(["13"], flags=(1, 0)))


def layout(root, sentences, annotations, splits=None):
    for folder, ending, files in (("Sentences", "txt", sentences), ("Annotations", "xml", annotations)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number, text in files.items():
            (root / folder / f"{number}.{ending}").write_text(text)
    for split, numbers in (splits or {}).items():
        (root / f"{split}.txt").write_text("".join(f"{number}\n" for number in numbers))
    put(root / "flickr30k-images", *(f"{number}.jpg" for number in sentences))
    return root


def test_chains_become_regions_with_all_their_phrases(tmp_path):
    layout(tmp_path, {"1": f"{GIRL}\n{TWO}\n\n"}, {"1": ANNOTATED})
    records, drops = found("flickr30k-entities", tmp_path)
    record = records["1"]
    assert record.captions == ("A girl with brown hair sits on the edge .", "A woman holds two cats while it rains .")
    assert [(region.box, region.phrases, region.label) for region in record.regions] == [
        ((0.1, 0.1, 0.6, 0.6), ("A girl", "A woman"), ""),
        ((0.0, 0.0, 0.75, 0.75), ("two cats",), ""),
    ]
    assert record.extra == {
        "source": "Sentences/1.txt",
        "entities": [
            {"id": "11", "types": ["people"], "boxes": [[0.1, 0.1, 0.6, 0.6]]},
            {"id": "14", "types": ["other", "animals"], "boxes": [[0.0, 0.0, 0.25, 0.5], [0.5, 0.25, 0.75, 0.75]]},
        ],
        "expressions": [
            {"text": "A girl", "index": 0, "id": "11", "caption": 0},
            {"text": "A woman", "index": 0, "id": "11", "caption": 1},
            {"text": "two cats", "index": 1, "id": "14", "caption": 1},
        ],
    }
    assert [(drop.reason, drop.where, drop.detail) for drop in drops] == [
        ("region: phrase without a box", "Sentences/1.txt:1", "chain 12 (no box): brown hair"),
        ("region: phrase without a box", "Sentences/1.txt:1", "chain 13 (whole scene): the edge"),
    ]


def test_an_object_may_belong_to_several_chains(tmp_path):
    layout(tmp_path, {"1": GIRL}, {"1": xml(thing(["11", "12"], 5, 3, 25, 13))})
    records, _ = found("flickr30k-entities", tmp_path)
    assert [region.phrases for region in records["1"].regions] == [("A girl",), ("brown hair",)]


def test_splits_come_from_the_official_lists(tmp_path):
    sentences = dict.fromkeys(("1", "2", "3", "4"), GIRL)
    splits = {"train": ["1"], "val": ["2"], "test": ["3"]}
    layout(tmp_path, sentences, dict.fromkeys(sentences, ANNOTATED), splits)
    records, drops = found("flickr30k-entities", tmp_path)
    assert {name: record.split for name, record in records.items()} == {"1": "train", "2": "val", "3": "test"}
    assert [drop.where for drop in drops if drop.reason == "image in no official split"] == ["Sentences/4.txt"]
    assert list(found("flickr30k-entities", tmp_path, split="test")[0]) == ["3"]


def test_sentences_are_read_as_they_are_marked():
    woman, it = Phrase("A woman", "11", ("people",)), Phrase("it", "0", ("notvisual",))
    cats = Phrase("two cats", "14", ("other", "animals"))
    assert read_sentence(TWO) == ("A woman holds two cats while it rains .", [woman, cats, it])
    assert read_sentence("[/EN#5/other # 8] runs [ sic ] .") == ("# 8 runs [ sic ] .", [Phrase("# 8", "5", ("other",))])
    assert read_sentence("Nothing is marked .") == ("Nothing is marked .", [])
    for broken in ("[/EN#5/other a man", "[/EN#/other a man] .", "[/EN#5 a man] .", "[/EN#5/other  ] runs ."):
        assert read_sentence(broken) == "malformed phrase"
    assert read_sentence(" ") == "empty caption"


def test_mistakes_are_named_with_their_line_and_the_rest_is_read(tmp_path):
    lines = [GIRL, "[/EN#11/people A girl without an end .", "[/EN#99/people A stranger] ."]
    boxes = [GIRLS_BOX, thing(["11"], 5, 3, 99, 13), thing(["12"], 9, 9, 9, 12), thing(["13"], "x", 1, 2, 3)]
    sentences = {"1": "", "2": "\n \n", "3": GIRL, "4": GIRL, "5": GIRL, "6": GIRL}
    annotations = {
        "1": xml(*boxes),
        "2": ANNOTATED,
        "3": "<annotation><size>",
        "5": xml(GIRLS_BOX, width=0),
        "6": xml(thing(["13"], flags=("", ""))),
    }
    layout(tmp_path, sentences, annotations)
    (tmp_path / "Sentences/1.txt").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    (tmp_path / "Sentences/7.txt").write_text(GIRL)
    records, drops = found("flickr30k-entities", tmp_path)
    assert {name: (len(record.captions), len(record.regions)) for name, record in records.items()} == {
        "1": (2, 1),
        "3": (1, 0),
        "4": (1, 0),
        "5": (1, 0),
        "6": (1, 0),
    }
    told = [(drop.where, drop.reason) for drop in drops if drop.reason != "region: phrase without a box"]
    assert told == [
        ("Annotations/1.xml object[1]", "region: box outside the image"),
        ("Annotations/1.xml object[2]", "region: degenerate box"),
        ("Annotations/1.xml object[3]", "region: malformed box"),
        ("Sentences/1.txt:2", "malformed phrase"),
        ("Sentences/1.txt:4", "caption is not UTF-8"),
        ("Sentences/2.txt", "no caption"),
        ("Annotations/3.xml", "region: malformed XML"),
        ("Annotations/4.xml", "region: malformed XML"),
        ("Annotations/5.xml", "region: image without a size"),
        ("Sentences/7.txt", "image missing"),
    ]
    lost = [drop.detail for drop in drops if drop.where == "Sentences/1.txt:3"]
    assert lost == ["chain 99 (not annotated): A stranger"]


BOMB = '<!DOCTYPE a [<!ENTITY b0 "boom">' + "".join(
    f'<!ENTITY b{n + 1} "{f"&b{n};" * 10}">' for n in range(12)
) + "]>"  # fmt: skip
HOSTILE = {
    "a bomb of entities": f"{BOMB}<annotation>&b12;</annotation>",
    "an entity from a file": '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/hostname">]><annotation>&f;</annotation>',
    "a document type": '<!DOCTYPE annotation SYSTEM "http://127.0.0.1/x.dtd"><annotation/>',
    "an unknown entity": "<annotation>&b;</annotation>",
    "a tower": "<a>" * 100_000 + "</a>" * 100_000,
    "too large": f"<annotation>{' ' * 2**23}</annotation>",
    "nothing": "",
    "a folder of zeros": "\0" * 100,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_xml_is_refused_and_the_captions_stay(tmp_path, case):
    layout(tmp_path, {"1": GIRL}, {"1": HOSTILE[case]})
    records, drops = found("flickr30k-entities", tmp_path)
    assert len(records["1"].captions) == 1 and records["1"].regions == ()
    assert reasons(drops)["region: malformed XML"] == 1
    if "DOCTYPE" in HOSTILE[case]:
        assert parse_xml(tmp_path / "Annotations/1.xml") == "a document type is not read: it may define entities"


def test_image_links_do_not_lead_out_of_the_folder(tmp_path):
    layout(tmp_path / "root", {"1": GIRL}, {"1": ANNOTATED})
    put(tmp_path, "outside.jpg")
    (tmp_path / "root/flickr30k-images/1.jpg").unlink()
    (tmp_path / "root/flickr30k-images/1.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "root/Sentences/...txt").write_text(GIRL)
    records, drops = found("flickr30k-entities", tmp_path / "root")
    assert not records and reasons(drops) == {"image path leaves its folder": 1, "image missing": 1}


def test_missing_sentences_are_named(tmp_path):
    put(tmp_path, "images/a.jpg")
    with pytest.raises(UserError, match=r"no sentences: looked for .*Sentences"):
        found("flickr30k-entities", tmp_path)
    (tmp_path / "Sentences").mkdir()
    with pytest.raises(UserError, match=r"no sentences: looked for .*Sentences/\*\.txt"):
        found("flickr30k-entities", tmp_path)


def test_the_true_sentences_are_read_whole(shared, tmp_path):
    """The sentences are official; as no annotations are at hand, each chain gets a box here."""
    sentences, images = shared / "formats/flickr30k/sentences", shared / "formats/images/flickr30k"
    if not (sentences.is_dir() and images.is_dir()):
        pytest.skip("no sample of Flickr30k Entities among the outside samples")
    shutil.copytree(sentences, tmp_path / "Sentences")
    (tmp_path / "Annotations").mkdir()
    marked = 0
    for file in sentences.glob("*.txt"):
        tokens = [token for token in file.read_text().split() if token.startswith("[/EN#")]
        chains = dict.fromkeys(token.split("/")[1].removeprefix("EN#") for token in tokens)
        marked += sum(not token.startswith("[/EN#0/") for token in tokens)
        width, height = open_image(images / f"{file.stem}.jpg").size
        things = [thing([chain], 1 + n, 1, 21 + n, 31) for n, chain in enumerate(chains) if chain != "0"]
        tree = xml(*things, width=width, height=height)
        ElementTree.fromstring(tree)
        (tmp_path / "Annotations" / f"{file.stem}.xml").write_text(tree)
    report = prepare("flickr30k-entities", tmp_path, tmp_path / "out", flags={"images": images}, num_workers=0)
    assert (report.kept, report.captions, dict(report.dropped)) == (5, 25, {})
    records = {record.key: record for record in Shards(tmp_path / "out")}
    assert sum(len(record.extra["expressions"]) for record in records.values()) == marked
    football = records["6338542128"]
    assert football.captions[4] == ("# 8 for Iowa State stiff arms a Texas AM player attempting to tackle him .")
    players = football.regions[[one["id"] for one in football.extra["entities"]].index("253069")]
    assert players.phrases == (
        "a Texas A&M football player",
        "a football player",
        "A football player",
        "a player",
        "a Texas AM player",
    )
    for record in records.values():
        for asked in record.extra["expressions"]:
            assert asked["text"] in record.captions[asked["caption"]]
            assert asked["text"] in record.regions[asked["index"]].phrases
