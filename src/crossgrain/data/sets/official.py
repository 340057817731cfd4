"""The sizes that are published for data sets, to hold beside what `crossgrain prepare` found.

A size that no source gives stands nowhere here; `OFFICIAL` names the source of each. What is counted is what a record
holds under the same name (see `counts`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossgrain.data.records import Record
from crossgrain.data.sets import DATASETS

ALL = "all splits"  # where a layout has no splits, sizes are of all of it
_MATERIAL = ("questions", "pairs", "choices", "expressions")  # lists in `extra`


@dataclass(frozen=True, kw_only=True)
class Official:
    """The published sizes of one split: `counts` by the names of `counts()`, and where they are published.

    `flags` are those of the command line under which the split is this one: a flag's value, True for any value of it,
    None where it must not be given.
    """

    split: str
    counts: Mapping[str, int]
    source: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    def applies(self, flags: Mapping[str, Any]) -> bool:
        """Whether a data set read with these flags is the one that the sizes are of."""
        for name, wanted in self.flags.items():
            given = flags.get(name) or None
            if given != wanted and not (wanted is True and given):
                return False
        return True


def counts(record: Record) -> Counter[str]:
    """What a record adds to the sizes of its split; zeros are left out."""
    found = {
        "images": 1,
        "captions": len(record.captions),
        "regions": len(record.regions),
        **{name: len(record.extra.get(name, ())) for name in _MATERIAL},
        "answers": sum(len(question.get("answers", ())) for question in record.extra.get("questions", ())),
    }
    return Counter({name: number for name, number in found.items() if number})


def task_texts(record: Record) -> Iterator[str]:
    """Every text of the material of tasks."""
    for question in record.extra.get("questions", ()):
        yield from (question["question"], *question.get("answers", ()))
    yield from (pair["statement"] for pair in record.extra.get("pairs", ()))
    yield from (expression["text"] for expression in record.extra.get("expressions", ()))
    for item in record.extra.get("choices", ()):
        for tokens in (item["question"], *item["answer_choices"], *item.get("rationale_choices", ())):
            yield " ".join(token for token in tokens if isinstance(token, str))


def official_sizes(source: str, flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The published sizes of a source of `crossgrain prepare`, as {split: {"counts", "source"}}; empty without any."""
    given = {flag.name: flag.default for flag in DATASETS[source].flags} | dict(flags)
    return {
        one.split: {"counts": dict(one.counts), "source": one.source}
        for one in OFFICIAL.get(source, ())
        if one.applies(given)
    }


def official_lines(official: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """For people: what was found of each split beside what is published."""
    lines = []
    for split, sizes in official.items():
        here = sum((Counter(one) for one in found.values()), Counter()) if split == ALL else found.get(split)
        if here:
            told = ", ".join(f"{here.get(name, 0):,} of {size:,} {name}" for name, size in sizes["counts"].items())
            lines.append(f"  {split}: {told} ({sizes['source']})")
    return ["beside the published sizes:", *lines] if lines else []


def _splits(source: str, flags: Mapping[str, Any] | None = None, /, **splits: dict[str, int]) -> tuple[Official, ...]:
    """Sizes of several splits from one source; "_" stands for "-" in their names."""
    return tuple(
        Official(split=split.replace("_", "-"), counts=sizes, source=source, flags=flags or {})
        for split, sizes in splits.items()
    )


_VQA = "visualqa.org/download"
_KARPATHY = "Karpathy and Fei-Fei, CVPR 2015; captions counted in dataset_coco.json"
_FLICKR = "in Karpathy's split, dataset_flickr30k.json"
_GQA = "counted by big_vision, datasets/gqa, and on the card of lmms-lab/GQA"
_GQA_ALL, _GQA_BALANCED = ({"variant": variant, "questions": None} for variant in ("all", "balanced"))

_NLVR2 = "lil-lab/nlvr nlvr2/data, counted; train: what is left of the 107,292 of Suhr et al., ACL 2019"
_REFER = "the catalogue of TensorFlow Datasets, ref_coco"

# By the name of the source in `DATASETS`.
OFFICIAL: dict[str, tuple[Official, ...]] = {
    "coco": _splits(
        _KARPATHY,
        {"karpathy": True},
        train={"images": 113_287, "captions": 566_747},
        val={"images": 5_000, "captions": 25_010},
        test={"images": 5_000, "captions": 25_010},
    ),
    "flickr8k": _splits(
        "Hodosh et al., JAIR 2013; Flickr_8k.trainImages.txt and its like",
        train={"images": 6_000, "captions": 30_000},
        val={"images": 1_000, "captions": 5_000},
        test={"images": 1_000, "captions": 5_000},
    ),
    "flickr30k": _splits(
        _FLICKR,
        train={"images": 29_000, "captions": 145_000},
        val={"images": 1_014, "captions": 5_070},
        test={"images": 1_000, "captions": 5_000},
    ),
    "vqa": _splits(
        _VQA,
        train={"images": 82_783, "questions": 443_757, "answers": 4_437_570},
        val={"images": 40_504, "questions": 214_354, "answers": 2_143_540},
        test={"images": 81_434, "questions": 447_793},
        test_dev={"questions": 107_394},
    ),
    "visual-genome": (
        Official(split=ALL, counts={"images": 108_077}, source="Visual Genome's home page, version 1.2"),
    ),
    "visual-genome-qa": (
        Official(split=ALL, counts={"images": 108_077}, source="Visual Genome's home page, version 1.2"),
    ),
    "gqa": (
        *_splits(
            _GQA,
            _GQA_BALANCED,
            train={"questions": 943_000},
            val={"questions": 132_062},
            testdev={"images": 398, "questions": 12_578},
            test={"images": 2_987, "questions": 95_336},
            challenge={"images": 1_590, "questions": 50_726},
        ),
        *_splits(
            _GQA,
            _GQA_ALL,
            train={"images": 74_256, "questions": 14_305_356},
            val={"questions": 2_011_853},
            testdev={"images": 398, "questions": 172_174},
            test={"images": 2_993, "questions": 1_340_048},
            challenge={"images": 1_590, "questions": 713_449},
        ),
    ),
    "snli-ve": _splits(
        "README of necla-ml/SNLI-VE",
        train={"images": 29_783, "questions": 529_527},
        val={"images": 1_000, "questions": 17_858},
        test={"images": 1_000, "questions": 17_901},
    ),
    "nlvr2": _splits(
        _NLVR2,
        train={"pairs": 86_373},
        val={"images": 8_102, "pairs": 6_982},
        test={"images": 8_082, "pairs": 6_967},
        test2={"images": 8_148, "pairs": 6_970},
    ),
    "vcr": _splits(
        "Zellers et al., CVPR 2019, release 1.0",
        train={"images": 80_418, "choices": 212_923},
        val={"images": 9_929, "choices": 26_534},
        test={"images": 9_557, "choices": 25_263},
    ),
    "refcoco": (
        *_splits(
            f"{_REFER}; expressions: FlagEval's page on RefCOCO",
            {"split_by": "unc"},
            train={"images": 16_994, "expressions": 120_624},
            val={"images": 1_500, "expressions": 10_834},
            testA={"images": 750, "expressions": 5_657},
            testB={"images": 750, "expressions": 5_095},
        ),
        *_splits(
            _REFER, {"split_by": "google"}, train={"images": 19_213}, val={"images": 4_559}, test={"images": 4_527}
        ),
    ),
    "refcoco+": _splits(
        _REFER,
        {"split_by": "unc"},
        train={"images": 16_992},
        val={"images": 1_500},
        testA={"images": 750},
        testB={"images": 750},
    ),
    "refcocog": (
        *_splits(_REFER, {"split_by": "umd"}, train={"images": 21_899}, val={"images": 1_300}, test={"images": 2_600}),
        *_splits(_REFER, {"split_by": "google"}, train={"images": 24_698}, val={"images": 4_650}),
    ),
    "flickr30k-entities": _splits(
        "train.txt, val.txt and test.txt of BryanPlummer/flickr30k_entities; five captions an image",
        train={"images": 29_783, "captions": 148_915},
        val={"images": 1_000, "captions": 5_000},
        test={"images": 1_000, "captions": 5_000},
    ),
}
