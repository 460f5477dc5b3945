"""Reads an installed vLLM's own source, where the data is older than the installation or it is a dev build."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from vllm_doctor.releases.extract import Extracted, extract
from vllm_doctor.releases.extract.tree import read_text
from vllm_doctor.releases.facts import EnvVar, Flag, Release
from vllm_doctor.releases.reader import kv_cache_dtypes

VERSION_ASSIGNMENT = re.compile(r"^(?:__version__|version)\s*(?::[^=]*)?=.*?[\"']([^\"']+)[\"']", re.MULTILINE)


def read_installed(vllm_package_dir: Path) -> Release:
    """The facts of the vLLM in a `vllm/` folder, read by syntax tree; nothing of it is imported or run.

    What only an index knows (date, wheel tags, CUDA, pins) stays empty: the installed metadata answers that.
    """
    found = extract(vllm_package_dir)
    flags = flags_from(found)
    return Release(
        version=_version(vllm_package_dir),
        flags=flags,
        env=variables_from(found),
        architectures=found.architectures,
        removed_architectures=found.removed_architectures,
        tool_parsers=found.tool_parsers,
        reasoning_parsers=found.reasoning_parsers,
        quantization=found.quantization,
        attention_backends=found.attention_backends,
        kv_cache_dtypes=kv_cache_dtypes(flags),
    )


def flags_from(found: Extracted) -> dict[str, Flag]:
    """Extracted flags as the reader hands them out."""
    return {name: Flag(**asdict(facts)) for name, facts in found.flags.items()}


def variables_from(found: Extracted) -> dict[str, EnvVar]:
    """Extracted variables as the reader hands them out."""
    return {name: EnvVar(**asdict(facts)) for name, facts in found.variables.items()}


def _version(package: Path) -> str:
    """The version that the build wrote down (earlier in `version.py` or `__init__.py`); empty when none is."""
    for name in ("_version.py", "version.py", "__init__.py"):
        found = VERSION_ASSIGNMENT.search(read_text(package / name))
        if found:
            return found.group(1)
    return ""
