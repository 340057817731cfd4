"""GQA in the official JSON: objects of questions by their id (cs.stanford.edu/people/dorarad/gqa/download.html).

`train_balanced_questions.json`, `val_...`, `testdev_...`, `test_...`, `challenge_...`, and of all questions
`..._all_questions.json`, of train as a folder of ten files. Images are called IMAGEID.jpg. A question's type is the
structural one (query, verify, logical, choose, compare), its semantic one (object, attribute, relation, category,
global) stands beside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item
from crossgrain.data.sets.annotations import JsonElements
from crossgrain.data.sets.gathered import GatheredImages, Said
from crossgrain.data.sets.pictures import ImageFolders, Splits
from crossgrain.data.sets.questions import question_of, split_in_name

VARIANTS = ("balanced", "all")
_SPLITS = ("train", "val", "testdev", "test", "challenge", "submission")
_ANSWERED = ("train", "val", "testdev")
_ON_REQUEST = ("submission",)  # holds images of other splits
_FOLDERS = ("images", "", "allImages/images")


def read(
    root: Path,
    *,
    split: str | None = None,
    questions: Sequence[Path] = (),
    variant: str = "balanced",
    images: Path | None = None,
) -> Iterable[Item]:
    """The images with their questions.

    `questions` are files, or folders of them. Without, those of the `variant` under `root` or `root/questions` are read
    ("submission", which repeats the images of others, where it is the split asked for), else `questions.json` there.
    """
    if variant not in VARIANTS:
        raise UserError(f"gqa: unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    files = _given(root, questions) if questions else _found(root, variant, split)
    return GatheredImages(_questions(files), ImageFolders.under(root, _FOLDERS, images), Splits(split))


def _given(root: Path, paths: Sequence[Path]) -> list[tuple[Path, str | None]]:
    files = []
    for path in paths:
        tried = (Path(path), root / path)
        found = next((one for one in tried if one.exists()), None)
        parts = _parts(found) if found else []
        if not parts:
            raise UserError(f"no questions: looked for {', '.join(str(one) for one in tried)}")
        files += parts
    return files


def _found(root: Path, variant: str, split: str | None) -> list[tuple[Path, str | None]]:
    folders = (root, root / "questions")
    paths = sorted(path for folder in folders for path in folder.glob(f"*_{variant}_questions*"))
    files = [part for path in paths for part in _parts(path)]
    files = [(file, name) for file, name in files if name == split or (split is None and name not in _ON_REQUEST)]
    files = files or [part for folder in folders for part in _parts(folder / "questions.json")]
    if not files:
        looked = ", ".join(f"{folder}/*_{variant}_questions.json" for folder in folders)
        raise UserError(f"no questions: looked for {looked} and {root}/questions.json")
    return files


def _parts(path: Path) -> list[tuple[Path, str | None]]:
    """A file, or the files of a folder in the order of their numbers, each with the split that it tells."""
    named = split_in_name(path, *_SPLITS)
    if path.is_file():
        return [(path, named)]
    files = sorted(path.glob("*.json"), key=lambda file: (len(file.name), file.name)) if path.is_dir() else []
    return [(file, named or split_in_name(file, *_SPLITS)) for file in files]


def _questions(files: Iterable[tuple[Path, str | None]]) -> Iterator[Said | Dropped]:
    for file, split in files:
        for element in JsonElements(file, members=True):
            values = element.value if isinstance(element.value, dict) else {}
            image = values.get("imageId")
            if isinstance(image, int) and not isinstance(image, bool):
                image = str(image)
            if not isinstance(image, str) or not image:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
                continue
            types, answer = values.get("types"), values.get("answer")
            types = types if isinstance(types, dict) else {}
            if answer is None and split in _ANSWERED:
                yield Dropped(reason="no answer", where=element.where, detail=str(values.get("question"))[:100])
                continue
            question, dropped = question_of(
                values.get("question"),
                answer,
                element.where,
                id=element.name,
                type=types.get("structural"),
                semantic_type=types.get("semantic"),
            )
            yield from dropped
            if question is not None:
                yield Said((f"{image}.jpg",), element.where, "questions", question, split)
