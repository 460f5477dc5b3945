"""Finds the weight files that vLLM would load, reads the safetensors headers, and holds both against the index."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vllm_doctor.facts import ModelProblem, WeightFile
from vllm_doctor.probes.model.reading import LFS_BYTES, Unreadable, is_lfs_pointer, open_regular, read_object

# safetensors 0.5 (tensor.rs) refuses a header over 100 MB; the largest of a real file is about 6 MB, and one over this
# is left unread rather than held in memory.
SAFETENSORS_LIMIT_BYTES = 100_000_000
MAXIMUM_HEADER_BYTES = 24 * 2**20
MAXIMUM_INDEX_BYTES = 64 * 2**20
# All headers together: 160 shards of a 90,000-tensor mixture of experts hold about 14 MB.
MAXIMUM_HEADERS_BYTES = 64 * 2**20
MAXIMUM_SECONDS = 10.0
MAXIMUM_FILES = 2_000
MAXIMUM_TENSORS = 20_000
# Above this, only the first expert of each layer is listed: the others have the same shapes.
FOLD_EXPERTS_ABOVE = 5_000
MAXIMUM_NAME = 512
MAXIMUM_COUNT = 2**53

# Bits per value (safetensors 0.6, `Dtype`); sub-byte ones since 0.6.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
# vLLM 0.32 weight_utils.py `filter_files_not_needed_for_inference`.
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
FORMATS = {".safetensors": "safetensors", ".bin": "pytorch", ".pt": "pytorch", ".pth": "pytorch", ".gguf": "gguf"}


class Weights(msgspec.Struct):
    """The weight files with what their headers say; `names` and `shapes` None where not all could be read."""

    files: tuple[WeightFile, ...]
    names: tuple[str, ...] | None
    shapes: Mapping[str, tuple[int, ...]] | None
    problems: tuple[ModelProblem, ...]


class Header(msgspec.Struct):
    """What one safetensors header says: shapes by tensor name, and counts of values by dtype."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, int]
    size_bytes: int


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_TENSORS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR = msgspec.json.Decoder(_Tensor)


def read_weights(folder: Path, names: frozenset[str], complete: bool) -> Weights:
    """The weights of a folder; `complete` says whether `names` are all the names in it."""
    index_name, index, problems = _read_index(folder, names)
    chosen = _chosen(names, index)
    missing = _missing_files(folder, names, index_name, index) if complete else []
    problems += missing
    if not chosen and not problems and complete:
        problems.append(ModelProblem(kind="missing", file="*.safetensors", detail="no weight file of any format"))
    reader = _Headers(folder)
    files = tuple(reader.read(name) for name in chosen[:MAXIMUM_FILES])
    problems += reader.problems
    whole = (
        reader.whole
        and complete
        and not missing
        and len(files) == len(chosen)
        and all(f.format == "safetensors" for f in files)
    )
    if whole and index is not None:
        problems += _missing_tensors(index_name, index, reader.shapes)
    shapes = _folded(reader.shapes) if whole and files else None
    named = tuple(sorted(shapes)) if shapes is not None else None
    return Weights(files=files, names=named, shapes=shapes, problems=tuple(problems[:64]))


def read_file(path: Path) -> Weights:
    """One weight file that is a model of its own (GGUF)."""
    reader = _Headers(path.parent)
    return Weights(files=(reader.read(path.name),), names=None, shapes=None, problems=tuple(reader.problems))


def _read_index(folder: Path, names: frozenset[str]) -> tuple[str, dict[str, str] | None, list[ModelProblem]]:
    """The weight map of the index that goes with the weights here; None without one."""
    name = _index_name(names)
    if not name:
        return "", None, []
    try:
        weight_map = read_object(folder / name, MAXIMUM_INDEX_BYTES).get("weight_map")
    except Unreadable as unreadable:
        return name, None, [unreadable.problem]
    if not isinstance(weight_map, dict):
        return name, None, [ModelProblem(kind="not-json", file=name, detail="no weight_map in it")]
    return name, {k: v for k, v in weight_map.items() if isinstance(v, str)}, []


def _index_name(names: frozenset[str]) -> str:
    """The index that counts: that of the safetensors; Mistral's or PyTorch's where there are no other weights."""
    if "model.safetensors.index.json" in names:
        return "model.safetensors.index.json"
    own = [n for n in names if n.endswith(".safetensors") and is_weight(n)]
    if "consolidated.safetensors.index.json" in names and all(n.startswith("consolidated") for n in own):
        return "consolidated.safetensors.index.json"
    if "pytorch_model.bin.index.json" in names and not own:
        return "pytorch_model.bin.index.json"
    return ""


def _chosen(names: frozenset[str], index: Mapping[str, str] | None) -> list[str]:
    """The files that vLLM 0.32 loads (default_loader.py `_prepare_weights`): safetensors (of the index), else .bin.

    `consolidated*.safetensors` are Mistral's own copy of the same tensors; they count where there are no others.
    """
    listed = {n for n in (index or {}).values() if n in names}
    if listed:
        return sorted(listed)
    for ending in (".safetensors", ".bin", ".pt", ".pth", ".gguf"):
        found = sorted(n for n in names if n.endswith(ending) and is_weight(n))
        if own := [n for n in found if not n.startswith("consolidated")]:
            return own
        if found:
            return found
    return []


def is_weight(name: str) -> bool:
    """Whether a file of a weights' suffix holds the model's weights: no adapter, optimizer or hidden file."""
    return not name.startswith((".", "adapter_model")) and not name.endswith(NOT_WEIGHTS)


def _missing_files(
    folder: Path, names: frozenset[str], index_name: str, index: Mapping[str, str] | None
) -> list[ModelProblem]:
    problems: list[ModelProblem] = []
    for name in sorted(set((index or {}).values())):
        if len(problems) >= 32:
            break
        detail = _absence(folder, name) if name in names else "not there"
        if detail:
            detail = f"{index_name} names it, and it is {detail}"
            problems.append(ModelProblem(kind="index-names-missing-file", file=name[:200], detail=detail))
    return problems


def _absence(folder: Path, name: str) -> str:
    try:
        open_regular(folder / name)[0].close()
    except Unreadable as unreadable:
        return unreadable.problem.detail if unreadable.problem.kind == "missing" else ""
    return ""


def _missing_tensors(index_name: str, index: Mapping[str, str], shapes: Mapping[str, Any]) -> list[ModelProblem]:
    gone = sorted(set(index) - set(shapes))
    if not gone or set(index.values()) - {n for n in index.values() if n.endswith(".safetensors")}:
        return []
    detail = f"{len(gone)} tensors of the index are in no file: {', '.join(n[:80] for n in gone[:3])}"
    return [ModelProblem(kind="index-names-missing-tensor", file=index_name, detail=detail)]


def _folded(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]] | None:
    if len(shapes) > FOLD_EXPERTS_ABOVE:
        shapes = {n: s for n, s in shapes.items() if _first_expert(n)}
    return shapes if len(shapes) <= MAXIMUM_TENSORS else None


def _first_expert(name: str) -> bool:
    _, found, rest = name.partition(".experts.")
    number = rest.split(".", 1)[0]
    return not found or not number.isdecimal() or number == "0"


class _Headers:
    """Reads one header after the other, within one budget of bytes and seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes_left = MAXIMUM_HEADERS_BYTES
        self._deadline = time.monotonic() + MAXIMUM_SECONDS
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.problems: list[ModelProblem] = []
        self.whole = True

    def read(self, name: str) -> WeightFile:
        """The facts of one weight file; what is wrong with it goes to `problems`."""
        kind = FORMATS.get(Path(name).suffix, "other")
        size = 0
        try:
            file, size = open_regular(self._folder / name)
            with file:
                head = file.read(LFS_BYTES) if size <= LFS_BYTES else b""
                _refuse_stub(name, size, head)
                file.seek(0)
                header = self._header(file, name, size) if kind == "safetensors" else None
                if kind == "gguf":
                    _refuse_no_gguf(name, file.read(8))
        except (Unreadable, OSError) as problem:
            self.whole = False
            self.problems.append(_as_problem(problem, name))
            return WeightFile(name=name, format=kind, size_bytes=size)
        if header is None:
            self.whole = False
            return WeightFile(name=name, format=kind, size_bytes=size)
        self.shapes.update(header.shapes)
        return WeightFile(
            name=name,
            format=kind,
            size_bytes=size,
            tensors=len(header.shapes),
            parameters=min(sum(header.dtypes.values()), MAXIMUM_COUNT),
            dtypes=header.dtypes,
        )

    def _header(self, file: Any, name: str, size: int) -> Header | None:
        length = header_length(file.read(8), name, size)
        if length > min(MAXIMUM_HEADER_BYTES, self._bytes_left) or time.monotonic() > self._deadline:
            return None
        self._bytes_left -= length
        header = parse_header(file.read(length), name)
        expected = 8 + length + header.size_bytes
        if expected > size:
            raise Unreadable("truncated", name, f"{size} bytes, its header describes {expected}")
        if expected < size:
            raise Unreadable("bad-header", name, f"{size} bytes, its header describes only {expected}")
        return header


def _as_problem(problem: Unreadable | OSError, name: str) -> ModelProblem:
    if isinstance(problem, Unreadable):
        return problem.problem
    return ModelProblem(kind="unreadable", file=name, detail=problem.strerror or "cannot be read")


def _refuse_stub(name: str, size: int, head: bytes) -> None:
    if size == 0:
        raise Unreadable("empty", name, "0 bytes")
    if is_lfs_pointer(head):
        raise Unreadable("lfs-pointer", name, f"{size} bytes: a git-lfs pointer, not the weights")


def _refuse_no_gguf(name: str, head: bytes) -> None:
    """GGUF files begin with the magic `GGUF` and a version (ggml docs/gguf.md)."""
    if head[:4] != b"GGUF":
        raise Unreadable("bad-header", name, "does not begin with GGUF")


def header_length(first: bytes, name: str, size: int) -> int:
    """The length of the header in bytes; raises Unreadable where 8 bytes cannot hold one that fits the file."""
    if len(first) < 8:
        raise Unreadable("truncated", name, f"{size} bytes: no safetensors header")
    length = int.from_bytes(first, "little")
    if length > SAFETENSORS_LIMIT_BYTES:
        raise Unreadable("bad-header", name, f"no safetensors file: it begins with {_shown(first)}")
    if length + 8 > size:
        raise Unreadable("truncated", name, f"{size} bytes, the header alone takes {length + 8}")
    return length


def _shown(first: bytes) -> str:
    return repr("".join(chr(b) if 32 <= b < 127 else "?" for b in first))


def parse_header(data: bytes, name: str) -> Header:
    """What a safetensors header says; raises Unreadable (`bad-header`) where it is none.

    The rules are those of safetensors 0.5 `Metadata::validate`: offsets without gaps, sizes that the shapes imply.
    """
    try:
        tensors = {n: _TENSOR.decode(raw) for n, raw in _TENSORS.decode(data).items() if n != "__metadata__"}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Unreadable("bad-header", name, f"header is no safetensors JSON: {str(problem)[:200]}") from None
    header = Header(shapes={}, dtypes={}, size_bytes=0)
    for tensor_name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        _add(header, name, tensor_name[:MAXIMUM_NAME], tensor)
    return header


def _add(header: Header, file: str, name: str, tensor: _Tensor) -> None:
    begin, end = tensor.data_offsets
    count = _product(tensor.shape)
    if begin != header.size_bytes or end < begin or count is None:
        raise Unreadable("bad-header", file, f"tensor {name[:80]} lies at bytes {begin} to {end}")
    bits = DTYPE_BITS.get(tensor.dtype)
    if bits is not None and (count * bits + 7) // 8 != end - begin:
        raise Unreadable("bad-header", file, f"tensor {name[:80]} takes {end - begin} bytes: not its shape's")
    header.size_bytes = end
    header.shapes[name] = tensor.shape[:16]
    dtype = tensor.dtype[:32]
    header.dtypes[dtype] = header.dtypes.get(dtype, 0) + count


def _product(shape: tuple[int, ...]) -> int | None:
    count = 1
    for size in shape:
        if not 0 <= size <= MAXIMUM_COUNT:
            return None
        count *= size
        if count > MAXIMUM_COUNT:
            return None
    return count
