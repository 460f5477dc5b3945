"""Finds what Python would import in place of an installed package or of the standard library."""

from __future__ import annotations

import os
import sys

from .files import names_in
from .metadata import Installed
from .modules import Modules, in_folder
from .paths import Layout

# What vLLM's import path meets early, with the distribution that brings it.
_WATCHED = (
    ("vllm", "vllm"),
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("triton", "triton"),
    ("numpy", "numpy"),
    ("tokenizers", "tokenizers"),
    ("huggingface_hub", "huggingface-hub"),
    ("safetensors", "safetensors"),
    ("pydantic", "pydantic"),
    ("pydantic_core", "pydantic-core"),
    ("fastapi", "fastapi"),
    ("openai", "openai"),
    ("ray", "ray"),
    ("requests", "requests"),
    ("urllib3", "urllib3"),
    ("botocore", "botocore"),
    ("boto3", "boto3"),
    ("flash_attn", "flash-attn"),
    ("flashinfer", "flashinfer-python"),
    ("xformers", "xformers"),
    ("torchvision", "torchvision"),
    ("torchaudio", "torchaudio"),
    ("PIL", "pillow"),
    ("regex", "regex"),
    ("zmq", "pyzmq"),
    ("typing_extensions", "typing-extensions"),
    ("packaging", "packaging"),
)
STANDARD_LIBRARY = "standard library"

# Modules of the standard library that no program imports by accident.
_NEVER_IMPORTED = frozenset(("test", "this", "antigravity", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3"))

# What the interpreter and `site` have loaded before any folder of the launch is looked into.
_LOADED_AT_START = frozenset(
    ("abc", "codecs", "encodings", "genericpath", "io", "os", "posixpath", "site", "stat", "zipimport", "ntpath")
)


def shadows(layout: Layout, modules: Modules, installed: list[Installed]) -> list[dict[str, object]]:
    """The shadows of the watched packages and, in the launch's folders, of the standard library."""
    found: list[dict[str, object]] = []
    first: dict[str, Installed] = {}
    for item in installed:
        first.setdefault(item.name, item)
    for name, distribution in _WATCHED:
        winner = modules.find(name, layout.search_path)
        if winner is not None:
            over = _loser(name, winner, layout, first.get(distribution))
            if over is not None or os.path.dirname(winner) in layout.first:
                found.append({"name": name, "path": winner, "over": over})
    return found + _over_standard_library(layout)


def _loser(name: str, winner: str, layout: Layout, item: Installed | None) -> str | None:
    """The copy that is not imported though it is the one meant.

    Behind a folder of the launch that is the installed one; among the site folders, the one that lies beside the first
    metadata of that name (two whole copies, each with its metadata, are no shadow: the first one simply wins).
    """
    place = os.path.dirname(winner)
    launch = layout.first + layout.python_path
    if place in launch:
        behind = [f for f in layout.search_path[layout.search_path.index(place) + 1 :] if f != place]
        return next((hit for hit in (in_folder(name, f) for f in behind) if hit is not None), None)
    if item is None or item.editable or item.location == place:
        return None
    return in_folder(name, item.location)


def _over_standard_library(layout: Layout) -> list[dict[str, object]]:
    """Files such as `random.py` in front of the standard library; what the start-up has imported is safe."""
    safe = _NEVER_IMPORTED.union(sys.builtin_module_names, _LOADED_AT_START)
    names: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())
    found: list[dict[str, object]] = []
    for folder in layout.first + layout.python_path:
        for file in sorted(names_in(folder)):
            name, _, suffix = file.partition(".")
            if suffix == "py" and name in names and name not in safe:
                found.append({"name": name, "path": os.path.join(folder, file), "over": STANDARD_LIBRARY})
    return found[:50]
