#!/usr/bin/env python3
"""Writes fixtures/snapshots/host-cpu-served.json: a healthy launch of a small model on a CPU build.

    make_served_fixture.py FOLDER

FOLDER holds a model folder `tiny-llama`. The model's facts are read from it by the real probe; the machine is that of
healthy-cpu.json with two memory nodes, its vLLM said to be 0.32.0.
"""

import sys
from pathlib import Path

from msgspec.structs import replace

from vllm_doctor.facts import Environment, Host, Model
from vllm_doctor.facts.host import MemoryNode
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model
from vllm_doctor.snapshot import read, write

FIXTURES = Path(__file__).parent.parent / "fixtures" / "snapshots"
LINE = "vllm serve /srv/models/tiny-llama --enforce-eager --max-model-len 2048"
GIB = 2**30


def main(folder: Path) -> None:
    """Write the fixture."""
    base = read(FIXTURES / "healthy-cpu.json")
    host, environment = base.host, base.environment
    if not isinstance(host, Host) or not isinstance(environment, Environment) or environment.vllm is None:
        raise SystemExit("healthy-cpu.json is not what it was")
    vllm = replace(
        environment.vllm,
        package_version="0.32.0",
        metadata_version="0.32.0+cpu",
        extensions=("_C.abi3.so", "_C_AVX2.abi3.so", "_C_AVX512.abi3.so"),
    )
    nodes = tuple(MemoryNode(number=n, total_bytes=256 * GIB, available_bytes=250 * GIB) for n in range(2))
    extensions = ("avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16")
    snapshot = replace(
        base,
        host=replace(host, memory_nodes=nodes, cpu_extensions=extensions),
        environment=replace(environment, vllm=vllm),
        launch=parse_line(LINE),
        model=_elsewhere(probe_model(str(folder / "tiny-llama"))),
    )
    write(snapshot, FIXTURES / "host-cpu-served.json")


def _elsewhere(model: Model) -> Model:
    return replace(model, given="/srv/models/tiny-llama", path="/srv/models/tiny-llama")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
