"""How pipeline parallelism deals the layers out."""

from functools import lru_cache

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.facts import LaunchSettings


def layers_of_stages(layers: int, settings: LaunchSettings) -> tuple[int, ...]:
    """Layers on every stage (distributed/utils.py get_pp_indices, 0.32).

    What is left over goes to the stages before the last; VLLM_PP_LAYER_PARTITION names the numbers. Raises DoctorError
    where it names others than there are.
    """
    return _layers_of_stages(
        layers, settings.pipeline_parallel_size, settings.environment.get("VLLM_PP_LAYER_PARTITION")
    )


@lru_cache(maxsize=256)
def _layers_of_stages(layers: int, stages: int, partition: str | None) -> tuple[int, ...]:
    if partition is not None:
        return _named(partition, layers, stages)
    counts = [layers // stages] * stages
    for i in range(2, layers % stages + 2):
        counts[-i] += 1
    return tuple(counts)


def _named(partition: str, layers: int, stages: int) -> tuple[int, ...]:
    words = [w.strip() for w in partition.split(",")]
    counts = tuple(int(w) for w in words if w.isdecimal() and len(w) < 6)
    if len(counts) != len(words) or len(counts) != stages or sum(counts) != layers:
        what = f"VLLM_PP_LAYER_PARTITION={partition} does not deal {layers} layers out to {stages} stages"
        raise DoctorError(what, f"give {stages} numbers that sum up to {layers}")
    return counts


def stage_of_layers(layers: int, settings: LaunchSettings) -> tuple[int, ...]:
    """The stage of every layer, in order."""
    return tuple(stage for stage, count in enumerate(layers_of_stages(layers, settings)) for _ in range(count))
