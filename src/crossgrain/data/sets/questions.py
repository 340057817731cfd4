"""What readers of question answering share: a question with its answers, checked, and the split that a file tells."""

import re
from pathlib import Path
from typing import Any

from crossgrain.data.records import Dropped
from crossgrain.data.sets.annotations import clean_text

_ID = re.compile(r"[\w.#+-]{1,80}")
_DEV = {"dev": "val"}
Question = dict[str, Any]


def question_of(
    text: Any, answers: Any, where: str, *, id: Any = None, **kinds: Any
) -> tuple[Question | None, list[Dropped]]:
    """A question as a record holds it ({"question", "answers", "id", "type", ...}), and what was wrong with it.

    `answers` is a text or a list of texts, None where the answers are not public. Of several people's answers an
    unusable one is kept as "", so that as many people answered as before; without a usable one the question is dropped,
    and None. `id` is the official one, as it is handed in; `kinds` are kept where they are texts.
    """
    question, rule = clean_text(text)
    if rule:
        return None, [Dropped(reason=rule.replace("caption", "question"), where=where, detail=repr(text)[:100])]
    if id is not None and not is_id(id):
        return None, [Dropped(reason="malformed question id", where=where, detail=repr(id)[:100])]
    found: Question = {"question": question}
    dropped: list[Dropped] = []
    if answers is not None:
        given = answers if isinstance(answers, list) else [answers]
        cleaned = [clean_text(answer) for answer in given]
        dropped = [
            Dropped(reason=rule.replace("caption", "answer"), where=where, detail=repr(answer)[:100])
            for answer, (_, rule) in zip(given, cleaned, strict=True)
            if rule
        ]
        if not any(answer for answer, _ in cleaned):
            return None, dropped or [Dropped(reason="no answer", where=where, detail=question[:100])]
        found["answers"] = [answer for answer, _ in cleaned]
        dropped = [one for one in dropped if one.reason != "empty answer"]  # somebody had nothing to say
    told = {"id": id, **{name: kind for name, kind in kinds.items() if isinstance(kind, str) and kind}}
    return {**found, **{name: value for name, value in told.items() if value is not None}}, dropped


def is_id(value: Any) -> bool:
    """Whether a value may be a question's id: a number, or a short text without spaces."""
    if isinstance(value, bool):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else isinstance(value, str) and bool(_ID.fullmatch(value))


def split_in_name(file: Path, *splits: str) -> str | None:
    """Which of `splits` a file's name tells as a word of it; "dev" is val. None where it tells none of them.

    A word begins and ends at "_", "-", ".", or at a digit (train2014).
    """
    words = re.split(r"[_.\d]+", file.name.lower())
    parts = [word for word in words if word] + [part for word in words for part in word.split("-")]
    found = next((split for split in splits if split in parts), None)
    return None if found is None else _DEV.get(found, found)
