"""Let 100 sellers use the whole of compose.yaml for five minutes, and write the report into docs/load/.

    python tests/benchmarks/load.py [--users 100] [--minutes 5]

Every role runs as a process of this machine, as tests/deploy/topology.py starts it, with the sample FAQ and the
scripted model at its default speed (first token after 200 ms, 20 ms a token), and Locust beside it on the same cores.
They ask the API, which hands every question to the answer worker; the page is up and is asked nothing.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from serving import MODEL_FIRST_TOKEN_MS, cpu_seconds, fresh_questions, rss

from smartstore_indexing.settings import load_settings

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS), str(TESTS / "deploy")]
from browsing import launched  # noqa: E402  # they lie beside this folder
from topology import Topology, composed  # noqa: E402

REPORT = TESTS.parent / "docs" / "load"
USERS, MINUTES, PER_SECOND = 100, 5.0, 4
MODEL_SPEED = ("--ttft-ms", "200", "--token-ms", "20", "--tokens", "60")
ROLES = ("api", "chat", "answer-worker", "index-worker")
SAMPLE_SECONDS, WINDOW_SECONDS = 5.0, 10
ALLOWED_MS = 1_000.0
WARM_SECONDS = 60.0  # in which everybody has come
REPORT_TEXT = """# 부하 시험

`python tests/benchmarks/load.py`(`make bench`에 들어 있습니다)가 쓴 보고서입니다. compose.yaml의 역할을 모두 한
컴퓨터의 프로세스로 띄우고, 판매자들이 20~40초씩 생각하며 API에 묻고 답을 끝까지 받습니다. 질문은 모두 큐를 거쳐 답변
워커가 답합니다. 모델(첫 토큰 200ms, 토큰 하나에 20ms)과 Locust도 같은 코어를 나누어 쓰고, 채팅 페이지는 떠 있기만
합니다.

{heading}

```
{figures}
```

![초당 질문 수, 더해진 첫 토큰 시간, 역할마다의 메모리](load.png)
"""
FONT = '"NanumGothic", sans-serif'


@dataclass
class Watch:
    """What each role takes, looked at every few seconds in a thread."""

    running: Topology
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {name: [] for name in ROLES})
    cpu: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Note resident memory (MiB) until it is over, and then the CPU time (seconds) that was taken."""
        pids = {name: process.process.pid for name in ROLES if (process := self.running.processes[name]).process}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        while not self.over.wait(SAMPLE_SECONDS):
            for name, pid in pids.items():
                self.memory[name].append((time.time(), rss(pid)))
        self.cpu = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}


def main(users: int, minutes: float) -> None:
    """Start everything, let them ask, print and write the report."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; the load of others: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="smartstore-load-") as name:
        folder = Path(name)
        with composed(folder, Path(load_settings().faq).resolve(), MODEL_SPEED) as running:
            watch = Watch(running)
            watching = threading.Thread(target=watch.look)
            watching.start()
            try:
                answers = asked(running, folder, users, minutes)
            finally:
                watch.over.set()
                watching.join()
            restarts = sum(running.processes[role].starts for role in ROLES) - len(ROLES)
    print(f"roles that were started again: {restarts}")
    lines = told(answers, watch)
    print("\n".join(lines))
    heading = f"Locust, {users} users, {minutes:g} minutes. {machine}."
    REPORT.mkdir(exist_ok=True)
    asyncio.run(draw(answers, watch, REPORT / "load.png"))
    text = REPORT_TEXT.format(heading=heading, figures="\n".join(lines))
    (REPORT / "README.md").write_text(text, encoding="utf-8")


def asked(running: Topology, folder: Path, users: int, minutes: float) -> list[dict[str, Any]]:
    """Return what Locust's users measured."""
    questions, measured = folder / "questions.txt", folder / "measured.jsonl"
    questions.write_text("\n".join(fresh_questions()), encoding="utf-8")
    users_file = str(Path(__file__).with_name("load_user.py"))
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", users_file]
    crowd = ["--users", str(users), "--spawn-rate", str(PER_SECOND), "--run-time", f"{minutes * 60:.0f}s"]
    where = ["--stop-timeout", "30", "--host", running.url("api")]
    files = ["--asked", str(questions), "--measured", str(measured)]
    done = subprocess.run(
        [*command, *crowd, *where, *files],
        env={"PATH": os.defpath, "HOME": str(folder)},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    print(f"{done.stderr}Locust ended with {done.returncode} (0: it saw no failure)")
    return [json.loads(line) for line in measured.read_text(encoding="utf-8").splitlines()]


def added(answer: dict[str, Any]) -> float:
    """Return what was added to the model's own first token, in milliseconds."""
    return float(answer["first"]) - MODEL_FIRST_TOKEN_MS


def told(answers: list[dict[str, Any]], watch: Watch) -> list[str]:
    """Return the figures, beside what was asked for."""
    by_model = [added(answer) for answer in answers if answer["kind"] == "answered"]
    problems = [answer["problem"] for answer in answers if answer["problem"]]
    began, ended = min(answer["at"] for answer in answers), max(answer["at"] for answer in answers)
    kinds = dict(Counter(answer["kind"] or "failed" for answer in answers).most_common())
    lines = [
        f"questions: {len(answers)}, {len(answers) / (ended - began):.2f} a second, {kinds}",
        f"errors: {len(problems)} (asked for 0) {problems[:3] or ''}".rstrip(),
        f"added to the first token: p50 {median(by_model):.0f} ms, p95 {quantiles(by_model, n=20)[-1]:.0f} ms "
        f"(asked for {ALLOWED_MS:,.0f}), most {max(by_model):.0f} ms, n {len(by_model)}",
        f"whole answer: p50 {median(a['whole'] for a in answers):.0f} ms, "
        f"p95 {quantiles([a['whole'] for a in answers], n=20)[-1]:.0f} ms",
    ]
    for name, seen in watch.memory.items():
        warm = [size for at, size in seen if began + WARM_SECONDS <= at < began + 2 * WARM_SECONDS]
        last = [size for at, size in seen if at >= ended - WARM_SECONDS]
        if warm and last:
            lines.append(
                f"{name}: {median(warm):.0f} MiB in the second minute, {median(last):.0f} in the last one "
                f"({median(last) / median(warm) - 1:+.1%}), {watch.cpu[name] / len(answers) * 1000:.0f} ms of CPU "
                "a question"
            )
    return lines


async def draw(answers: list[dict[str, Any]], watch: Watch, path: Path) -> None:
    """Draw questions, added first-token times and memory over time into a picture."""
    began = min(answer["at"] for answer in answers)
    windows: dict[int, list[dict[str, Any]]] = {}
    for answer in answers:
        windows.setdefault(int((answer["at"] - began) // WINDOW_SECONDS), []).append(answer)
    titles = ["초당 질문 수", "모델의 첫 토큰에 더해진 시간(ms)", "역할마다의 메모리(MiB)"]
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.08)
    seconds = [window * WINDOW_SECONDS for window in sorted(windows)]
    rates = [len(windows[window]) / WINDOW_SECONDS for window in sorted(windows)]
    figure.add_trace(go.Scatter(x=seconds, y=rates, name="초당 질문"), 1, 1)
    by_model = [answer for answer in answers if answer["kind"] == "answered"]
    dots = {"x": [answer["at"] - began for answer in by_model], "y": [added(answer) for answer in by_model]}
    figure.add_trace(go.Scatter(**dots, mode="markers", marker_size=4, name="답변 하나"), 2, 1)
    figure.add_hline(y=ALLOWED_MS, line_dash="dash", row=2, col=1)
    for name, seen in watch.memory.items():
        figure.add_trace(go.Scatter(x=[at - began for at, _ in seen], y=[size for _, size in seen], name=name), 3, 1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title="초", row=3, col=1)
    figure.update_layout(template="plotly_white", font_family=FONT, width=1000, height=900)
    async with launched() as browser:
        page = await browser.new_page(viewport={"width": 1020, "height": 920})
        await page.set_content(figure.to_html(include_plotlyjs=True))
        await page.wait_for_selector(".plotly .legend")
        await page.screenshot(path=path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    given = parser.parse_args()
    main(given.users, given.minutes)
