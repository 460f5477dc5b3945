"""Plans of listed models on boards by name, with everything at its default."""

from functools import lru_cache

from vllm_doctor.memory import boards, catalogue
from vllm_doctor.memory.advice import Case
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release
from vllm_doctor.memory.plan import Plan, plan

GIB = 2**30


@lru_cache(maxsize=64)
def model(name: str) -> Architecture:
    """A model of the catalogue."""
    entry = catalogue.find(name)
    assert entry is not None, name
    return read_architecture(entry.config_json)


def planned(name: str, board: str, settings: LaunchSettings | None = None, release: Release | None = None) -> Plan:
    """The plan of a model of the catalogue."""
    return plan(model(name), settings or LaunchSettings(), boards.device(board), release)


def case(name: str, board: str, settings: LaunchSettings | None = None, release: Release | None = None) -> Case:
    """The same, to be mended."""
    chosen = settings or LaunchSettings()
    device = boards.device(board)
    found = plan(model(name), chosen, device, release)
    return Case(architecture=model(name), settings=chosen, device=device, release=release, plan=found)
