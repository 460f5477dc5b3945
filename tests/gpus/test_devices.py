"""Which GPUs a launch sees: CUDA's own rules for CUDA_VISIBLE_DEVICES and docker's `--gpus`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.cases_reader import Case
from vllm_doctor.check import NotKnown
from vllm_doctor.facts import Gpus, Host
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices

BASE = Case("gpu-visible", "quiet", {"id": "x", "fixture": "healthy-h100"}).snapshot()


def machine(names: tuple[str, ...], variables: dict[str, str | None], launch: str | None = None) -> Snapshot:
    """Several GPUs, and variables of the shell."""
    row: dict[str, object] = {"id": "x", "fixture": "healthy-h100"}
    if launch is not None:
        row["launch"] = launch
    snapshot = Case("gpu-visible", "quiet", row).snapshot()
    assert isinstance(snapshot.gpus, Gpus)
    assert isinstance(snapshot.host, Host)
    first = snapshot.gpus.devices[0]
    gpus = tuple(structs.replace(first, index=i, name=n, uuid=f"GPU-{i}{i}aa-bb") for i, n in enumerate(names))
    return structs.replace(
        snapshot,
        gpus=structs.replace(snapshot.gpus, devices=gpus),
        host=structs.replace(snapshot.host, environment=variables),
    )


def seen(value: str | None) -> tuple[list[int], tuple[str, ...]]:
    snapshot = machine(("L4",) * 4, {} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    chosen = devices.chosen(snapshot, devices.answering(snapshot))
    return [g.index for g in chosen.gpus], chosen.missing


@pytest.mark.parametrize(
    ("value", "indices", "missing"),
    [
        (None, [0, 1, 2, 3], ()),
        ("", [], ()),
        ("2,0", [2, 0], ()),
        (" 1 , 3 ", [1, 3], ()),
        ("0,9,1", [0], ("9",)),
        ("-1", [], ()),
        ("0,-1,1", [0], ()),
        ("GPU-22aa", [2], ()),
        ("GPU-zz", [], ("GPU-zz",)),
    ],
)
def test_visible_devices(value: str | None, indices: list[int], missing: tuple[str, ...]) -> None:
    assert seen(value) == (indices, missing)


@pytest.mark.parametrize(
    ("option", "indices"),
    [("all", [0, 1, 2, 3]), ("2", [0, 1]), ("'\"device=1,3\"'", [1, 3]), ("device=GPU-33aa", [3])],
)
def test_gpus_of_a_container(option: str, indices: list[int]) -> None:
    launch = f"docker run --gpus {option} vllm/vllm-openai:v0.20.2 --model m"
    snapshot = machine(("L4",) * 4, {"CUDA_VISIBLE_DEVICES": "0"}, launch)
    assert [g.index for g in devices.chosen(snapshot, devices.answering(snapshot)).gpus] == indices


def test_a_launch_uses_the_first_of_the_visible() -> None:
    launch = "CUDA_VISIBLE_DEVICES=3,1,0 vllm serve m --tensor-parallel-size 2"
    snapshot = machine(("L4",) * 4, {}, launch)
    assert [g.index for g in devices.used(snapshot, devices.answering(snapshot))] == [3, 1]


def test_gpus_that_differ_are_numbered_by_speed() -> None:
    launch = "vllm serve m"
    snapshot = machine(("NVIDIA L4", "NVIDIA H100 80GB HBM3"), {}, launch)
    with pytest.raises(NotKnown):
        devices.used(snapshot, devices.answering(snapshot))
    ordered = machine(("NVIDIA L4", "NVIDIA H100 80GB HBM3"), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, launch)
    assert [g.index for g in devices.used(ordered, devices.answering(ordered))] == [0]


@pytest.mark.parametrize(
    ("name", "data_centre", "consumer"),
    [
        ("NVIDIA H100 80GB HBM3", True, False),
        ("Tesla V100-SXM2-32GB", True, False),
        ("NVIDIA A100-SXM4-80GB", True, False),
        ("NVIDIA L4", True, False),
        ("NVIDIA GeForce RTX 4090", False, True),
        ("NVIDIA TITAN RTX", False, True),
        ("NVIDIA RTX A6000", False, False),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", False, False),
        ("NVIDIA GB10", False, False),
    ],
)
def test_classes_of_boards(name: str, data_centre: bool, consumer: bool) -> None:
    assert isinstance(BASE.gpus, Gpus)
    gpu = structs.replace(BASE.gpus.devices[0], name=name)
    assert (devices.is_data_centre(gpu), devices.is_consumer(gpu)) == (data_centre, consumer)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_value_of_the_variable_is_survived(value: str) -> None:
    indices, _ = seen(value)
    assert len(indices) <= 60
