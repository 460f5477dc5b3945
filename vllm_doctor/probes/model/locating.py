"""Finds the folder that a model's name stands for: a local folder or file, or a snapshot in the hub's cache."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from vllm_doctor.paths import is_file, is_folder
from vllm_doctor.probes.model.reading import Unreadable, names_in, read_bytes

# huggingface_hub 2.4 utils/_validators.py: one optional organisation, 96 characters each, no `--` or `..`, no `.git`.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Object stores that vLLM streams from (vllm/transformers_utils/runai_utils.py, 0.32).
REMOTE_SCHEMES = ("s3://", "gs://", "az://", "azure://", "http://", "https://", "hf://", "oci://", "modelscope://")


# Where the hub's pages are; what follows the id is a page within the repository.
_PAGES = ("https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "https://hf.co/", "hf.co/")


def id_of_page(name: str) -> str | None:
    """The id of the repository whose page that is; None for what is no address of the hub's."""
    page = next((name[len(start) :] for start in _PAGES if name.startswith(start)), "")
    named = "/".join(page.partition("?")[0].split("/")[:2])
    return named if named.count("/") == 1 and is_repo_id(named) else None


class Snapshot(Struct, frozen=True):
    """A model's folder in the cache; `incomplete` counts downloads that were begun there and not ended."""

    folder: Path
    commit: str
    incomplete: int


def is_repo_id(name: str) -> bool:
    """Whether the hub's client takes the name for a repository's id."""
    return _REPO_ID.fullmatch(name) is not None and "--" not in name and ".." not in name and name[-4:] != ".git"


def looks_like_path(name: str) -> bool:
    """Whether the name can only be meant as a path."""
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..") or name.count("/") > 1 or "\\" in name


def local_path(name: str, base: Path, home: str | None) -> Path:
    """The path that the name would be, `~` and relative ones resolved as a shell in `base` would."""
    if home and (name == "~" or name.startswith("~/")):
        return Path(home + name[1:])
    return base / name


def is_offline(variables: Mapping[str, str]) -> bool:
    """Whether the hub's client may not use the network (huggingface_hub 2.4 constants.py; vLLM reads the same)."""
    return is_true(variables.get("HF_HUB_OFFLINE") or variables.get("TRANSFORMERS_OFFLINE") or "")


def is_true(value: str) -> bool:
    """Whether a variable switches on, as huggingface_hub and vLLM read theirs."""
    return value.upper() in _TRUE


def cache_folder(variables: Mapping[str, str]) -> Path:
    """Where the hub's client keeps its downloads (huggingface_hub 2.4 constants.py, the same order)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := variables.get(name):
            return _expanded(value, variables)
    return home_folder(variables) / "hub"


def home_folder(variables: Mapping[str, str]) -> Path:
    """HF_HOME, else `huggingface` in XDG_CACHE_HOME, else in ~/.cache."""
    if value := variables.get("HF_HOME"):
        return _expanded(value, variables)
    return _expanded(variables.get("XDG_CACHE_HOME") or "~/.cache", variables) / "huggingface"


def _expanded(value: str, variables: Mapping[str, str]) -> Path:
    home = variables.get("HOME")
    if home and (value == "~" or value.startswith("~/")):
        value = home + value[1:]
    path = Path(os.path.expandvars(value))
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # `~somebody`, who is not there


def find_snapshot(repo_id: str, revision: str | None, caches: tuple[Path, ...]) -> Snapshot | None:
    """The snapshot of that revision, with weights where one of the caches has them; None where nothing is cached.

    The layout is huggingface_hub's: `models--org--name/{refs/<revision>, snapshots/<commit>/..., blobs/...}`.
    """
    found = [s for cache in caches if (s := _snapshot(cache / f"models--{repo_id.replace('/', '--')}", revision))]
    return next((s for s in found if _has_weights(s.folder)), found[0] if found else None)


def _snapshot(repository: Path, revision: str | None) -> Snapshot | None:
    commit = _commit(repository, revision or "main")
    if commit is None or not is_folder(folder := repository / "snapshots" / commit):
        return None
    names, _ = names_in(repository / "blobs")
    return Snapshot(folder=folder, commit=commit, incomplete=sum(n.endswith(".incomplete") for n in names))


def _commit(repository: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    if revision.startswith("/") or ".." in revision:
        return None
    try:
        return _hash(read_bytes(repository / "refs" / revision, 256).decode("ascii", "replace").strip())
    except Unreadable:
        return None


def _hash(text: str) -> str | None:
    return text if text.isalnum() and len(text) <= 64 else None


def _has_weights(folder: Path) -> bool:
    return any(n.endswith((".safetensors", ".bin", ".pt", ".gguf")) for n in names_in(folder)[0])


def cached_ids(cache: Path) -> Iterator[str]:
    """The ids of the repositories in a cache, sorted."""
    for name in sorted(names_in(cache)[0]):
        if name.startswith("models--"):
            yield name.removeprefix("models--").replace("--", "/", 1)


def exists(path: Path) -> bool:
    """Whether there is a folder or file at the path."""
    return is_folder(path) or is_file(path)
