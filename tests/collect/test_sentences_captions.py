"""True captions that share words with what pages say about themselves, and such phrases that stay boilerplate."""

import pytest

from crossgrain.collect.candidates import PageText
from crossgrain.collect.sentences import Cleaner, SentenceConfig
from crossgrain.collect.sentences.boilerplate import is_boilerplate
from crossgrain.collect.sentences.cut import cut
from crossgrain.data.scenes.web_texts import bad_text
from crossgrain.data.scenes.world import Dice

LAIT = Cleaner(SentenceConfig())


def cleaned(text: str) -> str:
    """The clean text, or the reason of the drop."""
    clean, dropped = LAIT.clean([PageText("alt", text)], "en")
    return clean[0].text if clean else f"dropped: {next(iter(dropped))}"


@pytest.mark.parametrize(
    "text",
    [
        "A stop sign posted on a wooden pole", "A sign posted at the entrance of a park",
        "Sign in front of a brick building", "A child holds a sign up to the camera",
        "A man pushing a shopping cart through a parking lot", "Cookies on a white plate next to a glass of milk",
        "Firefighters search for survivors in the rubble", "Search and rescue dog standing in the snow",
        "A train powered by steam crosses the bridge", "A racing car sponsored by an oil company on the track",
        "A plane with the logo of an airline on its tail", "A man wearing a shirt with a company logo",
        "Icon of the Virgin Mary on a gold background", "Share a moment with your family on the beach",
        "Follow the path through the forest", "Loading hay onto a truck in a green field",
        "A ship at the harbor loading", "Download of a rocket stage from a truck",
        "Advertisement for soap painted on the side of a brick building",
        "9/11 memorial lit up at night in New York", "24/7 diner on a rainy street at night",
        "1/2 cup of sugar in a glass bowl", "3 of 5 dogs running on the beach",
        "A house that was built by settlers 50 years ago", "An old car that stood here a year ago",
        "The dogs may be in the house", "A timetable of 1998 2001 2003 2005 at the old railway station",
        "Two women (left and right) at St. Paul's", "A man runs.It is late in the evening",
    ],
)  # fmt: skip
def test_a_true_caption_stays_as_it_is(text):
    assert cleaned(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Sign in to your account", "Sign in", "Disney is now live, sign up for the bundle", "Sign up to our list",
        "A dog. Sign up now!", "Your shopping cart is empty", "Shopping cart (0)", "Search this site", "Search results",
        "Powered by ExamplePress", "Theme by Ann, proudly powered by ExamplePress", "More events powered by",
        "Sponsored by Example", "This post is sponsored by Example", "Sponsored", "Acme company logo", "site logo",
        "The logo", "facebook icon", "Share this page with all of your friends today", "Share with your friends",
        "Follow John on Twitter for more of this", "Follow us", "Follow", "Loading, please wait", "Image is loading",
        "Download the brochure for our new products", "Download", "Cookies help us deliver our services",
        "Advertisement - the story goes on below", "Posted by admin on May 5, 2019", "A dog posted by Ann",
        "Music features posted in: News", "No description available.", "Comments (3)", "Log in",
    ],
)  # fmt: skip
def test_what_a_page_says_about_itself_is_boilerplate(text):
    assert is_boilerplate(text)


def test_the_boilerplate_and_keywords_of_the_planted_web_are_dropped():
    for number in range(200):
        for kind in ("boilerplate", "file name"):
            text = bad_text(kind, Dice(5, number))
            assert cleaned(text).startswith("dropped"), text


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("3 of 4 A dog on a beach", "A dog on a beach"),
        ("2/7: a dog on a beach", "a dog on a beach"),
        ("photo 2 of 7 a dog on a beach", "a dog on a beach"),
        ("A dog on a beach 22 hours ago", "A dog on a beach"),
        ("A dog on a beach ~1 month ago", "A dog on a beach"),
        ("Two women looking at videos on YouTube", "Two women looking at videos"),
        ("A dog on a beach, photo on Flickr", "A dog on a beach"),
        ("A dog on a beach photo via Getty Images", "A dog on a beach"),
        ("May be an image of 1 person, standing and outdoors", "1 person, standing and outdoors"),
        ("May be a black-and-white photo of a dog", "a dog"),
        ("A dog on a beach. Go to example.com/dogs for the best dogs", "A dog on a beach."),
        ("A dog on a beach, see example.pl/dogs", "A dog on a beach"),
        ("Visit dogs.online. A dog on a beach", "A dog on a beach"),
        ("Visit www.example.org. A dog on a beach", "A dog on a beach"),
        ("A dog on a beach via dogs.online", "A dog on a beach"),
        ("a dog (() [ ]) on {(( ))} a beach", "a dog on a beach"),
        ("a dog ((left) on a beach", "a dog ((left) on a beach"),
    ],
)
def test_only_what_stands_around_a_caption_is_cut_off(text, caption):
    assert cut(text) == caption


@pytest.mark.parametrize("text", ["Visit dogs.online for the best dogs", "go to example.com/dogs for the best dogs"])
def test_an_invitation_to_another_page_is_no_caption(text):
    assert cleaned(text) == "dropped: boilerplate"


@pytest.mark.parametrize(
    "text",
    [
        "Call us at 030 1234567 for more details", "My number is 06 12 34 56 78 in Paris",
        "Contact 555 1234 for a quote on your roof", "a boat for you: 0171 1234567", "London office 020 7946 0958 here",
        "pay for the boat with 4111 1111 1111 1111 today", "Write to ann＠example.com for the boat",
    ],
)  # fmt: skip
def test_telephone_and_card_numbers_and_addresses_are_personal_data(text):
    assert cleaned(text) == "dropped: personal data"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "【公式】ホテル・ニューオータニ・東京の夜景"), ("ja", "ジョン・レノンとオノ・ヨーコ"),
        ("zh", "《红楼梦》的作者在家里写书"), ("de", "Blick auf ‚Neuschwanstein‘ und ›Linderhof‹ im Winter"),
    ],
)  # fmt: skip
def test_ordinary_signs_of_other_scripts_are_no_symbols(language, text):
    clean, dropped = Cleaner(SentenceConfig(language=language)).clean([PageText("alt", text)], language)
    assert [one.text for one in clean] == [text], dropped
