"""Closed classes of words: determiners, prepositions, and the other words that sentences are built with.

Closed lists need no tagger. Nouns are an open class: they would need one, so a noun rule is not offered.
"""

from dataclasses import dataclass


def word_set(words: str) -> frozenset[str]:
    """Words that stand in one string with blanks between them."""
    return frozenset(words.split())


@dataclass(frozen=True)
class ClosedWords:
    """Small words of a language, in lower case."""

    determiners: frozenset[str]
    prepositions: frozenset[str]
    others: frozenset[str]  # pronouns, conjunctions, auxiliaries

    @property
    def all(self) -> frozenset[str]:
        """Every word of the three lists."""
        return self.determiners | self.prepositions | self.others


def _closed(determiners: str, prepositions: str, others: str) -> ClosedWords:
    return ClosedWords(*map(word_set, (determiners, prepositions, others)))


CLOSED_WORDS = {
    "en": _closed(
        "a an the this that these those some any no every each either neither another other all both half several many "
        "much more most few fewer less enough such what which whose my your his her its our their one two three four "
        "five six seven eight nine ten eleven twelve",
        "about above across after against along alongside amid among amongst around as at atop before behind below "
        "beneath beside besides between beyond by despite down during except for from in inside into like near of off "
        "on onto opposite out outside over past per since through throughout to toward towards under underneath until "
        "up upon via with within without",
        "and or but nor so if because while when where who whom how than then i you he she it we they me him us them "
        "is are was were be been being am has have had do does did will would can could shall should may might must "
        "not there here",
    ),
    "de": _closed(
        "der die das den dem des ein eine einen einem einer eines dieser diese dieses diesen diesem jener jede jeder "
        "jedes kein keine keinen mein meine dein sein seine ihr ihre unser unsere einige mehrere viele alle beide zwei "
        "drei vier fünf",
        "an am auf aus außer bei beim bis durch für gegen gegenüber hinter in im ins mit nach neben ohne seit über um "
        "unter vom von vor während wegen zu zum zur zwischen",
        "und oder aber denn weil wenn als wie ich du er sie es wir ist sind war waren wird werden hat haben nicht auch",
    ),
    "fr": _closed(
        "le la les l un une des du ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs "
        "quelques plusieurs chaque tout toute tous toutes aucun aucune deux trois quatre cinq",
        "à au aux avec chez contre dans de d derrière devant durant en entre hors jusque malgré par parmi pendant pour "
        "près sans selon sous sur vers",
        "et ou mais donc car si que qui quand il elle ils elles on nous vous je tu est sont était a ont ne pas y",
    ),
    "es": _closed(
        "el la los las lo un una unos unas este esta estos estas ese esa esos esas aquel aquella mi mis tu tus su sus "
        "nuestro nuestra algún alguna algunos cada todo toda todos todas varios varias dos tres cuatro cinco",
        "a al ante bajo con contra de del desde detrás durante en entre hacia hasta mediante para por según sin sobre "
        "tras",
        "y e o u pero que si como cuando él ella ellos yo es son era está están fue ha han no se",
    ),
    "it": _closed(
        "il lo la i gli le l un uno una questo questa questi queste quel quello quella quei mio mia tuo suo sua nostro "
        "ogni alcuni alcune tutto tutta tutti tutte due tre quattro cinque",
        "a ad al allo alla ai agli alle con contro da dal dalla di del dello della dei degli delle d dietro durante "
        "fra in nel nella nei nelle per presso senza sopra sotto su sul sulla tra verso",
        "e ed o ma che se come quando è sono era ha hanno non si lui lei loro io noi",
    ),
    "pt": _closed(
        "o a os as um uma uns umas este esta estes estas esse essa aquele aquela meu minha seu sua nosso nossa cada "
        "algum alguma alguns algumas todo toda todos todas vários várias dois duas três quatro cinco",
        "à ao aos às com contra da das de do dos desde durante em entre na nas no nos para pela pelo por sem sob sobre "
        "até",
        "e ou mas que se como quando ele ela eles eu é são era está estão foi tem não",
    ),
    "nl": _closed(
        "de het een deze dit die dat mijn jouw zijn haar ons onze hun elke elk iedere geen enkele sommige veel alle "
        "beide twee drie vier vijf",
        "aan achter bij binnen boven buiten door in langs met na naar naast om onder op over per sinds te tegen tot "
        "tussen uit van vanaf voor zonder",
        "en of maar want als dat wie ik je hij zij wij is zijn was waren wordt worden heeft hebben niet ook er",
    ),
}
