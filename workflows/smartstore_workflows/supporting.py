"""What an answer claims and no FAQ says that it cites: numbers, dates, amounts, periods and menu paths. Pure.

A number counts with its unit, however both are written: 3만 원 is 30,000원, 일주일 is 7일, and 2주 is not 2일; one with
a unit that is not known here counts by its value. Citations, the numbers of lists and steps, addresses on the web and
names such as B2B claim nothing.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from smartstore_indexing.faq import FAQ
from smartstore_workflows.numerals import DAYS, NATIVE, UNITS, value_of
from smartstore_workflows.prompting import NARROW, cited_numbers, without_dangling

WORKING = "영업일"
OWN_UNITS = (WORKING, "시", "월", "개", "건", "자리", "분기", "주차", "회차", "주년")  # beside those of numerals.py
PLAIN = NARROW | dict.fromkeys(map(ord, "‐‑–—−"), "-") | dict.fromkeys(map(ord, "∼〜"), "~") | {ord("\xa0"): " "}
PATH_MARKS = re.compile(r"[\s\[\]\"'`*‘’“”]")  # in which two writings of one path differ
PATH_END = re.compile(r"(?:메뉴|화면|페이지|탭|버튼)?(?:에서는?|으로|로|에|의|[을를은는이가과와])?[^\w)]*$")

# The kinds of token, in the order in which they are tried; blanks are written [ ] for re.VERBOSE.
FIGURES = r"\d+(?:,\d{3})*(?:\.\d+)?"
UNIT = "|".join(sorted(map(re.escape, {*UNITS, *OWN_UNITS}), key=len, reverse=True))
NO_CLAIM = r"""
    (?:https?://|www\.)[!-~]+ | (?<![\w.-])(?:[a-z][a-z0-9-]{0,62}\.)+[a-z]{2,}[!-~]*  # an address
    | \[\d{1,2}(?:[ ,~-]+\d{1,2})*\]                                                  # a citation
    | ^[^\w\n\[]{0,9}\d{1,2}(?:[.)](?!\d)|[ ]?단계) | (?<!\S)\(?\d{1,2}\)(?=\s)        # 1.  2)  3단계
    | (?<!\w)(?:(?:step|faq)[ ]?\d+|[a-z_]+\d[a-z0-9_]*)                              # STEP 1  B2B
    | <[^<>\n]{1,60}>
"""
MENU = r"""
    \[[^\[\]<>\n]{1,60}(?:>[^\[\]<>\n]{1,60})+\]                                      # [판매관리 > 반품 관리]
    | (?<![^\s("'*])[^\s<>\[\]]{1,30}(?<![\d=-])[ ]*>                                  # 판매관리 > 반품
      (?:[^\[\]<>\n]{1,40}>)*[ ]*(?=["'*]*[^\W\d])[^\s<>\[\]]{1,30}
"""
DATE = r"""
    (?<!\d)(?:\d{4}|'?\d\d)[ ]?년[ ]?\d{1,2}[ ]?월(?:[ ]?\d{1,2}[ ]?일)? | (?<!\d)\d{1,2}[ ]?월[ ]?\d{1,2}[ ]?일
    | (?<![\d.])(?:\d{4}|'?\d\d)\.[ ]?\d{1,2}\.[ ]?\d{1,2}(?!\.?\d) | (?<!\d)\d{4}[-/]\d{1,2}[-/]\d{1,2}(?!\d)
    | (?<![\d/])\d{1,2}/\d{1,2}(?![\d/])
"""
CODE = r"""
    \d+(?::\d+)+ | \d+(?:\.\d+){2,}                                                   # 1:1  09:00  4.0.1
    | (?<!\d)(?:0\d{1,2}-\d{3,4}|1[568]\d\d|\d{3}-\d\d)-\d{4,5}(?!\d)                  # 1588-0000
"""
COUNTED = rf"""
    (?P<before>(?<!비){WORKING}[ ]?(?:기준[ ]?)?(?:으로[ ]?)?|오[전후][ ]?)?
    (?P<digits>{FIGURES}(?:[ ]?[십백천만억]+(?![큼족])(?:{FIGURES}|[ ]{FIGURES}(?=[ ]?[천백십]))?)*)
    (?:[ ]?(?P<unit>{UNIT})(?![a-z])(?P<after>[ ]?\({WORKING})?)?
    | (?<![가-힣\d])(?P<spelled>[십백천만억]{{1,4}})[ ]?(?P<won>원)
    | (?<![가-힣])(?P<native>{"|".join(NATIVE)}|일(?=주일))[ ]?(?P<period>달|시간|주일|해)
    | (?<![가-힣])(?P<days>{"|".join(DAYS)})
"""
FLAGS = re.VERBOSE | re.IGNORECASE | re.MULTILINE
TOKEN = re.compile(
    f"{NO_CLAIM} | (?P<menu>{MENU}) | (?P<date>{DATE}) | (?P<code>{CODE}) | (?P<counted>{COUNTED})", FLAGS
)
NUMBER = re.compile(COUNTED, FLAGS)
RANGE = re.compile(rf"(?<!\d)({FIGURES})[ ]?[~-][ ]?{FIGURES}[ ]?({UNIT})", re.IGNORECASE)


class Checked(NamedTuple):
    """An answer as it is given: without citations of nothing, the ids that it cites, and what they do not support."""

    text: str
    citations: tuple[str, ...]
    unsupported: tuple[str, ...]


def checked(said: str, faqs: Sequence[FAQ]) -> Checked:
    """Return what a model said from these FAQs, numbered from 1; where it cites none it is held against all.

    Takes 0.8 ms a thousand characters of those FAQs: 7 ms for five of the help centre, 120 ms for its five longest.
    """
    text = without_dangling(said, len(faqs))
    cited = [faqs[number - 1] for number in cited_numbers(text, len(faqs))]
    told = [f"{faq.title}\n{faq.answer}" for faq in cited or faqs]
    return Checked(text, tuple(faq.id for faq in cited), unsupported(text, told))


def unsupported(answer_text: str, cited_texts: Sequence[str]) -> tuple[str, ...]:
    """Return what the answer claims and none of the texts says, as it is written there, in its order, each once."""
    told = "\n\0\n".join(cited_texts).translate(PLAIN)
    said, paths = _said(told), _flat(told)

    def holds(token: re.Match[str]) -> bool:
        if token["menu"]:
            return _flat(PATH_END.sub("", token["menu"])) in paths
        keys = _keys(token)
        return not keys or keys[0] in said

    tokens = TOKEN.finditer(answer_text.translate(PLAIN))
    missing = (answer_text[token.start() : token.end()].strip() for token in tokens if not holds(token))
    return tuple(dict.fromkeys(missing))


def _said(text: str) -> set[str]:
    """Return the keys of all that a text says; both ends of a range have its unit."""
    said = {_figure(figures) for figures in re.findall(FIGURES, text)}
    for token in TOKEN.finditer(text):
        said.update(_keys(token))
    for low, unit in RANGE.findall(text):
        said.update(_counted_keys(low + unit))
    return said


def _keys(token: re.Match[str]) -> list[str]:
    """Return what a token says in a form that all its writings share: first the whole, then what that holds."""
    if token["date"]:
        return _date_keys(token["date"])
    if token["code"]:
        return [":".join(part.lstrip("0") for part in re.findall(r"\d+", token["code"]))]
    return _counted_keys(token["counted"]) if token["counted"] else []


def _date_keys(text: str) -> list[str]:
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    units = "년월일" if len(numbers) == 3 or "년" in text else "월일"
    if units[0] == "년":
        numbers[0] += 2000 if numbers[0] < 100 else 0
    parts = [f"{number}{unit}" for number, unit in zip(numbers, units, strict=False)]
    whole = ["".join(parts), "".join(parts[:2]), "".join(parts[-2:])]
    return whole + [key for part in parts for key in _counted_keys(part)]


def _counted_keys(text: str) -> list[str]:
    found = NUMBER.fullmatch(text)
    assert found is not None
    digits = found["digits"] or found["spelled"] or found["native"] or found["days"]
    unit = (found["unit"] or found["won"] or found["period"] or ("일" if found["days"] else "")).lower()
    value = DAYS.get(digits) or value_of(digits.replace(" ", ""))
    if value is None:
        return [text]
    if unit == WORKING:
        return [f"{WORKING} {value:.12g}일", f"{value:.12g}"]
    name, times = UNITS.get(unit, (unit, 1))
    keys = [f"{value * times:.12g}{name}", f"{value:.12g}"]
    before = (WORKING if found["after"] else found["before"] or "").split()
    if before and unit in ("일", "시"):
        keys.insert(0, f"{before[0]} {value:.12g}{unit}")
    return keys


def _figure(figures: str) -> str:
    return f"{value_of(figures):.12g}"


def _flat(text: str) -> str:
    return PATH_MARKS.sub("", text).casefold()
