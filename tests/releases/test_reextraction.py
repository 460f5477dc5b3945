"""Three releases are extracted again from their unpacked sources and compared with the shipped data."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from vllm_doctor import releases
from vllm_doctor.releases.source import read_installed

CACHE = Path(os.environ.get("VLLM_DOCTOR_RELEASES_CACHE", Path.home() / ".cache" / "vllm-doctor-releases"))

FROM_SOURCE = (
    "flags",
    "env",
    "architectures",
    "removed_architectures",
    "tool_parsers",
    "reasoning_parsers",
    "quantization",
    "attention_backends",
    "kv_cache_dtypes",
)


@pytest.mark.parametrize("version", ["0.6.4", "0.9.2", "0.33.0"])
def test_data_is_what_the_source_says(version: str) -> None:
    package = CACHE / "sources" / version / "vllm"
    if not package.is_dir():
        pytest.skip(f"no source of vLLM {version} in the release cache (VLLM_DOCTOR_RELEASES_CACHE)")
    shipped, found = releases.release(version), read_installed(package)
    assert shipped is not None
    assert {name: getattr(found, name) for name in FROM_SOURCE} == {
        name: getattr(shipped, name) for name in FROM_SOURCE
    }
    assert found.version in ("", version)
    assert msgspec.json.encode(found)
