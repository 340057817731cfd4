import json
from dataclasses import replace

import pytest
import torch

from crossgrain.data.masking import RegionMasking
from crossgrain.data.pairs import RegionsConfig
from crossgrain.models.imagebert import ImageBERT
from crossgrain.tasks.masked import MaskedRegions, MaskedWords


def ask(task, trained, records, **config):
    return list(task(task.Config(images_per_batch=4, **config)).predict(trained, records))


def test_a_hidden_region_is_classified_as_it_is_alone(stream, records):
    half = replace(stream, regions=RegionsConfig(masking=RegionMasking(probability=0.5)))
    lines = ask(MaskedRegions, half, records)
    assert len(lines) == sum(max(1, round(len(r.detected) / 2)) for r in records if len(r.detected))
    seen = {record.key: record for record in records}
    model, head = stream.model, stream.objectives["region_class"].head
    for key in {line["key"] for line in lines}:
        record, mine = seen[key], [line for line in lines if line["key"] == key]
        places = [line["position"] for line in mine]
        assert [line["truth"] for line in mine] == record.detected.labels[places].tolist()
        with stream.answering():
            image = stream.read_images([record])
            hidden = torch.zeros_like(image.mask)
            hidden[0, places] = True
            text = stream.texts([record.captions[0] if record.captions else ""])
            fused = model.fuse(model.encode_image(replace(image, hidden=hidden)), model.encode_text(text))
            logits = head(fused.image_tokens(torch.tensor([places])))[0]
        assert [line["predicted"] for line in mine] == logits.argmax(-1).tolist()


def test_what_is_asked_is_not_seen(stream, records, monkeypatch):
    """Exactly the regions that the lines name are hidden, at the places behind a region that is the whole image."""
    seen = []
    encode = ImageBERT.encode_image
    monkeypatch.setattr(stream.model, "encode_image", lambda image: seen.append(image) or encode(stream.model, image))
    for whole_image in (False, True):
        seen.clear()
        lines = ask(MaskedRegions, replace(stream, regions=RegionsConfig(whole_image=whole_image)), records)
        hidden = [(row, place) for image in seen for row, place in image.hidden.nonzero().tolist()]
        assert [place for _, place in hidden] == [line["position"] + whole_image for line in lines]
        assert all((image.hidden & ~image.mask).sum() == 0 for image in seen)


def test_hidden_words_are_named_by_the_head(stream, records, trained):
    lines = ask(MaskedWords, stream, records)
    captioned = [record for record in records if record.captions]
    assert [line["key"] for line in lines] == [record.key for record in captioned]
    for line, record in zip(lines, captioned, strict=True):
        assert line["truth"] == stream.tokenize(record.captions[0])[line["position"]]
    assert lines == ask(MaskedWords, stream, records)
    assert lines != ask(MaskedWords, stream, records, seed=1)
    assert MaskedWords(MaskedWords.Config()).missing(trained) == "a masked-word objective (mlm)"


def test_nothing_to_hide_asks_nothing(stream, records):
    assert ask(MaskedRegions, stream, [record for record in records if not len(record.detected)]) == []
    assert ask(MaskedWords, stream, [replace(record, captions=()) for record in records]) == []


def test_the_score_of_lines_worked_out_by_hand():
    answers = [("a", 3, 3), ("a", 3, 1), ("b", 3, 3), ("b", 5, 5)]
    lines = [{"key": key, "position": 0, "truth": truth, "predicted": guess} for key, truth, guess in answers]
    score = MaskedRegions.score(lines)
    assert (score["accuracy"], score["majority"], score["regions"], score["images"]) == (75.0, 75.0, 4, 2)
    assert score["confidence_95"]["accuracy"] == pytest.approx([30.06, 95.44])  # Wilson, 3 of 4
    assert json.loads(json.dumps(score)) == score


def test_regions_that_no_detector_named_are_hidden_but_not_counted(stream, records):
    unknown = [replace(r, detected=replace(r.detected, labels=r.detected.labels * 0 - 1)) for r in records]
    assert ask(MaskedRegions, stream, unknown) == []
