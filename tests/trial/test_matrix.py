"""What --matrix walks, by platform, GPU and release; and that nothing is left out without a reason."""

from typing import Any

import pytest
from msgspec import structs

from tests.cli.calling import FIXTURES
from vllm_doctor import snapshot as snapshots
from vllm_doctor.facts import Environment, Gpus, Unknown, VllmBuild
from vllm_doctor.releases import store
from vllm_doctor.releases.reader import read_release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.trial import matrix


def snapshot(name: str, version: str | None = None, capability: str | Unknown | None = None) -> Snapshot:
    """A recorded snapshot, with another vLLM or another GPU."""
    found = snapshots.read(FIXTURES / "snapshots" / f"{name}.json")
    environment, gpus = found.environment, found.gpus
    assert isinstance(environment, Environment)
    if version is not None:
        assert isinstance(environment.vllm, VllmBuild)
        build = structs.replace(environment.vllm, metadata_version=version, package_version=version)
        found = structs.replace(found, environment=structs.replace(environment, vllm=build))
    if capability is not None:
        assert isinstance(gpus, Gpus)
        devices = tuple(structs.replace(gpu, compute_capability=capability) for gpu in gpus.devices)
        found = structs.replace(found, gpus=structs.replace(gpus, devices=devices))
    return found


def names(found: Snapshot) -> set[str]:
    return {each.name for each in matrix.configurations(found)}


def reasons(found: Snapshot) -> dict[str, str]:
    return {name: reason for names, reason in matrix.left_out(found) for name in names.split(", ")}


def test_an_h100_walks_backends_by_dtypes_and_one_eager() -> None:
    found = snapshot("healthy-h100")
    assert names(found) == {
        *(f"{b} {how}" for b in ("FLASHINFER", "FLASH_ATTN") for how in ("bfloat16", "float16", "eager")),
        *(
            f"{b} {how}"
            for b in ("TRITON_ATTN", "FLEX_ATTENTION")
            for how in ("bfloat16", "float16", "float32", "eager")
        ),
        "FP8 KV cache",
        "prefill in pieces of 64",
    }
    assert reasons(found)["FLASH_ATTN float32"] == "this backend does not take it"
    assert reasons(found)["FLASHMLA"] == "for models with latent attention"


def test_a_turing_gpu_has_neither_bfloat16_nor_flash_attention() -> None:
    found = snapshot("healthy-h100", capability="7.5")
    assert {n for n in names(found) if "bfloat16" in n or "FLASH" in n or "FP8" in n} == set()
    assert reasons(found)["FLASH_ATTN"] == "needs compute capability 8.0, and this is 7.5"
    assert reasons(found)["TRITON_ATTN bfloat16"] == "needs compute capability 8.0, and this is 7.5"
    assert reasons(found)["FP8 KV cache"] == "needs compute capability 8.9, and this is 7.5"


def test_the_backend_is_asked_for_as_the_release_takes_it() -> None:
    (new,) = (c for c in matrix.configurations(snapshot("healthy-h100")) if c.name == "TRITON_ATTN float32")
    assert (new.flags, dict(new.variables)) == (("--attention-backend", "TRITON_ATTN", "--dtype", "float32"), {})
    before = matrix.configurations(snapshot("healthy-h100", "0.10.0"))
    (old,) = (c for c in before if c.name == "FLASH_ATTN_VLLM_V1 float16")
    assert old.flags == ("--dtype", "float16")
    assert dict(old.variables) == {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN_VLLM_V1"}


@pytest.mark.parametrize(
    ("version", "walked", "reason"),
    [
        ("0.10.0", "FLASH_ATTN_VLLM_V1", "of the first engine; FLASH_ATTN_VLLM_V1 is walked"),
        ("0.6.6", "FLASH_ATTN", "of the second engine, which this release does not start by itself"),
    ],
)
def test_of_two_engines_the_one_that_starts_is_walked(version: str, walked: str, reason: str) -> None:
    found = snapshot("healthy-h100", version)
    assert f"{walked} float16" in names(found)
    other = "FLASH_ATTN" if walked.endswith("V1") else "FLASH_ATTN_VLLM_V1"
    assert reasons(found)[other] == reason


def test_a_package_that_a_backend_needs_and_that_is_not_there() -> None:
    found = snapshot("healthy-h100")
    environment = found.environment
    assert isinstance(environment, Environment)
    kept = tuple(d for d in environment.distributions if d.name != "flashinfer-python")
    assert len(kept) < len(environment.distributions)
    without = structs.replace(found, environment=structs.replace(environment, distributions=kept))
    assert reasons(without)["FLASHINFER"] == "flashinfer-python is not installed"


def test_a_cpu_walks_dtypes_block_sizes_and_modes() -> None:
    found = snapshot("healthy-cpu", "0.32.0+cpu")
    assert names(found) == {
        "bfloat16", "float16", "float32", "block size 32", "block size 64", "block size 256", "FP8 KV cache",
        "prefill in pieces of 64", "compiled",
    }  # fmt: skip
    assert set(reasons(found)) == {"attention backends"}


def test_an_older_cpu_build_walks_what_is_known_of_it() -> None:
    found = snapshot("healthy-cpu", "0.10.0+cpu")
    assert names(found) == {"bfloat16", "float32", "prefill in pieces of 64", "compiled"}
    assert reasons(found)["float16"] == "not known of this release on a CPU"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"version": "99.0"}, "everything but the plain launch"),
        ({"capability": Unknown("NVML said no")}, "dtypes and attention backends"),
    ],
)
def test_what_is_not_known_is_said(change: dict[str, Any], name: str) -> None:
    assert "not known" in reasons(snapshot("healthy-h100", **change))[name]


@pytest.mark.parametrize("version", [v for v in store.index().releases if "." in v][::6])
def test_every_backend_of_every_release_is_walked_or_left_out_with_a_reason(version: str) -> None:
    found = snapshot("healthy-h100", version)
    release = read_release(version)
    assert release is not None
    told = {name.split(" ")[0] for name in names(found)} | set(reasons(found))
    assert set(release.attention_backends) <= told
    assert all(reasons(found).values())
