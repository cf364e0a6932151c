"""Turn a scraped row into an FAQ: drop the page's furniture, restore the lines that the scrape ran together.

Every rule is about the form of the help centre's pages, never about one row.
"""

import re
from collections.abc import Callable, Iterable

from smartstore_indexing.faq import FAQ, RawFAQ, digest, faq_id

RATING_FORM = re.compile(r"위\s+도움말이\s+도움이\s+되었나요.*", re.S)  # ends every one of the 2,717 answers
RELATED = re.compile(r"관련 도움말/키워드(.*?)(?:도움말\s+닫기|\Z)", re.S)  # in 341 of them
PAGE_END = re.compile(r"도움말\s+닫기")
LONG_BLANK = re.compile(r"[ \t\xa0\u3000]{4,}")  # made three: no rule looks further, and all slow down with length
LEADING_TAGS = re.compile(r"\s*((?:\[[^\[\]]{1,60}\]\s*)+)")
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

SENTENCE_END = r"(?<=[다요죠까오음함됨임]\.)"
HEADING = r"(?:[■□▶▷☞●]|※|! ?(?:중요|주의))"
NO_DATE = r"(?<!\d\.)(?<!\d\. )(?<![\d(,~\-/])"  # what stands before a step's number, but not inside 2023. 1. 31
NAMED_STEP = re.compile(r"[■□▶▷●][^.\n]{0,12}$")  # "■ Case 1." is a heading: its number starts no line
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"

LINE_BREAKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A link's arrow ended its line.
    (re.compile(r"[ \xa0]*[》≫][ \xa0]*"), "\n"),
    # A spacer of blanks after the end of a sentence was an empty paragraph.
    (re.compile(r"(?<=[.!?)\]])[ \t\xa0]{3,}"), "\n"),
    (re.compile(r"[ \t\xa0\u3000]+"), " "),
    # Headings and notes (※ 참고.) start a line wherever they stand, but for the ones inside brackets.
    (re.compile(rf"(?<![(\[]) *({HEADING})"), r"\n\1"),
    # A bullet is a middle dot with a blank behind it, or one glued to the end of a sentence: 취소·반품 is neither.
    (re.compile(r"[ ]*[·ㆍ∙•](?= )"), "\n·"),
    (re.compile(rf"{SENTENCE_END} ?[·ㆍ∙•](?=\S)"), "\n· "),
    (re.compile(r"(?<=[^\s(~\-])- (?=\S)"), "\n- "),
    (re.compile(r" (?=[ㄴ└] ?\S)"), "\n"),
    (re.compile(r"(?<=[가-힣.)]) ?(예시 ?\d?\))"), r"\n\1"),
    # A sentence glued to the next one stood on a line of its own.
    (re.compile(rf"{SENTENCE_END}(?=[가-힣A-Za-z\[(‘'\"“<])"), "\n"),
)

SEQUENCES: tuple[tuple[re.Pattern[str], Callable[[str], int]], ...] = (
    (re.compile(rf"{NO_DATE}(\d{{1,2}})\)(?!\))"), int),  # 1) 2) 3)
    (re.compile(rf"{NO_DATE}(\d{{1,2}})\.(?=[ \xa0]?[^\d\s.)])"), int),  # 1. 2. 3.
    (re.compile(rf"{NO_DATE}(\d)단계(?= ?[:.])"), int),
    (re.compile(rf"([{CIRCLED}])"), lambda mark: CIRCLED.index(mark) + 1),
)


def clean(raw: RawFAQ) -> FAQ:
    """Return the FAQ of a row: tags off the question, page furniture off the answer, Markdown lines restored."""
    title = tidy_line(raw.question)
    tags, question = split_tags(title)
    given = (tidy_line(part) for part in raw.category.split(","))
    categories = tuple(dict.fromkeys(part for part in (*given, *tags) if part))
    titles = (tidy_line(part) for part in (*raw.keyword, *related_titles(raw.answer)))
    related = tuple(dict.fromkeys(part for part in titles if part))
    answer = clean_answer(raw.answer)
    version = digest(title, *categories, "", answer, *related)
    return FAQ(faq_id(raw.question), version, raw.row, categories, title, question, answer, related)


def clean_all(rows: Iterable[RawFAQ]) -> list[FAQ]:
    """Return the FAQs of the rows; of rows with the same question the last one wins and keeps its own row number."""
    return list({faq.id: faq for faq in map(clean, rows)}.values())


def tidy_line(text: str) -> str:
    """Return the text on one line: no invisible or control characters, single blanks."""
    return " ".join(_visible(text).split())


def split_tags(title: str) -> tuple[tuple[str, ...], str]:
    """Return the leading [tags] of a title and the rest, the question; a title of nothing but tags stays whole."""
    found = LEADING_TAGS.match(title)
    rest = title[found.end() :] if found else title
    question = rest.lstrip("★ ").strip()
    if not question:
        return (), title
    tags = re.findall(r"\[([^\[\]]+)\]", found[1]) if found else []
    return tuple(tag.strip() for tag in tags), question


def related_titles(answer: str) -> list[str]:
    """Return the lines under 관련 도움말/키워드: the titles of other FAQs."""
    found = RELATED.search(_visible(answer))
    return found[1].splitlines() if found else []


def clean_answer(answer: str) -> str:
    """Return the answer as Markdown, without the rating form, the related titles and the scrape's blanks."""
    lines = _visible(answer).replace("\r\n", "\n").replace("\r", "\n")
    text = RELATED.sub("", RATING_FORM.sub("", lines))
    return to_markdown(restore_lines(LONG_BLANK.sub("   ", PAGE_END.sub("\n", text))))


def restore_lines(text: str) -> str:
    """Return the text with a line break before each step, bullet, note and glued sentence, and single blanks."""
    for pattern, count in SEQUENCES:
        text = _break_before_steps(text, pattern, count)
    for pattern, replacement in LINE_BREAKS:
        text = pattern.sub(replacement, text)
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and line not in "·-※")


def to_markdown(text: str) -> str:
    """Return lines as Markdown: "·" bullets become "-" items, other lines paragraphs; step numbers stay as they are."""
    out: list[str] = []
    for line in text.split("\n"):
        item = re.match(r"(?:·|ㄴ|└|-) ?(?=\S)", line)
        is_listed = bool(item or re.match(r"\d{1,2}[.)] ?\S", line))
        if out and not (is_listed and _is_listed(out[-1])):
            out.append("")
        out.append("- " + line[item.end() :] if item else line)
    return "\n".join(out)


def _visible(text: str) -> str:
    """Return the text without invisible and control characters; line breaks and blanks stay."""
    return CONTROL.sub("", text.translate(INVISIBLE))


def _is_listed(line: str) -> bool:
    return bool(re.match(r"- |\d{1,2}[.)] ?\S", line))


def _break_before_steps(text: str, pattern: re.Pattern[str], count: Callable[[str], int]) -> str:
    """Break the line before marks that count up from 1, and before no other number that looks like one."""
    out, end, expected = [], 0, 1
    marks = list(pattern.finditer(text))
    for here, mark in enumerate(marks):
        number = count(mark[1])
        following = count(marks[here + 1][1]) if here + 1 < len(marks) else 0
        starts = number == 1 and following == 2
        if starts or (number == expected and number > 1):
            before = text[end : mark.start()]
            out += [before] if NAMED_STEP.search(before) else [before, "\n"]
            end, expected = mark.start(), number + 1
    return "".join([*out, text[end:]])
