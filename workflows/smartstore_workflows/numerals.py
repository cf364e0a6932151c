"""Numbers in Korean text, however they are written: 30분, 서른 분, 3만 원, 30,000원, 일주일. Pure."""

from collections.abc import Sequence

from smartstore_indexing.korean import Morpheme

DIGITS = {"영": 0, "일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "칠": 7, "팔": 8, "구": 9}
PLACES = {"십": 10, "백": 100, "천": 1_000}
MYRIADS = {"만": 10_000, "억": 100_000_000, "조": 1_000_000_000_000}
NATIVE = {
    **{"한": 1, "하나": 1, "두": 2, "둘": 2, "세": 3, "셋": 3, "네": 4, "넷": 4, "다섯": 5, "여섯": 6, "일곱": 7},
    **{"여덟": 8, "아홉": 9, "열": 10, "스무": 20, "스물": 20, "서른": 30, "마흔": 40, "쉰": 50, "예순": 60},
}
# Days that have a name of their own.
DAYS = {"하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "엿새": 6, "이레": 7, "열흘": 10, "보름": 15}
# A unit, the one that it is told in, and how many of that one it is.
UNITS: dict[str, tuple[str, float]] = {
    "초": ("초", 1),
    "분": ("초", 60),
    "시간": ("초", 3_600),
    "일": ("초", 86_400),
    "날": ("초", 86_400),
    "주": ("초", 604_800),
    "주일": ("초", 604_800),
    "주간": ("초", 604_800),
    "개월": ("개월", 1),
    "달": ("개월", 1),
    "년": ("개월", 12),
    "해": ("개월", 12),
    "명": ("명", 1),
    "사람": ("명", 1),
    "인": ("명", 1),
    "번": ("회", 1),
    "회": ("회", 1),
    "차례": ("회", 1),
    "세": ("세", 1),
    "살": ("세", 1),
    "%": ("%", 1),
    "퍼센트": ("%", 1),
    "프로": ("%", 1),
    "kb": ("mb", 1 / 1_024),
    "mb": ("mb", 1),
    "메가": ("mb", 1),
    "gb": ("mb", 1_024),
    "기가": ("mb", 1_024),
    "cm": ("cm", 1),
    "mm": ("cm", 0.1),
    "m": ("cm", 100),
    "g": ("g", 1),
    "그램": ("g", 1),
    "kg": ("g", 1_000),
    "킬로": ("g", 1_000),
    **{unit: (unit, 1) for unit in ("단계", "가지", "종류", "장", "px", "픽셀", "점", "원", "배", "글자", "자")},
}
NUMBER_TAGS = frozenset({"SN", "NR"})


def number_at(morphemes: Sequence[Morpheme], start: int) -> tuple[str, int] | None:
    """Return the number that begins at a place, as "604800초", and the place after it; None where none begins."""
    first = morphemes[start]
    if first.form in DAYS and first.tag == "NNG":
        return f"{DAYS[first.form] * 86_400:g}초", start + 1
    end = start
    while end < len(morphemes) and morphemes[end].tag in NUMBER_TAGS:
        end += 1
    unit = morphemes[end] if end < len(morphemes) else None
    if end == start:
        unit = morphemes[start + 1] if start + 1 < len(morphemes) else None
        counted = unit is not None and (unit.tag == "NNB" or unit.form in UNITS)
        if first.tag != "MM" or first.form not in NATIVE or not counted:
            return None
        end = start + 1
    value = value_of("".join(morpheme.form for morpheme in morphemes[start:end]))
    if value is None:
        return None
    if unit is None or not (unit.tag == "NNB" or unit.form in UNITS):
        return f"{value:g}", end
    name, times = UNITS.get(unit.form, (unit.form, 1))
    return f"{value * times:.10g}{name}", end + 1


def value_of(text: str) -> float | None:
    """Return the number that digits and numerals spell, "3억5천만" for one; None when they spell none."""
    if text in NATIVE:
        return NATIVE[text]
    total = section = 0.0
    digits = ""
    for character in text.replace(",", ""):
        if character.isdecimal() or character == ".":
            digits += character
        elif character in DIGITS:
            digits += str(DIGITS[character])
        elif character in PLACES or character in MYRIADS:
            here = _number(digits)
            if here is None:
                return None
            if character in PLACES:
                section += (here or 1) * PLACES[character]
            else:
                total += ((section + here) or 1) * MYRIADS[character]
                section = 0.0
            digits = ""
        else:
            return None
    rest = _number(digits)
    return None if rest is None else total + section + rest


def _number(digits: str) -> float | None:
    try:
        return float(digits) if digits else 0.0
    except ValueError:  # a version or a date: 1.2.3
        return None
