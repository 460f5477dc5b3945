"""The catalogue of GPUs by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor import hardware


# Names as nvidia-smi prints them in public issues -> capability, MiB.
@pytest.mark.parametrize(
    ("name", "capability", "mebibytes"),
    [
        ("NVIDIA H100 80GB HBM3", "9.0", 81559),
        ("NVIDIA H100 80GB HBM2e", "9.0", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", None),
        ("NVIDIA H20-3e", "9.0", None),
        ("NVIDIA A100-SXM4-40GB", "8.0", 40960),
        ("NVIDIA A100-SXM-64GB", "8.0", None),
        ("GRID A100-40C", "8.0", None),
        ("NVIDIA A10", "8.6", 23028),
        ("NVIDIA A10-24Q", "8.6", None),
        ("NVIDIA L40S-48C", "8.9", None),
        ("Tesla T4", "7.5", 15360),
        ("Tesla V100S-PCIE-32GB", "7.0", 32768),
        ("Tesla V100-FHHL-16GB", "7.0", None),
        ("NVIDIA GeForce RTX 4090", "8.9", 24564),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "8.9", None),
        ("NVIDIA GeForce RTX 4060 Ti", "8.9", None),
        ("NVIDIA RTX 6000 Ada Generation", "8.9", 49140),
        ("Quadro RTX 6000", "7.5", 24576),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0", 97887),
        ("NVIDIA Thor", "11.0", None),
        ("Orin (nvgpu)", "8.7", None),
        ("NVIDIA GB10", "12.1", None),
        ("NVIDIA Graphics Device", None, None),
        ("NVIDIA RTX", None, None),
        ("AMD Instinct MI300X", None, None),
        ("", None, None),
    ],
)
def test_names(name: str, capability: str | None, mebibytes: int | None) -> None:
    memory = hardware.memory_bytes(name)
    assert (hardware.compute_capability(name), None if memory is None else memory // 2**20) == (capability, mebibytes)


def test_every_board_is_found_by_its_own_name() -> None:
    models = list(hardware._models())
    assert len(models) > 90
    assert [m for m in models if hardware.find(f"NVIDIA {m.name}") != m] == []


@given(st.text(max_size=300))
def test_any_name(name: str) -> None:
    hardware.compute_capability(name)
    hardware.memory_bytes(name)
