"""`/metrics` in Prometheus' text form: vLLM's names where they mean the same, ours (`lorad_`) elsewhere.

No label holds an id of a request, a user, a key or a path. The library prometheus-client counts; every server has a registry
of its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.access.exchange import Exchange, Track
from serving.routing import Routes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ENGINE = "0"  # vLLM's label for the number of an engine within one server; we have one
MIB = 1 << 20
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
LABELS = ("model_name", "engine")
FINISHED = {"cancelled": "abort"}  # vLLM's word
NO_ROUTE = "none"


class Meter:
    """Counts what is asked and answered. Safe in threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers()
        self._requests()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Machine())

    def _answers(self) -> None:
        made: dict[str, Any] = {"registry": self.registry, "labelnames": LABELS}
        seconds, tokens = made | {"buckets": SECONDS}, made | {"buckets": TOKENS}
        self._running = Gauge("vllm:num_requests_running", "Answers that are computed now.", **made)
        self._read = Counter("vllm:prompt_tokens", "Tokens of prompts.", **made)
        self._said = Counter("vllm:generation_tokens", "Tokens of answers.", **made)
        self._cached = Counter("vllm:prefix_cache_hits", "Tokens of prompts that a cache held already.", **made)
        self._looked = Counter("vllm:prefix_cache_queries", "Tokens of prompts that were looked up in a cache.", **made)
        self._ended = Counter("vllm:request_success", "Answers by why they ended.", registry=self.registry, labelnames=(*LABELS, "finished_reason"))
        self._first = Histogram("vllm:time_to_first_token_seconds", "From the request to the first token.", **seconds)
        self._whole = Histogram("vllm:e2e_request_latency_seconds", "From the request to the last token.", **seconds)
        self._queue = Histogram("vllm:request_queue_time_seconds", "From the request to the engine.", **seconds)
        self._each = Histogram("vllm:request_time_per_output_token_seconds", "Of an answer, mean time from token to token.", **seconds)
        self._prompts = Histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", **tokens)
        self._lengths = Histogram("vllm:request_generation_tokens", "Tokens of an answer.", **tokens)
        self._wanted = Histogram("vllm:request_params_max_tokens", "Most tokens that a request asked for.", **tokens)

    def _requests(self) -> None:
        made: dict[str, Any] = {"registry": self.registry}
        self._http = Counter("http_requests", "Requests.", labelnames=("handler", "method", "status"), **made)
        self._http_s = Histogram("http_request_duration_seconds", "Of requests.", labelnames=("handler", "method"), buckets=SECONDS, **made)
        self._refusals = Counter("lorad_refusals", "Requests that were refused before a route saw them.", labelnames=("code",), **made)
        self._hits = Counter("lorad_filter_hits", "Texts in which a content filter found something.", labelnames=("filter", "does", "way"), **made)

    def watch(self, model: str, num_waiting: Callable[[], int], routes: Routes) -> None:
        """Show the line in front of the engine and the releases too; called once."""
        waiting = Gauge("vllm:num_requests_waiting", "Requests that wait for a stream.", labelnames=LABELS, registry=self.registry)
        waiting.labels(model, ENGINE).set_function(num_waiting)
        self.registry.register(_Releases(routes))

    def watch_swaps(self, events: Callable[[], Iterable[str]]) -> None:
        """Show what the ledger says of activations; called once."""
        self.registry.register(_Swaps(events))

    def begin(self, track: Track, told: Exchange | None, model: str) -> None:
        """An answer goes to the engine."""
        self._running.labels(model, ENGINE).inc()
        if told is not None:
            self._queue.labels(model, ENGINE).observe(max(0.0, track.begun_s - told.begun_s))
        if track.max_tokens is not None:
            self._wanted.labels(model, ENGINE).observe(track.max_tokens)

    def break_off(self, model: str) -> None:
        """The engine did not take it."""
        self._running.labels(model, ENGINE).dec()

    def end(self, track: Track, told: Exchange | None, model: str) -> None:
        """An answer ended. A cancelled one, whose request says why it ended (a stop string), counts as that."""
        labels = (model, ENGINE)
        self._running.labels(*labels).dec()
        end = (told.finish if told and track.end == "cancelled" else "") or FINISHED.get(track.end, track.end)
        self._ended.labels(*labels, end).inc()
        if track.generation is None:
            return
        read, said = track.generation.prompt_tokens, track.generation.completion_tokens
        self._read.labels(*labels).inc(read)
        self._looked.labels(*labels).inc(read)
        self._cached.labels(*labels).inc(track.generation.cached_tokens)
        self._said.labels(*labels).inc(said)
        self._prompts.labels(*labels).observe(read)
        self._lengths.labels(*labels).observe(said)
        begun, ended = (told or track).begun_s, track.ended_s or time.monotonic()
        self._whole.labels(*labels).observe(ended - begun)
        if track.first_s is not None:
            self._first.labels(*labels).observe(track.first_s - begun)
            if said > 1:
                self._each.labels(*labels).observe((ended - track.first_s) / (said - 1))

    def count(self, exchange: Exchange, ended_s: float) -> None:
        """A request is over."""
        handler = exchange.door.name if exchange.door else NO_ROUTE
        method = exchange.method if exchange.door and exchange.method in exchange.door.methods else "other"
        self._http.labels(handler, method, str(exchange.status)).inc()
        self._http_s.labels(handler, method).observe(ended_s - exchange.begun_s)
        if exchange.refused:
            self._refusals.labels(exchange.refused).inc()

    def hit(self, name: str, does: str, way: str) -> None:
        """A content filter found something."""
        self._hits.labels(name, does, way).inc()

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)


class _Releases:
    """Which releases are served, and by how many requests each is held."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        table = self._routes.table
        about = GaugeMetricFamily("lorad_adapter_info", "1 for what each alias serves.", labels=("alias", "version", "release"))
        for alias, served in table.aliases.items():
            about.add_metric((alias, served.model, served.label), 1)
        yield about
        held = GaugeMetricFamily("lorad_adapter_refs", "Requests that a release answers now.", labels=("release",))
        for release, count in self._routes.pinned().items():
            held.add_metric((release,), count)
        yield held


class _Swaps:
    """What became of wishes, from the box's ledger."""

    def __init__(self, events: Callable[[], Iterable[str]]) -> None:
        self._events = events

    def collect(self) -> Iterator[Metric]:
        counts: dict[str, int] = {}
        for event in self._events():
            counts[event] = counts.get(event, 0) + 1
        swaps = CounterMetricFamily("lorad_adapter_swap", "Lines of the box's ledger by what happened.", labels=("result",))
        for event, count in counts.items():
            swaps.add_metric((event,), count)
        yield swaps


class _Machine:
    """CPU, memory and GPUs of the machine."""

    def __init__(self) -> None:
        self._nvml = nvidia()
        psutil.cpu_percent()  # the next call tells the time since this one

    def collect(self) -> Iterator[Metric]:
        yield _gauge("lorad_cpu_use_ratio", "Share of all cores that was busy since the last look.", psutil.cpu_percent() / 100)
        memory = psutil.virtual_memory()
        yield _gauge("lorad_memory_used_bytes", "Memory of the machine in use.", memory.total - memory.available)
        yield _gauge("lorad_memory_total_bytes", "Memory of the machine.", memory.total)
        sensors: dict[str, list[Any]] = getattr(psutil, "sensors_temperatures", dict)()
        if degrees := [one.current for found in sensors.values() for one in found if one.current]:
            yield _gauge("lorad_cpu_celsius", "Hottest sensor of the machine.", max(degrees))
        if self._nvml is not None:
            yield from self._gpus(self._nvml)

    def _gpus(self, nvml: Any) -> Iterator[Metric]:
        names = {"lorad_gpu_use_ratio": "Share of time in which the GPU computed.", "lorad_gpu_memory_used_bytes": "Its memory in use."}
        names |= {"lorad_gpu_memory_total_bytes": "Its memory.", "lorad_gpu_celsius": "Its temperature."}
        families = {name: GaugeMetricFamily(name, text, labels=("gpu",)) for name, text in names.items()}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                gpu = nvml.nvmlDeviceGetHandleByIndex(index)
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                values = (nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100, memory.used, memory.total)
                for name, value in zip(names, (*values, nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)), strict=True):
                    families[name].add_metric((str(index),), float(value))
            except nvml.NVMLError:  # a GPU that fell off the bus, or one that does not tell: the others are shown
                continue
        yield from families.values()


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def nvidia() -> Any:
    """The NVIDIA library, ready; None on a machine without GPUs."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    return pynvml
