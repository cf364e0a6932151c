"""Read an FAQ file: .pkl (a dict of questions to answers), .csv or .jsonl (category, question, answer, keyword)."""

import csv
import io
import json
import pickle
import pickletools
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from smartstore_indexing.errors import InvalidRequest, UnsafeSource
from smartstore_indexing.faq import RawFAQ

SAMPLE = Path(__file__).parent / "sample" / "faq.jsonl"
MAX_BYTES = 256 * 1024 * 1024  # the real FAQ is 3.4 MB

# A pickle is a program. These opcodes make text, numbers, None, lists and dicts, whichever protocol wrote them; the
# naming ones are let through to PlainUnpickler, which says what they name. A tuple can be nested a million deep and
# ends the process when it is hashed, so it is not among them.
PLAIN_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|POP|POP_MARK|DUP|MEMOIZE|PUT|BINPUT|LONG_BINPUT|GET|BINGET|LONG_BINGET|"
    "NONE|NEWTRUE|NEWFALSE|INT|BININT|BININT1|BININT2|LONG|LONG1|LONG4|FLOAT|BINFLOAT|"
    "UNICODE|SHORT_BINUNICODE|BINUNICODE|BINUNICODE8|STRING|SHORT_BINSTRING|BINSTRING|"
    "EMPTY_LIST|LIST|APPEND|APPENDS|EMPTY_DICT|DICT|SETITEM|SETITEMS"
)
NAMING_OPCODES = re.compile("GLOBAL|STACK_GLOBAL|INST")
RUNNING_OPCODES = re.compile("OBJ|NEWOBJ|NEWOBJ_EX|REDUCE|BUILD|EXT1|EXT2|EXT4|PERSID|BINPERSID")
MEMO_OPCODES = re.compile("PUT|BINPUT|LONG_BINPUT")


class Row(BaseModel):
    """One row of a source file; `keyword` is a list of related titles, or a text with "|" or a line break between."""

    model_config = ConfigDict(extra="ignore", strict=True)

    category: str = ""
    question: str = Field(min_length=1, max_length=2_000)
    answer: str = Field(min_length=1, max_length=20_000)  # 60,000 bytes of Hangul; a Milvus text field holds 65,535
    keyword: list[str] = []

    @field_validator("category", mode="before")
    @classmethod
    def _absent_category(cls, value: object) -> object:
        return "" if value is None else value

    @field_validator("keyword", mode="before")
    @classmethod
    def _split_keyword(cls, value: object) -> object:
        if value is None:
            return []
        return value.replace("|", "\n").splitlines() if isinstance(value, str) else value

    @field_validator("question", "answer")
    @classmethod
    def _has_text(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("비어 있습니다")
        value.encode()  # a lone surrogate cannot be stored
        return value


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that refuses whatever is named by import."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse; a pickle calls this before it runs anything."""
        raise UnsafeSource(
            f"피클 파일이 {module}.{name} 객체를 불러오려고 해서 읽지 않았습니다. "
            "질문과 답변만 담은 dict[str, str] 피클이나 .csv, .jsonl 파일을 사용해 주세요."
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse; a persistent id stands for an object outside the file."""
        raise UnsafeSource("피클 파일이 파일 밖의 객체를 가리켜서 읽지 않았습니다.")


def load(path: Path) -> list[RawFAQ]:
    """Return the rows of an FAQ file in their order, each with its position from 0.

    Raises:
        InvalidRequest: there is no such file, it is not one of the three formats, or a row of it is broken; the
            message names the row. Nothing is returned of a file that is broken in part.
        UnsafeSource: a pickle names a class or function; nothing of it ran.
    """
    readers = {".pkl": _read_pickle, ".csv": _read_csv, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidRequest(f"{path.name}: .pkl, .csv, .jsonl 파일만 색인할 수 있습니다.")
    rows = [_checked(path, number, row) for number, row in enumerate(reader(_read_bytes(path), path))]
    if not rows:
        raise InvalidRequest(f"{path.name}: FAQ가 한 건도 없습니다.")
    return rows


def _read_bytes(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device would never end
            raise InvalidRequest(f"{path}: 파일이 아닙니다. FAQ 파일의 경로를 확인해 주세요.")
        if found.st_size > MAX_BYTES:
            raise InvalidRequest(f"{path.name}: 파일이 너무 큽니다 (최대 {MAX_BYTES // 1024**2}MB).")
        return path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidRequest(f"{path}: 파일이 없습니다. 경로를 확인해 주세요.") from error
    except OSError as error:
        raise InvalidRequest(f"{path}: 파일을 읽을 수 없습니다 ({error.strerror}).") from error


def _read_pickle(content: bytes, path: Path) -> Iterator[object]:
    try:
        _refuse_other_than_plain(content, path)
        table = PlainUnpickler(io.BytesIO(content)).load()
    except InvalidRequest:
        raise
    except Exception as error:
        raise InvalidRequest(f"{path.name}: 피클 파일이 손상되었거나 피클이 아닙니다.") from error
    if not isinstance(table, dict):
        raise InvalidRequest(f"{path.name}: 질문을 키, 답변을 값으로 하는 dict 피클이어야 합니다.")
    return ({"question": question, "answer": answer} for question, answer in table.items())


def _refuse_other_than_plain(content: bytes, path: Path) -> None:
    """Read a pickle's opcodes without running them, and raise at the first that a dict of texts does not need."""
    for opcode, argument, _ in pickletools.genops(content):
        if NAMING_OPCODES.fullmatch(opcode.name):
            return  # what comes before it is plain, and it is where PlainUnpickler stops
        if RUNNING_OPCODES.fullmatch(opcode.name):
            raise UnsafeSource(f"{path.name}: 피클 파일이 코드를 실행하려고 해서 읽지 않았습니다.")
        if not PLAIN_OPCODES.fullmatch(opcode.name):
            raise InvalidRequest(f"{path.name}: 질문과 답변만 담은 dict[str, str] 피클이어야 합니다.")
        if MEMO_OPCODES.fullmatch(opcode.name) and not 0 <= int(argument or 0) <= len(content):
            raise InvalidRequest(f"{path.name}: 피클 파일이 손상되었거나 피클이 아닙니다.")  # would fill the memory


def _read_csv(content: bytes, path: Path) -> Iterator[object]:
    reader = csv.DictReader(io.StringIO(_decoded(content, path), newline=""), strict=True)
    try:
        if not {"question", "answer"} <= set(reader.fieldnames or ()):
            raise InvalidRequest(
                f"{path.name}: 첫 줄에 question, answer 열 이름이 있어야 합니다 (category, keyword는 선택)."
            )
        yield from reader
    except csv.Error as error:
        raise InvalidRequest(f"{path.name}: {reader.reader.line_num}번째 줄의 CSV 형식이 잘못되었습니다.") from error


def _read_jsonl(content: bytes, path: Path) -> Iterator[object]:
    for number, line in enumerate(_decoded(content, path).split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidRequest(f"{path.name}: {number}번째 줄이 올바른 JSON이 아닙니다.") from error


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path.name}: UTF-8 텍스트가 아닙니다. UTF-8로 저장한 뒤 다시 시도해 주세요.") from error


def _checked(path: Path, number: int, row: object) -> RawFAQ:
    try:
        valid = Row.model_validate(row)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "행"
        raise InvalidRequest(f"{path.name}: {number + 1}번째 FAQ의 {where} 값이 올바르지 않습니다.") from error
    return RawFAQ(number, valid.category, valid.question, valid.answer, tuple(valid.keyword))
