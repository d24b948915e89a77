"""``/metrics`` in Qdrant's names."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Store


class Count:
    """Answers by (method, endpoint, status), and their seconds."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, int], tuple[int, float]] = {}

    def add(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        number, total_s = self._answers.get((method, endpoint, status), (0, 0.0))
        self._answers[method, endpoint, status] = (number + 1, total_s + seconds)

    def text(self, store: Store, name: str, version: str) -> str:
        """Prometheus text. ``finished`` of the engine's counters is ``rest_responses_total``."""
        collections = list(store.each())
        points = [(one.name, one.points) for one in collections]
        total = [
            (f'method="{method}",endpoint="{endpoint}",status="{status}"', number, total_s)
            for (method, endpoint, status), (number, total_s) in sorted(self._answers.items())
        ]
        families = (
            ("app_info", "information about the server", "gauge", [(f'name="{name}",version="{version}"', 1)]),
            ("collections_total", "number of collections", "gauge", [("", len(collections))]),
            ("collections_vector_total", "total number of points", "gauge", [("", sum(one for _, one in points))]),
            ("collection_points", "points per collection", "gauge", [(f'id="{_escaped(id)}"', n) for id, n in points]),
            ("rest_responses_total", "total number of answers", "counter", [one[:2] for one in total]),
            (
                "rest_responses_avg_duration_seconds",
                "average duration of an answer",
                "gauge",
                [(labels, round(total_s / number, 9)) for labels, number, total_s in total],
            ),
        )
        lines = []
        for family, help_, kind, values in families:
            lines += [f"# HELP {family} {help_}", f"# TYPE {family} {kind}"]
            lines += [f"{family}{{{labels}}} {value}" if labels else f"{family} {value}" for labels, value in values]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
