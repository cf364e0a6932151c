"""The command line's grammar: an argument parser that speaks Korean, and the kinds of its arguments."""

import argparse
import re
import sys
from typing import NoReturn

from smartstore_ui.exit_codes import USAGE_ERROR

MAX_PORT = 65_535
# What argparse says, and what we say instead; the first that fits.
KOREAN = [
    (r"the following arguments are required: (.+)", r"필요한 인자가 없습니다: \1"),
    (r"unrecognized arguments: (.+)", r"알 수 없는 인자입니다: \1 (빈칸이 있는 질문은 따옴표로 묶어 주세요)"),
    (r"argument (.+?): invalid choice: (.+?) \(choose from (.+)\)", r"\1 \2은(는) 없습니다. 쓸 수 있는 값: \3"),
    (r"argument (.+?): expected one argument", r"\1 뒤에 값이 하나 필요합니다."),
    (r"argument (.+?): ignored explicit argument (.+)", r"\1에는 값을 줄 수 없습니다: \2"),
    (r"ambiguous option: (.+?) could match (.+)", r"\1은(는) 여러 옵션과 맞습니다: \2"),
    (r"argument (.+?): (.+)", r"\1: \2"),
]


class KoreanParser(argparse.ArgumentParser):
    """An argument parser whose help and errors are Korean."""

    def __init__(self, **arguments: object) -> None:
        """Take ArgumentParser's arguments; -h and --help are made here."""
        super().__init__(add_help=False, formatter_class=KoreanFormatter, **arguments)  # type: ignore[arg-type]
        self.inputs = self.add_argument_group("인자")
        self.options = self.add_argument_group("옵션")
        self.options.add_argument("-h", "--help", action="help", help="이 도움말을 보여 줍니다.")

    def error(self, message: str) -> NoReturn:
        """Say what could not be understood and where help is, and exit with 2."""
        said = next((re.sub(words, ours, message) for words, ours in KOREAN if re.fullmatch(words, message)), message)
        sys.stderr.write(f"명령을 이해하지 못했습니다: {said}\n`{self.prog} --help`로 사용법을 확인해 주세요.\n")
        sys.exit(USAGE_ERROR)


class KoreanFormatter(argparse.RawDescriptionHelpFormatter):
    """Help whose usage line begins in Korean."""

    def add_usage(self, usage: str | None, actions: object, groups: object, prefix: str | None = None) -> None:
        """Add the usage line."""
        # argparse passes "" where it makes the name of a command's own parser.
        super().add_usage(usage, actions, groups, "사용법: " if prefix is None else prefix)  # type: ignore[arg-type]


def readable(text: str) -> str:
    """Return the argument as it is; bytes that are no UTF-8 come as lone surrogates, which nothing can store."""
    if re.search(r"[\ud800-\udfff]", text):
        raise argparse.ArgumentTypeError("읽을 수 없는 글자가 들어 있습니다.")
    return text


def count(text: str) -> int:
    """Return the argument as a number of things, from 0."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("0 이상의 정수를 써 주세요.")
    return int(text)


def port(text: str) -> int:
    """Return the argument as a TCP port."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"0에서 {MAX_PORT} 사이의 정수를 써 주세요.")
    return int(text)
