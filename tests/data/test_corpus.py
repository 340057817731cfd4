"""Text without images."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossgrain.config import UserError
from crossgrain.data import corpus
from crossgrain.data.corpus import Corpus
from crossgrain.data.text import TextConfig, Tokenizer, train_vocab

WORDS = [f"word{i}" for i in range(300)]
TOKENIZER = Tokenizer(train_vocab(WORDS, 80))  # so few that words have several pieces
WHOLE_WORDS = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
CONFIG = TextConfig(vocab="", max_tokens=20, end_token=True)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def numbers(ids):
    return [int(word.removeprefix("word")) for word in WHOLE_WORDS.decode(ids).split()]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one\ntwo words\r\nthree", ["one", "two words", "three"]),
        ("one\ntwo\n\n\n", ["one", "two"]),
        ("\n \none\ngoes on\n \t\r\ntwo\n\n", ["one goes on", "two"]),
        ("\ufeffBär\n", ["Bär"]),
        (b"caf\xe9 au lait", ["caf\ufffd au lait"]),
    ],
    ids=["lines", "blank lines at the end", "blocks", "byte order mark", "not UTF-8"],
)
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_documents_are_lines_or_blocks(tmp_path, monkeypatch, text, documents, chunk):
    monkeypatch.setattr(corpus, "_CHUNK", chunk)
    assert list(Corpus(write(tmp_path, a=text) / "a.txt")) == documents


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \t"), max_size=4), max_size=12), st.integers(1, 9))
def test_no_text_is_lost_between_chunks(tmp_path_factory, lines, chunk):
    folder = write(tmp_path_factory.mktemp("corpus"), a="\n".join(lines), b="end")
    kept, corpus._CHUNK = corpus._CHUNK, chunk
    try:
        found = Corpus(folder)
    finally:
        corpus._CHUNK = kept
    assert "".join("".join(found).split()) == "".join("".join(lines).split()) + "end"


def test_a_folder_is_read_in_the_order_of_names_and_its_index_kept_until_a_file_changes(tmp_path, monkeypatch):
    write(tmp_path, b="three\nfour", a="one\n\ntwo")
    (tmp_path / "notes.md").write_text("not me")
    assert list(Corpus(tmp_path)) == ["one", "two", "three", "four"]
    monkeypatch.setattr(corpus, "_lines", None)  # a second reading of the files would fail
    assert list(pickle.loads(pickle.dumps(Corpus(tmp_path)))) == ["one", "two", "three", "four"]
    monkeypatch.undo()
    write(tmp_path, b="five")
    assert list(Corpus(tmp_path)) == ["one", "two", "five"]
    assert len(list(tmp_path.glob(".corpus.*"))) == 1


def test_a_large_index_is_mapped_and_one_that_cannot_be_kept_is_made(tmp_path, monkeypatch):
    write(tmp_path, a="\n".join(WORDS))
    assert isinstance(Corpus(tmp_path)._documents, np.memmap)
    for file in tmp_path.glob(".corpus.*"):
        file.unlink()
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert list(Corpus(tmp_path)) == WORDS
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_places_without_text_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no corpus at .*nowhere"):
        Corpus(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no corpus at"):
        Corpus(tmp_path)
    with pytest.raises(UserError, match="blank lines only"):
        Corpus(write(tmp_path, a=" \n\n"))


def test_a_window_is_full_consecutive_and_anywhere_in_its_document(tmp_path):
    found = Corpus(write(tmp_path, a=" ".join(WORDS[:40])))
    starts = set()
    for seed in range(200):
        ids = found.piece(0, WHOLE_WORDS, CONFIG, np.random.default_rng(seed))
        assert len(ids) == 20 and (ids[0], ids[-1]) == (WHOLE_WORDS.cls, WHOLE_WORDS.sep)
        seen = numbers(ids)
        assert seen == list(range(seen[0], seen[0] + 18))
        starts.add(seen[0])
    assert starts == set(range(40 - 18 + 1))


def test_a_window_of_a_huge_document_reads_only_what_it_needs(tmp_path, monkeypatch):
    found = Corpus(write(tmp_path, a=" ".join(WORDS * 2000)))
    sizes = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, start: sizes.append(size) or pread(handle, size, start))
    first = []
    for seed in range(60):
        seen = numbers(found.piece(0, WHOLE_WORDS, CONFIG, np.random.default_rng(seed)))
        assert [(n - seen[0]) % 300 for n in seen] == list(range(18))
        first.append(seen[0])
    assert max(sizes) < 2000 and len(set(first)) > 40


def test_short_documents_go_on_with_the_next_ones_and_round_the_end(tmp_path):
    found = Corpus(write(tmp_path, a="\n".join(WORDS[:50])))
    ids = found.piece(45, WHOLE_WORDS, CONFIG, np.random.default_rng(0))
    assert numbers(ids) == [*range(45, 50), *range(13)]
    short = Corpus(write(tmp_path, a="word1\nword2"))
    assert numbers(short.piece(1, WHOLE_WORDS, CONFIG, np.random.default_rng(0))) == [2, 1]


def test_windows_begin_at_words_and_follow_the_text_config(tmp_path):
    found = Corpus(write(tmp_path, a=" ".join(f"Word{i}," for i in range(300))))
    plain = TextConfig(vocab="", max_tokens=7, clean=True)
    for seed in range(50):
        ids = found.piece(0, TOKENIZER, plain, np.random.default_rng(seed))
        assert len(ids) == 7 and ids[0] == TOKENIZER.cls and not TOKENIZER.is_continuation(ids[1])
        assert "," not in TOKENIZER.decode(ids) and TOKENIZER.unk not in ids
    assert found.piece(0, TOKENIZER, plain, np.random.default_rng(3)) == found.piece(
        0, TOKENIZER, plain, np.random.default_rng(3)
    )


def test_text_without_spaces_is_cut_between_characters(tmp_path):
    letters = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "雪", "山"])
    found = Corpus(write(tmp_path, a="雪山" * 5000))
    for seed in range(20):
        ids = found.piece(0, letters, CONFIG, np.random.default_rng(seed))
        assert len(ids) == 20 and letters.unk not in ids[:-1]
