"""The files that recipes are: found, judged, read, and kept as they last were good.

Looked at anew whenever somebody asks; only what changed is read. A file that cannot be served is told of, and what it
last said that could goes on serving, also after a restart: a copy of it lies in the state dir.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from app.domain.recipe_schema import NAME
from app.domain.recipes import Recipe
from app.settings import Settings
from app.usecases.inside_files import NotInside, Opened, is_ours, others_may_write, read_inside
from app.usecases.recipe_check import recipe_from
from app.usecases.recipe_yaml import LARGEST, Unreadable, read_yaml

log = logging.getLogger(__name__)

BUILT_IN = Path(__file__).resolve().parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml")
#: Files of one folder that are looked at; the rest is told of.
MOST = 2000
_NAME = re.compile(NAME)


@dataclass(frozen=True)
class Known:
    """One recipe by its full name. ``problems`` say why its file is not served as it stands; ``recipe`` is what is
    served: None where it never was good. ``path`` is the file, ``built_in`` whether Hostler brought it."""

    category: str
    name: str
    path: str
    built_in: bool
    recipe: Recipe | None
    problems: tuple[str, ...] = ()


@dataclass
class _File:
    signature: tuple[int, ...]
    known: Known


class Shelf:
    """The recipes of one process: the built-in ones, and over them those of the operator's folder."""

    def __init__(self, folder: Path, copies: Path, built_in: Path = BUILT_IN) -> None:
        self._folder, self._copies, self._built_in = folder, copies, built_in
        self._files: dict[Path, _File] = {}
        self._told: dict[str, tuple[str, ...]] = {}
        self._lock = Lock()

    def look(self) -> dict[str, Known]:
        """Every recipe by its full name, as the files are now."""
        with self._lock:
            found = {f"{one.category}/{one.name}": one for one in self._scan(self._built_in, own=False)}
            found |= {f"{one.category}/{one.name}": one for one in self._scan(self._folder, own=True)}
            self._tell(found)
            return dict(sorted(found.items()))

    def _scan(self, root: Path, *, own: bool) -> Iterator[Known]:
        seen = set()
        for number, (category, name, path) in enumerate(_files_below(root)):
            seen.add(path)
            wrong = _misplaced(root, number, category, name)
            if wrong:
                yield Known(category, name, str(path), not own, None, (wrong,))
                continue
            try:
                signature = _signature(path)
            except OSError as error:
                yield Known(category, name, str(path), not own, None, (f"cannot be read: {error.strerror}",))
                continue
            before = self._files.get(path)
            if before is None or before.signature != signature:
                before = self._files[path] = _File(signature, self._read(root, path, category, name, own=own))
            yield before.known
        for path in [path for path in self._files if path.is_relative_to(root) and path not in seen]:
            del self._files[path]
            if own:
                self._copy_of(path.parent.name, path.stem).unlink(missing_ok=True)

    def _read(self, root: Path, path: Path, category: str, name: str, *, own: bool) -> Known:
        recipe, problems, raw = _load(root, path, category, name, own=own)
        copy = self._copy_of(category, name)
        if recipe is not None and own:
            _keep(copy, raw)
        elif recipe is None and own:
            before = self._files.get(path)
            recipe = before.known.recipe if before is not None else None
            recipe = recipe or _load(self._copies, copy, category, name, own=False)[0]
        return Known(category, name, str(path), not own, recipe, tuple(problems))

    def _copy_of(self, category: str, name: str) -> Path:
        return self._copies / category / f"{name}.yaml"

    def _tell(self, found: dict[str, Known]) -> None:
        """Each problem once, and once that it is over."""
        problems = {one.path: one.problems for one in found.values() if one.problems}
        for one in found.values():
            if one.problems and self._told.get(one.path) != one.problems:
                served = "its last good version serves" if one.recipe else "it is not served"
                log.warning("recipe %r: %s; %s", one.path, "; ".join(one.problems), served)
        for path in self._told.keys() - problems.keys():
            log.info("recipe %r has no problem any more", path)
        self._told = problems


def problems_of(path: Path) -> list[str]:
    """Why one file, wherever it lies, could not be served; empty when it could. Of what its name says, if it fits."""
    try:
        with path.open("rb") as file:
            document = read_yaml(file.read(LARGEST + 1))
    except Unreadable as error:
        return [str(error)]
    except OSError as error:
        return [f"cannot be read: {error.strerror}"]
    said = document if isinstance(document, dict) else {}
    found = [str(said.get(key) or own) for key, own in (("category", path.absolute().parent.name), ("name", path.stem))]
    return recipe_from(document, *found)[1]


_shelves: dict[tuple[Path, Path], Shelf] = {}


def shelf_of(settings: Settings) -> Shelf:
    """The process's shelf for these settings."""
    key = (settings.recipes_dir, settings.state_dir / "kept-recipes")
    return _shelves.setdefault(key, Shelf(*key))


def _files_below(root: Path) -> Iterator[tuple[str, str, Path]]:
    """(category, name, path) of each YAML file two levels below ``root``, in order; hidden ones are left alone."""
    for folder in _entries(root):
        taken: set[str] = set()
        for file in _entries(root / folder):
            name, suffix = os.path.splitext(file)
            if suffix in SUFFIXES and name not in taken:
                taken.add(name)
                yield folder, name, root / folder / file


def _misplaced(root: Path, number: int, category: str, name: str) -> str:
    """Why a file of that name is no recipe's; empty when it may be one. No name can lead anywhere else."""
    if number >= MOST:
        return f"{root} holds more than {MOST} recipes"
    wrong = next((one for one in (category, name) if not _NAME.match(one)), None)
    return "" if wrong is None else f"{wrong!r} is no name of a recipe: small letters, digits, . _ and - inside"


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        # none, or a file, or closed to us: then there are no recipes in it
        return []


def _signature(path: Path) -> tuple[int, ...]:
    """What changes when the file does, or who may change it."""
    found: list[int] = []
    for one in (path, path.parent, path.parent.parent):
        seen = os.stat(one)
        found += [seen.st_dev, seen.st_ino, seen.st_mode, seen.st_uid]
        if one is path:
            found += [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
    return tuple(found)


def _load(root: Path, path: Path, category: str, name: str, *, own: bool) -> tuple[Recipe | None, list[str], bytes]:
    """(the recipe, none, its text) or (None, what is wrong, nothing)."""
    try:
        raw = _bytes_of(root, path, own=own)
        recipe, problems = recipe_from(read_yaml(raw), category, name)
        return recipe, problems, raw
    except Unreadable as error:
        return None, [str(error)], b""
    except OSError as error:
        return None, [f"cannot be read: {error.strerror}"], b""


def _bytes_of(root: Path, path: Path, *, own: bool) -> bytes:
    try:
        found = read_inside(root, path, LARGEST)
    except NotInside as error:
        raise Unreadable(f"it {error}") from error
    if own:
        _check_owners(root, found)
    return found.raw


def _check_owners(root: Path, found: Opened) -> None:
    """A recipe decides what runs: only we and root may be able to change it."""
    top = Path(os.path.realpath(root))
    ways = [(found.place, found.seen)]
    for folder in found.place.parents:
        ways.append((folder, os.stat(folder)))
        if folder == top:
            break
    for one, seen in ways:
        if not is_ours(seen):
            raise Unreadable(f"{one} belongs to another user (uid {seen.st_uid}); chown it to whom Hostler runs as")
        if others_may_write(seen):
            raise Unreadable(f"others may write {one}; chmod go-w {one}")


def _keep(copy: Path, raw: bytes) -> None:
    """The last good version, for after a restart. Without room for it the recipe is served all the same."""
    draft = copy.with_name(f".{copy.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        if copy.is_file() and copy.read_bytes() == raw:
            return
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        draft.rename(copy)
    except OSError as error:
        draft.unlink(missing_ok=True)
        log.warning("recipe %s: its last good version cannot be kept: %s", copy, error)
