"""Readers of data sets in their official layouts, one file each; `DATASETS` is the table of them."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Flag:
    """A flag of `crossgrain prepare` that belongs to one source; the reader gets it as a keyword argument."""

    name: str
    help: str
    type: Callable[[str], Any] = Path
    required: bool = False
    default: Any = None
    many: bool = False  # takes several values


@dataclass(frozen=True)
class Source:
    """A layout: where its reader is, what it needs."""

    module: str
    help: str
    flags: tuple[Flag, ...] = ()
    has_root: bool = True
    finishes: bool = False  # its module has `finish(out, root, **flags) -> list[str]`, called behind the shards

    def reader(self) -> Callable[..., Iterable[Any]]:
        """`read(root, *, split, **flags)` of the source's module, imported now; it gives items (`records.Item`)."""
        return importlib.import_module(f"{__name__}.{self.module}").read

    def finish(self, out: Path, root: Path | None, flags: Mapping[str, Any]) -> list[str]:
        """What the source adds to the finished shards in `out`; lines about it for people."""
        return importlib.import_module(f"{__name__}.{self.module}").finish(out, root, **flags) if self.finishes else []


_CAPTIONS = "file of captions, in place of the one under --root"
_IMAGES = Flag("images", "folder of the images, in place of the one under --root")
_FLICKR_FLAGS = (Flag("captions", f"{_CAPTIONS}: token file, CSV or Karpathy's JSON"), _IMAGES)


def _refcoco_flags(partition: str) -> tuple[Flag, ...]:
    return (Flag("split_by", "whose partition: unc, umd or google", str, default=partition), _IMAGES)


DATASETS: dict[str, Source] = {
    "folder": Source("folder", "a folder of images with captions.csv, captions.tsv or captions.jsonl"),
    "scenes": Source(
        "scenes",
        "drawn scenes with captions, boxes and phrases, made without a download",
        (
            Flag("size", "number of scenes", int, default=10_000),
            Flag("seed", "the same seed gives the same bytes", int, default=0),
            Flag("image_size", "pixels a side", int, default=128),
        ),
        has_root=False,
    ),
    "coco": Source(
        "coco",
        "COCO captions, with objects from instances, in the official JSON",
        (
            Flag("captions", f"{_CAPTIONS} (several: train and val)", many=True),
            Flag("instances", "file of instances: boxes with category names (several: train and val)", many=True),
            _IMAGES,
            Flag("karpathy", "Karpathy's dataset_coco.json, for his splits"),
        ),
    ),
    "flickr8k": Source("flickr", "Flickr8k", _FLICKR_FLAGS),
    "flickr30k": Source("flickr", "Flickr30k", _FLICKR_FLAGS),
    "visual-genome": Source("visual_genome", "Visual Genome regions and objects, in the official JSON", (_IMAGES,)),
    "xvlm": Source(
        "xvlm",
        "JSON lines of X-VLM's pre-training: captions, or regions with captions",
        (Flag("captions", "the file or files of JSON lines, in place of all under --root", many=True), _IMAGES),
    ),
    "conceptual-captions": Source(
        "conceptual_captions",
        "Conceptual Captions: the official caption<tab>url TSV, or a TSV of caption<tab>path",
        (Flag("captions", f"{_CAPTIONS} (several: train and validation)", many=True), _IMAGES),
    ),
    "sbu": Source(
        "sbu",
        "SBU captioned photos: the pair of text files, or the JSON of image_urls and captions",
        (Flag("captions", "the JSON, or the file of captions, in place of the one under --root"), _IMAGES),
    ),
    "features": Source(
        "features",
        "region features without their images: a feature file and a table of captions",
        (
            Flag("file", "the feature file or folder", required=True),
            Flag("format", "bottom_up, lxmert, uniter_npz, uniter_lmdb or vlbert", str, required=True),
            Flag("captions", "CSV, TSV or JSON lines with image_id and caption", required=True),
        ),
        finishes=True,
    ),
    "vqa": Source(
        "vqa",
        "VQA v2 on COCO's images, in the official JSON: questions, and annotations with ten answers each",
        (
            Flag("questions", "files of questions, in place of all under --root", many=True),
            Flag("annotations", "files of annotations, in place of those beside the questions", many=True),
            _IMAGES,
        ),
    ),
    "visual-genome-qa": Source(
        "visual_genome_qa",
        "Visual Genome's questions, in the official JSON",
        (Flag("questions", "the file of questions, in place of question_answers.json"), _IMAGES),
    ),
    "gqa": Source(
        "gqa",
        "GQA, in the official JSON",
        (
            Flag("questions", "files of questions, or folders of them, in place of those under --root", many=True),
            Flag("variant", "balanced or all questions", str, default="balanced"),
            _IMAGES,
        ),
    ),
    "snli-ve": Source(
        "snli_ve",
        "SNLI-VE on Flickr30k's images, in the official JSON lines",
        (Flag("pairs", "files of pairs, in place of all *.jsonl under --root", many=True), _IMAGES),
    ),
    "xvlm-finetune": Source(
        "xvlm_finetune",
        "JSON files of X-VLM's fine-tuning: retrieval, captioning, VQA, NLVR2, RefCOCO+",
        (Flag("files", "the files of one task", many=True, required=True), _IMAGES),
    ),
    "nlvr2": Source(
        "nlvr2",
        "NLVR2: statements about pairs of photographs, in the official JSON lines",
        (Flag("statements", "files of statements, in place of all under --root", many=True), _IMAGES),
    ),
    "vcr": Source(
        "vcr",
        "VCR: questions with answers and rationales that point at objects, in the official JSON lines with metadata",
        (Flag("questions", "files of questions, in place of train, val and test.jsonl", many=True), _IMAGES),
    ),
    "refcoco": Source("refcoco", "RefCOCO: refs(unc).p and instances.json", _refcoco_flags("unc")),
    "refcoco+": Source("refcoco", "RefCOCO+: refs(unc).p and instances.json", _refcoco_flags("unc")),
    "refcocog": Source("refcoco", "RefCOCOg: refs(umd).p and instances.json", _refcoco_flags("umd")),
    "flickr30k-entities": Source(
        "entities", "Flickr30k Entities: captions with phrases, and boxes in XML, in the official folders", (_IMAGES,)
    ),
    "webdataset": Source(
        "webdataset", "tars as img2dataset writes them: KEY.jpg, KEY.txt, KEY.json (a folder, a tar or a glob)"
    ),
}
