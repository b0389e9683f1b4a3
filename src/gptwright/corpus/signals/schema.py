"""The columns: what each is, in the order in which the kernels write them.

A name ends in ``@implementation`` where implementations measure differently; without it the definition is the common one, or our own.
*Words* without a mark are what ``str.split`` gives. datatrove's are spaCy's blank English words, DCLM's those of Unicode's UAX 29 that
start with a letter or digit. *Lines* stand between "\\n". Shares are of 1. Where there is nothing to divide by, a share is 0.
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One signal."""

    name: str
    kind: pa.DataType
    means: str


_I, _F = pa.int32(), pa.float32()


def _repeats(at: str, second: str, ngram: str, repeat: str) -> list[Column]:
    return [
        Column(f"dup_lines@{at}", _F, f"share of lines that are {second}"),
        Column(f"dup_paragraphs@{at}", _F, f"share of paragraphs that are {second}"),
        Column(f"dup_line_chars@{at}", _F, f"share of characters in lines that are {second}"),
        Column(f"dup_paragraph_chars@{at}", _F, f"share of characters in paragraphs that are {second}"),
        *[
            Column(f"top_{n}gram@{at}", _F, f"share of characters in the most frequent {n}-gram{ngram}")
            for n in (2, 3, 4)
        ],
        *[Column(f"dup_{n}gram@{at}", _F, f"share of characters in {repeat.format(n=n)}") for n in range(5, 11)],
    ]


def _c4(at: str, how: str) -> list[Column]:
    return [
        Column(f"c4_lines@{at}", _I, f"lines that C4's rules keep ({how})"),
        Column(f"c4_words@{at}", _I, "words in them"),
        Column(f"c4_sentences@{at}", _I, "sentences in them"),
        Column(f"c4_lorem_ipsum@{at}", _I, 'a line that reaches that test says "lorem ipsum": 0 or 1'),
        Column(f"c4_curly_bracket@{at}", _I, 'a line that reaches that test holds "{": 0 or 1'),
    ]


CHARS = [
    Column("n_bytes", pa.int64(), "bytes of UTF-8"),
    Column("n_chars", pa.int64(), "code points"),
    Column(
        "letter_share", _F, "letters, and numbers that are no digits, among the characters that are not white space"
    ),
    Column("upper_share", _F, "share of capitals"),
    Column("digit_share", _F, "share of decimal digits of any script"),
    Column("punct_share", _F, "share of punctuation (Unicode category P)"),
    Column("space_share", _F, "share of white space"),
    Column("alnum_share", _F, "share of letters and numbers"),
    Column("curly_share", _F, "share of { and } (RedPajama 2)"),
    Column(
        "non_alnum@curator",
        _F,
        "share of characters that are none of a-z A-Z 0-9 ? ! , . and line ends; 1 for empty texts",
    ),
    Column("space_share@curator", _F, "share of blanks, tabs and line ends; 1 for empty texts"),
    Column("parentheses@curator", _F, "share of brackets of any kind; 1 for empty texts"),
    Column(
        "url_share@curator", _F, "share of characters in http:// and https:// up to the first slash; 1 for empty texts"
    ),
]
WORDS = [
    Column("n_words", _I, "words"),
    Column("unique_words", _I, "different words"),
    Column("mean_word_length", _F, "mean length of words in characters"),
    Column("median_word_length", _F, "median length of words, those over 1,023 counted as that"),
    Column("longest_word", _I, "characters of the longest word"),
    Column("alpha_words", _F, "share of words with a letter"),
    Column("non_alpha_words@dclm", _F, "share of words without a letter"),
    Column("all_caps_words", _F, "share of words with capitals and no small letter"),
    Column("stop_words@dclm", _I, "occurrences of the, be, to, of, and, that, have, with, in any case"),
    Column("stop_words@curator", _I, "the same in small letters only"),
    Column("stop_word_share", _F, "share of words that are one of these, in any case"),
    Column("unigram_entropy", _F, "entropy of the words' frequencies in nats"),
    Column("symbol_words@curator", _F, "share of words that are an ellipsis, or hash signs for more than half"),
    Column("symbol_ratio@dclm", _F, "hash signs and ellipses (... … . . .) a word; 1 without words"),
]
TOKENS = [
    Column("n_words@datatrove", _I, "words that are not punctuation alone"),
    Column("mean_word_length@datatrove", _F, "their mean length"),
    Column("hash_ratio@datatrove", _F, "hash signs a word, punctuation counted as words"),
    Column("ellipsis_ratio@datatrove", _F, "... and … a word"),
    Column("alpha_words@datatrove", _F, "share of words with a letter"),
    Column("stop_words@datatrove", _I, "different ones of the eight stop words, in small letters"),
    Column("n_words@dclm", _I, "words of UAX 29"),
]
LINES = [
    Column("n_lines", _I, "lines that are not blank"),
    Column("n_paragraphs", _I, "paragraphs: what stands between two line ends and more"),
    Column("n_sentences", _I, "sentences by spaCy's sentencizer"),
    Column("n_sentences@rpv2", _I, "stretches between . ! and ? that hold a word (RedPajama 2)"),
    Column("mean_line_length", _F, "mean characters of lines that are not blank"),
    Column("bullet_lines@datatrove", _F, "share of lines that start with • or -"),
    Column("ellipsis_lines@datatrove", _F, "share of lines that end in ... or …"),
    Column("bullet_lines@dclm", _F, "share of lines that start with ● • * or -, blank ones left out"),
    Column("ellipsis_lines@dclm", _F, "share of lines that end in ... … or . . ., blank ones left out"),
    Column("bullet_lines@curator", _F, "share of lines that start with one of twelve bullets, blank ones left out"),
    Column(
        "ellipsis_lines@curator", _F, "share of lines that end in an ellipsis mark or 'read more', blank ones left out"
    ),
    Column("unended_lines@curator", _F, "share of lines that end in none of . ? ! \" ', blank ones left out"),
    Column("line_punct@datatrove", _F, "share of lines that end in one of 159 end marks, blank ones left out"),
    Column("short_lines@datatrove", _F, "share of lines of up to 30 characters, blank ones left out"),
    Column("char_dup@datatrove", _F, "share of characters in second and later copies of lines, blank ones left out"),
    Column("list_ratio@datatrove", _F, "line ends a word"),
    Column("long_lines@mc4", _I, "lines of 200 characters and more"),
    Column("boilerplate@curator", _F, "share of paragraphs with a phrase of cookie notices; 1 with lorem ipsum"),
    Column("policy_lines", _I, "lines with a phrase of cookie notices and terms of use"),
    Column("javascript_lines", _I, 'lines that say "javascript"'),
    Column("lorem_ipsum", _I, 'how often "lorem ipsum" is said'),
]
REPEATS = [
    *_repeats(
        "datatrove", "a second or later copy", " and the blanks in it", "{n}-grams that came before, not overlapping"
    ),
    *_repeats(
        "dclm",
        "copied anywhere, the first included",
        ", of characters in words; the longest among equals",
        "words of any repeated {n}-gram",
    ),
]
PAGES = [
    *_c4("reference", "5 words and an end mark"),
    *_c4("datatrove", "3 words and an end mark, ' included"),
    *_c4("fineweb", "3 words, no end mark needed"),
    Column("lines_removed@dclm", _I, "lines that RefinedWeb's rules remove"),
    Column("words_removed@dclm", _F, "share of words in them, and in phrases cut out of short lines"),
]
COLUMNS = [*CHARS, *WORDS, *TOKENS, *LINES, *REPEATS, *PAGES]
EXTRA = [
    Column("compress_ratio", _F, "size after zstd at level 1 over size: low means repetition; 1 for empty texts"),
    Column(
        "lang",
        pa.string(),
        "language, ISO 639; und: too little to tell, or unsure; zxx: no language, as in code and tables",
    ),
    Column("lang_score", _F, "probability of that language, among those known"),
]
SCHEMA = pa.schema([pa.field(c.name, c.kind, metadata={"means": c.means}) for c in (*COLUMNS, *EXTRA)])
