"""Generation over tables of scores that no model made: what is likely next depends on place and word alone."""

import itertools
from dataclasses import replace

import pytest
import torch

from crossgrain.nn.decoding import Past, causal_mask
from crossgrain.tasks.generation import Decoding, Sampler, Special, beam_search, word_by_word, write_texts

PAD, START, END, WORDS = 0, 1, 2, 6
SPECIAL = Special(END, PAD)
LENGTH = 6  # tokens of the longest text: a prompt of two, and four that are chosen
FREE = Decoding(method="greedy", max_length=LENGTH, min_length=0)


def tables(rows=3, seed=0, spread=1.5):
    """For each text, place and word before it the scores of the next word."""
    scores = torch.randn(rows, LENGTH, WORDS, WORDS, generator=torch.Generator().manual_seed(seed)) * spread
    scores[..., [PAD, START]] = -20.0
    return scores


def writer(scores, seen=None):
    """Reads the words that its past holds, so that a past of another beam shows."""

    def write(past, ids):
        new = ids[..., None].float()
        words = torch.cat([past.words[0], new], dim=1) if past.words else new
        if seen is not None:
            seen.append(ids.shape[1])
        row = past.image_mask[:, 0].long()
        return scores[row, words.shape[1] - 1, words[:, -1, 0].long()], past._replace(words=(words,))

    return write


def start(rows=3):
    return Past((), torch.arange(rows)[:, None]), torch.tensor([[START, 3]]).repeat(rows, 1)


def likelihood(scores, row, words):
    """Of these words behind the prompt, each of which the table gives from the one before."""
    text = [START, 3, *words]
    steps = scores[row].log_softmax(-1)
    return sum(steps[place - 1, text[place - 1], text[place]].item() for place in range(2, len(text)))


def every_text():
    """All that can be written: texts that end, and those that have no room for it."""
    words = [word for word in range(WORDS) if word not in (PAD, START, END)]
    for count in range(LENGTH - 2 + 1):
        for chosen in itertools.product(words, repeat=count):
            yield (*chosen, END) if count < LENGTH - 2 else chosen


def told(ids):
    """The words behind the prompt, up to the end."""
    words = ids[2:].tolist()
    return tuple(words[: words.index(END) + 1] if END in words else words)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_enough_beams_find_the_best_of_all_texts(penalty):
    scores = tables()
    decoding = replace(FREE, method="beam", num_beams=100, length_penalty=penalty)
    written = beam_search(writer(scores), *start(), SPECIAL, decoding)
    for row, (ids, found) in enumerate(zip(written.ids, written.score.tolist(), strict=True)):
        # an end is not counted as a word of its text (generation_beam_search.py:362-384)
        rated = {w: likelihood(scores, row, w) / (2 + len(w) - (w[-1:] == (END,))) ** penalty for w in every_text()}
        best = max(rated, key=rated.__getitem__)
        assert told(ids) == best and found == pytest.approx(rated[best], abs=1e-5)
        assert written.ended[row] == (END in best)


def test_a_beam_is_never_less_likely_than_the_greedy_text():
    scores = tables(rows=40, seed=1)
    greedy = word_by_word(writer(scores), *start(40), SPECIAL, FREE)
    beams = beam_search(
        writer(scores), *start(40), SPECIAL, replace(FREE, method="beam", num_beams=4, length_penalty=0.0)
    )
    better = 0
    for row, mean in enumerate(greedy.score.tolist()):
        text = told(greedy.ids[row])
        if not greedy.ended[row]:
            continue  # its last word was replaced by an end
        assert mean * len(text) == pytest.approx(likelihood(scores, row, text), abs=1e-4)
        assert beams.score[row] >= likelihood(scores, row, text) - 1e-5
        better += told(beams.ids[row]) != text
    assert better > 3


def test_greedy_takes_the_most_likely_word_and_an_end_where_there_is_no_room():
    scores = tables(rows=30, seed=2)
    written = word_by_word(writer(scores), *start(30), SPECIAL, FREE)
    for row in range(30):
        text = [START, 3]
        while len(text) < LENGTH and text[-1] != END:
            text.append(scores[row, len(text) - 1, text[-1]].argmax().item())
        ended = text[-1] == END
        assert written.ended[row] == ended
        mean = likelihood(scores, row, text[2:]) / (len(text) - 2)
        assert written.score[row].item() == pytest.approx(mean, abs=1e-5)
        expected = [*text[:-1], END] if not ended else text
        assert written.ids[row].tolist() == expected + [PAD] * (LENGTH - len(expected))
    assert 3 < written.ended.sum() < 27


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_limits_hold(method):
    scores = tables(rows=20, seed=3)
    scores[..., END] += 2
    short, long = (replace(FREE, method=method, min_length=least) for least in (0, 5))
    torch.manual_seed(0)
    plain, forced = (write_texts(writer(scores), *start(20), SPECIAL, d) for d in (short, long))
    assert min(len(told(ids)) for ids in plain.ids) == 1
    # no end among the tokens before it, which the prompt is counted among
    assert all(END not in ids[:5] for ids in forced.ids) and plain.ids.shape == (20, LENGTH)


def test_a_text_does_not_depend_on_its_company():
    scores = tables(rows=8, seed=4)
    for decoding in (FREE, replace(FREE, method="beam"), replace(FREE, method="beam", early_stopping=True)):
        together = write_texts(writer(scores), *start(8), SPECIAL, decoding)
        for row in range(8):
            alone = write_texts(writer(scores[row : row + 1]), *start(1), SPECIAL, decoding)
            assert alone.ids[0].tolist() == together.ids[row].tolist()


def test_a_drawn_text_does_not_depend_on_its_company():
    scores, drawn = tables(rows=8, seed=4), replace(FREE, method="sample")
    together = write_texts(writer(scores), *start(8), SPECIAL, drawn, range(8))
    assert len({tuple(ids) for ids in together.ids.tolist()}) > 4
    for row in range(8):
        alone = write_texts(writer(scores[row : row + 1]), *start(1), SPECIAL, drawn, [row])
        assert alone.ids[0].tolist() == together.ids[row].tolist()


def test_words_that_were_said_become_less_likely():
    scores = torch.zeros(1, LENGTH, WORDS, WORDS)
    scores[..., 4], scores[..., 5], scores[..., [PAD, START, END]] = 3.0, 2.5, -9.0
    plain, fresh = (
        word_by_word(writer(scores), *start(1), SPECIAL, replace(FREE, repetition_penalty=p)) for p in (1.0, 2.0)
    )
    assert plain.ids[0, :5].tolist() == [START, 3, 4, 4, 4]
    # 4 falls to 1.5, so 5 comes; then 5 falls to 1.25 and 4 is the best of what was said
    assert fresh.ids[0, :5].tolist() == [START, 3, 4, 5, 4]


@pytest.mark.parametrize("dice", [[], [torch.Generator().manual_seed(seed) for seed in range(2000)]])
def test_only_the_most_likely_words_are_drawn(dice):
    torch.manual_seed(0)
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(2000, 1)
    counts = [torch.bincount(Sampler(top_p, dice)(scores), minlength=4) / 2000 for top_p in (0.4, 0.6, 1.0)]
    assert counts[0].tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(counts[1], torch.tensor([0.625, 0.375, 0, 0]), atol=0.04, rtol=0)
    torch.testing.assert_close(counts[2], torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.04, rtol=0)


def test_each_word_is_computed_once():
    seen = []
    beam_search(writer(tables(), seen), *start(), SPECIAL, replace(FREE, method="beam", length_penalty=5.0))
    assert seen == [2, 1, 1, 1]


def test_the_causal_mask_sees_backwards_and_no_padding():
    mask = causal_mask(torch.tensor([[True, True, True], [True, True, False]]), 1)[:, 0]
    assert mask[0].int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[1].int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
