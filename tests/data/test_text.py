import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from crossgrain.config import UserError
from crossgrain.data.text import (
    SPECIAL_TOKENS,
    TextConfig,
    Tokenizer,
    clean_caption,
    clean_question,
    encode_text,
    save_vocab,
    train_vocab,
)

SIDE = json.loads((Path(__file__).parents[1] / "golden" / "xvlm" / "data_side.json").read_text())
TEXTS = ["the small red star", "a red house with two stars", "Striped fish, left of the house!"] * 3


@pytest.mark.parametrize("case", SIDE["pre_caption"])
def test_captions_are_cleaned_as_in_the_original(case):
    assert clean_caption(case["inp"], case["max_words"]) == case["out"]


@pytest.mark.parametrize("case", SIDE["pre_question"])
def test_questions_are_cleaned_as_in_the_original(case):
    assert clean_question(case["inp"], case["max_words"]) == case["out"]


def test_token_ids_are_those_of_the_original():
    recorded = SIDE["tokenizer"]
    tokenizer = Tokenizer(recorded["vocab"])
    text = tokenizer.decode(recorded["xvlm_tokenizer_single"][0])
    assert [tokenizer.encode(text, 40, end_token=False)] == recorded["xvlm_tokenizer_single"]
    assert [tokenizer.encode(text.upper(), 40, end_token=True)] == recorded["hf_tokenizer_single"]
    assert (tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask, tokenizer.unk) == (0, 2, 3, 4, 5)


def test_encoding_cuts_to_the_wanted_length_and_never_is_empty():
    tokenizer = Tokenizer(train_vocab(TEXTS, 100))
    assert len(tokenizer.encode("red " * 50, 12, end_token=True)) == 12
    assert tokenizer.encode("red " * 50, 12, end_token=True)[-1] == tokenizer.sep
    assert tokenizer.encode(" \n", 12, end_token=True) == [tokenizer.cls, tokenizer.unk, tokenizer.sep]
    assert tokenizer.mask not in tokenizer.encode("red [MASK]", 12, end_token=False)


def test_a_recipe_may_ask_for_clean_texts():
    tokenizer = Tokenizer(train_vocab([*TEXTS, "! , ."], 100))
    raw, clean = (encode_text("Red, house!", tokenizer, TextConfig(vocab="", clean=clean)) for clean in (False, True))
    assert tokenizer.decode(raw) == "red , house !" and tokenizer.decode(clean) == "red house"


def test_the_same_texts_give_the_same_vocabulary_in_any_process():
    program = (
        "import sys, json; from crossgrain.data.text import train_vocab; print(json.dumps(train_vocab(sys.argv, 60)))"
    )
    run = subprocess.run([sys.executable, "-c", program, *TEXTS[::-1]], check=True, capture_output=True)
    tokens = json.loads(run.stdout)
    assert tokens == train_vocab(["-c", *TEXTS], 60)
    assert tuple(tokens[:5]) == SPECIAL_TOKENS and len(tokens) == len(set(tokens)) <= 60


def test_a_trained_vocabulary_knows_its_words_whole():
    tokenizer = Tokenizer(train_vocab(TEXTS, 300))
    assert len(tokenizer.encode("striped fish left of the small red house", 40, end_token=False)) == 9
    assert tokenizer.unk not in tokenizer.encode("restart", 40, end_token=False)


def test_a_vocabulary_is_read_from_file_and_folder_and_survives_pickling(tmp_path):
    tokens = train_vocab(TEXTS, 100)
    save_vocab(tokens, tmp_path / "vocab.txt")
    fast = tmp_path / "fast"
    fast.mkdir()
    vocab = {token: index for index, token in enumerate(tokens)}
    (fast / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocab}}))
    for source in (tmp_path / "vocab.txt", str(tmp_path), fast):
        tokenizer = pickle.loads(pickle.dumps(Tokenizer.load(source)))
        assert tokenizer.tokens == tokens and tokenizer.is_continuation(tokens.index("##t"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no"), ("\n".join([*SPECIAL_TOKENS, "a", "a"]), "'a' twice"), ("\xff", "has no .PAD.")],
)
def test_a_file_that_is_no_vocabulary_is_a_users_mistake(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path / "vocab.txt")


def test_other_tokenizers_and_missing_files_are_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}}))
    with pytest.raises(UserError, match=r"not a WordPiece vocabulary but BPE"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match=r"no vocabulary at .*nowhere/vocab\.txt"):
        Tokenizer.load(tmp_path / "nowhere/vocab.txt")


def test_a_hub_name_without_network_is_one_clear_line(monkeypatch):
    import huggingface_hub

    def offline(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    with pytest.raises(UserError, match=r"'google-bert/some-model' .* hub did not give it .*ConnectionError"):
        Tokenizer.load("google-bert/some-model")
