"""What the model API did, by model: requests, tokens, latency, over all processes of the API.

``prometheus_client`` keeps the counts, in files that processes share, but names every counter ``..._total``. The names
here are promised otherwise, and two of the figures come from others, so these families are written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.utils import floatToGoString

#: From one token of a tiny model to a long text of a large one.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
#: Models counted apart by one process; what comes later is counted together, under this name.
MOST_MODELS = 1000
OTHERS = "(others)"

registry = CollectorRegistry()
_latency = Histogram(
    "hostler_inference_latency_seconds",
    "Time to generate, of requests that succeeded.",
    ("model",),
    registry=registry,
    buckets=BUCKETS,
)
_failures = Counter("hostler_inference_failures", "Generations that failed.", ("model",), registry=registry)
_tokens = Counter("hostler_inference_tokens", "Tokens generated.", ("model",), registry=registry)
#: Of the families above, those that are shown only as the figures below.
_RAW = ("hostler_inference_failures", "hostler_inference_tokens")
_known: set[str] = set()


def record_success(model: str, tokens: int, seconds: float) -> None:
    """A generation ended well. ``model`` must be one that is known, or empty."""
    label = _label(model)
    _latency.labels(label).observe(seconds)
    _tokens.labels(label).inc(tokens)


def record_failure(model: str, tokens: int = 0) -> None:
    """A generation failed; ``tokens`` were made before."""
    label = _label(model)
    _failures.labels(label).inc()
    _tokens.labels(label).inc(tokens)


def record_left(model: str, tokens: int) -> None:
    """The caller went away: neither success nor failure, but its tokens were made."""
    if tokens:
        _tokens.labels(_label(model)).inc(tokens)


def split(families: Iterable[Metric]) -> tuple[list[Metric], str]:
    """(the families without what is only counted for the figures, the figures as Prometheus text)."""
    found = list(families)
    text = _text(_Sums(found))
    return [family for family in found if family.name not in _RAW], text


class _Sums:
    """What has been counted, by model."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._by_name: dict[str, dict[str, float]] = {}
        for family in families:
            for sample in family.samples:
                if "model" in sample.labels and "le" not in sample.labels:
                    self._by_name.setdefault(sample.name, {})[sample.labels["model"]] = sample.value
        self.models = sorted({model for values in self._by_name.values() for model in values})

    def succeeded(self, model: str) -> float:
        return self._of("hostler_inference_latency_seconds_count", model)

    def failed(self, model: str) -> float:
        return self._of("hostler_inference_failures_total", model)

    def total(self, model: str) -> float:
        return self.succeeded(model) + self.failed(model)

    def tokens(self, model: str) -> float:
        return self._of("hostler_inference_tokens_total", model)

    def latency_ms(self, model: str) -> float:
        return self._of("hostler_inference_latency_seconds_sum", model) * 1000

    def average_ms(self, model: str) -> float:
        return self.latency_ms(model) / (self.succeeded(model) or 1)

    def tokens_per_second(self, model: str) -> float:
        return self.tokens(model) * 1000 / (self.latency_ms(model) or float("inf"))

    def _of(self, name: str, model: str) -> float:
        return self._by_name.get(name, {}).get(model, 0.0)


_FIGURES: Mapping[str, tuple[str, str, Callable[[_Sums, str], float]]] = {
    "total_requests": ("counter", "Generations asked for and ended.", _Sums.total),
    "successful_requests": ("counter", "Generations that succeeded.", _Sums.succeeded),
    "failed_requests": ("counter", "Generations that failed; the model is empty where none was found.", _Sums.failed),
    "total_tokens": ("counter", "Tokens generated.", _Sums.tokens),
    "total_latency_ms": ("counter", "Time spent on generations that succeeded, in milliseconds.", _Sums.latency_ms),
    "avg_latency_ms": ("gauge", "Average time of a generation that succeeded, in milliseconds.", _Sums.average_ms),
    "tokens_per_second": ("gauge", "Tokens generated per second spent on generations.", _Sums.tokens_per_second),
}


def _text(sums: _Sums) -> str:
    lines = []
    for name, (kind, help_text, figure) in _FIGURES.items():
        full = f"hostler_inference_{name}"
        lines += [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"]
        lines += [f'{full}{{model="{_escaped(one)}"}} {floatToGoString(figure(sums, one))}' for one in sums.models]
    return "\n".join(lines) + "\n"


def _label(model: str) -> str:
    if model not in _known:
        if len(_known) >= MOST_MODELS:
            return OTHERS
        _known.add(model)
    return model


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
