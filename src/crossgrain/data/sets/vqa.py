"""VQA v2 in the official JSON: questions, and annotations with the answers of ten people (visualqa.org/download).

`v2_OpenEnded_mscoco_train2014_questions.json` and `v2_mscoco_train2014_annotations.json`, the same of val2014, and the
questions alone of test2015 and test-dev2015, which is a part of test2015 and is read where it is asked for. Images are
those of COCO, by number: train2014/COCO_train2014_000000000009.jpg, without the folder, or as 000000000009.jpg.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item
from crossgrain.data.sets.annotations import Element, JsonElements, given_file
from crossgrain.data.sets.gathered import GatheredImages, Said, Spool
from crossgrain.data.sets.pictures import ImageFolders, Splits
from crossgrain.data.sets.questions import question_of, split_in_name

_SPLITS = ("train", "val", "test-dev", "test")
_SUBTYPES = {"train": "train2014", "val": "val2014", "test-dev": "test2015", "test": "test2015"}
_FOLDERS = ("images", "", "coco", "images/coco")


def read(
    root: Path,
    *,
    split: str | None = None,
    questions: Sequence[Path] = (),
    annotations: Sequence[Path] = (),
    images: Path | None = None,
) -> Iterable[Item]:
    """The images with their questions.

    Without `questions`, all `*questions*.json` under `root` and in its folders are read, those of test-dev with
    `split="test-dev"`; without `annotations`, the `*annotations*.json` of the same splits.
    """
    asked = [given_file(file, root, "questions") for file in questions]
    asked = asked or [file for file, name in _files(root, "questions") if _is_wanted(name, split)]
    if not asked:
        raise UserError(f"no questions: looked for {root}/*questions*.json and {root}/*/*questions*.json")
    answered = [given_file(file, root, "annotations") for file in annotations]
    named = {split_in_name(file, *_SPLITS) for file in asked}
    answered = answered or [
        file for file, name in _files(root, "annotations") if name in named or name is None or None in named
    ]
    folders = ImageFolders.under(root, _FOLDERS, images)
    return GatheredImages(_questions(asked, answered), folders, Splits(split))


def _files(root: Path, what: str) -> list[tuple[Path, str | None]]:
    """The files of a kind under `root` and in its folders, each with the split that its name tells."""
    files = sorted({*root.glob(f"*{what}*.json"), *root.glob(f"*/*{what}*.json")})
    return [(file, split_in_name(file, *_SPLITS)) for file in files]


def _is_wanted(name: str | None, split: str | None) -> bool:
    return name in (None, split) or (split is None and name != "test-dev")


def _questions(files: Sequence[Path], annotation_files: Sequence[Path]) -> Iterator[Said | Dropped]:
    places: dict[int, int] = {}  # of the answers in the spool, by question id
    seen: set[int] = set()
    with Spool() as answers:
        for file in annotation_files:
            yield from _read_answers(file, answers, places)
        for file in files:
            yield from _file_questions(file, answers, places, seen)
        for number, place in places.items():
            yield Dropped(reason="answers without a question", where=answers[place][0], detail=str(number))


def _read_answers(file: Path, answers: Spool, places: dict[int, int]) -> Iterator[Dropped]:
    """Keep what was answered: (where, texts, answer type, question type)."""
    for element in _elements(file, "annotations"):
        values = element.value if isinstance(element.value, dict) else {}
        number, given = values.get("question_id"), values.get("answers")
        if not _is_number(number) or not isinstance(given, list):
            yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
        elif number in places:
            yield Dropped(reason="duplicate question id", where=element.where, detail=str(number))
        else:
            texts = [answer.get("answer") if isinstance(answer, dict) else None for answer in given]
            kinds = [values.get("answer_type"), values.get("question_type")]
            places[number] = answers.append([element.where, texts, *kinds])


def _file_questions(file: Path, answers: Spool, places: dict[int, int], seen: set[int]) -> Iterator[Said | Dropped]:
    """The questions of a file, each with its answers; those are taken out of `places`."""
    split, public = split_in_name(file, *_SPLITS), bool(places)
    for element in JsonElements(file, members=True):
        if element.name == "data_subtype" and split is None and isinstance(element.value, str):
            split = split_in_name(Path(element.value), *_SPLITS)
        if element.name != "questions":
            continue
        values = element.value if isinstance(element.value, dict) else {}
        number, image = values.get("question_id"), values.get("image_id")
        if not _is_number(number) or not _is_number(image):
            yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            continue
        if number in seen:
            yield Dropped(reason="duplicate question id", where=element.where, detail=str(number))
            continue
        seen.add(number)
        place = places.pop(number, None)
        if place is None and public and not (split or "").startswith("test"):
            yield Dropped(reason="no answer", where=element.where, detail=f"question {number} in no annotation")
            continue
        _, texts, kind, opening = answers[place] if place is not None else ("", None, None, None)
        question, dropped = question_of(
            values.get("question"), texts, element.where, id=number, type=kind, question_type=opening
        )
        yield from dropped
        if question is not None:
            yield Said(_image_names(image, split), element.where, "questions", question, split)


def _elements(file: Path, name: str) -> Iterator[Element]:
    """The elements of the list that the file is there for; UserError where there is none."""
    found = False
    for element in JsonElements(file):
        if element.name == name:
            found = True
            yield element
    if not found:
        raise UserError(f"{file} has no {name}: it is no official VQA file")


def _is_number(value: Any) -> TypeGuard[int]:
    """Whether a value is an id of COCO: a whole number of at most 12 digits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _image_names(number: int, split: str | None) -> tuple[str, ...]:
    """The names of an image, the official one first where the split is known."""
    plain = f"{number:012d}.jpg"
    subtypes = [_SUBTYPES[split]] if split else dict.fromkeys(_SUBTYPES.values())
    official = [name for kind in subtypes for name in (f"COCO_{kind}_{plain}", f"{kind}/COCO_{kind}_{plain}")]
    return (*official, plain) if split else (plain, *official)
