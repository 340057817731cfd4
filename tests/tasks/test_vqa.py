import json
from dataclasses import replace

import pytest
import torch

from crossgrain.config import RecipeError, UserError, dump_config, read_config
from crossgrain.data.answers import AnswerVocabulary, build_answers
from crossgrain.data.asks import Reading, question_words
from crossgrain.data.collate import pad_words
from crossgrain.data.records import Record
from crossgrain.data.text import SPECIAL_TOKENS, TextConfig, Tokenizer
from crossgrain.data.types import Answers, Batch
from crossgrain.metrics.vqa import vqa_accuracy
from crossgrain.objectives.interface import Views
from crossgrain.objectives.mlm import MLM
from crossgrain.tasks import vqa_decoder
from crossgrain.tasks.vqa import VQA
from crossgrain.tasks.vqa_decoder import AnswerDecoder, last_layers, pack
from crossgrain.tasks.vqa_heads import AnswerAtMask, AnswerClassifier, mean_embedding, soft_targets
from tiny_models import make_batch, tiny_model
from tiny_pixels import pixel_batch, tiny_pixelbert
from tiny_regions import region_batch, tiny_imagebert
from tiny_vlbert import tiny_vlbert

WORDS = ["what", "is", "there", "how", "many", "a", "red", "blue", "star", "house", "two", "yes", "no"]
TOKENS = Tokenizer([*SPECIAL_TOKENS, *WORDS])
ANSWERS = AnswerVocabulary(["red", "blue star", "red star", "yes", "no", "house"])
QUESTIONS = ["what is there", "is there a star", "how many", "what is a house", "is there two", "what"]
VOTES = [[("red", 0.7), ("red star", 0.3)], [("yes", 1.0)], [("two", 0.6), ("no", 0.4)], [("house", 1.0)],
         [("no", 0.5), ("yes", 0.3), ("blue star", 0.2)], [("blue star", 1.0)]]  # fmt: skip
HEADS = {
    "classifier": AnswerClassifier.Config(),
    "mask": AnswerAtMask.Config(),
    "decoder": AnswerDecoder.Config(depth=2),
}
FAMILIES = {
    "imagebert": (tiny_imagebert, region_batch),
    "vlbert": (tiny_vlbert, region_batch),
    "pixelbert": (tiny_pixelbert, pixel_batch),
    "xvlm": (tiny_model, make_batch),
}
TWO_FC = AnswerClassifier.Config(layers="2fc", hidden_dim=20)
ONE_FC = AnswerAtMask.Config(layers="1fc")


def task_of(config, **changes):
    return VQA(VQA.Config(head=config, **changes), ANSWERS)


def made(config, model):
    """The head of this kind, and the task that made it."""
    task = task_of(config)
    return task.head(model, TOKENS), task


def answers():
    """What people said: at most three answers, [CLS] answer [SEP] of at most four tokens."""
    shape = len(VOTES), 3
    index, score = torch.full(shape, -1), torch.zeros(shape)
    weight, ids, mask = torch.zeros(shape), torch.zeros(*shape, 4).long(), torch.zeros(*shape, 4).bool()
    for row, votes in enumerate(VOTES):
        for place, (answer, share) in enumerate(votes):
            pieces = TOKENS.encode(answer, 4, True)
            index[row, place], score[row, place] = ANSWERS.place(answer), min(1.0, 3 * share)
            weight[row, place], mask[row, place, : len(pieces)] = share, True
            ids[row, place, : len(pieces)] = torch.tensor(pieces)
    return Answers(index=index, score=score, weight=weight, ids=ids, mask=mask)


def batch_of(make_image, task, model):
    """Each of the questions about one of the images, read as the task wants it."""
    reading = Reading(tokenizer=TOKENS, text=TextConfig(vocab="", max_tokens=12), **task.reading(model))
    text = pad_words([question_words(question, reading) for question in QUESTIONS], 12, TOKENS.pad)
    image = make_image().image["clean"]
    return Batch(
        image={"clean": image}, text={"clean": text}, targets={"questions": answers()}, group=torch.arange(len(VOTES))
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_of_one_batch_falls(kind, family):
    build, make_image = FAMILIES[family]
    model = build()
    head, task = made(HEADS[kind], model)
    batch = batch_of(make_image, task, model)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(18):
        optimizer.zero_grad()
        loss = head(Views(model, batch))
        loss.value.backward()
        optimizer.step()
        losses.append(loss.value.item())
    assert losses[-1] < 0.7 * losses[0], losses
    assert all(0 <= value.item() <= 1 for value in loss.metrics.values())
    assert all(p.grad is not None for p in head.parameters())


def test_who_had_no_answer_teaches_none():
    given = ["", "", "", "red", "red"]
    data = [Record(key="a", image=b"", extra={"questions": [{"question": "what", "answers": given}] * 2})]
    known = build_answers([data], min_count=2)
    assert known.names == ("red",)
    assert AnswerVocabulary(["the", "red"]).place("") == -1

    model = tiny_model()
    head, task = made(HEADS["decoder"], model)
    batch = batch_of(make_batch, task, model)
    target = batch.targets["questions"]
    losses = []
    for weight in (0.0, 0.5):
        told = replace(target, **{name: getattr(target, name).clone() for name in ("weight", "ids", "mask")})
        told.ids[:, 2, :2] = torch.tensor([TOKENS.cls, TOKENS.sep])
        told.mask[:, 2] = torch.tensor([True, True, False, False])
        told.weight[:, 2] = weight
        losses.append(head(Views(model, replace(batch, targets={"questions": told}))).value.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("config", [*HEADS.values(), TWO_FC, ONE_FC], ids=lambda config: type(config).__qualname__)
@pytest.mark.parametrize("model", ["trained", "stream"])
def test_every_question_gets_the_answer_that_it_gets_alone(request, config, model, records, counted):
    asked = request.getfixturevalue(model)
    head, _ = made(config, asked.model)
    trained = replace(asked, objectives={"vqa": head}, tokenizer=TOKENS, text=TextConfig(vocab="", max_tokens=12))
    asked_records = [
        replace(record, extra={"questions": [item(question) for question in QUESTIONS[: number % 4]]})
        for number, record in enumerate(records[:6])
    ]
    asked_records[1].extra["questions"][0] |= {"id": 17, "type": "other", "answers": ["yes"] * 10}
    task = task_of(config, images_per_batch=4, questions_per_batch=3)
    assert task.missing(trained) is None
    lines = list(task.predict(trained, asked_records))
    assert [line["key"] for line in lines] == ["p1", "p2", "p2", "p3", "p3", "p3", "p5"]
    assert (counted.encoded, counted.prepared, counted.fused) == (6, 6, 7)
    assert lines[0] | {"answer": "", "score": 0} == {
        "key": "p1", "id": 17, "question": QUESTIONS[0], "type": "other", "answer": "", "score": 0,
        "answers": ["yes"] * 10,
    }  # fmt: skip
    assert lines[1]["answers"] is None and lines[1]["type"] is None and lines[1]["id"] is None
    assert {line["answer"] for line in lines} <= set(ANSWERS.names) and all(0 < line["score"] <= 1 for line in lines)
    assert list(map(json.loads, map(json.dumps, lines))) == lines
    for line, place in zip(lines[-2:], (3, 5), strict=True):
        alone = [replace(asked_records[place], extra={"questions": [item(line["question"])]})]
        (again,) = task.predict(trained, alone)
        assert again["answer"] == line["answer"] and again["score"] == pytest.approx(line["score"], abs=1e-5)


def item(question):
    return {"question": question}


def test_other_models_are_told_what_they_lack(trained):
    assert "fine-tune" in task_of(None).missing(trained)


def test_each_family_has_the_head_of_its_paper():
    kinds = {name: type(made(None, build())[0]).__name__ for name, (build, _) in FAMILIES.items()}
    expected = {"imagebert": "AnswerClassifier", "pixelbert": "AnswerClassifier", "vlbert": "AnswerAtMask"}
    assert kinds == expected | {"xvlm": "AnswerDecoder"}
    assert len(made(None, tiny_model())[0].layers) == 2  # as many as cross layers
    assert (
        task_of(None).reading(tiny_vlbert())["answer_slot"] and not task_of(None).reading(tiny_model())["answer_slot"]
    )


def test_heads_are_read_from_a_recipe():
    config = read_config(VQA.Config, {"head": {"type": "mask", "layers": "2fc", "from_words": False}}, "recipe")
    assert config.head == AnswerAtMask.Config(layers="2fc", from_words=False)
    assert read_config(VQA.Config, dump_config(config), "recipe") == config
    assert read_config(VQA.Config, {}, "recipe").head is None
    with pytest.raises(RecipeError, match="from_words"):
        read_config(VQA.Config, {"head": {"type": "mask", "layers": "2fc"}}, "recipe")


def test_what_cannot_be_is_refused_with_the_reason():
    model = tiny_model()
    with pytest.raises(UserError, match="needs an answer vocabulary"):
        VQA(VQA.Config()).head(model, TOKENS)
    with pytest.raises(UserError, match="num_answers is 7, the answer vocabulary has 6"):
        made(AnswerClassifier.Config(num_answers=7), model)
    with pytest.raises(ValueError, match="num_answers is not set"):
        AnswerClassifier(AnswerClassifier.Config(), model)
    del model.text_embedding
    with pytest.raises(ValueError, match="and XVLM has none"):
        made(AnswerDecoder.Config(), model)
    with pytest.raises(ValueError, match="has 4 tokens, and the model has positions for 3"):
        made(AnswerDecoder.Config(), tiny_model(max_length=3))


def test_a_decoder_does_not_write_answers_that_it_has_no_words_for():
    few = VQA(VQA.Config(), AnswerVocabulary(["red", "3", "4", "blue 5"]))
    with pytest.raises(UserError, match=r"no words for 2 of 4 answers.*: '3', '4'; choose task.head.type=classifier"):
        few.head(tiny_model(), TOKENS)
    assert few.head(tiny_imagebert(), TOKENS).answers is few.answers


def test_targets_are_the_scores_of_the_answers_that_the_vocabulary_has():
    target = soft_targets(answers(), len(ANSWERS.names))
    assert target[0].tolist() == pytest.approx([1, 0, 0.9, 0, 0, 0])
    assert target[2].tolist() == pytest.approx([0, 0, 0, 0, 1, 0])  # "two" is no answer of it
    assert target.sum(1).tolist() == pytest.approx([1.9, 1, 1, 1, 2.5, 1])


def test_the_mask_head_starts_from_pre_training():
    model = tiny_vlbert()
    mlm = MLM(MLM.Config(), model)
    head, _ = made(None, model)
    with torch.no_grad():
        assert head.adopt(model, {"mlm": mlm.state_dict()}) == ["mlm.dense", "mlm.norm", "words of the answers"]
    assert torch.equal(head.layers[0].weight, mlm.dense.weight)
    words = model.token_embedding.weight
    star = words[[TOKENS.tokens.index("blue"), TOKENS.tokens.index("star")]].mean(0)
    torch.testing.assert_close(head.layers[-1].weight[1], star)
    torch.testing.assert_close(mean_embedding(words, [[6]])[0], words[6])


@pytest.mark.parametrize("dim", [16, 24])
def test_the_decoder_starts_as_the_cross_layers_and_drops_keys_and_values_of_another_width(dim):
    """model_vqa.py:48-96. The tiny image encoder has a width of 16."""
    model = tiny_model(dim=dim)
    fits = model.vision.dim == dim
    head, _ = made(None, model)
    with torch.no_grad():
        told = head.adopt(model, {"mlm": MLM(MLM.Config(), model).state_dict()})
    lacking = "" if fits else " (without cross_attention.key_value)"
    assert told == ["embedding", f"layer 0{lacking}", f"layer 1{lacking}", "word prediction"]
    for mine, theirs in zip(head.layers, model.cross_layers, strict=True):
        for name, parameter in theirs.named_parameters():
            same = parameter.shape == mine.get_parameter(name).shape and torch.equal(
                parameter, mine.get_parameter(name)
            )
            assert same == (fits or "key_value" not in name) or not parameter.any(), name
    assert torch.equal(head.embedding.token.weight, model.token_embedding.weight)
    assert head.embedding.token.weight is not model.token_embedding.weight
    new = {f"layers.{number}.cross_attention.key_value.{kind}" for number in range(2) for kind in ("weight", "bias")}
    assert head.new_parameters() == (set() if fits else new)


def test_the_decoder_of_a_single_stream_starts_as_its_last_layers():
    model = tiny_imagebert()
    head, _ = made(HEADS["decoder"], model)
    with torch.no_grad():
        head.adopt(model, {})
    assert torch.equal(head.layers[1].mlp.expand.weight, last_layers(model)[-1].mlp.expand.weight)
    assert torch.equal(head.layers[0].attention.qkv.weight, model.stream.layers[1].attention.qkv.weight)
    assert all(".cross_attention" in name for name in head.new_parameters())


def test_a_head_goes_on_from_an_earlier_one():
    model = tiny_imagebert()
    (earlier, _), (head, _), (other, _) = made(None, model), made(None, model), made(ONE_FC, model)
    assert head.adopt(model, {"vqa": earlier.state_dict()}) == ["the head of an earlier run"]
    assert torch.equal(head.layers[-1].weight, earlier.layers[-1].weight)
    with torch.no_grad():
        assert other.adopt(model, {"vqa": earlier.state_dict()}) == ["words of the answers"]


def test_likelihoods_do_not_depend_on_what_else_is_asked(monkeypatch):
    """Neither on the other answers of the packed sequence, nor on how many questions are ranked at once."""
    model = tiny_model()
    head, task = made(AnswerDecoder.Config(candidates=4), model)
    batch = batch_of(make_batch, task, model)
    text, target = batch.text["clean"], batch.targets["questions"]
    with torch.no_grad():
        seen = head.look(Views(model, batch).fused(), text)
        memories = head.memories(seen)
        _, together = head.likelihood(memories, text.mask, target.ids, target.mask)
        for row, votes in enumerate(VOTES):
            for place in range(len(votes)):
                few = slice(row, row + 1)
                one = target.ids[few, place : place + 1], target.mask[few, place : place + 1]
                _, alone = head.likelihood([memory[few] for memory in memories], text.mask[few], *one)
                assert alone.item() == pytest.approx(together[row, place].item(), abs=1e-5)
        best = head.rank(seen, text, 4)
        monkeypatch.setattr(vqa_decoder, "PLACES", 1)
        assert torch.equal(head.rank(seen, text, 4).place, best.place)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # shapes are fixed then
        assert pack(target.ids, target.mask).ids.shape == (6, 6)
        torch.testing.assert_close(head.likelihood(memories, text.mask, target.ids, target.mask)[1], together)


def line(answer, truth, kind=None, key="a"):
    return {"key": key, "id": 1, "question": "what", "type": kind, "answer": answer, "score": 0.5, "answers": truth}


def test_score_of_lines_worked_out_by_hand():
    split = ["red"] * 8 + ["blue"] * 2  # blue: two ways of three to score 1/3, the rest 2/3
    lines = [line("red", split, "colour"), line("blue", split, "colour", "b"), line("Two", ["2"] * 10, "count", "b")]
    lines.append(line("red", None, "colour"))
    score = VQA.score(lines)
    accuracy = [vqa_accuracy(line["answer"], line["answers"]) for line in lines[:3]]
    assert accuracy == pytest.approx([1.0, 0.6, 0.0])  # "Two" is not what all ten wrote, letter by letter
    assert score["accuracy"] == pytest.approx(100 * sum(accuracy) / 3, abs=0.01)
    assert (score["questions"], score["images"], score["unscored"]) == (3, 2, 1)
    assert score["chance"] == {"accuracy": pytest.approx(66.67)}  # "red", always
    assert score["by_type"] == {
        "colour": {"accuracy": 80.0, "chance": 100.0, "questions": 2},
        "count": {"accuracy": 0.0, "chance": 100.0, "questions": 1},
    }
    low, high = score["confidence_95"]["accuracy"]
    assert 0 <= low < score["accuracy"] < high <= 100
    assert json.loads(json.dumps(score)) == score
    assert VQA.score(lines[3:]) == {"unscored": 1}
    assert "by_type" not in VQA.score([line("red", ["red"])]) and "unscored" not in VQA.score([line("red", ["red"])])


def test_records_without_questions_ask_nothing(trained, records):
    head, task = made(AnswerClassifier.Config(), trained.model)
    ready = replace(trained, objectives={"vqa": head}, tokenizer=TOKENS, text=TextConfig(vocab=""))
    assert list(task.predict(ready, [Record(key="a", image=b""), records[0]])) == []
