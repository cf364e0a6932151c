"""Spell a Korean question as people in a hurry do."""

import random

SYLLABLES, FIRST = 11_172, 0xAC00  # Unicode's Hangul syllables: (initial * 21 + vowel) * 28 + final
VOWELS = {1: 5, 5: 1, 3: 7, 7: 3, 4: 0, 8: 13}  # the like-sounding or neighbouring: ㅐㅔ ㅒㅖ ㅓㅏ ㅗㅜ
FINALS = {20: 19, 2: 1, 6: 4, 18: 17, 5: 4, 9: 8, 10: 16, 11: 17}  # ㅆㅅ ㄲㄱ ㄶㄴ ㅄㅂ ㄵㄴ ㄺㄹ ㄻㅁ ㄼㅂ
DOUBLED, SINGLE = (1, 4, 8, 10, 13), (0, 3, 7, 9, 12)
SLANG = (
    ("요?", "여?"),
    ("어떻게", "어케"),
    ("하나요", "하나여"),
    ("되나요", "되나여"),
    ("안 되", "않되"),
    ("습니다", "슴다"),
    ("했는데", "햇는데"),
    ("었", "엇"),
    ("있", "잇"),
    ("겠", "겟"),
    ("괜찮", "갠찬"),
    ("왜", "외"),
    ("않", "안"),
    ("되", "돼"),
    ("돼", "되"),
    ("예요", "에요"),
    ("에요", "예요"),
)
SLANG_SHARE, SYLLABLE_SHARE, BLANK_SHARE = 0.3, 0.09, 0.35


def misspelt(text: str, chance: random.Random) -> str:
    """Return the text with slang, like-sounding syllables, blanks left out and no punctuation."""
    for right, wrong in SLANG:
        if chance.random() < SLANG_SHARE:
            text = text.replace(right, wrong)
    letters = (letter for letter in text if letter not in "?.!,")
    return "".join(_misheard(letter, chance) for letter in letters if letter != " " or chance.random() > BLANK_SHARE)


def _misheard(letter: str, chance: random.Random) -> str:
    place = ord(letter) - FIRST
    if not 0 <= place < SYLLABLES or chance.random() > SYLLABLE_SHARE:
        return letter
    initial, vowel, final = place // 588, place % 588 // 28, place % 28
    kind = chance.random()
    if kind < 0.45 and vowel in VOWELS:
        vowel = VOWELS[vowel]
    elif kind < 0.8 and final:
        final = FINALS.get(final, final if chance.random() < 0.5 else 0)
    elif initial in DOUBLED:
        initial -= 1
    elif initial in SINGLE:
        initial += 1
    return chr(FIRST + initial * 588 + vowel * 28 + final)
