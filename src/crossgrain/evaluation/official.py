"""Score anybody's predictions against a prepared data set: our own lines, or the files that evaluation servers take.

The truth always comes from the data (truth.py), never from the predictions. What may be handed in (answer_files.py
reads it, submissions.py writes it):

- our predictions.jsonl, of every task whose answers the data can judge;
- VQA results, [{"question_id", "answer"}, ...], and GQA's, [{"questionId", "prediction"}, ...];
- COCO caption results, [{"image_id", "caption"}, ...];
- NLVR2, lines "identifier,prediction" with or without that header, or JSON lines of the two;
- VCR, the leaderboard's CSV of 20 probabilities a question, or the same as NPZ.

An official file must answer every question of its split, as the official programs demand; of our own lines, which may
ask for a part of the data on purpose, the block says how many are "missing".
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crossgrain.config import UserError, find_class
from crossgrain.data.records import Record
from crossgrain.data.shards import Shards
from crossgrain.evaluation.answer_files import Answer, read_answers
from crossgrain.evaluation.truth import JUDGED, Part, Questions, UnusableError
from crossgrain.tasks.interface import TASKS, Line
from crossgrain.tasks.retrieval import DIRECTIONS

Scores = dict[str, Any]


def score_predictions(predictions: Path, data: Path, task: str | None = None, split: str | None = None) -> Scores:
    """The blocks of scores.json: those of the file's first split at the top, the other splits' under their names.

    `task` and `split` take a part of a file of our own lines. Of an official file, which names no split, `split` says
    what it answers; without it, that is the split of the data which has its first question. UserError names the file,
    the line and the rule of what cannot be scored.
    """
    groups: dict[str | None, dict[str, list[Answer]]] = {}
    held = set()
    for answer in read_answers(predictions):
        held.add(" of ".join(filter(None, (answer.task, answer.split))))
        if task in (None, answer.task) and (split is None or answer.split in (None, split)):
            groups.setdefault(answer.split or split, {}).setdefault(answer.task, []).append(answer)
    if not groups:
        asked = " of ".join(filter(None, (task, split)))
        raise UserError(f"{predictions} holds no predictions {asked}: it holds {', '.join(sorted(held)) or 'nothing'}")
    scores: dict[str, Scores] = {}
    for name, tasks in groups.items():
        found = name or _split_of(next(iter(tasks.values()))[0], data)
        records, where = Shards(data, found, images=False), f"split {found!r} of {data}"
        scores[found] = {kind: _score(kind, answers, records, where) for kind, answers in tasks.items()}
    first, *others = scores
    return {**scores[first], **{name: scores[name] for name in others}}


def _split_of(answer: Answer, data: Path) -> str:
    """The split of a data set that has the question of an official answer."""
    for split in Shards(data, images=False).split_names():
        questions = Questions(JUDGED[answer.task], Shards(data, split, images=False))
        if questions.answered(answer.values, answer.official)[0][0] in questions.asked:
            return split
    raise UserError(f"{answer.where}: answers {answer.official}, which no split of {data} asks")


def _score(task: str, answers: Sequence[Answer], records: Sequence[Record], where: str) -> Scores:
    if task == "retrieval":
        lines, missing = _retrieved(answers, records, where)
    elif task in JUDGED:
        lines, missing = _judged(Questions(JUDGED[task], records), answers, where)
    else:
        return {"unscored": len(answers)}  # what was hidden is no part of the data
    block = find_class(task, TASKS).score(lines)
    return {**block, "missing": missing} if missing else block


def _judged(questions: Questions, answers: Sequence[Answer], where: str) -> tuple[list[Line], int]:
    """The lines to score, in the order of the data, and how many questions that have a truth have no answer."""
    asked = questions.asked
    given: dict[tuple[str, Any], tuple[Answer, Line]] = {}
    times: Counter[tuple[str, Any]] = Counter()
    for answer in answers:
        for name, values in _parts(questions, answer):
            method = values.get("method")  # of grounding, which may answer in several ways
            times[name, method] += 1
            name = questions.named(name, times[name, method])
            if name not in asked:
                raise UserError(f"{answer.where}: answers {name}, which {where} does not ask")
            if (name, method) in given:
                raise UserError(f"{answer.where}: {name} is answered already, at {given[name, method][0].where}")
            try:
                given[name, method] = answer, {**asked[name], **questions.judged.answer(values)}
            except UnusableError as error:
                raise UserError(f"{answer.where}: {error}") from None
    missing = questions.open(name for name, _ in given)
    if missing and answers[0].official is not None:
        left = f"leaves {len(missing)} of {len(asked)} questions of {where} open"
        raise UserError(f"{answers[0].file} {left}: the first is {missing[0]}")
    place = {name: number for number, name in enumerate(asked)}
    return [line for _, (_, line) in sorted(given.items(), key=lambda item: place[item[0][0]])], len(missing)


def _parts(questions: Questions, answer: Answer) -> Sequence[Part]:
    try:
        return questions.answered(answer.values, answer.official)
    except KeyError as error:
        raise UserError(f"{answer.where}: no {error.args[0]!r} in a line of {answer.task}") from None


def _retrieved(answers: Sequence[Answer], records: Iterable[Record], where: str) -> tuple[list[Line], int]:
    """Lines with the right candidates, and how many images with captions look for none of them.

    The texts that can be found are those that the file itself asks: a run may ask one of each image.
    """
    captions = {record.key: len(record.captions) for record in records}
    texts: dict[str, list[str]] = {}
    seen: dict[tuple[str, str], str] = {}
    for answer in answers:
        direction, query = _query(answer)
        key, _, number = query.rpartition("#") if direction == DIRECTIONS[0] else (query, "", "0")
        if not number.isdecimal() or int(number) >= captions.get(key, 0):
            raise UserError(f"{answer.where}: answers {query}, which {where} does not ask")
        if (direction, query) in seen:
            raise UserError(f"{answer.where}: {query} is answered already, at {seen[direction, query]}")
        seen[direction, query] = answer.where
        if direction == DIRECTIONS[0]:
            texts.setdefault(key, []).append(query)
    candidates = {DIRECTIONS[0]: set(captions), DIRECTIONS[1]: {text for told in texts.values() for text in told}}
    if len({direction for direction, _ in seen}) < len(DIRECTIONS):
        raise UserError(
            f"{answers[0].file} holds queries of one direction only; retrieval needs {' and '.join(DIRECTIONS)}"
        )
    lines = []
    for answer in answers:
        direction, query = _query(answer)
        for listed in ("ranked", "ranked_without_rerank"):
            _check_ranked(answer, listed, candidates[direction], where)
        truth = [query.rpartition("#")[0]] if direction == DIRECTIONS[0] else texts.get(query)
        if not truth:
            raise UserError(f"{answer.where}: no text of {query} is a query of the file, so none can be found")
        gallery, ranked = answer.values.get("gallery"), answer.values["ranked"]
        told = type(gallery) is int and len(ranked) <= gallery <= len(candidates[direction])  # a part: a fold, a limit
        lines.append({**answer.values, "truth": truth, "gallery": gallery if told else len(candidates[direction])})
    return lines, sum(count > 0 and (DIRECTIONS[1], key) not in seen for key, count in captions.items())


def _query(answer: Answer) -> tuple[str, str]:
    direction, query = answer.values.get("direction"), answer.values.get("query")
    if direction not in DIRECTIONS or not isinstance(query, str):
        raise UserError(f"{answer.where}: a line of retrieval names a query and a direction, {' or '.join(DIRECTIONS)}")
    return direction, query


def _check_ranked(answer: Answer, listed: str, candidates: set[str], where: str) -> None:
    ranked = answer.values.get(listed, None if listed == "ranked" else [])
    if not isinstance(ranked, list) or len(set(map(str, ranked))) != len(ranked):
        raise UserError(f"{answer.where}: {listed} is no list of different names")
    strangers = [name for name in ranked if name not in candidates]
    if strangers:
        raise UserError(f"{answer.where}: ranks {strangers[0]}, which is no candidate in {where}")
