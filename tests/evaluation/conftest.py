"""A run folder with predictions worked out by hand, and pictures to go with them."""

import io
import json

import pytest
from PIL import Image

from crossgrain.data.records import Record
from crossgrain.data.shards import ShardWriter
from crossgrain.evaluation.score import write_scores


@pytest.fixture
def a_png():
    file = io.BytesIO()
    Image.effect_mandelbrot((16, 16), (-2, -2, 2, 2), 9).save(file, "PNG")
    return file.getvalue()


def retrieval_lines(split):
    """Three pictures with a text each; the second text finds its picture at rank 2, the other two at once."""
    keys, texts = ["k0", "k1", "k2"], ["k0#0", "k1#0", "k2#0"]
    sayings = ["a <b>red</b> star", "two fish", "a house & a tree"]
    order = [[0, 1, 2], [0, 1, 2], [2, 1, 0]]
    for direction, queries, names in (("text_to_image", texts, keys), ("image_to_text", keys, texts)):
        for query, name in enumerate(queries):
            ranked, scores = [names[place] for place in order[query]], [3.0, 2.0, -100.0]
            rank = 1 + order[query].index(query)
            line = {"task": "retrieval", "split": split, "direction": direction, "query": name, "gallery": 3}
            line |= {"ranked": ranked, "scores": scores, "rank": rank, "truth": [names[query]]}
            line |= {f"{key}_without_rerank": line[key] for key in ("ranked", "scores", "rank")}
            yield line | ({"text": sayings[query]} if direction == "text_to_image" else {})


def grounding_lines(split):
    true, wrong = [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 1.2, 1.1]
    for key, box, overlap in (("k0", true, 1.0), ("k1", wrong, 0.0)):
        line = {"task": "grounding", "split": split, "key": key, "text": f"the <star> of {key}"}
        yield line | {"box": box, "truth": true, "iou": overlap}


def masked_lines(split):
    """Two of three hidden regions are named; the most frequent answer is right in two of three as well."""
    for key, truth, guess in (("k0", 4, 4), ("k0", 4, 1), ("k1", 7, 7)):
        line = {"task": "masked_regions", "split": split, "key": key, "position": 0}
        yield line | {"truth": truth, "predicted": guess}


@pytest.fixture
def make_run(tmp_path, a_png):
    """make(lines) -> (run folder, data folder); everything but the predictions may be left out.

    `told` is what the record of a key holds beside its picture.
    """

    def make(lines, log=(), recipe=None, told=None):
        run, data = tmp_path / "run", tmp_path / "data"
        (run / "evaluation").mkdir(parents=True)
        (run / "evaluation/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if lines:
            write_scores(run / "evaluation")
        if log:
            (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        if recipe:
            (run / "recipe.yaml").write_text(recipe)
        with ShardWriter(data) as writer:
            for key in ("k0", "k1", "k2"):
                writer.write(Record(key=key, image=a_png, split="test", **(told or {}).get(key, {})), "png", 16, 16)
        return run, data

    return make


@pytest.fixture
def retrieval():
    return retrieval_lines


@pytest.fixture
def grounding():
    return grounding_lines


@pytest.fixture
def masked():
    return masked_lines
