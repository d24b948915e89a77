"""``python -m docs.graphs [SAMPLES]``: the graphs of docs/scale.md, as SVG, from the samples of a soak.

``python -m benchmarks soak --samples FILE`` writes such a file. One line in four is kept beside the graphs, and without
an argument the graphs are made from those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent / "scale"
KEPT = FOLDER / "soak-60-minutes.jsonl"
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 340, 64, 40, 190, 36
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
GRAPHS: dict[str, tuple[str, str, dict[str, str]]] = {
    "memory": (
        "Memory of each role, MiB (without pages of files)",
        "MiB",
        {
            name: f"role {name} own_mib"
            for name in ("worker", "worker-control", "postgres", "web", "agent", "beat", "flower", "redis")
        },
    ),
    "tables": (
        "Rows of the tables that churn fills and retention empties (7.5 min kept)",
        "rows",
        {name: f"table {name} rows" for name in ("events", "tasks", "leases", "idempotency", "replicas", "attempts")},
    ),
}


def main(arguments: Sequence[str]) -> None:
    if arguments:
        lines = Path(arguments[0]).read_text().splitlines()[::4]
        names = {"hours", *(series for _, _, chosen in GRAPHS.values() for series in chosen.values())}
        rows = [{name: value for name, value in json.loads(line).items() if name in names} for line in lines]
        KEPT.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [json.loads(line) for line in KEPT.read_text().splitlines()]
    for name, (title, unit, chosen) in GRAPHS.items():
        series = {label: [(60 * row["hours"], row.get(key, 0.0)) for row in samples] for label, key in chosen.items()}
        (FOLDER / f"{name}.svg").write_text(graph(title, "minutes", unit, series))


def graph(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over one another, from 0 up, with their names beside them."""
    right = max(x for points in series.values() for x, _ in points) or 1.0
    top = _round_up(max(y for points in series.values() for _, y in points) or 1.0)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + wide * x / right:.1f},{TOP + high * (1 - y / top):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for step in range(5):
        value = top * step / 4
        y = TOP + high * (1 - step / 4)
        parts.append(f'<path d="M{LEFT},{y:.1f}h{wide}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        x = LEFT + wide * step / 4
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{right * step / 4:.0f}</text>')
    parts.append(f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text x="10" y="{TOP - 6}">{escape(up)}</text>')
    for number, (label, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        y = TOP + 14 + 18 * number
        parts.append(f'<path d="M{WIDTH - RIGHT + 12},{y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 36}" y="{y}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _round_up(value: float) -> float:
    unit = 10 ** (len(str(int(value))) - 1)
    return next(step * unit for step in (1, 2, 4, 5, 8, 10) if step * unit >= value)


if __name__ == "__main__":
    main(sys.argv[1:])
