"""Words to token ids: cleaning, WordPiece vocabularies and the tokenizer.

BERT's uncased WordPiece through the `tokenizers` package. No torch.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from crossgrain.config import UserError, configclass
from crossgrain.data.masking import Masking

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # in the order of vocabularies trained here
_CONTINUATION = "##"
_CACHED_TEXTS = 50_000  # per process; captions repeat over epochs

_PUNCTUATION = re.compile(r"""[,.'!?"()*#:;~]""")
_SPACES = re.compile(r"\s{2,}")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@configclass
class TextConfig:
    """What becomes of a text on its way into a batch."""

    vocab: str  # a vocab.txt, a folder with vocab.txt or tokenizer.json, or a name on the Hugging Face hub
    max_tokens: int = 40  # length of every row, [CLS] counted
    clean: bool = False  # X-VLM's cleaning (`clean_caption`), as its published weights expect
    end_token: bool = False  # [SEP] after the text; X-VLM pre-trains without (pretrain_dataset.py:205)
    masking: Masking = Masking()

    def __post_init__(self) -> None:
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens must be at least 3, not {self.max_tokens}")


def clean_caption(text: str, max_words: int) -> str:
    """X-VLM's cleaning of captions (dataset/utils.py `pre_caption`): lower case, no punctuation, `max_words`."""
    text = _without_punctuation(text).replace("<person>", "person")
    return _first_words(_SPACES.sub(" ", text).rstrip("\n").strip(" "), max_words)


def clean_question(text: str, max_words: int) -> str:
    """X-VLM's cleaning of questions (dataset/utils.py `pre_question`): as captions, but runs of spaces stay."""
    return _first_words(_without_punctuation(text).rstrip(" "), max_words)


def _without_punctuation(text: str) -> str:
    return _PUNCTUATION.sub("", text.lower()).replace("-", " ").replace("/", " ")


def _first_words(text: str, max_words: int) -> str:
    return " ".join(text.split(" ")[:max_words])


def _wordpiece(model: models.WordPiece) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def train_vocab(texts: Iterable[str], size: int) -> list[str]:
    """A WordPiece vocabulary of at most `size` tokens; the same texts, in any order, give the same tokens.

    The rarest characters are left out where there are more of them than half of `size`.
    """
    wordpiece = _wordpiece(models.WordPiece(unk_token="[UNK]"))
    counts: Counter[str] = Counter()
    for text in texts:
        normal = wordpiece.normalizer.normalize_str(text)
        counts.update(word for word, _ in wordpiece.pre_tokenizer.pre_tokenize_str(normal))
    letters: Counter[str] = Counter()
    for word, count in counts.items():
        letters.update(dict.fromkeys(word, count))
    room = max(1, (size - len(SPECIAL_TOKENS)) // 4)  # each letter takes two tokens: at the start and within a word
    alphabet = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[:room])
    # Handed over as fixed tokens, the letters get fixed ids; left to the trainer, ids and with them the choice among
    # equally frequent pairs would differ from run to run.
    fixed = [*SPECIAL_TOKENS, *alphabet, *(_CONTINUATION + letter for letter in alphabet)]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=fixed, show_progress=False, min_frequency=1)
    known = set(alphabet)
    words = (itertools.repeat(word, count) for word, count in sorted(counts.items()) if known.issuperset(word))
    wordpiece.train_from_iterator(itertools.chain.from_iterable(words), trainer)
    vocab = wordpiece.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def save_vocab(tokens: list[str], path: Path) -> None:
    """One token a line, BERT's vocab.txt."""
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


class Tokenizer:
    """Texts to token ids by a WordPiece vocabulary; `pad`, `unk`, `cls`, `sep` and `mask` are the special ids.

    `len(tokenizer)` is the size of the vocabulary. Pickles as the list of its tokens.
    """

    def __init__(self, tokens: list[str], where: str = "vocabulary"):
        self.tokens = tokens
        vocab = {token: index for index, token in enumerate(tokens)}
        missing = [token for token in SPECIAL_TOKENS if token not in vocab]
        if missing or len(vocab) != len(tokens):
            twice = next((token for index, token in enumerate(tokens) if vocab[token] != index), "")
            fault = f"has no {', '.join(missing)}" if missing else f"holds {twice!r} twice"
            raise UserError(f"{where}: no WordPiece vocabulary: it {fault}")
        self.pad, self.unk, self.cls, self.sep, self.mask = (vocab[token] for token in SPECIAL_TOKENS)
        self._continuation = [token.startswith(_CONTINUATION) for token in tokens]
        self._wordpiece = _wordpiece(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
        self._pieces = lru_cache(_CACHED_TEXTS)(self.split)

    @staticmethod
    def load(source: str | Path) -> "Tokenizer":
        """From a vocab.txt, a folder with vocab.txt or tokenizer.json, or a model's name on the Hugging Face hub.

        UserError where there is none, or where it is no WordPiece vocabulary.
        """
        path = Path(source)
        for file in (path, path / "vocab.txt", path / "tokenizer.json"):
            if file.is_file():
                return Tokenizer(_read_tokens(file), str(file))
        if path.exists():
            raise UserError(f"{path}: no vocab.txt and no tokenizer.json in this folder")
        if not _HUB_NAME.fullmatch(str(source)) or path.suffix in (".txt", ".json"):
            raise UserError(f"no vocabulary at {path}")
        return Tokenizer(_read_tokens(_download(str(source))), str(source))

    def __len__(self) -> int:
        return len(self.tokens)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[list[str]]]:
        return Tokenizer, (self.tokens,)

    def encode(self, text: str, max_tokens: int, end_token: bool) -> list[int]:
        """[CLS], the first pieces of `text`, and [SEP] where `end_token`; at most `max_tokens` ids in all.

        A text without any word is one [UNK].
        """
        pieces = self._pieces(text) or (self.unk,)
        end = (self.sep,) if end_token else ()
        return [self.cls, *pieces[: max_tokens - 1 - len(end)], *end]

    def is_continuation(self, token: int) -> bool:
        """Whether the token goes on within a word ("##ing")."""
        return self._continuation[token]

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text: pieces joined to words, without [PAD], [CLS] and [SEP]."""
        hidden = (self.pad, self.cls, self.sep)
        return " ".join(self.tokens[i] for i in ids if i not in hidden).replace(f" {_CONTINUATION}", "")

    def split(self, text: str) -> tuple[int, ...]:
        """The ids of all pieces of a text and nothing else; unlike `encode`, it does not remember the text."""
        return tuple(self._wordpiece.encode(text, add_special_tokens=False).ids)


def encode_text(text: str, tokenizer: Tokenizer, config: TextConfig) -> list[int]:
    """The ids of one text as the recipe wants it: cleaned or not, with or without [SEP], at most `max_tokens`."""
    if config.clean:
        text = clean_caption(text, config.max_tokens)
    return tokenizer.encode(text, config.max_tokens, config.end_token)


def _read_tokens(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".json":
            return text.removesuffix("\n").split("\n")
        model = json.loads(text)["model"]
        ids = model["vocab"]
        if model.get("type", "WordPiece") != "WordPiece" or sorted(ids.values()) != list(range(len(ids))):
            raise UserError(f"{file}: not a WordPiece vocabulary but {model.get('type')}")
        return sorted(ids, key=ids.__getitem__)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not readable as a vocabulary ({type(error).__name__}: {error})") from None


def _download(name: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    files = ("vocab.txt", "tokenizer.json")
    for file in files:
        if isinstance(cached := try_to_load_from_cache(name, file), str):
            return Path(cached)
    try:
        there = {entry.rfilename for entry in HfApi().model_info(name, timeout=10).siblings or ()}
        file = next(file for file in files if file in there)
        return Path(hf_hub_download(name, file))
    except Exception as error:  # no network, no such model, no access, no such file: each from another library
        raise UserError(
            f"vocabulary {name!r} is no file or folder here, and the Hugging Face hub did not give it "
            f"({type(error).__name__}): name a vocab.txt, a model folder, or go online"
        ) from None
