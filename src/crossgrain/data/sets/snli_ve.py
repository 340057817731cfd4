"""SNLI-VE in the official JSON lines: does a photo of Flickr30k entail a sentence? (necla-ml/SNLI-VE).

`snli_ve_train.jsonl`, `snli_ve_dev.jsonl` (val), `snli_ve_test.jsonl`, one pair a line; `Flickr30K_ID` names the image.
A pair is a question of the type "entailment": the hypothesis (`sentence2`), answered by its gold label. The premise is
the image; the caption that it replaces (`sentence1`) is not kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item
from crossgrain.data.sets.annotations import given_file, read_json_lines
from crossgrain.data.sets.flickr import FOLDERS
from crossgrain.data.sets.gathered import GatheredImages, Said
from crossgrain.data.sets.pictures import ImageFolders, Splits
from crossgrain.data.sets.questions import question_of, split_in_name

LABELS = ("entailment", "neutral", "contradiction")


def read(
    root: Path, *, split: str | None = None, pairs: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The images with their hypotheses. Without `pairs`, all `*.jsonl` under `root` are read."""
    files = [given_file(file, root, "pairs") for file in pairs] or sorted(root.glob("*.jsonl"))
    if not files:
        raise UserError(f"no pairs: looked for {root}/*.jsonl")
    return GatheredImages(_pairs(files), ImageFolders.under(root, FOLDERS, images), Splits(split))


def _pairs(files: Sequence[Path]) -> Iterator[Said | Dropped]:
    for file in files:
        split = split_in_name(file, "train", "dev", "val", "test")
        for line in read_json_lines(file):
            if isinstance(line, Dropped):
                yield line
                continue
            where, values = line
            image, label = values.get("Flickr30K_ID"), values.get("gold_label")
            if not isinstance(image, str | int) or isinstance(image, bool) or image == "":
                yield Dropped(reason="malformed line", where=where, detail="no Flickr30K_ID")
            elif label not in LABELS:
                yield Dropped(reason="no gold label", where=where, detail=repr(label)[:100])
            else:
                question, dropped = question_of(
                    values.get("sentence2"), label, where, id=values.get("pairID"), type="entailment"
                )
                yield from dropped
                if question is not None:
                    yield Said((f"{image}.jpg",), where, "questions", question, split)
