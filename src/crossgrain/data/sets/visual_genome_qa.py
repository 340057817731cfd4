"""Visual Genome's questions in the official JSON: `question_answers.json`, one entry an image with its `qas`.

Images are called NUMBER.jpg and lie in VG_100K, VG_100K_2, images or image (X-VLM's folder). There are no splits: for
training beside VQA v2, `--split train` takes all. About half of the images are COCO's, some of them in COCO's val2014.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets.annotations import JsonElements, first_file, given_file
from crossgrain.data.sets.pictures import ImageFolders, Splits
from crossgrain.data.sets.questions import Question, question_of
from crossgrain.data.sets.visual_genome import FOLDERS


def read(
    root: Path, *, split: str | None = None, questions: Path | None = None, images: Path | None = None
) -> Iterable[Item]:
    """The images with their questions, each of which has one answer."""
    what = "questions"
    file = given_file(questions, root, what) if questions else first_file(root, ("question_answers.json",), what)
    return _images(file, ImageFolders.under(root, (*FOLDERS, "image"), images), Splits(split))


def _images(file: Path, folders: ImageFolders, splits: Splits) -> Iterator[Item]:
    for element in JsonElements(file):
        values = element.value if isinstance(element.value, dict) else {}
        number, asked = values.get("image_id", values.get("id")), values.get("qas")
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(asked, list):
            yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            continue
        found: list[Question] = []
        for index, value in enumerate(asked):
            question, dropped = _question(value, f"{element.where} qas[{index}]")
            yield from dropped
            if question is not None:
                found.append(question)
        if not found:
            yield Dropped(reason="no question", where=element.where, detail=str(number))
            continue
        image = folders.find(element.where, f"{number}.jpg")
        if isinstance(image, Dropped):
            yield image
            continue
        extra = {"source": element.where, "questions": found}
        yield Record(key=str(number), image=image, split=splits.held_out(str(number)), extra=extra)


def _question(value: Any, where: str) -> tuple[Question | None, list[Dropped]]:
    if not isinstance(value, dict):
        return None, [Dropped(reason="malformed entry", where=where, detail=str(value)[:100])]
    # a question of Visual Genome always has its answer: null is no hidden one
    return question_of(value.get("question"), value.get("answer") or "", where, id=value.get("qa_id"))
