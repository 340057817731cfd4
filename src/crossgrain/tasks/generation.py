"""Texts written word by word: greedily, by beam search, or drawn from the most likely words.

All of it speaks to a `Write`, which gives the scores of the next word, and knows no model. Lengths count tokens, with
[CLS] and the prompt.

Shape letters: B texts, P tokens of the prompt, T tokens so far, K beams, V words of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from crossgrain.config import Count, configclass
from crossgrain.nn.decoding import Past

# The past and the words that come next (all of a prompt, then one at a time) to the logits after them, in float32.
Write = Callable[[Past, Int[Tensor, "B L"]], tuple[Float[Tensor, "B V"], Past]]

NEVER = float("-inf")
UNLIKELY = -1e9  # the score of beams that are equal to the first one, before the first word


@configclass
class Decoding:
    """How a text is written. The defaults are X-VLM's (configs/Captioning.yaml), whose lengths count the prompt."""

    method: Literal["beam", "greedy", "sample"] = "beam"
    max_length: Count = 20
    min_length: Annotated[int, Field(ge=0)] = 5
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0  # above 1, words that were said already are less likely
    num_beams: Count = 3
    length_penalty: float = 1.0  # beams are compared by their log-likelihood / length ** this
    early_stopping: bool = False  # stop at `num_beams` finished texts, even where a better one may still come
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9  # words are drawn from the most likely ones that have this share


class Special(NamedTuple):
    """The tokens that end a text and fill it."""

    end: int
    pad: int


class Written(NamedTuple):
    """B texts with their prompts.

    A text that reached `max_length` without an end has one in place of its last word if it was written word by word
    (xbert.py:1478-1480), and none if by beams: `ended` is False for it. `score` is the mean log-likelihood of its
    words and of the end, of beams the one that they are compared by.
    """

    ids: Int[Tensor, "B T"]
    score: Float[Tensor, " B"]
    ended: Bool[Tensor, " B"]


def write_texts(
    write: Write,
    past: Past,
    prompt: Int[Tensor, "B P"],
    special: Special,
    decoding: Decoding,
    seeds: Sequence[int] = (),
) -> Written:
    """Go on from the prompt, by the method that `decoding` says; words are drawn by the seed of each text."""
    if decoding.method == "beam":
        return beam_search(write, past, prompt, special, decoding)
    dice = [torch.Generator(prompt.device).manual_seed(seed) for seed in seeds]
    choose = greedy if decoding.method == "greedy" else Sampler(decoding.top_p, dice)
    return word_by_word(write, past, prompt, special, decoding, choose)


def greedy(scores: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
    """The most likely word."""
    return scores.argmax(1)


class Sampler(NamedTuple):
    """A word drawn from the most likely ones whose probabilities reach `top_p` together (Holtzman et al., 2020).

    Each row by its own dice, where there are some: what is drawn for it does not depend on the other rows.
    """

    top_p: float
    dice: Sequence[torch.Generator] = ()

    def __call__(self, scores: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
        probabilities, words = scores.softmax(1).sort(1, descending=True)
        enough = probabilities.cumsum(1) - probabilities > self.top_p
        kept = probabilities.masked_fill(enough, 0.0)
        if not self.dice:
            return words.gather(1, kept.multinomial(1))[:, 0]
        drawn = [row.multinomial(1, generator=die) for row, die in zip(kept, self.dice, strict=True)]
        return words.gather(1, torch.stack(drawn))[:, 0]


def word_by_word(
    write: Write,
    past: Past,
    prompt: Int[Tensor, "B P"],
    special: Special,
    decoding: Decoding,
    choose: Callable[[Float[Tensor, "B V"]], Int[Tensor, " B"]] = greedy,
) -> Written:
    """One text for each row (xbert.py:1402-1489), padded to `max_length`.

    The log-likelihoods are those under the scores that words were chosen by: after penalties, before `choose`.
    """
    ids, new = prompt, prompt
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    total = count = torch.zeros(len(ids), device=ids.device)
    while ids.shape[1] < decoding.max_length and going.any():
        scores, past = write(past, new)
        scores = _penalised(scores, ids, special, decoding)
        word = choose(scores)
        total = total + scores.log_softmax(1).gather(1, word[:, None])[:, 0].where(going, 0.0)
        count = count + going
        new = word.where(going, special.pad)[:, None]
        ids = torch.cat([ids, new], dim=1)
        going = going & (word != special.end)
    if ids.shape[1] == decoding.max_length:
        ids[:, -1] = ids[:, -1].masked_fill(going, special.end)
    return Written(_padded(ids, decoding.max_length, special.pad), total / count.clamp(min=1), ~going)


class _Finished(NamedTuple):
    """The K best finished texts of each row, best first; -inf where there are fewer."""

    ids: Int[Tensor, "B K T"]
    score: Float[Tensor, "B K"]
    ended: Bool[Tensor, "B K"]

    def with_more(self, ids: Tensor, score: Tensor, ended: bool) -> "_Finished":
        """The best of these and of others (B, K, _), which are shorter or as long."""
        missing = self.ids.shape[2] - ids.shape[2]
        every = torch.cat([self.ids, torch.nn.functional.pad(ids, (0, missing), value=-1)], dim=1)
        score, best = torch.cat([self.score, score], dim=1).topk(self.score.shape[1], dim=1)
        ends = torch.cat([self.ended, torch.full_like(self.ended, ended)], dim=1).gather(1, best)
        return _Finished(every.gather(1, best[..., None].expand(-1, -1, every.shape[2])), score, ends)


def beam_search(write: Write, past: Past, prompt: Int[Tensor, "B P"], special: Special, decoding: Decoding) -> Written:
    """The best of K texts that grow side by side (transformers 4.12.5, generation_beam_search.py, all rows at once).

    Of the 2 K best continuations, those among the first K that end are finished texts, and the first K that do not end
    grow on. A row is done when it has K finished texts and none that still grows could beat the worst of them.
    """
    num_texts, device, width = len(prompt), prompt.device, decoding.num_beams
    rows = torch.arange(num_texts, device=device)
    past = past.take(rows.repeat_interleave(width))
    ids = new = prompt.repeat_interleave(width, dim=0)
    scores = torch.full((num_texts, width), UNLIKELY, device=device)
    scores[:, 0] = 0.0
    done = torch.zeros(num_texts, dtype=torch.bool, device=device)
    finished = _Finished(
        torch.full((num_texts, width, decoding.max_length), -1, device=device),
        torch.full((num_texts, width), NEVER, device=device),
        torch.zeros(num_texts, width, dtype=torch.bool, device=device),
    )
    while ids.shape[1] < decoding.max_length and not done.all():
        logits, past = write(past, new)
        steps = _penalised(logits.log_softmax(1), ids, special, decoding)
        num_words, lengths = steps.shape[1], ids.shape[1] ** decoding.length_penalty
        best, place = (scores.view(-1, 1) + steps).view(num_texts, -1).topk(2 * width, dim=1)
        beam, word = place // num_words, place % num_words
        ends, from_row = word == special.end, beam + rows[:, None] * width
        ending = best[:, :width] / lengths
        ending = ending.masked_fill(~ends[:, :width] | done[:, None], NEVER)
        finished = finished.with_more(ids[from_row[:, :width]], ending, True)
        full = finished.score[:, -1] > NEVER
        done = done | full & (decoding.early_stopping | (finished.score[:, -1] >= best[:, 0] / lengths))
        grows = ends.long().argsort(dim=1, stable=True)[:, :width]
        scores, chosen = best.gather(1, grows), from_row.gather(1, grows).flatten()
        new = word.gather(1, grows).view(-1, 1)
        ids, past = torch.cat([ids[chosen], new], dim=1), past.reordered(chosen)
    growing = (scores / ids.shape[1] ** decoding.length_penalty).masked_fill(done[:, None], NEVER)
    finished = finished.with_more(ids.view(num_texts, width, -1), growing, False)
    return _best(finished, special)


def _best(finished: _Finished, special: Special) -> Written:
    """The best text of each row, with its end where there is room for it."""
    ids, ended = finished.ids[:, 0], finished.ended[:, 0]
    unwritten = ids == -1
    end_here = unwritten & (unwritten.cumsum(1) == 1) & ended[:, None]
    return Written(
        ids.masked_fill(unwritten, special.pad).masked_fill(end_here, special.end), finished.score[:, 0], ended
    )


def _penalised(
    scores: Float[Tensor, "B V"], ids: Int[Tensor, "B T"], special: Special, decoding: Decoding
) -> Float[Tensor, "B V"]:
    """Words that were said already made less likely, and no end before `min_length` tokens are there."""
    if decoding.repetition_penalty != 1.0:
        said = scores.gather(1, ids)
        penalty = decoding.repetition_penalty
        scores = scores.scatter(1, ids, torch.where(said < 0, said * penalty, said / penalty))
    if ids.shape[1] < decoding.min_length:
        scores = scores.index_fill(1, ids.new_tensor([special.end]), NEVER)
    return scores


def _padded(ids: Int[Tensor, "B T"], length: int, pad: int) -> Int[Tensor, "B {length}"]:
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=pad)
