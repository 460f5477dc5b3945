"""GPUs by the names that people write."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory import boards
from vllm_doctor.memory.budget import torch_total_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "name", "total_gib", "capability", "count"),
    [
        ("H100 80GB:2", "H100 80GB HBM3", 79.19, 90, 2),
        ("h100", "H100 80GB HBM3", 79.19, 90, 1),
        ("4090", "RTX 4090", 23.55, 89, 1),
        ("A100-40GB", "A100-SXM4-40GB", 39.6, 80, 1),
        ("NVIDIA A100-SXM4-80GB:8", "A100-SXM4-80GB", 79.25, 80, 8),
        ("RTX 3060 12 GB", "RTX 3060", 11.67, 86, 1),
        ("Tesla T4", "T4", 14.65, 75, 1),
        ("B200:8", "B200", 178.35, 100, 8),
        ("rtx4090:2", "RTX 4090", 23.55, 89, 2),
        ("2xH100", "H100 80GB HBM3", 79.19, 90, 2),
        ("8 x A100 80GB", "A100-SXM4-80GB", 79.25, 80, 8),
        ("H100x8", "H100 80GB HBM3", 79.19, 90, 8),
        ("RTX 4090 x2", "RTX 4090", 23.55, 89, 2),
        ("H100 SXM5 80GB", "H100 80GB HBM3", 79.19, 90, 1),
        ("A100-SXM-40GB", "A100-SXM4-40GB", 39.6, 80, 1),
    ],
)
def test_a_board_by_its_name(text: str, name: str, total_gib: float, capability: int, count: int) -> None:
    found = boards.device(text)
    assert (found.name, found.capability, found.count, found.free_bytes) == (name, capability, count, None)
    assert found.total_bytes / GIB == pytest.approx(total_gib, abs=0.01)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A100", "different memory"),
        ("RTX 3060", "different memory"),
        ("V100", "different memory"),
        ("H900", "no GPU called"),
        ("H100:0", "no number of GPUs"),
        ("H100:x", "no number of GPUs"),
        (":2", "names no GPU"),
        ("mi300x", "is no NVIDIA GPU"),
        ("Radeon RX 7900 XTX", "is no NVIDIA GPU"),
        ("DGX Spark", "how much memory a GPU called GB10 has"),
        ("jetson orin", "how much memory a GPU called Orin has"),
        ("0xH100", "no GPU called"),
        ("000012345xH100", "no GPU called"),
        ("RTX 4091", r"did you mean RTX 4090"),
        ("zzz", "write it as nvidia-smi does"),
        ("", "names no GPU"),
    ],
)
def test_what_names_no_board_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(DoctorError, match=says) as raised:
        boards.device(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "capability"),
    [("rtx4090", "8.9"), ("DGX Spark", "12.1"), ("H100 SXM5", "9.0"), ("RTX", None), ("foo", None), ("", None)],
)
def test_the_capability_of_a_board_by_its_name(name: str, capability: str | None) -> None:
    assert boards.capability(name) == capability


@given(st.text(max_size=300))
def test_any_text_is_a_board_or_an_error(text: str) -> None:
    with contextlib.suppress(DoctorError):
        assert boards.device(text).total_bytes > 0


def test_the_catalogue_has_many_boards() -> None:
    found = boards.every(4)
    assert len(found) >= 80
    assert {d.count for d in found} == {4}


@pytest.mark.parametrize(
    ("name", "mib", "logged_gib"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, 79.19),
        ("NVIDIA L40S", 46068, 44.42),
        ("NVIDIA GeForce RTX 5090", 32607, 31.36),
    ],
)
def test_torch_sees_a_little_less_than_nvml(name: str, mib: int, logged_gib: float) -> None:
    assert torch_total_bytes(name, mib * 2**20) / GIB == pytest.approx(logged_gib, abs=0.02)
