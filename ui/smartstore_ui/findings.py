"""What `smartstore doctor` prints: a line for each thing that it looked at."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

MARKS = {True: "✓", False: "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `detail` says what to do where `fine` is False."""

    name: str
    fine: bool
    detail: str


async def shown(findings: AsyncGenerator[Finding, None]) -> int:
    """Print findings as they are made; return 0 when all are fine, else 1."""
    exit_code = 0
    async with aclosing(findings):
        async for finding in findings:
            sys.stdout.write(f"{MARKS[finding.fine]} {finding.name}: {finding.detail}\n")
            sys.stdout.flush()
            exit_code = exit_code or (0 if finding.fine else 1)
    sys.stdout.write("모두 정상입니다.\n" if exit_code == 0 else "문제가 있습니다. 위의 안내를 따라 주세요.\n")
    return exit_code
