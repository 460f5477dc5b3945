"""The part of a tensor that one rank holds."""

from typing import NamedTuple

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.facts import LaunchSettings, Split, Tensor

# vLLM 0.32 layers/vocab_parallel_embedding.py DEFAULT_VOCAB_PADDING_SIZE.
VOCABULARY_PADDING = 64


class Shard(NamedTuple):
    """Rows, columns (0: a vector) and copies of a tensor on one rank."""

    rows: int
    columns: int
    copies: int

    @property
    def elements(self) -> int:
        """Numbers in all copies."""
        return self.rows * max(self.columns, 1) * self.copies


def shard(tensor: Tensor, settings: LaunchSettings) -> Shard:
    """The part of a rank (vLLM 0.32 layers/linear.py, fused_moe/layer.py, vocab_parallel_embedding.py)."""
    tp = settings.tensor_parallel_size
    rows, columns, copies = tensor.rows, tensor.columns, tensor.copies
    match tensor.split:
        case Split.ROWS | Split.COLUMNS if tensor.heads % tp:
            pass
        case Split.ROWS:
            rows = -(-_share(rows, tp) // tensor.multiple) * tensor.multiple
        case Split.COLUMNS:
            columns = -(-_share(columns, tp) // tensor.multiple) * tensor.multiple
        case Split.HEADS:
            heads = max(1, tensor.heads)
            rows = rows // heads * max(1, heads // tp)
        case Split.VOCABULARY:
            rows = vocabulary_rows(rows, tp)
        case Split.EXPERT_ROWS | Split.EXPERT_COLUMNS | Split.EXPERT_WHOLE:
            return _expert_shard(tensor, settings)
        case _:
            pass
    return Shard(rows, columns, copies)


def _expert_shard(tensor: Tensor, settings: LaunchSettings) -> Shard:
    ranks = settings.tensor_parallel_size * settings.data_parallel_size
    if settings.expert_parallel:
        return Shard(tensor.rows, tensor.columns, _share(tensor.copies, ranks))
    tp, least = settings.tensor_parallel_size, tensor.smallest if settings.tensor_parallel_size > 1 else 0
    rows = max(least, _share(tensor.rows, tp)) if tensor.split is Split.EXPERT_ROWS else tensor.rows
    columns = max(least, _share(tensor.columns, tp)) if tensor.split is Split.EXPERT_COLUMNS else tensor.columns
    return Shard(rows, columns, tensor.copies)


def _share(number: int, ranks: int) -> int:
    return -(-number // ranks)


def vocabulary_rows(rows: int, tp: int) -> int:
    """Rows of an embedding on one rank: padded to 64; vLLM refuses a size that does not divide that."""
    padded = -(-rows // VOCABULARY_PADDING) * VOCABULARY_PADDING
    return -(-padded // tp)


def checked(settings: LaunchSettings) -> LaunchSettings:
    """The settings, where their parallel sizes are positive; raises DoctorError otherwise."""
    sizes = (settings.tensor_parallel_size, settings.pipeline_parallel_size, settings.data_parallel_size)
    if not all(1 <= s <= 2**16 for s in sizes):
        raise DoctorError("a parallel size is not between 1 and 65536", "give a number of GPUs")
    return settings
