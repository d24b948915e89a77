"""The files that recipes are: found, judged, read, and kept as they last were good.

Looked at anew whenever somebody asks; only what changed is read. A file that cannot be served is told of, and what it
last said that could goes on serving, also after a restart: a copy of it lies in the state dir.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
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
MOST = 1000
#: A file that is away for so long was deleted.
GONE_S = 5.0
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
    """The recipes of one process: the built-in ones, and over them those of the operator's folder.

    ``problem`` is what is wrong with that folder as a whole; ``expected``: somebody named it, so it has to be there.
    """

    def __init__(self, folder: Path, copies: Path, built_in: Path = BUILT_IN, *, expected: bool = False) -> None:
        self._folder, self._copies, self._built_in, self._expected = folder, copies, built_in, expected
        self._files: dict[Path, _File] = {}
        self._told: dict[str, tuple[str, ...]] = {}
        #: files that are not there, and since when
        self._away: dict[Path, float] = {}
        self._pruned = False
        self._lock = Lock()
        self.problem = ""

    def look(self) -> dict[str, Known]:
        """Every recipe by its full name, as the files are now."""
        with self._lock:
            found = {f"{one.category}/{one.name}": one for one in self._scan(self._built_in, own=False)}
            found |= {f"{one.category}/{one.name}": one for one in self._look_into_folder()}
            self._tell(found)
            return dict(sorted(found.items()))

    def _look_into_folder(self) -> list[Known]:
        missing = self._expected and not os.path.lexists(self._folder)
        self.problem = f"there is no folder {self._folder} (HOSTLER_RECIPES_DIR)" if missing else ""
        try:
            found = list(self._scan(self._folder, own=True))
        except OSError as error:
            # nobody deleted them: that we may not look is no reason to stop serving
            self.problem = f"{self._folder} cannot be read: {error.strerror}"
            return list(self._kept(self._folder, None, self.problem))
        self._pruned = True
        return found

    def _scan(self, root: Path, *, own: bool) -> Iterator[Known]:
        """Raises OSError when ``root`` itself cannot be looked into."""
        seen: set[Path] = set()
        closed: set[str] = set()
        for folder in _entries(root):
            try:
                files = list(_files_of(root / folder))
            except OSError as error:
                closed.add(folder)
                yield from self._kept(root, folder, f"{root / folder} cannot be read: {error.strerror}")
                continue
            for name, path in files:
                seen.add(path)
                wrong = _misplaced(root, len(seen), folder, name)
                if wrong:
                    yield Known(folder, name, str(path), not own, None, (wrong,))
                else:
                    yield self._look_at(root, path, folder, name, own=own)
        self._forget(root, seen, closed, own=own)

    def _look_at(self, root: Path, path: Path, category: str, name: str, *, own: bool) -> Known:
        signature = _signature(path)
        before = self._files.get(path)
        if before is None or before.signature != signature:
            before = self._files[path] = _File(signature, self._read(root, path, category, name, own=own))
        return before.known

    def _read(self, root: Path, path: Path, category: str, name: str, *, own: bool) -> Known:
        recipe, problems, raw = _load(root, path, category, name, own=own)
        if recipe is not None and own:
            _keep(self._copy_of(category, name), raw)
        elif recipe is None and own:
            recipe = self._last_good(path, category, name)
        return Known(category, name, str(path), not own, recipe, tuple(problems))

    def _last_good(self, path: Path, category: str, name: str) -> Recipe | None:
        before = self._files.get(path)
        found = before.known.recipe if before is not None else None
        return found or _load(self._copies, self._copy_of(category, name), category, name, own=False)[0]

    def _kept(self, root: Path, category: str | None, problem: str) -> Iterator[Known]:
        """What a folder that cannot be looked into held (all of them: None), as it last was good."""
        for folder, name in _names_below(self._copies) if root == self._folder else ():
            if category in (None, folder):
                path = root / folder / f"{name}.yaml"
                known = Known(folder, name, str(path), False, self._last_good(path, folder, name), (problem,))
                # no signature of a file is like this one: it is read again as soon as it can be
                self._files[path] = _File((), known)
                yield known

    def _forget(self, root: Path, seen: set[Path], closed: set[str], *, own: bool) -> None:
        """What was deleted, with its copy; at the first look also copies of what was deleted before.

        Not at once: an editor that deletes a file before it writes it anew has deleted no recipe.
        """
        now = time.monotonic()
        away = {path for path in self._files if path.parent.parent == root and path not in seen}
        away = {path for path in away if path.parent.name not in closed}
        self._away = {path: since for path, since in self._away.items() if path.parent.parent != root or path in away}
        gone = [path for path in away if now - self._away.setdefault(path, now) >= GONE_S]
        for path in gone:
            del self._files[path], self._away[path]
        if not own:
            return
        names = [(path.parent.name, path.stem) for path in gone]
        if not self._pruned:
            there = {(path.parent.name, path.stem) for path in seen}
            names += [one for one in _names_below(self._copies) if one not in there and one[0] not in closed]
        for category, name in names:
            self._copy_of(category, name).unlink(missing_ok=True)

    def _copy_of(self, category: str, name: str) -> Path:
        return self._copies / category / f"{name}.yaml"

    def _tell(self, found: dict[str, Known]) -> None:
        """Each problem once, and once that it is over."""
        problems = {one.path: one.problems for one in found.values() if one.problems}
        if self.problem:
            problems[str(self._folder)] = (self.problem,)
            if self._told.get(str(self._folder)) != (self.problem,):
                log.warning("recipes: %s", self.problem)
        for one in found.values():
            if one.problems and self._told.get(one.path) != one.problems:
                served = "its last good version serves" if one.recipe else "it is not served"
                log.warning("recipe %r: %s; %s", one.path, "; ".join(one.problems), served)
        for path in self._told.keys() - problems.keys():
            log.info("%r has no problem any more", path)
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
    folder = settings.recipes_dir
    copies = settings.state_dir / "kept-recipes" / blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    expected = folder != settings.state_dir / "recipes"
    return _shelves.setdefault((folder, copies), Shelf(folder, copies, expected=expected))


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of each YAML file, in order. Raises OSError when it cannot be looked into."""
    taken: set[str] = set()
    for file in _entries(folder):
        name, suffix = os.path.splitext(file)
        if suffix in SUFFIXES and name not in taken:
            taken.add(name)
            yield name, folder / file


def _names_below(copies: Path) -> list[tuple[str, str]]:
    """(category, name) of each copy."""
    return [(path.parent.name, path.stem) for path in sorted(copies.glob("*/*.yaml")) if path.name[0] != "."]


def _misplaced(root: Path, number: int, category: str, name: str) -> str:
    """Why a file of that name is no recipe's; empty when it may be one. No name can lead anywhere else."""
    if number > MOST:
        return f"{root} holds more than {MOST} recipes"
    wrong = next((one for one in (category, name) if not _NAME.match(one)), None)
    return "" if wrong is None else f"{wrong!r} is no name of a recipe: small letters, digits, . _ and - inside"


def _entries(folder: Path) -> list[str]:
    """What lies in it and is not hidden, in order; nothing when it is no folder. Raises OSError."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _signature(path: Path) -> tuple[int, ...]:
    """What changes when the file does, or who may change it; also when it cannot be asked any more."""
    found: list[int] = []
    for one in (path, path.parent, path.parent.parent):
        try:
            seen = os.stat(one)
        except OSError as error:
            found.append(-(error.errno or 1))
            continue
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
