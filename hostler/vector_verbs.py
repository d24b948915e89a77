"""What can be asked of vector databases, for both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic

from hostler.wire import Body, Call, api_path


class VectorVerbs(Generic[Body]):
    """The verbs of vector databases. ``ref`` is a service's id or name; answers are Qdrant's, in ``result``."""

    def call(self, call: Call) -> Body:
        """Send any request of the API and return its body."""
        raise NotImplementedError

    def list_collections(self, ref: str) -> Body:
        """Names of its collections."""
        return self.call(Call("GET", api_path("vector-db", ref, "collections")))

    def get_collection(self, ref: str, name: str) -> Body:
        return self.call(Call("GET", _collection(ref, name)))

    def create_collection(self, ref: str, name: str, vector_size: int, distance: str = "Cosine") -> Body:
        """Make a collection for vectors of ``vector_size`` numbers."""
        body = {"vector_size": vector_size, "distance": distance}
        return self.call(Call("PUT", _collection(ref, name), body=body))

    def delete_collection(self, ref: str, name: str) -> Body:
        """Remove a collection with all its points."""
        return self.call(Call("DELETE", _collection(ref, name)))

    def upsert_points(self, ref: str, name: str, points: Sequence[Mapping[str, Any]]) -> Body:
        """Put points in, each ``{id, vector, payload}``; those with an id that is there take its place."""
        body = {"points": [dict(point) for point in points]}
        # the same points twice are the same points
        return self.call(Call("PUT", f"{_collection(ref, name)}/points", body=body, harmless=True))

    def search_points(self, ref: str, name: str, query_vector: Sequence[float], limit: int = 10) -> Body:
        """The points nearest to ``query_vector``, the nearest first."""
        body = {"query_vector": list(query_vector), "limit": limit}
        return self.call(Call("POST", f"{_collection(ref, name)}/points/search", body=body, harmless=True))


def _collection(ref: str, name: str) -> str:
    return api_path("vector-db", ref, "collections", name)
