import re
import string
from datetime import date

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from masking_cases import ACCOUNT, CARD, EMAIL, MUST_MASK, MUST_NOT_MASK, PHONE, RESIDENT, wide

from smartstore_workflows.masking import mask


def ascii_part(text: str) -> str:
    # pytest escapes Hangul in an id; the number is what one looks for.
    return " ".join(re.findall(r"[!-~]+", text)) or "words"


untimed = settings(deadline=None)

HANGUL = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
korean = st.text(st.one_of(HANGUL, st.sampled_from(" .,!?~()…\n")), max_size=30)
digits = st.text(string.digits, min_size=4, max_size=4)
separators = st.sampled_from(["", "-", " ", ".", "\u2013", "\u2014", "\u2011", "\uff0d", "\u200b-", " - ", "\u00ad"])
mobiles = st.builds(
    lambda prefix, middle, last, gap: (f"{prefix}{gap}{middle}{gap}{last}", middle, last),
    st.sampled_from(["010", "011", "016", "+82 10", "+82-10"]),
    digits,
    digits,
    separators,
)
emails = st.from_regex(
    r"[a-z0-9][a-z0-9._+-]{0,20}@[a-z0-9]{1,12}(?:\.[a-z0-9]{1,8}){0,2}\.(?:com|net|kr)", fullmatch=True
)
residents = st.builds(
    lambda born, gap, gender, rest: f"{born:%y%m%d}{gap}{gender}{rest:06}",
    st.dates(date(1930, 1, 1), date(2029, 12, 31)),
    separators,
    st.integers(1, 8),
    st.integers(0, 999_999),
)
# Pieces that meet one another in ways no single case has.
fragments = st.sampled_from(
    [text for text, _, _ in MUST_MASK]
    + MUST_NOT_MASK
    + [
        "계좌",
        "송장번호",
        "주문",
        "카드",
        "하나",
        "골뱅이",
        "@",
        "a.kr",
        ".c@d.com",
        "-",
        " ",
        "\n",
        "0",
        "02",
        "010",
        "4111",
    ]
    + ["2024", "12345678", "[전화", "번호]", "\u200b", "\0", "원", "*", "x", "ㅡ"]
)


@pytest.mark.parametrize(("text", "secrets", "label"), MUST_MASK, ids=[ascii_part(text) for text, _, _ in MUST_MASK])
def test_personal_data_gives_way_to_its_label(text: str, secrets: tuple[str, ...], label: str) -> None:
    masked = mask(text)

    assert label in masked
    assert [secret for secret in secrets if secret in masked] == []


@pytest.mark.parametrize("text", MUST_NOT_MASK, ids=ascii_part)
def test_text_without_personal_data_comes_back_unchanged(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize("text", [text for text, _, _ in MUST_MASK], ids=ascii_part)
def test_masking_a_case_twice_is_masking_it_once(text: str) -> None:
    assert mask(mask(text)) == mask(text)


def test_only_the_number_is_replaced() -> None:
    assert mask("홍길동(010-1234-5678)님, 환불은 110-123-456789로요.") == f"홍길동({PHONE})님, 환불은 {ACCOUNT}로요."


def test_what_surrounds_a_number_keeps_its_odd_characters() -> None:
    assert mask(f"\u200b{wide('0')}번 {wide('010')}-1234-5678\u00ad끝") == f"\u200b{wide('0')}번 {PHONE}\u00ad끝"


def test_an_account_is_told_from_a_parcel_by_the_nearer_word() -> None:
    assert mask("송장 조회 말고 계좌 123456789012") == f"송장 조회 말고 계좌 {ACCOUNT}"
    assert mask("계좌 말고 송장 조회 123456789012") == "계좌 말고 송장 조회 123456789012"


def test_a_bare_card_number_needs_its_check_digit() -> None:
    assert mask("4111111111111111") == CARD
    assert mask("4111111111111112") == "4111111111111112"


def test_a_month_that_does_not_exist_is_no_birth_date() -> None:
    assert mask("901301-1234567") == "901301-1234567"


@untimed
@given(korean, mobiles, korean)
@example("송장번호", ("+82 10-1234-5678", "1234", "5678"), "")
def test_a_mobile_number_never_survives(before: str, mobile: tuple[str, str, str], after: str) -> None:
    number, middle, last = mobile
    masked = mask(f"{before}{number}{after}")

    assert masked == f"{before}{PHONE}{after}"
    assert middle not in masked
    assert last not in masked


@untimed
@given(korean, emails, korean)
def test_an_email_address_never_survives(before: str, email: str, after: str) -> None:
    assert mask(f"{before} {email}{after}") == f"{before} {EMAIL}{after}"


@untimed
@given(korean, residents, korean)
@example("", "0001011000000", "계좌")
def test_a_resident_number_never_survives(before: str, resident: str, after: str) -> None:
    masked = mask(f"{before} 주민번호 {resident}, {after}")

    # Thirteen bare digits beside a bank's word may as well be an account; masked they are.
    assert masked in {f"{before} 주민번호 {label}, {after}" for label in (RESIDENT, ACCOUNT)}


@untimed
@given(korean)
def test_words_alone_are_never_touched(text: str) -> None:
    assert mask(text) == text


@settings(deadline=None, max_examples=500)
@given(st.lists(fragments, max_size=8).map("".join))
@example("a@b.com.c@d.com")
@example("통장 010-1234-5678 12345678901 가나다라마바사아자차카타파하가나다라마바 12345678901")
def test_masking_twice_is_masking_once(text: str) -> None:
    masked = mask(text)

    assert mask(masked) == masked


@untimed
@given(st.text(st.characters(), max_size=60))
@example("\ud800010-1234-5678\udfff")
@example("\x00\x1b\x7f\ufeff")
def test_any_unicode_is_accepted_and_masking_it_twice_is_masking_it_once(text: str) -> None:
    masked = mask(text)

    assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "1" * 20_000,
        "-" * 20_000,
        "1-" * 10_000,
        "12-" * 7_000,
        "010-" * 5_000,
        "02-123-4567-" * 2_000,
        "1234 " * 4_000,
        "a" * 20_000,
        "a." * 10_000 + "@",
        "a@" * 10_000,
        "a@" + "b." * 10_000,
        "900101-1*****" * 1_500,
        "계좌 1234567890 " * 1_500,
        "\u200b" * 20_000,
    ],
    ids=lambda text: text[:14],
)
def test_adversarial_input_is_finished(text: str) -> None:
    masked = mask(text)

    assert mask(masked) == masked
