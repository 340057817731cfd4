"""Self-critical sequence training (Rennie et al., 2017): the reward of a drawn caption is how much its CIDEr is above
that of the caption which the model would give."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from crossgrain.config import Count, configclass
from crossgrain.data.shards import Shards
from crossgrain.data.text import Tokenizer
from crossgrain.metrics.cider import Cider, DocumentFrequency

END = "<eos>"  # a word at the end of every caption, so that stopping there is rewarded (utils/__init__.py:89-97)


class SelfCritical:
    """CIDEr-D of captions against references, all of them as words of the tokenizer without punctuation."""

    @configclass
    class Config:
        num_samples: Count = 5  # captions drawn for an image
        num_references: Count = 5  # captions of an image that they are held against
        max_length: Count = 20  # tokens, with [CLS] and the prompt
        # A prepared data set whose captions (`split`) say how rare words are. None: the references of the batch, of
        # which a small one tells less.
        corpus: str | None = None
        split: str = "train"

    def __init__(self, config: Config, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer

    def words(self, text: str) -> list[str]:
        """What CIDEr compares."""
        return [*(word for word in text.split() if any(letter.isalnum() for letter in word)), END]

    @cached_property
    def frequency(self) -> DocumentFrequency | None:
        """Counted over the corpus, when first asked for."""
        if self.config.corpus is None:
            return None
        decode, split = self.tokenizer.decode, self.tokenizer.split
        records = Shards(self.config.corpus, self.config.split, images=False)
        return DocumentFrequency.of(
            [self.words(decode(split(caption))) for caption in record.captions] for record in records if record.captions
        )

    def rewards(
        self, drawn: Sequence[str], greedy: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """The CIDEr-D of each drawn caption, and that of the greedy one of its image; 0 for images without references.

        The captions drawn for an image stand side by side, N / B for each of B.
        """
        told = [[self.words(text) for text in texts] for texts in references]
        cider = Cider(self.frequency or DocumentFrequency.of(told))
        wanted = [[cider.weigh(words) for words in texts] for texts in told]
        each = len(drawn) // len(greedy)

        def score(text: str, image: int) -> float:
            return cider.score(self.words(text), wanted[image]) if wanted[image] else 0.0

        reward = [score(text, place // each) for place, text in enumerate(drawn)]
        baseline = [score(text, image) for image, text in enumerate(greedy) for _ in range(each)]
        return torch.tensor(reward), torch.tensor(baseline)
