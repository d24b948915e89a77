"""What a collection holds: the vectors of its points, as a create says and as its file keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

import qdrant_edge as engine

from .reading import Fields, read_bool, read_count, read_text
from .refusals import invalid, malformed, not_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DISTANCES = {
    "Cosine": engine.Distance.Cosine,
    "Euclid": engine.Distance.Euclid,
    "Dot": engine.Distance.Dot,
    "Manhattan": engine.Distance.Manhattan,
}
_TYPES = {
    "float32": engine.VectorStorageDatatype.Float32,
    "float16": engine.VectorStorageDatatype.Float16,
    "uint8": engine.VectorStorageDatatype.Uint8,
}
LARGEST_VECTOR = 65536
#: What only says how Qdrant's server should work; this one has one shard, searches all of it, and keeps it on disk.
_TUNING = (
    "hnsw_config",
    "optimizers_config",
    "wal_config",
    "quantization_config",
    "shard_number",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
    "metadata",
)


@dataclass(frozen=True)
class Dense:
    """One vector of each point: its dimension, its distance, and how a number of it is kept."""

    size: int
    distance: str
    datatype: str = ""

    def shown(self) -> dict[str, Any]:
        return {"size": self.size, "distance": self.distance} | ({"datatype": self.datatype} if self.datatype else {})


@dataclass(frozen=True)
class Shape:
    """``dense`` by name, the one without a name under ""; ``sparse`` are names with their modifier."""

    dense: Mapping[str, Dense]
    sparse: Mapping[str, str] = field(default_factory=dict)

    def config(self) -> engine.EdgeConfig:
        """For the engine. One search thread: it holds the interpreter's lock while it works."""
        dense = {
            name: engine.EdgeVectorParams(one.size, DISTANCES[one.distance], datatype=_TYPES.get(one.datatype))
            for name, one in self.dense.items()
        }
        sparse = {
            name: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf if modifier == "idf" else None)
            for name, modifier in self.sparse.items()
        }
        return engine.EdgeConfig(vectors=dense, sparse_vectors=sparse, max_search_threads=1)

    def shown(self) -> dict[str, Any]:
        """As ``config.params`` shows it, and as the file keeps it."""
        if set(self.dense) == {""}:
            shown: dict[str, Any] = {"vectors": self.dense[""].shown()}
        else:
            shown = {"vectors": {name: one.shown() for name, one in self.dense.items()}}
        if self.sparse:
            shown["sparse_vectors"] = {
                name: {"modifier": modifier} if modifier else {} for name, modifier in self.sparse.items()
            }
        return shown


def read_shape(found: Any) -> Shape:
    """The body of a create."""
    fields = Fields(found)
    fields.ignore(*_TUNING)
    if fields.has("init_from"):
        raise not_here("init_from")
    if read_text(fields.take("sharding_method", "auto"), "sharding_method") != "auto":
        raise not_here("sharding_method custom")
    if fields.has("strict_mode_config"):
        raise not_here("strict_mode_config")
    vectors, sparse = fields.take("vectors", {}), fields.take("sparse_vectors", {})
    fields.end()
    if not isinstance(vectors, dict) or not isinstance(sparse, dict):
        raise malformed("vectors: expected an object")
    if not all(isinstance(one, dict) for one in vectors.values()):
        dense = {"": _dense(vectors, "vectors")}
    else:
        dense = {name: _dense(one, f"vectors.{name}") for name, one in vectors.items()}
    shape = Shape(dense, {name: _modifier(one, name) for name, one in sparse.items()})
    if not shape.dense and not shape.sparse:
        raise not_here("a collection without vectors")
    both = set(shape.dense) & set(shape.sparse)
    if both:
        raise malformed(f"vector name `{both.pop()}` is used twice")
    return shape


def _dense(found: Any, what: str) -> Dense:
    fields = Fields(found, what)
    fields.ignore("hnsw_config", "quantization_config")
    if fields.has("on_disk"):
        read_bool(fields.take("on_disk"), f"{what}.on_disk")
    if fields.has("multivector_config"):
        raise not_here("multivector_config")
    size = read_count(fields.need("size"), f"{what}.size")
    distance = read_text(fields.need("distance"), f"{what}.distance")
    datatype = read_text(fields.take("datatype", ""), f"{what}.datatype")
    fields.end()
    if distance not in DISTANCES:
        words = ", ".join(f"`{one}`" for one in DISTANCES)
        raise malformed(f"{what}.distance: unknown variant `{distance}`, expected one of {words}")
    if datatype and datatype not in _TYPES:
        raise malformed(f"{what}.datatype: unknown variant `{datatype}`, expected one of {', '.join(_TYPES)}")
    if not 1 <= size <= LARGEST_VECTOR:
        raise invalid(f"{what}.size", f"value {size} invalid, must be from 1 to {LARGEST_VECTOR}")
    return Dense(size, distance, datatype)


def _modifier(found: Any, name: str) -> str:
    fields = Fields({} if found is None else found, f"sparse_vectors.{name}")
    fields.ignore("index")
    modifier = read_text(fields.take("modifier", "none"), "modifier")
    fields.end()
    if modifier not in ("none", "idf"):
        raise malformed(f"sparse_vectors.{name}.modifier: unknown variant `{modifier}`, expected `none` or `idf`")
    return "" if modifier == "none" else modifier
