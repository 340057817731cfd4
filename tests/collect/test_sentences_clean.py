"""The stage as a whole: what passes, what is dropped and why."""

import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sentences_repair import ANY_TEXT, WEB_TEXT

from crossgrain.collect.candidates import PageText
from crossgrain.collect.sentences import Cleaner, SentenceConfig
from crossgrain.collect.sentences.presets import PRESETS
from crossgrain.collect.sentences.rules import REASONS
from crossgrain.config import UserError, dump_config, read_config
from crossgrain.data.scenes import make_scene, scene_record
from crossgrain.data.scenes.captions import captions
from crossgrain.data.scenes.pages import page
from crossgrain.data.scenes.world import Dice

CLEANERS = {preset: Cleaner(SentenceConfig(preset=preset)) for preset in PRESETS}
LAIT = CLEANERS["lait"]

FOREIGN = [
    "Ein kleiner gestreifter Fisch schwimmt über zwei Tassen.", "Der alte Mann sitzt mit seinem Hund auf einer Bank.",
    "Zwei rote Sterne und ein grüner Baum auf einer Wiese", "Blick auf die Altstadt von der Brücke aus",
    "Un petit poisson rayé nage au-dessus de deux tasses.", "Le vieil homme est assis sur un banc avec son chien.",
    "Deux étoiles rouges et un arbre vert dans la prairie", "Vue de la vieille ville depuis le pont",
    "Un pequeño pez rayado nada sobre dos tazas.", "El hombre viejo está sentado en un banco con su perro.",
    "Dos estrellas rojas y un árbol verde en el prado", "Vista de la ciudad vieja desde el puente",
    "一条有条纹的小鱼在两个杯子上面游泳。", "老人和他的狗坐在长椅上。", "草地上的两颗红星和一棵绿树",
    "Маленькая полосатая рыба плывёт над двумя чашками.", "Старик сидит на скамейке со своей собакой.",
    "Две красные звезды и зелёное дерево на лугу", "Вид на старый город с моста",
]  # fmt: skip
FILE_NAMES = [
    "IMG_1234.JPG", "DSC00123", "DSCN0042.jpg", "photo 123", "image001.png", "red-dress-blue-shoes_1200x800.jpg",
    "my holiday photo at the beach.jpeg", "Screenshot 2020-01-02 at 10.11.12", "sunset_at_the_beach", "untitled-1",
    "a1b2c3d4e5f6a7b8c9d0", "wp-content/uploads/2019/11/dog.png", "P1010123.JPG", "logo-cbs-boston-1920x1080.jpg",
    "the-best-dog-of-the-world-2019", "WhatsApp Image 2019-11-02 at 10.11.12", "slide_3", "12345678.gif",
    "550e8400-e29b-41d4-a716-446655440000", "hero_banner_final_v2.webp", "thumb(3)",
]  # fmt: skip
BOILERPLATE = [
    "Click here to subscribe to our newsletter", "All rights reserved. Copyright 2019 Example Media Ltd.",
    "We use cookies to improve your experience", "Share this on social media", "Read more", "Terms of service",
    "Please enable JavaScript to view this page", "Buy now: free shipping on orders over $49.99!!!",
    "click to enlarge", "Click on the image to see a larger version", "Follow us on Twitter and Facebook",
    "Sign up for our free newsletter today", "Log in to leave a comment", "No image available", "Image not found",
    "site logo", "facebook icon", "Skip to main content", "Back to top of the page", "Add to cart", "View all photos",
    "Advertisement: see our special offer", "Powered by ExamplePress", "Share on Facebook", "next page",
    "Photo by Ann Example", "Your browser does not support the video tag.", "Loading...", "Stock photo",
    "© 2019 Example",
    "Leave a reply to this post", "Posted by admin on Monday", "https://www.example.com/page", "Opens in a new window",
    "You may also like these articles", "This website uses cookies to give you the best experience",
    "Download our app from the store", "Page not found", "Forgot your password?", "author avatar",
]  # fmt: skip
JUNK = [
    "", "  \n", "image", "dog", "a dog", "shoes shoes shoes cheap shoes red shoes", "!!! *** ??? ### $$$",
    "12:30 14:20 03/04",
    "a caf\ufffd by the s\ufffda", "Home | News | About", "<img src=x>", "{{ a.b.c }}",
    "write to ann@example.com for the boat", "call (555) 123-4567 for a boat", "the boat ★★★★★ the sea ☆☆ ★★ ►►",
]  # fmt: skip


@cache
def scene_captions():
    """The captions of 150 scenes: five each, as `scene_record` has them, without drawing."""
    return [c.text for i in range(150) for c in captions(make_scene(11, "train", i), Dice(11, 0, i, 2))]


def outcome(cleaner, texts, language="", kind="alt"):
    """(how many passed, drops) of texts that are cleaned one by one."""
    kept, dropped = 0, Counter()
    for text in texts:
        clean, drops = cleaner.clean([PageText(kind, text)], language)
        kept += len(clean)
        dropped += drops
    assert kept + dropped.total() == len(texts)
    return kept, dropped


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("kind", ["alt", "near"])
def test_captions_of_scenes_pass(preset, kind):
    texts = scene_captions()
    kept, dropped = outcome(CLEANERS[preset], texts, "en", kind)
    assert kept > 0.99 * len(texts), dropped
    kept, dropped = outcome(CLEANERS[preset], texts, "", kind)
    assert kept > 0.99 * len(texts), dropped


def test_a_clean_caption_is_not_changed():
    for text in ["a small striped purple fish above two cups", *scene_captions()[:250]]:
        clean, _ = LAIT.clean([PageText("alt", text)], "en")
        assert [c.text for c in clean] == [text]
        assert clean[0].language == "en" and 0.25 <= clean[0].language_score <= 1


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("page_language", ["", "en", "de"])
def test_other_languages_are_dropped(preset, page_language):
    for kind in ("alt", "near"):
        kept, dropped = outcome(CLEANERS[preset], FOREIGN, page_language, kind)
        assert kept == 0
        if kind == "alt":
            assert all(reason.startswith("another language") for reason in dropped)


@pytest.mark.parametrize("preset", ["lait", "cc12m"])
def test_file_names_boilerplate_and_junk_are_dropped(preset):
    for texts in (FILE_NAMES, BOILERPLATE, JUNK):
        for text in texts:
            for kind in ("alt", "near"):
                clean, dropped = CLEANERS[preset].clean([PageText(kind, text)], "en")
                assert not clean, (text, clean)
                assert set(dropped) <= set(REASONS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" \u200b ", "blank text"),
        ("my holiday photo at the beach.jpeg", "file name"),
        ("a dog", "too few words"),
        ("We use cookies to improve your experience", "boilerplate"),
        ("a caf\ufffd by the s\ufffda", "broken characters"),
        ("write to ann@example.com for the boat", "personal data"),
        ("write to ann [at] example [dot] com for the boat", "personal data"),
        ("the boat is yours, call (555) 123-4567", "personal data"),
        ("the boat is yours, call +49 30 1234567", "personal data"),
        ("pay the boat to DE02 1203 0000 0000 2020 51", "personal data"),
        ("a boat " * 40, "too many words"),
        ("cheap shoes and red shoes and blue shoes", "repeats words"),
        ("BUY THE BIG RED BOAT TODAY OR NEVER", "too many capitals"),
        ("the ★★★ boat ►► at ◄◄ sea ☆☆", "too many symbols"),
        ("a, b, c, d; e: f! g? (h) - i", "too much punctuation"),
        ("the boat was so very good!!!", "too much punctuation"),
        ("room 1234567890123 4567890 open", "too many digits"),
        ("Der alte Mann sitzt mit seinem Hund auf einer Bank.", "another language: pycld2"),
    ],
)
def test_each_rule_is_counted_by_its_name(text, reason):
    clean, dropped = LAIT.clean([PageText("alt", text)])
    assert not clean and dropped == {reason: 1}


def test_presets_differ_as_published():
    def reason(preset, text):
        _, dropped = CLEANERS[preset].clean([PageText("alt", text)], "en")
        return next(iter(dropped), "")

    no_determiner = "dogs and cats play happily together near rivers"
    assert reason("lait", no_determiner) == "" and reason("cc12m", no_determiner) == "no determiner"
    long = "the little brown dog runs over green hills while seven children watch her from far away and " * 6
    assert reason("lait", long) == "too many words"
    assert reason("coyo", long) == ""
    assert reason("coyo", long * 3) == "too long"
    assert reason("laion", "nice") == "too short"
    assert reason("laion", "two lovely white dogs") == ""
    assert reason("laion", "ann@example.com is a dog") == "personal data"


def test_a_rule_of_a_preset_is_overridden():
    config = SentenceConfig(preset="laion", min_words=4, needs=("preposition",), personal_data=False)
    cleaner = Cleaner(config)
    assert cleaner.clean([PageText("alt", "a lovely dog")])[1] == {"too few words": 1}
    assert cleaner.clean([PageText("alt", "the dog chases a lovely cat")])[1] == {"no preposition": 1}
    assert cleaner.clean([PageText("alt", "ann@example.com is a dog in a house")])[0]
    assert read_config(SentenceConfig, dump_config(config), "recipe") == config
    assert cleaner.fingerprint() != CLEANERS["laion"].fingerprint()
    assert cleaner.fingerprint() == Cleaner(config).fingerprint()


def test_rules_that_nothing_could_pass_are_refused():
    with pytest.raises(UserError, match="min_words 70 is more than max_words 60"):
        Cleaner(SentenceConfig(min_words=70))


def test_lists_of_the_operator(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# terms\nblimey\nrotten egg  # a phrase\n", encoding="utf-8")
    cleaner = Cleaner(SentenceConfig(profanity=words))
    assert cleaner.clean([PageText("alt", "Blimey, a dog on the beach")])[1] == {"profanity": 1}
    assert cleaner.clean([PageText("alt", "a dog eats a Rotten  Egg here")])[1] == {"profanity": 1}
    assert cleaner.clean([PageText("alt", "a dog eats rotten eggs on the beach")])[0]
    assert cleaner.fingerprint() != LAIT.fingerprint()
    own = Cleaner(SentenceConfig(extra_boilerplate=words))
    assert own.clean([PageText("alt", "Blimey, a dog on the beach")])[1] == {"boilerplate": 1}
    with pytest.raises(UserError, match=re.escape("gone.txt")):
        Cleaner(SentenceConfig(profanity=tmp_path / "gone.txt"))


def test_any_language_can_be_the_target():
    for language, text in (
        ("de", "Der alte Mann sitzt mit seinem Hund auf einer Bank."),
        ("fr-FR", "Le vieil homme est assis sur un banc avec son chien."),
        ("es", "El hombre viejo está sentado en un banco con su perro."),
        ("zh-Hant", "老人和他的狗坐在公園的長椅上看著湖。"),
        ("ru", "Старик сидит на скамейке со своей собакой."),
        ("he", "איש זקן יושב על ספסל עם הכלב שלו בפארק"),
        ("hi", "एक बूढ़ा आदमी अपने कुत्ते के साथ बेंच पर बैठा है"),
        ("th", "ชายชรานั่งอยู่บนม้านั่งกับสุนัขของเขาในสวนสาธารณะ"),
        ("ja", "おじいさんが犬と一緒に公園のベンチに座っています。"),
    ):
        cleaner = Cleaner(SentenceConfig(language=language))
        clean, dropped = cleaner.clean([PageText("alt", text)])
        assert [c.text for c in clean] == [text], (language, dropped)
        assert not cleaner.clean([PageText("alt", "An old man sits on a bench with his dog.")])[0]
    with pytest.raises(UserError, match=r"'klingon'.*choices: .*\ben\b"):
        Cleaner(SentenceConfig(language="klingon"))
    with pytest.raises(UserError, match="no list of determiners for 'ja'"):
        Cleaner(SentenceConfig(language="ja", preset="cc12m"))


def test_the_language_of_the_page_is_a_prior_for_short_texts():
    unsure = "A black circle above a medium plain blue circle in a wintry landscape."
    assert not LAIT.clean([PageText("alt", unsure)])[0]
    assert not LAIT.clean([PageText("alt", unsure)], "de")[0]
    assert LAIT.clean([PageText("alt", unsure)], "en-GB")[0]


def test_a_sentence_is_picked_from_near_text():
    near = (
        "Home News Shop. We use cookies to improve your experience. Prices have risen again in the old harbour. "
        "A red boat lies at the pier while two gulls watch. Read more."
    )
    texts = [PageText("near", near), PageText("alt", "the red boat with two gulls at a pier")]
    clean, dropped = LAIT.clean(texts, "en")
    assert [c.text for c in clean] == ["A red boat lies at the pier while two gulls watch.", texts[1].text]
    assert not dropped
    clean, _ = LAIT.clean(texts[:1], "en")
    assert [c.text for c in clean] == ["Prices have risen again in the old harbour."]
    assert LAIT.clean([PageText("near", "Gallery Home Contact Imprint Sitemap")], "en")[1] == {"no sentence": 1}


def test_a_text_that_is_said_twice_is_kept_once():
    texts = [PageText("alt", "a red boat at sea"), PageText("title", "A red  boat at sea"), PageText("near", "")]
    clean, dropped = LAIT.clean(texts, "en")
    assert [c.kind for c in clean] == ["alt"] and dropped == {"said twice": 1, "blank text": 1}


def test_pages_of_scenes():
    """Everything a page of the embedded data set says: its captions pass, its junk does not."""
    good = bad = 0
    for i in range(20):
        record = scene_record(2, "train", i, 32)
        for text in re.findall(r'(?:alt|title)="([^"]*)"|<(?:figcaption|p)[^>]*>([^<]*)<', page(record)):
            text = text[0] or text[1]
            clean, _ = LAIT.clean([PageText("alt", text)], "en")
            good += text in record.captions and bool(clean)
            bad += text not in record.captions and bool(clean)
    assert good > 40 and bad == 0


@settings(max_examples=120, deadline=None)
@given(
    texts=st.lists(st.builds(PageText, st.sampled_from(["alt", "title", "figcaption", "near"]), ANY_TEXT), max_size=3),
    preset=st.sampled_from(list(PRESETS)),
    language=st.sampled_from(["", "en", "de-DE", "x"]),
)
def test_cleaning_is_idempotent_and_adds_up(texts, preset, language):
    clean, dropped = CLEANERS[preset].clean(texts, language)
    assert len(clean) + dropped.total() == len(texts)
    again, drops = CLEANERS[preset].clean([PageText(c.kind, c.text) for c in clean], language)
    assert again == clean and not drops


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*scene_captions()[:20], *BOILERPLATE, *FOREIGN, *FILE_NAMES]), min_size=1, max_size=6),
    WEB_TEXT,
)
def test_picking_is_idempotent(parts, junk):
    clean, _ = LAIT.clean([PageText("near", " ".join([*parts, junk])), PageText("alt", ". ".join(parts))], "en")
    again, drops = LAIT.clean([PageText(c.kind, c.text) for c in clean], "en")
    assert again == clean and not drops


def test_monstrous_texts_end_soon():
    for text in (
        "a" * 200_000,
        "&amp;" * 50_000,
        "Ã©" * 50_000,
        "a. " * 60_000,
        "-" * 99_999,
        "a-b_c." * 9_000,
        "(" * 30_000,
    ):
        for kind in ("alt", "near"):
            assert not LAIT.clean([PageText(kind, text)], "en")[0]
            LAIT.clean([PageText(kind, text[:20_000])], "en")
