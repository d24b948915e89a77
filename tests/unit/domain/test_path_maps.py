"""Folders that are called differently on another host."""

from __future__ import annotations

from app.domain.path_maps import map_path


def test_paths_follow_whole_components_and_the_longest_folder() -> None:
    known = {"/models": "/lustre/models/", "/models/own": "/home/own", "/": "/root-of-there"}
    assert map_path("/models/a.gguf", known) == "/lustre/models/a.gguf"
    assert map_path("/models", known) == "/lustre/models"
    assert map_path("/models/own/b", known) == "/home/own/b"
    assert map_path("/modelsx", known) == "/root-of-there/modelsx"
    assert map_path("/modelsx", {"/models": "/x"}) == "/modelsx"
    assert map_path("models/a", known) == "models/a"
    assert map_path("--path=/models/a", known) == "--path=/models/a"


def test_the_root_maps_what_is_absolute_and_nothing_else() -> None:
    assert map_path("/", {"/": "/mnt/"}) == "/mnt/"
    assert map_path("/etc", {"/": "/"}) == "/etc"
    assert map_path("", {"/": "/mnt"}) == ""
    assert map_path("/models", {"/models": "/"}) == "/"
