"""What pages say about images when they say nothing true about them, by kind. Texts differ from image to image.

They must differ: a text that many images share is dropped for that alone, and the other rules would go untested.
"""

from crossgrain.data.scenes.words import COLOUR_WORDS, KIND_WORDS
from crossgrain.data.scenes.world import Dice

TOWNS = ("Altona", "Bergen", "Cadiz", "Dijon", "Evora", "Fulda", "Ghent", "Huelva", "Imola", "Jena", "Kiruna", "Lyon")
MONTHS = ("January", "March", "April", "May", "June", "July", "August", "October", "November", "December")

_FILE_NAMES = ("DSC_{n:04d}.JPG", "IMG_{n:04d}", "photo-{n}.jpeg", "scan{n:05d}_final.png", "{colour}_{kind}_{n}.jpg")
_BOILERPLATE = (
    "Click here to enlarge image {n}",
    "All rights reserved {year}, Example Media Ltd., {town}",
    "Sign up for our newsletter in {month} {year} and save {percent} %",
    "Share this page on Facebook, Twitter and Pinterest ({n} shares)",
    "Buy prints from ${percent}.99: free shipping to {town} this {month}!!!",
    "Posted by admin on {month} {day}, {year} | {percent} comments | Read more",
)
_FOREIGN = (
    "Ein altes Bild aus der Sammlung unserer Stadt {town}, gefunden im Jahr {year} auf einem Dachboden",
    "Eine Aufnahme von der Ausstellung in {town}, die wir im Sommer {year} mit den Kindern besucht haben",
    "Une image de notre collection, trouvée en {year} dans un grenier de la ville de {town}",
    "Cette photographie a été prise à {town} pendant les vacances de l'année {year}",
    "Una imagen de nuestra colección, hallada en {year} en un desván de la ciudad de {town}",
    "Esta fotografía fue tomada en {town} durante las vacaciones del año {year}",
    "Картина из нашего собрания, найденная на чердаке в городе {town} в {year} году",
    "Эта фотография была сделана летом {year} года во время поездки в город {town}",
    "这张照片是{year}年夏天我们和孩子们一起参观{town}的展览时拍摄的",
)
_KEYWORDS = (
    "{kind} {other} wallpaper hd free download {year} best {kind} pictures {other} images",
    "{colour} {kind}, {kind} {colour}, buy {kind}, cheap {kind}, {kind} {town}, {kind} {year}",
    "{kind}, {other}, {colour}, stock photo, royalty free, jpg, vector, clipart, {n}",
    "{colour}-{kind}-{other}-{town}-{year}-print-poster-sale",
)
_VAGUE = (
    "Our favourite picture from the exhibition in {town}",
    "A nice memory of {month} {year} for all of our friends",
    "This is what we found in the attic in {town} last {month}",
    "Another one of the pictures that we took in {year}",
    "The winner of the competition in {town} was announced in {month}",
)
_REPEATED = (
    "A picture from our summer exhibition in the old town",
    "This image is part of the collection of the museum",
    "Another photo of our holiday by the lake",
    "The best picture of the week as our readers see it",
)
_DRAWN = (
    "The number of visitors to the museum in {town} by month in {year}",
    "A window of the program that we use for the catalogue since {month} {year}",
    "The new sign of the company in {town} since {year}",
)
_KINDS = {
    "file name": _FILE_NAMES, "boilerplate": _BOILERPLATE, "other language": _FOREIGN, "keyword list": _KEYWORDS,
    "vague": _VAGUE, "unnatural": _DRAWN,
}  # fmt: skip


def bad_text(kind: str, dice: Dice) -> str:
    """A text of a kind: file name, boilerplate, other language, keyword list, vague, or unnatural (about a chart)."""
    return dice.pick(_KINDS[kind]).format(
        n=dice.below(10_000),
        year=1990 + dice.below(30),
        month=dice.pick(MONTHS),
        day=1 + dice.below(28),
        percent=5 + dice.below(90),
        town=dice.pick(TOWNS),
        kind=dice.pick([*KIND_WORDS]),
        other=dice.pick([*KIND_WORDS]),
        colour=dice.pick([*COLOUR_WORDS]),
    )


def repeated_text(number: int) -> str:
    """The text that all images of group `number` share."""
    text = _REPEATED[number % len(_REPEATED)]
    return text if number < len(_REPEATED) else f"{text}, part {number // len(_REPEATED) + 1}"
