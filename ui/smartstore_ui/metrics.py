"""What Prometheus reads at /metrics: requests and runs, counted from the events that the doors send.

Labels have few values: the route's template and never a path, the model's name as configured, codes of our own errors.
"""

import time
from itertools import product
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from smartstore_indexing.errors import FaqError, ModelUnavailable
from smartstore_indexing.queues import ANSWERS, BATCH, INDEX, Outcome
from smartstore_indexing.settings import EXTRACTIVE
from smartstore_workflows import wire
from smartstore_workflows.events import STAGES

# Seconds. An extract takes 10 to 50 ms, a model's first token 0.2 to 5 s; steps without a model take 1 to 50 ms.
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BUCKETS = STAGE_BUCKETS[2:]
KINDS = ("answered", "refused", "not_found")
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
OTHER, UNMATCHED = "other", "unmatched"
INTERNAL = "internal"  # the code of an error that nobody foresaw


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        """Begin at zero; what is known beforehand is shown as 0, so that its first increase is seen."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "smartstore_http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "smartstore_http_request_seconds",
            "Time to the end of the response; a stream's is its whole life.",
            ["route", "method"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.live_runs = Gauge("smartstore_live_runs", "Questions that are being answered.", registry=registry)
        self.first_token_seconds = Histogram(
            "smartstore_first_token_seconds",
            "Time from the question to the first token of its answer.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "smartstore_run_seconds",
            "Time from the question to the end of its answer.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "smartstore_stage_seconds", "Time of one stage.", ["stage"], buckets=STAGE_BUCKETS, registry=registry
        )
        self.answers = Counter("smartstore_answers", "Answers by kind and model.", ["kind", "model"], registry=registry)
        self.cache_hits = Counter("smartstore_cache_hits", "Answers that came from the cache.", registry=registry)
        self.degraded = Counter(
            "smartstore_degraded_answers", "Answers given without the conversation or the model.", registry=registry
        )
        self.unsupported = Counter(
            "smartstore_unsupported_claims",
            "Numbers, dates, amounts, periods and menu paths in answers that stand in no FAQ that these cite.",
            registry=registry,
        )
        self.model_errors = Counter(
            "smartstore_model_errors", "Runs in which the model failed.", ["model"], registry=registry
        )
        self.errors = Counter("smartstore_run_errors", "Runs that ended in an error.", ["code"], registry=registry)
        self.stopped = Counter("smartstore_stopped_runs", "Runs that were stopped before their end.", registry=registry)
        self.tokens = Counter(
            "smartstore_model_tokens", "Tokens that the model counted.", ["model", "direction"], registry=registry
        )
        self.waiting = Gauge(
            "smartstore_queue_waiting", "Messages that wait for a worker.", ["queue"], registry=registry
        )
        self._messages = Counter(
            "smartstore_messages",
            "Messages that were worked on, by what became of them: done, retry or dead.",
            ["queue", "outcome"],
            registry=registry,
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for queue, outcome in product((INDEX, ANSWERS, BATCH), Outcome):
            self._messages.labels(queue, outcome.name.lower())
        for kind in KINDS:
            self.answers.labels(kind, EXTRACTIVE)

    def request(self, *, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template such as /api/runs/{run_id}, None where no route took it."""
        known = method if method in METHODS else OTHER
        self._requests.labels(route or UNMATCHED, known, str(status)).inc()
        self._request_seconds.labels(route or UNMATCHED, known).observe(seconds)

    def settled(self, queue: str, outcome: Outcome) -> None:
        """Count a message of a queue."""
        self._messages.labels(queue, outcome.name.lower()).inc()

    def run(self) -> "RunMetrics":
        """Return what counts one run: enter it when the question has come, and give it the run's events."""
        return RunMetrics(self)

    def exposition(self) -> tuple[bytes, str]:
        """Return the figures as Prometheus reads them, and their content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class RunMetrics:
    """Counts one run, as a context manager: while inside it is live.

    A run that is left before its `done` was stopped, or failed when an error leaves it.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Take where to count."""
        self._metrics = metrics
        self._began = 0.0
        self._model = EXTRACTIVE
        self._silent = True
        self._failed = False
        self._done = False

    def __enter__(self) -> Self:
        """Begin the run."""
        self._began = time.perf_counter()
        self._metrics.live_runs.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the run."""
        self._metrics.live_runs.dec()
        if self._done:
            self._metrics.run_seconds.labels(self._model).observe(self._seconds())
        elif isinstance(error, Exception):
            self._fail(error.code if isinstance(error, FaqError) else INTERNAL)
        elif not self._failed:
            self._metrics.stopped.inc()

    def observe(self, event: wire.StreamEvent) -> None:
        """Count an event."""
        match event.data:
            case wire.Started():
                self._model = event.data.model
            case wire.Token() if self._silent:
                self._silent = False
                self._metrics.first_token_seconds.labels(self._model).observe(self._seconds())
            case wire.Answer():
                self._answered(event.data)
            case wire.Failure():
                self._fail(event.data.code)
            case wire.Done():
                self._end(event.data)

    def _answered(self, answer: wire.Answer) -> None:
        metrics = self._metrics
        metrics.answers.labels(answer.kind, answer.model).inc()
        metrics.cache_hits.inc(answer.cached)
        metrics.degraded.inc(answer.degraded)
        metrics.unsupported.inc(len(answer.unsupported))
        # An answer that a model should have written and did not is degraded too.
        if answer.degraded and answer.model != self._model:
            metrics.model_errors.labels(self._model).inc()

    def _fail(self, code: str) -> None:
        self._failed = True
        self._metrics.errors.labels(code).inc()
        if code == ModelUnavailable.code:
            self._metrics.model_errors.labels(self._model).inc()

    def _end(self, done: wire.Done) -> None:
        self._done = True
        for stage, milliseconds in done.timings_ms.items():
            self._metrics.stage_seconds.labels(stage).observe(milliseconds / 1000)
        used = done.usage
        for direction, tokens in (("prompt", used.prompt_tokens), ("completion", used.completion_tokens)):
            if tokens:
                self._metrics.tokens.labels(self._model, direction).inc(tokens)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
