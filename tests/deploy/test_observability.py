"""What watches the program: that every file is read, that PromQL is, and that every metric it names is there."""

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import aio_pika
import promql_parser
import pytest
import yaml
from brokers import RabbitProcess
from composing import loaded
from conftest import ROOT, free_port, wait_until
from served import listens

from smartstore_indexing.queues import work_queues
from smartstore_indexing.topology import Topology
from smartstore_ui.metrics import Metrics

FOLDER = ROOT / "deploy" / "observability"
RULES = FOLDER / "prometheus" / "rules.yaml"
SCRAPED = FOLDER / "prometheus" / "prometheus.yml"
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
ROLES = {"api", "chat", "answer-worker", "index-worker"}
PROMETHEUS_OWN = {"up"}
RABBITS = "rabbitmq_"
GRAFANA_VARIABLE = re.compile(r"\$__rate_interval")
DURATION = re.compile(r"(\d+[smhd])+")

Node = dict[str, Any]


def rules() -> list[Node]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[Node]:
    return [panel for path in DASHBOARDS for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]]


def queries() -> list[str]:
    """Return every expression of the rules and the dashboards."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + [GRAFANA_VARIABLE.sub("5m", expression) for expression in shown]


def name_of(selector: promql_parser.VectorSelector) -> str:
    assert selector.name, f"{selector} names no metric"
    return selector.name


def selectors(expression: object) -> Iterator[promql_parser.VectorSelector]:
    """Yield what an expression selects."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    if isinstance(expression, promql_parser.MatrixSelector):
        yield from selectors(expression.vector_selector)
    if isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from selectors(argument)
    for part in ("expr", "param", "lhs", "rhs"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from selectors(inner)


def selected() -> list[promql_parser.VectorSelector]:
    return [selector for query in queries() for selector in selectors(promql_parser.parse(query))]


def labels_of(exposition: str) -> dict[str, set[str]]:
    """Return the metrics of an exposition, by the names that queries use, and the labels of each."""
    found: dict[str, set[str]] = {}
    for line in exposition.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels = re.findall(r'(\w+)="', rest) if rest else []
            found.setdefault(name.split(" ")[0], set()).update(labels)
    return found


def exercised() -> str:
    """Return the program's exposition once everything in it has been counted."""
    metrics = Metrics()
    metrics.request(route="/api/chat", method="POST", status=500, seconds=0.1)
    for labelled in (metrics.first_token_seconds, metrics.run_seconds):
        labelled.labels("stub").observe(0.1)
    metrics.model_errors.labels("stub").inc()
    metrics.errors.labels("internal").inc()
    metrics.tokens.labels("stub", "prompt").inc()
    metrics.waiting.labels("index").set(0)
    return metrics.exposition()[0].decode()


def test_every_query_is_promql() -> None:
    assert len(queries()) > 30
    for query in queries():
        promql_parser.parse(query)
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(smartstore_answers_total[5m])")


def test_selectors_are_found_wherever_they_stand() -> None:
    found = selectors(
        promql_parser.parse("histogram_quantile(0.9, sum by (le) (rate(a[5m]))) / (b - -c) or absent(d > 1)")
    )

    assert {selector.name for selector in found} == {"a", "b", "c", "d"}


def test_every_metric_of_ours_is_in_the_exposition_with_its_labels() -> None:
    shown = labels_of(exercised())
    ours = [one for one in selected() if not name_of(one).startswith(RABBITS) and name_of(one) not in PROMETHEUS_OWN]

    assert {name_of(one) for one in ours if name_of(one).startswith("smartstore_")} > {"smartstore_messages_total"}
    assert {name_of(one) for one in ours} - shown.keys() == set()
    asked = [(name_of(one), matcher.name) for one in ours for matcher in one.matchers.matchers]
    assert [(name, label) for name, label in asked if label not in shown[name] | {"job", "instance"}] == []


class WatchedRabbit(RabbitProcess):
    """A RabbitMQ with the plugin that its image turns on."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics_port = free_port()

    def _environment(self) -> dict[str, str]:
        found = super()._environment()
        (self._folder / "plugins").write_text("[rabbitmq_prometheus].\n")
        with (self._folder / "rabbit.conf").open("a") as conf:
            conf.write(f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}\n")
        return found


@pytest.mark.slow
async def test_every_metric_of_rabbitmq_is_in_its_exposition() -> None:
    """Ask a real broker with our queues in it, as prometheus.yml does."""
    jobs = yaml.safe_load(SCRAPED.read_text(encoding="utf-8"))["scrape_configs"]
    families = next(job["params"]["family"] for job in jobs if job["job_name"] == "rabbitmq-queues")
    rabbit = WatchedRabbit()
    try:
        rabbit.start()
        wait_until(lambda: listens(rabbit.metrics_port), 30)
        topology = Topology("smartstore", work_queues(10))
        async with await aio_pika.connect(rabbit.url) as connection, connection.channel() as channel:
            await topology.declare(channel)
            base = f"http://127.0.0.1:{rabbit.metrics_port}/metrics"
            query = "&".join(f"family={family}" for family in families)
            detailed = f"{base}/detailed?{query}"
            # The broker notes its queues every five seconds.
            last = topology.names()[-1]
            wait_until(lambda: f'queue="{last}"' in read(detailed), 30)
            pages = [read(base), read(detailed)]
    finally:
        rabbit.remove()

    shown = labels_of("\n".join(pages))
    asked = [one for one in selected() if name_of(one).startswith(RABBITS)]
    assert len(asked) >= 7
    assert {name_of(one) for one in asked} - shown.keys() == set()
    queues = set(re.findall(r'rabbitmq_detailed_queue_messages\{[^}]*queue="([^"]+)"', pages[1]))
    assert queues == set(topology.names())
    for one in asked:
        for matcher in one.matchers.matchers:
            assert any(re.fullmatch(matcher.value.replace("\\\\", "\\"), name) for name in queues), str(one)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def test_every_alert_says_in_korean_what_is_wrong_and_where_to_read_on() -> None:
    found = rules()

    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert DURATION.fullmatch(rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.search("[가-힣].+니다\\.$", rule["annotations"]["summary"])
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_prometheus_asks_only_services_of_compose() -> None:
    jobs = yaml.safe_load(SCRAPED.read_text(encoding="utf-8"))["scrape_configs"]
    looked_up = {name: job["job_name"] for job in jobs for of in job.get("dns_sd_configs", []) for name in of["names"]}
    targets = {target.split(":")[0] for job in jobs for of in job.get("static_configs", []) for target in of["targets"]}

    assert looked_up == {role: role for role in ROLES}
    assert looked_up.keys() | targets <= loaded()["services"].keys()
    asked = {matcher.value for one in selected() for matcher in one.matchers.matchers if matcher.name == "job"}
    assert {job for value in asked for job in value.split("|")} <= {job["job_name"] for job in jobs}


def test_dashboard_is_whole() -> None:
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/datasources.yaml").read_text(encoding="utf-8"))
    known = {source["uid"] for source in sources["datasources"]}
    shown = panels()

    assert [path.name for path in DASHBOARDS] == ["smartstore.json"]
    assert len({panel["id"] for panel in shown}) == len({panel["title"] for panel in shown}) == len(shown) > 10
    assert {target["datasource"]["uid"] for panel in shown for target in panel["targets"]} <= known
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in shown}
    assert len(places) == len(shown)
    hosts = {re.sub(r"https?://([^:]+):.*", r"\1", source["url"]) for source in sources["datasources"]}
    assert hosts <= loaded()["services"].keys()


def test_traces_go_from_the_collector_to_the_store() -> None:
    collector, tempo = (
        yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in ("collector.yaml", "tempo.yaml")
    )
    pipeline = collector["service"]["pipelines"]["traces"]

    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == collector[kind].keys()
    host, _, port = collector["exporters"]["otlp"]["endpoint"].partition(":")
    assert host in loaded()["services"]
    taken = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert taken == f"0.0.0.0:{port}"


def test_folder_holds_no_file_that_nobody_reads() -> None:
    mounted = [mount for service in loaded()["services"].values() for mount in service.get("volumes", [])]
    sources = [ROOT / mount.split(":")[0] for mount in mounts_of(mounted)]
    files = [path for path in FOLDER.rglob("*") if path.is_file()]

    assert files
    assert [path for path in files if not any(path == of or path.is_relative_to(of) for of in sources)] == []


def mounts_of(mounts: list[Any]) -> list[str]:
    return [mount for mount in mounts if isinstance(mount, str) and mount.startswith("./deploy/observability")]
