"""Captions as an objective: the next word, from the image and the words before it (X-VLM section 4.4; unified VLP).

Shape letters: B rows, L tokens of a caption, P tokens of [CLS] and the prompt, T tokens with the prompt and [SEP],
V words of the vocabulary, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.config import Share, UserError, configclass
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import References, Text
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.decoding import Past
from crossgrain.objectives.interface import Loss, Views, accuracy, mean_where
from crossgrain.objectives.mlm import MLM
from crossgrain.tasks.adopting import take_fitting
from crossgrain.tasks.generation import Decoding, Sampler, Special, Write, Written, word_by_word, write_texts
from crossgrain.tasks.scst import SelfCritical


class CaptionHead(nn.Module):
    """The body as a decoder with BERT's word prediction on it, whose pre-trained weights it takes over.

    Every caption begins with the prompt, which is given and not learnt, and ends with [SEP].
    """

    prompt: Tensor  # (P,)

    @configclass
    class Config:
        weight: float = 1.0
        prompt: str = "a picture of "
        label_smoothing: Share = 0.1
        scst: SelfCritical.Config | None = None  # learn from rewards, after a run that learnt from captions

    def __init__(self, config: Config, model: VisionLanguageModel, tokenizer: Tokenizer):
        super().__init__()
        if type(model).begin is VisionLanguageModel.begin:
            raise UserError(f"captioning needs a model that writes, and {type(model).__name__} has no `begin`")
        self.config, self.tokenizer = config, tokenizer
        self.special = Special(tokenizer.sep, tokenizer.pad)
        self.words = MLM(MLM.Config(), model)
        ids = [tokenizer.cls, *tokenizer.split(config.prompt)]
        self.register_buffer("prompt", torch.tensor(ids), persistent=False)
        self.critic = None if config.scst is None else SelfCritical(config.scst, tokenizer)

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """The head of an earlier run on captions, or the word prediction of pre-training."""
        if "captioning" in weights:
            return take_fitting(self, weights["captioning"])
        return take_fitting(self.words, weights.get("mlm", {}))

    def forward(self, views: Views) -> Loss:
        if self.critic is not None:
            return self.learn_from_rewards(views, self.critic)
        text = self.prompted(views.batch.text["clean"])
        logits = self.next_words(views.model.decode(views.image(), text), views.model)
        label, known = text.ids[:, len(self.prompt) :], text.mask[:, len(self.prompt) :]
        loss = mean_where(smoothed_cross_entropy(logits, label, self.config.label_smoothing), known)
        return Loss(loss, {"accuracy": accuracy(logits, label, known)})

    def prompted(self, text: Text) -> Text:
        """Captions as they are written: [CLS] prompt caption [SEP], whether they came with [SEP] or not.

        They are as long as they came with their padding; what has no room before the [SEP] is left out.
        """
        room = text.ids.shape[1] - len(self.prompt) - 1
        if room < 1:
            raise UserError(f"text.max_tokens leaves no room for captions: the prompt takes {len(self.prompt)} of them")
        caption = text.ids[:, 1 : room + 1]
        real = text.mask[:, 1 : room + 1] & (caption != self.special.end)
        prompt = self.prompt.expand(len(caption), -1)
        ids = torch.cat([prompt, caption.where(real, self.special.pad), torch.zeros_like(caption[:, :1])], dim=1)
        last = len(self.prompt) + real.sum(1, keepdim=True)
        mask = torch.arange(ids.shape[1], device=ids.device) <= last
        return Text(ids=ids.where(mask, self.special.pad).scatter(1, last, self.special.end), mask=mask)

    def next_words(self, hidden: Float[Tensor, "B T D"], model: VisionLanguageModel) -> Float[Tensor, "B _ V"]:
        """Scores of each word after the prompt, read where the word before it stands."""
        return self.words.logits(hidden[:, len(self.prompt) - 1 : -1], model.token_embedding.weight)

    def writer(self, model: VisionLanguageModel) -> Write:
        """What generation asks for the next word; the logits are computed in float32."""

        def write(past: Past, ids: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B V"], Past]:
            x, past = model.extend(past, Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool)))
            with torch.autocast(x.device.type, enabled=False):
                logits = self.words.logits(x[:, -1:].float(), model.token_embedding.weight)
            return logits[:, 0], past

        return write

    def write(self, model: VisionLanguageModel, past: Past, decoding: Decoding, seeds: Sequence[int] = ()) -> Written:
        """A caption for every row of `past`, drawn by its seed if at all; UserError where the prompt leaves no room."""
        if len(self.prompt) >= decoding.max_length:
            taken = f"the prompt takes {len(self.prompt)} tokens"
            raise UserError(f"decoding.max_length is {decoding.max_length}, of which {taken}")
        prompt = self.prompt.expand(len(past.image_mask), -1)
        return write_texts(self.writer(model), past, prompt, self.special, decoding, seeds)

    def captions(self, ids: Int[Tensor, "B T"]) -> list[str]:
        """Readable texts, without the prompt."""
        return [self.tokenizer.decode(row[len(self.prompt) :]) for row in ids.tolist()]

    def references(self, target: References) -> list[list[str]]:
        """Readable texts of those that are there."""
        rows = zip(target.ids.tolist(), target.mask.any(2).tolist(), strict=True)
        return [[self.tokenizer.decode(ids) for ids, real in zip(*row, strict=True) if real] for row in rows]

    def learn_from_rewards(self, views: Views, critic: SelfCritical) -> Loss:
        """Self-critical sequence training: captions are drawn, and those that beat the greedy one become likelier.

        Both are written without dropout. The original draws with it (Captioning_scst.py:36-57) and keeps the gradient
        of every step; here the drawn captions are read once more, all words at a time.
        """
        model = views.model
        drawn, greedy = self.drawn(views, critic.config)  # pyright: ignore[reportCallIssue] - of the decorator
        references = self.references(views.batch.targets["references"])
        reward, baseline = critic.rewards(self.captions(drawn.ids), self.captions(greedy.ids), references)
        rows = torch.arange(len(greedy.ids), device=drawn.ids.device).repeat_interleave(critic.config.num_samples)
        text = Text(ids=drawn.ids, mask=until_end(drawn.ids, self.special.end))
        logits = self.next_words(model.decode(views.image().take(rows), text), model)
        label, known = drawn.ids[:, len(self.prompt) :], text.mask[:, len(self.prompt) :].clone()
        known[:, -1] &= drawn.ended  # an end that was put there was not drawn
        likelihood = logits.float().log_softmax(-1).gather(2, label[..., None])[..., 0]
        likelihood = (likelihood * known).sum(1) / known.sum(1).clamp(min=1)
        advantage = (reward - baseline).to(likelihood)
        metrics = {"reward": reward.mean(), "baseline": baseline.mean()}
        return Loss(-(likelihood * advantage).mean(), {name: value.to(likelihood) for name, value in metrics.items()})

    @torch.compiler.disable
    @torch.no_grad()
    def drawn(self, views: Views, config: SelfCritical.Config) -> tuple[Written, Written]:
        """`num_samples` captions drawn for each row, side by side, and the greedy one of each."""
        model = views.model
        limits = Decoding(max_length=config.max_length, min_length=0)
        with without_dropout(model, self):
            past = model.begin(model.prepare(model.encode_image(views.batch.image["clean"])))
            prompt = self.prompt.expand(len(past.image_mask), -1)
            rows = torch.arange(len(prompt), device=prompt.device).repeat_interleave(config.num_samples)
            write = self.writer(model)
            many = word_by_word(write, past.take(rows), prompt[rows], self.special, limits, Sampler(1.0))
            return many, word_by_word(write, past, prompt, self.special, limits)


def smoothed_cross_entropy(
    logits: Float[Tensor, "B T V"], label: Int[Tensor, "B T"], smoothing: float
) -> Float[Tensor, "B T"]:
    """In float32 for each word: a target of 1 - smoothing on the right word and smoothing / V on every wrong one.

    Not torch's `label_smoothing`: the target sums to 1 - smoothing / V (xbert.py:1193-1220).
    """
    likelihood = logits.float().log_softmax(-1)
    right = likelihood.gather(-1, label[..., None])[..., 0]
    return -(1 - smoothing) * right - smoothing / logits.shape[-1] * (likelihood.sum(-1) - right)


def until_end(ids: Int[Tensor, "B T"], end: int) -> Bool[Tensor, "B T"]:
    """The tokens of each text up to its first end."""
    ends = ids == end
    return ends.cumsum(1) - ends.long() == 0


@contextmanager
def without_dropout(*roots: nn.Module) -> Iterator[None]:
    """Evaluation mode for all modules that are in training mode, which they go back to."""
    training = [module for root in roots for module in root.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
