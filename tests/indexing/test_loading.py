"""FAQ files: three formats read alike, broken ones refused with a sentence, hostile pickles read without running."""

import collections
import contextlib
import copyreg
import csv
import io
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing import loading
from smartstore_indexing.errors import InvalidRequest, UnsafeSource
from smartstore_indexing.faq import RawFAQ
from smartstore_indexing.loading import SAMPLE, load

HANGUL = range(0xAC00, 0xD7A4)
Write = Callable[[Path, dict[str, str]], None]


def write_pickle(path: Path, table: dict[str, str]) -> None:
    path.write_bytes(pickle.dumps(table))


def write_csv(path: Path, table: dict[str, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_ALL)
        rows.writerows([("question", "answer"), *table.items()])


def write_jsonl(path: Path, table: dict[str, str]) -> None:
    rows = ({"question": question, "answer": answer} for question, answer in table.items())
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


FORMATS: dict[str, Write] = {".pkl": write_pickle, ".csv": write_csv, ".jsonl": write_jsonl}
each_format = pytest.mark.parametrize("suffix", FORMATS)


def refusal(path: Path) -> InvalidRequest:
    """Return why a file is refused, having checked that the reason is a Korean sentence that names it."""
    with pytest.raises(InvalidRequest) as caught:
        load(path)
    message = caught.value.message
    assert any(ord(character) in HANGUL for character in message)
    assert path.name in message or isinstance(caught.value, UnsafeSource)
    assert message.endswith((".", ")."))
    return caught.value


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@each_format
def test_every_format_gives_the_rows_in_their_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"faq{suffix}"
    FORMATS[suffix](path, {"첫째 질문": "첫째 답", "둘째 질문": '쉼표, "따옴표"\n와 줄바꿈'})
    assert load(path) == [
        RawFAQ(0, "", "첫째 질문", "첫째 답", ()),
        RawFAQ(1, "", "둘째 질문", '쉼표, "따옴표"\n와 줄바꿈', ()),
    ]


@each_format
def test_suffix_may_be_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"FAQ{suffix.upper()}"
    FORMATS[suffix](path, {"질문": "답"})
    assert len(load(path)) == 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    table = {f"질문 {number}": "답 " * number for number in range(1, 300)}
    path = written(tmp_path, "faq.pkl", pickle.dumps(table, protocol))
    assert {row.question: row.answer for row in load(path)} == table


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    table = written(tmp_path, "faq.csv", "\ufeffquestion,answer\n질문,답\n")
    lines = written(tmp_path, "faq.jsonl", '\ufeff{"question": "질문", "answer": "답"}\n')
    assert load(table) == load(lines) == [RawFAQ(0, "", "질문", "답", ())]


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [
        ('["가", "나"]', ("가", "나")),
        ('"가|나"', ("가", "나")),
        (r'"가\n나"', ("가", "나")),
        ('"가"', ("가",)),
        ('""', ()),
        ("null", ()),
        ("[]", ()),
    ],
)
def test_keyword_is_a_list_or_a_text_with_bars_or_line_breaks(
    tmp_path: Path, written_as: str, read_as: tuple[str, ...]
) -> None:
    path = written(tmp_path, "faq.jsonl", f'{{"question": "질문", "answer": "답", "keyword": {written_as}}}')
    assert load(path)[0].keyword == read_as


def test_csv_columns_stand_in_any_order_and_others_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, "faq.csv", "메모,answer,keyword,question,category\n-,답,가|나,질문,배송\n-,답2,,질문2,\n")
    assert load(path) == [RawFAQ(0, "배송", "질문", "답", ("가", "나")), RawFAQ(1, "", "질문2", "답2", ())]


def test_blank_lines_take_no_row_number(tmp_path: Path) -> None:
    line = '{"question": "질문", "answer": "답"}\n'
    path = written(tmp_path, "faq.jsonl", f"\n{line}\n  \n{line}")
    assert [row.row for row in load(path)] == [0, 1]


def test_rows_with_the_same_question_are_all_given(tmp_path: Path) -> None:
    path = written(tmp_path, "faq.csv", "question,answer\n질문,처음\n다른 질문,답\n질문,나중\n")
    assert [(row.row, row.answer) for row in load(path)] == [(0, "처음"), (1, "답"), (2, "나중")]


def test_sample_faq_is_read() -> None:
    rows = load(SAMPLE)
    assert len(rows) >= 100
    assert all(row.category for row in rows)


class Calls:
    """Pickles as a call of a function with these arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


class WithPersistentId(pickle.Pickler):
    def persistent_id(self, thing: object) -> str | None:
        return "someone else's" if thing == "답" else None


def with_persistent_id(protocol: int) -> bytes:
    out = io.BytesIO()
    WithPersistentId(out, protocol).dump({"질문": "답"})
    return out.getvalue()


def hostile(ran: Path) -> dict[str, bytes]:
    """Return pickles that would each make the file `ran`, or name a class, if they were read as pickles are."""
    command = f"touch {ran}"
    touch = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    calls = {
        "os.system": Calls(os.system, command),
        "builtins.eval": Calls(eval, touch),
        "builtins.exec": Calls(exec, touch),
        "subprocess": Calls(subprocess.run, ["touch", str(ran)]),
        "open": Calls(open, str(ran), "w"),
    }
    found = {
        f"{name} by protocol {protocol}": pickle.dumps({"질문": call}, protocol)
        for name, call in calls.items()
        for protocol in (0, 2, 4)
    }
    text = command.encode()
    short = b"\x8c" + bytes([len(text)]) + text
    return found | {
        "not in a dict": pickle.dumps(calls["os.system"]),
        "as a key": pickle.dumps({"질문": "답", calls["os.system"]: "답"}),
        "deep in a value": pickle.dumps({"질문": "답", "둘": [{"셋": [calls["os.system"]]}]}),
        "GLOBAL, popped again": b"(dcos\nsystem\n0.",
        "GLOBAL after a good table": pickle.dumps({"질문": "답"})[:-1] + b"0cos\nsystem\n(" + short + b"tR.",
        "INST": b"(S'" + text + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + short + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.",
        "NEWOBJ": b"\x80\x02c_io\nFileIO\n(" + b"X" + struct.pack("<I", len(text)) + text + b"t\x81.",
        "BUILD": b"\x80\x02}X\x01\x00\x00\x00aX\x01\x00\x00\x00bs}b.",
        "REDUCE without a name": b"\x80\x02}}R.",
        "persistent id as text": with_persistent_id(0),
        "persistent id": with_persistent_id(4),
        "extension registry": b"\x80\x02\x82\x7f" + b"X" + struct.pack("<I", len(text)) + text + b"\x85R.",
        "collections.OrderedDict": pickle.dumps(collections.OrderedDict({"질문": "답"})),
        "collections.Counter": pickle.dumps(collections.Counter("답")),
        "a class": pickle.dumps({"질문": Path}),
        "bytearray": pickle.dumps({"질문": bytearray(b"x")}, 2),
        "hostile, then cut off": pickle.dumps(calls["os.system"], 2)[:-1],
    }


@pytest.fixture
def registered_extension() -> Iterator[None]:
    """Register os.system under code 0x7F, and have it unpickled once: from then on find_class is not asked for it."""
    copyreg.add_extension("os", "system", 0x7F)
    pickle.loads(b"\x80\x02\x82\x7f.")
    yield
    copyreg.remove_extension("os", "system", 0x7F)
    copyreg.clear_extension_cache()


@pytest.mark.usefixtures("registered_extension")
@pytest.mark.parametrize("name", hostile(Path("ran")))
def test_pickle_that_names_a_class_or_function_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    path = written(tmp_path, "hostile.pkl", hostile(ran)[name])
    assert isinstance(refusal(path), UnsafeSource)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["os.system by protocol 4", "INST", "STACK_GLOBAL"])
def test_hostile_pickles_of_these_tests_would_run(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    pickle.loads(hostile(ran)[name])
    assert ran.exists()


def test_refused_class_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "faq.pkl", pickle.dumps(collections.OrderedDict({"질문": "답"})))
    assert "collections.OrderedDict" in refusal(path).message


BROKEN: dict[str, tuple[str, bytes | str]] = {
    "empty pickle": ("faq.pkl", b""),
    "empty csv": ("faq.csv", b""),
    "empty jsonl": ("faq.jsonl", b""),
    "no pickle": ("faq.pkl", "질문과 답"),
    "cut off pickle": ("faq.pkl", pickle.dumps({"질문": "답" * 100})[:-20]),
    "cut off before its end": ("faq.pkl", pickle.dumps({"질문": "답"})[:-1]),
    "empty dict": ("faq.pkl", pickle.dumps({})),
    "list": ("faq.pkl", pickle.dumps([("질문", "답")])),
    "text": ("faq.pkl", pickle.dumps("질문")),
    "None": ("faq.pkl", pickle.dumps(None)),
    "number as answer": ("faq.pkl", pickle.dumps({"질문": 1})),
    "number as question": ("faq.pkl", pickle.dumps({1: "답"})),
    "bytes as answer": ("faq.pkl", pickle.dumps({"질문": b"x"})),
    "None as answer": ("faq.pkl", pickle.dumps({"질문": None})),
    "list as answer": ("faq.pkl", pickle.dumps({"질문": ["답"]})),
    "tuple as question": ("faq.pkl", pickle.dumps({("질문",): "답"})),
    "blank answer": ("faq.pkl", pickle.dumps({"질문": " \n\xa0"})),
    "blank question": ("faq.pkl", pickle.dumps({"\t": "답"})),
    "question of 2,001 characters": ("faq.pkl", pickle.dumps({"가" * 2_001: "답"})),
    "answer of 20,001 characters": ("faq.pkl", pickle.dumps({"질문": "가" * 20_001})),
    "lone surrogate in a pickle": ("faq.pkl", pickle.dumps({"질문": "답 \ud800"})),
    "lone surrogate in jsonl": ("faq.jsonl", r'{"question": "질문", "answer": "\udfff"}'),
    "pickle that would fill the memory": ("faq.pkl", b"\x80\x04}r\xff\xff\xff\xff."),
    "pickle of a text of 8 EiB": ("faq.pkl", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f."),
    "pickle of a number without end": ("faq.pkl", b"I" + b"9" * 10_000 + b"\n."),
    "csv in another encoding": ("faq.csv", "question,answer\n질문,답\n".encode("cp949")),
    "jsonl in another encoding": ("faq.jsonl", '{"question": "질문", "answer": "답"}'.encode("utf-16")),
    "csv without its columns": ("faq.csv", "질문,답\n가,나\n"),
    "csv with an open quote": ("faq.csv", 'question,answer\n질문,"답\n'),
    "csv with a broken first line": ("faq.csv", '"question"x,answer\n질문,답\n'),
    "csv with a short row": ("faq.csv", "question,answer\n질문\n"),
    "csv with an endless field": ("faq.csv", "question,answer\n질문," + "답" * 200_000),
    "no json": ("faq.jsonl", "{질문: 답}"),
    "json list": ("faq.jsonl", '["질문", "답"]'),
    "json without an answer": ("faq.jsonl", '{"question": "질문"}'),
    "json nested without end": ("faq.jsonl", "[" * 100_000),
    "json keyword of numbers": ("faq.jsonl", '{"question": "질문", "answer": "답", "keyword": [1]}'),
    "json category of a number": ("faq.jsonl", '{"question": "질문", "answer": "답", "category": 1}'),
    "another format": ("faq.xlsx", b"PK\x03\x04"),
    "no suffix": ("faq", "질문"),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused_with_a_korean_sentence(tmp_path: Path, name: str, content: bytes | str) -> None:
    assert not isinstance(refusal(written(tmp_path, name, content)), UnsafeSource)


def test_pickle_nested_a_million_deep_ends_in_a_refusal_not_in_a_crash(tmp_path: Path) -> None:
    # In a process of its own: hashing such a tuple overflows the C stack.
    path = written(tmp_path, "faq.pkl", b"\x80\x04}N" + b"\x85" * 1_000_000 + b"\x8c\x01as.")
    code = f"from pathlib import Path; from smartstore_indexing.loading import load; load(Path({str(path)!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    assert "InvalidRequest: faq.pkl" in ended.stderr


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("faq.csv", "question,answer\n질문,답\n질문2,\n", "2번째 FAQ의 answer"),
        ("faq.pkl", pickle.dumps({"질문": "답", "질문2": "답", "질문3": 3}), "3번째 FAQ의 answer"),
        ("faq.jsonl", '{"question": "질문", "answer": "답"}\n\n{"question"', "3번째 줄"),
        ("faq.csv", 'question,answer\n질문,답\n질문2,"답" \n', "3번째 줄"),
    ],
)
def test_refusal_names_the_row_or_line(tmp_path: Path, name: str, content: bytes | str, expected: str) -> None:
    assert expected in refusal(written(tmp_path, name, content)).message


@each_format
def test_missing_file_and_folder_are_refused(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "파일이 없습니다" in refusal(tmp_path / f"missing{suffix}").message
    assert "파일이 아닙니다" in refusal(folder).message
    assert "파일을 읽을 수 없습니다" in refusal(written(tmp_path, "file", "x") / f"below{suffix}").message
    assert "파일이 없습니다" in refusal(tmp_path / f"nul\0{suffix}").message


def test_pipe_and_device_are_refused_unread(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe.pkl", tmp_path / "zero.jsonl"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    assert "파일이 아닙니다" in refusal(pipe).message
    assert "파일이 아닙니다" in refusal(device).message


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(loading.MAX_BYTES + 1)  # a hole: it takes no room on the disk
    assert "너무 큽니다" in refusal(path).message


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(lambda text: text.strip())


@settings(max_examples=60, deadline=None)
@given(table=st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=5))
def test_any_table_of_texts_round_trips_through_every_format(table: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in FORMATS.items():
            path = Path(folder) / f"faq{suffix}"
            write(path, table)
            assert [(row.question, row.answer) for row in load(path)] == list(table.items())


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
SPLICED = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([*OPCODES, pickle.dumps({"질문": "답"}), b"\x80\x04}\x8c\x01a"]),
        st.sampled_from(['question,answer\n가,"나\n'.encode(), '{"question": "가", '.encode(), b"[", b"\xff", b"\n"]),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), SPLICED), suffix=st.sampled_from(list(FORMATS)))
def test_random_bytes_are_read_or_refused_never_anything_else(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), f"faq{suffix}", content)
        with contextlib.suppress(InvalidRequest):
            assert load(path)
