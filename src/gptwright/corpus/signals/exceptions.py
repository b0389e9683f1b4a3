"""Words that spaCy's English tokenizer splits or keeps in its own way: contractions, abbreviations, faces of punctuation.

A table from the hash of a word to what is done with it, built from short lists. Source: spaCy 3.8, language data for English.
"""

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

SPECIAL, UNIT, STOP, ABBREVIATION = 1 << 40, 1 << 41, 1 << 42, 1 << 43  # below 40: where it is split
LONGEST = 17  # characters of the longest entry
MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

_WH = "how that there this what when where who why"
_ALL = f"i you he she it we they these those {_WH}"
_NOT = "ca could did does do had may might must need ought sha should wo would"
_SPLITS: tuple[tuple[str, str], ...] = (  # second part and its like; words that they follow
    ("n't", f"{_NOT} ai are dare has have is was were"),
    ("n't've", _NOT),
    ("'d", _ALL),
    ("'d've", _ALL),
    ("'ll", _ALL),
    ("'ll've", _ALL),
    ("'s", f"he she it let {_WH}"),
    ("'re", "you we they these those how there what when where who why"),
    ("'ve", "i you we they these those how there what when where who why could might must should would not"),
    ("'m", "i"),
    ("'ma", "i"),
    ("'d'y", "how"),
)
_BARE: tuple[tuple[str, str], ...] = (  # the same written without an apostrophe, where it is no other word
    ("nt", _SPLITS[0][1]),
    ("ntve", _NOT),
    ("d", _ALL.replace(" she", "")),
    ("dve", _ALL),
    ("ll", "it you they these those how that there this what when where who why"),
    ("llve", _ALL),
    ("s", "he she how that there this what when where who why"),
    ("re", "you they these those how there what when where why"),
    ("ve", _SPLITS[8][1]),
    ("m", "i"),
    ("ma", "i"),
)
_CUTS = {
    "n't": (3,), "n't've": (3, 6), "'d": (2,), "'d've": (2, 5), "'ll": (3,), "'ll've": (3, 6), "'s": (2,), "'re": (3,), "'ve": (3,), "'m": (2,),
    "'ma": (2, 3), "'d'y": (2, 4), "nt": (2,), "ntve": (2, 4), "d": (1,), "dve": (1, 3), "ll": (2,), "llve": (2, 4), "s": (1,), "re": (2,),
    "ve": (2,), "m": (1,), "ma": (1, 2),
}  # fmt: skip
_OTHERS = "can|not Can|not gon|na Gon|na got|ta Got|ta c'm|on C'm|on c’m|on C’m|on y'|all y’|all y|all"
_KEPT = (
    "' '' 's 'S 'd 'll 're 'em 'bout 'cause 'cos 'coz 'cuz 'nuff 'Cause 'Cos 'Coz 'Cuz ’ ’’ ’s ’S ’d ’ll ’re ’em ’bout ’cause ’cos ’coz "
    '’cuz ’nuff ’Cause ’Cos ’Coz ’Cuz ‘s ‘S em ll nuff — C++ and/or w/o \\n \\t \\") <space> '
    "Adm. Ak. Ala. Apr. Ariz. Ark. Aug. Bros. Calif. Co. Colo. Conn. Corp. D.C. Dec. Del. Dr. E.G. E.g. Feb. Fla. Ga. Gen. Gov. I.E. I.e. "
    "Ia. Id. Ill. Inc. Ind. Jan. Jr. Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs. Mich. Minn. Miss. Mo. Mont. Mr. Mrs. Ms. Mt. "
    "N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. Ph.D. Prof. Rep. Rev. S.C. Sen. Sep. Sept. St. Tenn. Va. Wash. "
    "Wis. a.m. p.m. e.g. i.e. co. v.s. vs. ä. ö. ü. o'clock O'clock o’clock O’clock ma'am Ma'am ma’am Ma’am "
    "doin doin' Doin Doin' goin goin' Goin Goin' havin havin' Havin Havin' lovin lovin' Lovin Lovin' nothin nothin' Nothin Nothin' nuthin "
    "nuthin' Nuthin Nuthin' ol ol' Ol Ol' somethin somethin' Somethin Somethin' "
    "(*_*) (-8 (-: (-; (-_-) (._.) (: (; (= (>_<) (^_^) (o: (¬_¬) )-: ): -_- -__- ._. 0.0 0.o 0_0 0_o 8) 8-) 8-D 8D :'( :') :'-( :'-) :( :(( "
    ":((( :() :) :)) :))) :* :-( :-(( :-((( :-) :-)) :-))) :-* :-/ :-0 :-3 :-> :-D :-O :-P :-X :-] :-o :-p :-x :-| :-} :/ :0 :1 :3 :> :D :O :P "
    ":X :] :o :o) :p :x :| :} :’( :’) :’-( :’-) ;) ;-) ;-D ;D ;_; <.< </3 <3 <33 <333 =( =) =/ =3 =D =[ =] =| >.< >.> >:( >:o @_@ O.O O.o O_O "
    "O_o V.V V_V XD XDD [-: [: [= ]= ^_^ ^__^ ^___^ o.0 o.O o.o o_0 o_O o_o v.v v_v xD xDD"
)
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB "
    "tb TB T G M K % км км² км³ м м² м³ дм см мм нм кг г мг м/с км/ч кПа Па Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ"
)
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]
# Ends of sentences that are none, for the sentences of C4: a short list in the place of a trained model's.
_ABBREVIATIONS = "mr mrs ms dr prof st sr jr rev gen sen rep gov col capt lt sgt vs etc inc ltd co corp no vol fig pp ed eds al approx dept est"


def word_hash(word: str) -> int:
    """The hash that the kernels compute of a word's code points."""
    value = len(word)
    for char in word:
        value = (value ^ ord(char)) * MULTIPLIER & _MASK
        value ^= value >> 29
    return value


@cache
def exceptions() -> dict[str, int]:
    """Word -> bits of the places where it is split (after how many characters), and marks."""
    found: dict[str, int] = {}

    def put(word: str, cuts: tuple[int, ...] = (), mark: int = SPECIAL) -> None:
        found[word] = found.get(word, 0) | mark | sum(1 << cut for cut in cuts)

    for (tail, heads), capital, curly in product((*_SPLITS, *_BARE), (False, True), (False, True)):
        for head in heads.split():
            start = head.capitalize() if capital else head
            word = start + (tail.replace("'", "’") if curly else tail)
            inner = _CUTS[tail]
            found.pop(word, None)
            put(word, (len(start), *(len(start) + cut for cut in inner[:-1])))
    for word in _OTHERS.split():
        put(word.replace("|", ""), (word.index("|"),))
    for hour, half in product(range(1, 13), ("am", "pm", "a.m.", "p.m.")):
        put(f"{hour}{half}", (len(str(hour)),))
    for grade in "CFKcfk":
        put(f"°{grade}.", (1, 2))
    for word in (*_KEPT.split(), *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz")):
        put(word)
    for other in (
        "were",
        "Were",
        "well",
        "Well",
        "shell",
        "Shell",
        "hell",
        "Hell",
        "its",
        "Its",
        "ill",
        "Ill",
        "shed",
        "Shed",
    ):
        found.pop(other, None)
    for word in _UNITS.split():
        put(word, mark=UNIT)
    for word in STOP_WORDS:
        put(word, mark=STOP)
    for word in _ABBREVIATIONS.split():
        put(word, mark=ABBREVIATION)
    return found


@cache
def table() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The same for the kernels: open addressing.

    Returns:
        Keys (4096,), 0 for none; values (4096 + 256,), where the bits that follow the values say which pairs of first and
        last character (their low seven bits) some entry has: most words are told by that alone.
    """
    keys, values = np.zeros(4096, np.uint64), np.zeros(4096 + 256, np.int64)
    pairs = values[4096:].view(np.uint64)
    for word, value in exceptions().items():
        key = word_hash(word)
        at = key & 4095
        while keys[at]:
            at = (at + 1) & 4095
        keys[at], values[at] = key, value
        first, last = ord(word[0]) & 127, ord(word[-1]) & 127
        pairs[2 * first + (last >> 6)] |= np.uint64(1) << np.uint64(last & 63)
    return keys, values
