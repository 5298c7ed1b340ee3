"""The prose uses the words of the field: no phrase of the list below, in code, tests, configs or documents."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASES = {  # each with the words to use instead
    r"(go|goes|gone|going|went) on with": "resume, continue",
    r"(is|are|be|was|were) told(?! apart)": "get, receive, report, log",
    r"a person|persons|somebody|someone|(?<!~)nobody|anybody|anyone|whoever": "user, or the passive",
    r"strangers?": "untrusted, other",
    r"its kin": "similar models, by name",
    r"(hold|holds|held|holding) (\w+ ){0,3}to (what|its|their|those|that|the|a|it)": "check X against Y",
    r"a (row|line|pair|class|run|job|token|second|step|layer|contestant) an? \w+": "per",
    r"(pairs|tokens|rows|steps|weights|runs|jobs) an? (step|epoch|second|pair|batch|class|layer|line|run|job)": "per",
    r"(put|puts|putting) (back|off|together|aside)": "restore, defer, combine",
    r"handed (round|on)|hand round": "broadcast, pass",
    r"likewise": "also, the same way",
    r"(?<!there\s)(is|are|was|were) (?-i:none)(?! of)": "is not a, invalid",
    r"by way of": "by, through",
    r"(as|what) (it|they) (is|are)(?=[.,;:)])": "unchanged, or name the thing",
    r"so many(?! \w+ that)": "the number of",
    r"(?<!there\s)(is|are) no (?!more|less|longer|better|worse|different)[\w-]+": "is not a",
    r"nothing but": "only",
    r"(is|are) said": "report, is shown",
    r"asks? of": "require",
    r"to be had": "available",
    r'"""(What|Who|Whose|Of)': "begin with a verb or a noun",
    r"worked through|work it through": "process",
    r"goes? its (own )?way|is no matter|ha(s|ve) no say": "name what happens",
    r"beside the (main|others?)": "other ranks",
    r"one's own": "custom, the user's",
    r"def test_(an?|the|it|of|what\w*|who\w*)_\w+": "a short name of what is tested",
}
PLACES = (
    *("afqmc/**/*", "hydra_plugins/**/*", "conf/**/*", "tests/**/*", "benchmarks/**/*", "examples/**/*"),
    *("docs/*", "*.md"),
)
FILES = [
    path
    for place in PLACES
    for path in sorted(ROOT.glob(place))
    if path.suffix in {".py", ".yaml", ".md", ".js", ".html", ".json"} and path != Path(__file__)
]


def found_phrases(text):
    """Return ``line: phrase -> words to use`` of a text, also of phrases that a line break divides."""
    for phrase, better in PHRASES.items():
        pattern = r"(?<!\w)(" + phrase.replace(" ", r"[\s#/*]+") + r")\b"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{line}: {' '.join(match.group().split())!r} -> {better}"


def test_prose_has_no_private_phrases():
    """The files contain none of the phrases; the message lists files, lines, phrases and better words."""
    wrong = [
        f"{path.relative_to(ROOT)}:{phrase}"
        for path in FILES
        for phrase in found_phrases(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "What a run goes on with.",
        "The process that is told of it.",
        "somebody's file",
        "Every config is held to its range",
        "a row a pair",
        "pairs an optimizer\n    # step a person",
        "probabilities that are none",
        '"""What a run saves."""',
        "def test_a_state_that_is_a_pickle_is_no_state(): ...",
    ],
)
def test_private_phrases_match(text):
    """The patterns match also where the words stand on two lines."""
    assert list(found_phrases(text))


@pytest.mark.parametrize(
    "text",
    [
        "Where there is none.",
        "There are none of these.",
        "one row per pair",
        "a row added a second time",
        "Move it to the GPU.",
    ],
)
def test_ordinary_english_does_not_match(text):
    """The patterns do not match sentences that a newcomer understands."""
    assert not list(found_phrases(text))
