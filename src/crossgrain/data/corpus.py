"""Text without images: plain files, one document a line, or blocks of lines with blank lines between them.

The files may be larger than the memory: where each document stands is found once and kept beside them, in a file that
is mapped and not read. Lengths are in bytes, as random windows want a start without reading what stands before it. No
torch.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from crossgrain.config import UserError
from crossgrain.data.text import TextConfig, Tokenizer, clean_caption

_CHUNK = 4 * 2**20  # bytes read at a time
_SPACE = 32  # bytes up to this one are spaces and control characters
_BYTES_PER_TOKEN = 32  # of text that is cut into pieces for one window: English has 5 or so


class Corpus:
    """The documents of a text file, or of all files `*.txt` of a folder (in the order of their names).

    A file in which a blank line stands between texts is read as blocks, any other as one document a line. UserError
    where there is no text. An object may be pickled, forked and used by threads.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._files = _text_files(self.path)
        self._documents = _index(self.path, self._files)
        if not len(self._documents):
            raise UserError(f"no text in {self.path}: its files hold blank lines only")

    def __reduce__(self) -> tuple[type["Corpus"], tuple[Path]]:
        return Corpus, (self.path,)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> str:
        """One document; the lines of a block are joined by spaces. Bytes that are not UTF-8 become U+FFFD."""
        file, start, size = (int(v) for v in self._documents[index])
        return _as_text(self._read(file, start, size))

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def piece(self, index: int, tokenizer: Tokenizer, config: TextConfig, rng: np.random.Generator) -> list[int]:
        """A random window of `config.max_tokens` ids that begins in document `index`, with [CLS] and [SEP] as wanted.

        It begins at a word. What a document is short of, the next ones give, as in VL-BERT (general_corpus.py:52-58,
        where windows begin with their document); only a whole corpus that is shorter gives fewer ids.
        """
        end = [tokenizer.sep] if config.end_token else []
        room = config.max_tokens - 1 - len(end)
        ids = self._window(index % len(self), room, tokenizer, config, rng)
        following = index
        for _ in range(min(room, len(self) - 1)):  # every document has a piece or two
            if len(ids) >= room:
                break
            following = (following + 1) % len(self)
            text = self._text_from(following, 0, room * _BYTES_PER_TOKEN)
            ids = [*ids, *_split(text, tokenizer, config)]
        return [tokenizer.cls, *(ids or [tokenizer.unk])[:room], *end]

    def _window(
        self, index: int, room: int, tokenizer: Tokenizer, config: TextConfig, rng: np.random.Generator
    ) -> list[int]:
        """At most `room` pieces of one document from a random word on, as many as there are.

        Of a long document only the part around the window is read: the start is drawn among its bytes.
        """
        size = int(self._documents[index][2])
        read = room * _BYTES_PER_TOKEN
        start = int(rng.integers(size - read + 1)) if size > read else 0
        pieces = _split(self._text_from(index, start, read), tokenizer, config)
        if size > read:
            return pieces[:room]
        first = int(rng.integers(max(len(pieces) - room, 0) + 1))
        while first and tokenizer.is_continuation(pieces[first]):
            first -= 1
        return pieces[first : first + room]

    def _text_from(self, index: int, start: int, size: int) -> str:
        """At most `size` bytes of a document from the first whole word behind `start` on."""
        file, document, length = (int(v) for v in self._documents[index])
        data = self._read(file, document + start, min(size, length - start))
        if start:
            words = data.split(None, 1)
            # In a script without spaces the cut is between characters, not between words.
            data = words[1] if len(words) == 2 else data.lstrip(bytes(range(0x80, 0xC0)))
        return _as_text(data)

    def _read(self, file: int, start: int, size: int) -> bytes:
        handle = os.open(self._files[file], os.O_RDONLY)
        try:
            return os.pread(handle, size, start)
        finally:
            os.close(handle)


def _as_text(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").removeprefix("\ufeff").split())


def _split(text: str, tokenizer: Tokenizer, config: TextConfig) -> list[int]:
    return list(tokenizer.split(clean_caption(text, len(text)) if config.clean else text))


def _text_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    files = [file for file in files if file.is_file()]
    if not files:
        raise UserError(f"no corpus at {path}: looked for a text file, or a folder of *.txt")
    return files


def _index(path: Path, files: list[Path]) -> Int64[np.ndarray, "D 3"]:
    """File, first byte and number of bytes of every document: mapped from disk where it could be kept there."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    folder, stem = (path.parent, path.name) if path.is_file() else (path, "corpus")
    kept = folder / f".{stem}.{name}.npy"
    if not kept.is_file():
        documents = np.concatenate([_documents(number, file) for number, file in enumerate(files)])
        part = kept.with_name(f"{kept.name}.{os.getpid()}.partial.npy")
        try:
            np.save(part, documents)
            part.replace(kept)
            for old in folder.glob(f".{stem}.{'?' * len(name)}.npy"):
                if old != kept:
                    old.unlink(missing_ok=True)
        except OSError:  # a folder that is not ours, a full disk
            part.unlink(missing_ok=True)
            return documents
    return np.load(kept, mmap_mode="r") if kept.stat().st_size > 1024 else np.load(kept)


def _documents(number: int, file: Path) -> Int64[np.ndarray, "D 3"]:
    parts = list(_lines(file))
    starts, ends = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    filled = np.concatenate([part[2] for part in parts])
    here = np.flatnonzero(filled)
    if len(here) and (np.diff(here) > 1).any():
        edges = np.diff(np.concatenate([[False], filled, [False]]).astype(np.int8))
        starts, ends = starts[edges[:-1] == 1], ends[edges[1:] == -1]
    else:
        starts, ends = starts[here], ends[here]
    return np.stack([np.full(len(starts), number), starts, ends - starts], axis=1)


def _lines(file: Path) -> Iterator[tuple[Int64[np.ndarray, " L"], Int64[np.ndarray, " L"], np.ndarray]]:
    """First byte, end, and whether there is any text, of all lines of a file, a chunk at a time."""
    start = letters = before = 0  # of the line that is open: where it begins, letters in it; bytes before the chunk
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            data = np.frombuffer(chunk, np.uint8)
            breaks = np.flatnonzero(data == ord("\n"))
            counted = np.concatenate([[0], np.cumsum(data > _SPACE)])
            at = np.concatenate([[0], breaks + 1])
            if len(breaks):
                in_line = counted[breaks] - counted[at[:-1]]
                in_line[0] += letters
                starts = at[:-1] + before
                starts[0] = start
                yield starts, breaks + before, in_line > 0
                start, letters = before + int(at[-1]), 0
            letters += int(counted[-1] - counted[at[-1]])
            before += len(chunk)
    yield np.array([start]), np.array([before]), np.array([letters > 0])
