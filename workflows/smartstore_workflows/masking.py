"""Replaces personal data by labels before a text is logged, stored or sent to a model.

Matching runs on a flattened copy (full-width forms narrowed, every dash a hyphen, invisible characters gone); the
text outside the matches comes back untouched. Numbers that look alike are told apart by the words around them.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

_BLANK = "\0"  # stands for what is masked already; `_flat` drops control characters, so no input brings its own
_DASHES = "\u2212ㅡー─━"  # typed for a hyphen, but not in Unicode's dash category
_DOTS = "·ㆍ・•‧∙"
_SPACES = "\t\u3164\u115f\u1160\uffa0"  # the last four are the Hangul fillers

_DATE = re.compile(r"(?:19|20)\d\d[-. ]{0,3}(?:0[1-9]|1[0-2])[-. ]{0,3}(?:0[1-9]|[12]\d|3[01])")
_COMPANY = re.compile(r"080-|\d{3}-\d\d-\d{5}$")  # a toll-free number, a 사업자등록번호
_ISSUER = re.compile("[3-69]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")  # 9 is domestic, 2221-2720 Mastercard
_BANK = re.compile("은행|뱅크|[농수신]협|새마을|우체국|국민|신한|토스|KB|NH|IBK|카뱅|계좌|통장|[입송예]금|이체")
_CODE = re.compile("주문(?!자|인)|송장|등기|택배|상품|코드|사업자|법인|(?:제품|모델|접수|승인|쿠폰|예약|거래)번호")
_NAMED = "주문|상품|제품|모델|송장|등기|접수|승인|쿠폰|예약|거래|사업자|사업자등록|법인|법인등록"
_CODE_NAMED = re.compile(rf"(?:(?:{_NAMED})(?:번호|코드)|송장|바코드)[은는이가도]?$")
_WORD = re.compile(rf"[가-힣A-Za-z]|[\d{_BLANK}][^가-힣A-Za-z]*")  # a letter, or all from a digit to the next letter


class _Seen(NamedTuple):
    """A number with the letters around it; numbers in between are a "#" each, so masking them changes nothing."""

    number: str
    before: str
    after: str


def _unnamed(seen: _Seen) -> bool:
    return not _CODE_NAMED.search(seen.before)


def _abroad(seen: _Seen) -> bool:
    return _unnamed(seen) or not seen.number.isdigit()


def _undated(seen: _Seen) -> bool:
    return _unnamed(seen) and not _DATE.match(seen.number)


def _card(seen: _Seen) -> bool:
    digits = [int(char) for char in reversed(seen.number) if char.isdigit()]
    luhn = sum(digits[::2]) + sum(digit * 2 % 10 + digit // 5 for digit in digits[1::2])
    evidence = "-" in seen.number or "카드" in f"{seen.before}#{seen.after}"
    return _undated(seen) and (evidence or bool(luhn % 10 == 0 and _ISSUER.match(seen.number)))


def _account(seen: _Seen) -> bool:
    def distance(word: re.Pattern[str]) -> int:
        behind = [len(seen.before) - hit.end() for hit in word.finditer(seen.before)]
        return min(behind + [hit.start() for hit in word.finditer(seen.after)], default=99)

    if not _undated(seen) or _COMPANY.match(seen.number):
        return False
    return 10 <= sum(map(str.isdigit, seen.number)) <= 14 and distance(_BANK) <= min(distance(_CODE), 20)


def _resident(seen: _Seen) -> bool:
    return _unnamed(seen) and not (seen.number.isdigit() and _account(seen))  # 우리은행 1002123456789 reads as a date


_SEP, _GAP = "[-. /]{0,3}", "[-. /_()]{0,3}"
_YYMMDD = r"\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_MOBILE, _AREA = "01[016-9]", r"0(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50\d)"
_REST = rf"{_GAP}\d{{3,4}}{_GAP}\d{{4}}(?!\d)"
_ABROAD = r"(?:\+|(?<!\d)00|(?<!\d)(?=82[-. (]|8210\d{8}(?!\d)))82"  # a bare 82 needs more to be a country code

# 국민·우체국 6-2-6, 신협 5-2-6, 새마을 4-4-4-1, 우리 4-3-6, 카카오·전북 4-2-7, 하나 3-6-5, 기업 3-6-2-3,
# 씨티 3-6-3, 산업 3-4-4-3, 농협·부산 3-4-4-2, 신한·케이 3-3-6, 대구 3-2-6-1, 경남 3-2-7, SC제일 3-2-6, 옛 국민 3-2-4-3
_LAYOUTS = (626, 526, 4441, 436, 427, 365, 3623, 363, 3443, 3442, 336, 3261, 327, 326, 3243)
_HYPHENED, _SPACED = (
    "|".join(separator.join(rf"\d{{{size}}}" for size in str(layout)) for layout in _LAYOUTS)
    for separator in (" ?- ?", " ?[-. ] ?")
)

# Label, pattern, further condition. In order of precedence: what a row has taken, the rows below no longer see.
_KINDS: tuple[tuple[str, str, Callable[[_Seen], bool]], ...] = (
    # RFC 5321 in its everyday form, with the ways people write the "@".
    (
        "이메일",
        r"[A-Za-z0-9._+-]{1,64}+ ?(?:@|%40|골뱅이|[(\[]at[)\]]) ?(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}",
        lambda _: True,
    ),
    # 주민등록법 시행규칙: birth date, then 1-4 (citizens) or 5-8 (foreigners); no check digit since October 2020.
    ("주민등록번호", rf"(?<!\d){_YYMMDD}[-. /_~]{{0,3}}(?:[1-8][\d*xX●○]{{6}}|[*●○]{{7}})(?![\d*]| ?원)", _resident),
    # ISO/IEC 7812 in fours, American Express 4-6-5; without hyphens, a Luhn check or the word 카드 must speak for it.
    ("카드번호", rf"(?<!\d)(?:\d{{4}}(?:{_SEP}\d{{4}}){{3}}|3[47]\d\d{_SEP}\d{{6}}{_SEP}\d{{5}})(?!\d)", _card),
    # The layouts banks print, 10xx-4-4 being 토스뱅크; before phones, because 3333-02-1234567 holds one.
    ("계좌번호", rf"(?<!\d)(?:{_HYPHENED}|10\d\d-\d{{4}}-\d{{4}})(?!\d)", _undated),
    # 전기통신번호관리세칙: mobiles are 010, 011, 016-019.
    ("전화번호", rf"(?<!\d)(?:\({_MOBILE}\)|{_MOBILE}){_REST}", lambda _: True),
    # The same, and landlines, from abroad: the leading zero is dropped or in parentheses.
    ("전화번호", rf"{_ABROAD}{_GAP}0?{_GAP}(?:{_MOBILE[1:]}|{_AREA[1:]}){_REST}", _abroad),
    # Landlines by area, 070 (internet), 050x (safe numbers); never 080 and 15xx, 16xx, 18xx, which are companies'.
    ("전화번호", rf"(?<!\d)(?:\({_AREA}\)|{_AREA}){_REST}", _unnamed),
    # Any other 10-14 digits, when the nearest telling word is about a bank account.
    ("계좌번호", rf"(?<!\d)(?:{_SPACED}|\d{{2,6}}(?:-\d{{1,7}}){{1,4}}|\d{{10,14}})(?!\d| ?원)", _account),
)
_LABEL = re.compile("|".join(sorted({rf"\[{label}\]" for label, _, _ in _KINDS})))


def mask(text: str) -> str:
    """Return `text` with personal data replaced by labels such as `[전화번호]`; idempotent, takes any Unicode."""
    kept = [(index, flat) for index, char in enumerate(text) if (flat := _flat(char))]
    flat = _LABEL.sub(lambda hit: _BLANK * len(hit[0]), "".join(char for _, char in kept))
    out = list(text)
    while True:  # until nothing is found, since what one row takes may uncover a match for a row above it
        flat, spans = _take(flat)
        if not spans:
            return "".join(out)
        for start, stop, label in spans:
            first, last = kept[start][0], kept[stop - 1][0]
            out[first : last + 1] = [label] + [""] * (last - first)


def _take(flat: str) -> tuple[str, list[tuple[int, int, str]]]:
    words = [(hit.start(), hit[0] if hit[0].isalpha() else "#") for hit in _WORD.finditer(flat)]
    starts, letters = [start for start, _ in words], "".join(letter for _, letter in words)
    spans = []
    for label, pattern, accepts in _KINDS:
        chars = list(flat)
        for hit in re.finditer(pattern, flat):
            at, behind = bisect_left(starts, hit.start()), bisect_left(starts, hit.end())
            if accepts(_Seen(hit[0], letters[max(0, at - 20) : at], letters[behind : behind + 6])):
                spans.append((hit.start(), hit.end(), f"[{label}]"))
                chars[hit.start() : hit.end()] = _BLANK * len(hit[0])
        flat = "".join(chars)
    return flat, spans


@lru_cache(maxsize=4096)
def _flat(char: str) -> str:
    """Return the one character that `char` stands for when numbers are read, or nothing for an invisible one."""
    category = unicodedata.category(char)
    if category == "Zs" or char in _SPACES:
        return " "
    if category in {"Cc", "Cf", "Mn", "Me"} and char not in "\n\r":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Pd" or char in _DASHES:
        return "-"
    if char in _DOTS:
        return "."
    narrow = unicodedata.normalize("NFKC", char)
    return narrow if len(narrow) == 1 and narrow.isascii() and not narrow.isdigit() else char
