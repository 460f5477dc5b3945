"""Settings files: `vllm-doctor.toml`, or `[tool.vllm-doctor]` of `pyproject.toml`; the command line wins."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from vllm_doctor.errors import InputFileError
from vllm_doctor.paths import is_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAXIMUM_BYTES = 2**20


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What a settings file may say; None where it says nothing."""

    format: str | None = None
    fail_on: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    python: str | None = None
    timeout: float | None = None
    offline: bool | None = None


def find(folder: Path) -> Settings:
    """The settings of a folder; raises InputFileError for a file that is there and wrong."""
    own = folder / "vllm-doctor.toml"
    if is_file(own):
        return _settings(_read(own), own)
    project = folder / "pyproject.toml"
    if is_file(project):
        table = _read(project, strict=False).get("tool", {})
        if isinstance(table, dict) and "vllm-doctor" in table:
            return _settings(table["vllm-doctor"], project)
    return Settings()


def _read(path: Path, *, strict: bool = True) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
        if len(data) > MAXIMUM_BYTES:
            raise InputFileError(f"{path}: larger than {MAXIMUM_BYTES // 2**20} MiB", "shorten it")
        return tomllib.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        if not strict:
            # Somebody else's file: what is wrong with it is not ours to report.
            return {}
        raise InputFileError(f"{path}: not a settings file: {problem}", "mend it or remove it") from None


def _settings(table: object, path: Path) -> Settings:
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as problem:
        known = ", ".join(f.encode_name for f in msgspec.structs.fields(Settings))
        raise InputFileError(f"{path}: {problem}", f"the settings are {known}") from None
