import json
import sys
from collections import Counter
from math import exp, log
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from crossgrain.metrics.bleu import BleuCounts, bleu
from crossgrain.metrics.captioning import caption_scores
from crossgrain.metrics.cider import Cider, DocumentFrequency, cider
from crossgrain.metrics.java import java_scores, meteor_jar, spice_jar
from crossgrain.metrics.ptb import caption_words
from crossgrain.metrics.rouge import longest_common_subsequence, rouge_l

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
COMPUTED = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def recorded(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def words(text):
    return text.split()


def lines(name):
    return (GOLDEN / "nlg_eval" / name).read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def example():
    """(captions, references, published scores) of nlg-eval."""
    scores = dict(line.split() for line in lines("published_scores.txt"))
    names = {name.replace("Bleu_", "BLEU-").replace("ROUGE_", "ROUGE-"): value for name, value in scores.items()}
    references = list(zip(lines("ref1.txt"), lines("ref2.txt"), strict=True))
    return lines("hyp.txt"), references, names


@pytest.mark.parametrize("tokenize", [str.split, caption_words])
def test_the_published_example_is_reproduced_to_six_digits(example, tokenize):
    captions, references, published = example
    scores = caption_scores(captions, references, tokenize, java=False).corpus
    assert {name: f"{scores[name]:.6f}" for name in COMPUTED} == {name: published[name] for name in COMPUTED}
    assert set(published) == {*COMPUTED, "METEOR"}


@pytest.mark.skipif(meteor_jar() is None, reason="METEOR needs Java and pycocoevalcap")
def test_the_published_meteor_is_reproduced_to_six_digits(example):
    captions, references, published = example
    scores = caption_scores(captions, references, str.split)
    assert f"{scores.corpus['METEOR']:.6f}" == published["METEOR"]
    assert scores.each["METEOR"] == pytest.approx([0.1556568826170604, 0.39012536521249613])  # as pycocoevalcap's


def test_java_metrics_are_left_out_where_there_is_no_java(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert (meteor_jar(), spice_jar()) == (None, None)
    assert set(caption_scores(["a cat"], [["a cat"]]).corpus) == set(COMPUTED)


def stand_in(monkeypatch, folder, name, script):
    """A program called java, which is asked for one of the two metrics."""
    (folder / "java").write_text(f"#!{sys.executable}\n{script}")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    for each in ("meteor", "spice"):
        monkeypatch.setattr(
            f"crossgrain.metrics.java.{each}_jar", lambda asked=each: folder / "x" if asked == name else None
        )


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        ("meteor", "raise SystemExit(1)", "METEOR is left out of the scores: .+"),
        (
            "meteor",
            "for line in open(0): print('no number', flush=True)",
            "METEOR .* could not convert string to float",
        ),
        ("spice", "import sys; sys.exit('first line\\nout of memory')", "SPICE .* exit status 1.*: out of memory$"),
        ("spice", "import sys; open(sys.argv[6], 'w').write('[]')", "SPICE is left out of the scores: KeyError: 0"),
    ],
    ids=["meteor stops", "meteor answers nonsense", "spice stops", "spice forgets a caption"],
)
def test_a_java_metric_that_fails_is_left_out_with_a_warning(monkeypatch, tmp_path, name, script, reason):
    stand_in(monkeypatch, tmp_path, name, script)
    with pytest.warns(UserWarning, match=reason):
        scores = caption_scores(["a cat"] * 2, [["a cat"]] * 2)
    assert set(scores.corpus) == set(COMPUTED)


def test_spice_may_look_into_java(monkeypatch, tmp_path):
    """From Java 16 on it must be allowed to; what the user's own options say stays."""
    told = {"image_id": 0, "scores": {"All": {"f": 0.25}}}
    script = f"import json, os, sys; json.dump([{told}] * ('-Da=b --add-opens' in os.environ['JDK_JAVA_OPTIONS']), "
    stand_in(monkeypatch, tmp_path, "spice", script + "open(sys.argv[6], 'w'))")
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Da=b")
    assert caption_scores(["a cat"], [["a cat"]]).corpus["SPICE"] == 0.25


def test_scores_equal_what_pycocoevalcap_recorded():
    record = recorded("pycocoevalcap.json")
    assert "" in record["captions"]  # an empty one is among them
    scores = caption_scores(record["captions"], record["references"], java=False)
    assert scores.corpus == pytest.approx({name: record["corpus"][name] for name in COMPUTED}, abs=1e-10)
    for name in COMPUTED:
        assert scores.each[name] == pytest.approx(record["each"][name], abs=1e-10), name
        low, high = scores.confidence_95[name]
        assert low < scores.corpus[name] < high
    captions = [caption_words(text) for text in record["captions"]]
    told = [[caption_words(text) for text in texts] for texts in record["references"]]
    assert cider(captions, told, "CIDEr") == pytest.approx(record["plain_cider"], abs=1e-10)


def test_words_equal_those_of_the_ptb_tokenizer():
    record = recorded("ptb.json")
    assert len(record["same"]) > 1000
    assert {text: caption_words(text) for text in record["same"]} == record["same"]


def test_the_known_differences_from_the_ptb_tokenizer_are_still_all():
    record = recorded("ptb.json")
    assert len(record["differs"]) < 20
    assert [text for text, words in record["differs"].items() if caption_words(text) == words] == []


def test_a_caption_of_several_lines_is_one_text():
    assert caption_words(" A cat\nsits.\t\r\n") == ["a", "cat", "sits"]
    assert caption_words("") == caption_words(" \n ") == caption_words("...!") == []


def test_bleu_worked_out_by_hand():
    candidates = [words("the cat the cat on the mat"), words("a dog")]
    references = [[words("the cat is on the mat"), words("there is a cat on the mat")], [words("a dog sleeps here")]]
    # single words right: the (2 of 3), cat (1 of 2), on, mat; a, dog: 7 of 9
    # pairs right: the cat (1 of 2), on the, the mat, cat on; a dog: 5 of 7 (cat the is wrong)
    # closest lengths: 7 (and not 6), and 4; 9 words against 11: brevity exp(1 - 11 / 9)
    brevity = exp(1 - 11 / 9)
    scores = bleu(candidates, references)
    assert scores["BLEU-1"] == pytest.approx(brevity * 7 / 9, abs=1e-6)
    assert scores["BLEU-2"] == pytest.approx(brevity * (7 / 9 * 5 / 7) ** 0.5, abs=1e-6)
    assert BleuCounts(candidates, references).wanted.tolist() == [7, 4]


def test_of_two_reference_lengths_equally_close_bleu_takes_the_shorter():
    counts = BleuCounts([words("a b c d")], [[words("a b c d e"), words("a b c")]])
    assert counts.wanted.tolist() == [3]
    assert counts.captions()[0, 0] == pytest.approx(1.0)


def test_rouge_worked_out_by_hand():
    candidate = words("a man rides a brown horse")
    references = [words("the man rides on a horse"), words("horse riding")]
    # in order: man rides a horse, 4 of 6 words either way; the second shares "horse": 1 of 6, 1 of 2
    assert longest_common_subsequence(candidate, references[0]) == 4
    precision = recall = 4 / 6
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([candidate], [references]) == pytest.approx([expected])
    # precision and recall may come from different references
    both = rouge_l([candidate], [[references[0], ["horse"]]])
    assert both == pytest.approx([2.44 * precision / (1 + 1.44 * precision)])
    assert rouge_l([["x"]], [references]).tolist() == [0.0]


def test_an_empty_caption_is_one_empty_word_to_rouge():
    assert rouge_l([[], [], ["a"]], [[[], ["a", "cat"]], [["a"]], [[]]]).tolist() == [1.0, 0.0, 0.0]


def test_intervals_stay_within_what_a_score_can_be():
    captions = ["a cat sits"] * 7 + ["a dog"]
    scores = caption_scores(captions, [["a cat sits"]] * 7 + [["two cats"]], java=False)
    assert scores.corpus["ROUGE-L"] == 0.875
    assert scores.confidence_95["ROUGE-L"][1] == 1.0


def test_cider_worked_out_by_hand():
    references = [[["a", "cat"]], [["a", "dog"]]]
    # "a" stands at both images (idf 0), the rest at one: idf log 2; "a cat" is one run of two
    exact = cider([["a", "cat"], ["a", "bird"]], references)
    # the first: cosines 1, 1 for one and two words, none for longer runs: 10 * 2 / 4; the second shares idf 0 alone
    assert exact == pytest.approx([5.0, 0.0])
    longer = cider([["a", "cat", "cat"], ["a", "dog"]], references)[0]
    # one word: weights (cat: 2 log 2) against (cat: log 2): clipped to log 2, cosine 1 / 2;
    # two words: (a cat, cat cat) against (a cat): 1 / sqrt 2; damped by a length of 2 against 1 runs of two
    assert longer == pytest.approx(10 / 4 * (1 / 2 + 2**-0.5) * exp(-1 / 72))
    plain = cider([["a", "cat", "cat"], ["a", "dog"]], references, "CIDEr")[0]
    assert plain == pytest.approx(10 / 4 * (1 + 2**-0.5))


def test_the_scores_of_a_single_image_are_zero_as_its_words_are_in_every_document():
    assert cider([["a", "cat"]], [[["a", "cat"]]]).tolist() == [0.0]


def test_cider_with_given_frequencies_scores_captions_one_by_one():
    record = recorded("pycocoevalcap.json")
    captions = [caption_words(text) for text in record["captions"]]
    told = [[caption_words(text) for text in texts] for texts in record["references"]]
    scorer = Cider(DocumentFrequency.of(told))
    single = [
        scorer.score(*pair) for pair in zip(captions, ([scorer.weigh(t) for t in texts] for texts in told), strict=True)
    ]
    assert single == pytest.approx(record["each"]["CIDEr"], abs=1e-10)
    numbers = {
        word: place for place, word in enumerate({w for texts in [captions, *told] for text in texts for w in text})
    }
    as_ids = [[numbers[word] for word in text] for text in captions]
    told_ids = [[[numbers[word] for word in text] for text in texts] for texts in told]
    assert cider(as_ids, told_ids) == pytest.approx(single, abs=1e-10)


def test_a_frequency_table_made_beforehand_needs_no_rare_runs():
    table = DocumentFrequency(Counter({("a",): 8, ("cat",): 2}), images=8)
    weighed = Cider(table).weigh(["a", "cat", "purrs"])
    assert weighed.weights[0] == pytest.approx({("a",): 0.0, ("cat",): log(4), ("purrs",): log(8)})
    assert weighed.length == 2
    counted = DocumentFrequency.of([[["a", "cat"], ["a", "a"]], [["a", "dog"]]])
    assert counted == DocumentFrequency(Counter({("a",): 2}), images=2)


def test_a_thousand_images_take_a_second():
    chance = np.random.default_rng(0)
    told = (chance.zipf(1.5, size=(1000, 6, 11)) % 9000).tolist()
    start = process_time()
    scores = cider([texts[0] for texts in told], [texts[1:] for texts in told])
    assert len(scores) == 1000
    assert process_time() - start < 3  # types are checked here as well


@pytest.mark.parametrize("score", [bleu, rouge_l, cider, caption_scores, java_scores])
def test_nothing_to_score_is_an_error(score):
    with pytest.raises(ValueError, match="no captions to score"):
        score([], [])
    with pytest.raises(ValueError, match=r"caption 1 \(counted from 0\) has no reference"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="2 captions but the references of 1 images"):
        score(["a", "b"], [["a"]])


def test_no_reference_is_no_document():
    with pytest.raises(ValueError, match="no references"):
        DocumentFrequency.of([])
