"""GPUs by the names that NVML and nvidia-smi give them: compute capability and memory."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from msgspec import Struct

# Compute capability, name, MiB as NVML reports them. The capabilities are those of NVIDIA's table
# (https://developer.nvidia.com/cuda-gpus and its legacy part). The memory is what nvidia-smi lists in public issue
# threads, else NVIDIA's data sheets: 2 % off is possible, and ECC takes 6 % of a GDDR board. Two sizes: cards of both
# are sold under that one name. No size: unified memory (GB10, Thor, Orin, Xavier), or boards of many sizes.
_TABLE = """
12.1 GB10
12.0 RTX PRO 6000 Blackwell Server | 97887
12.0 RTX PRO 6000 Blackwell Workstation | 97887
12.0 RTX PRO 6000 Blackwell Max-Q Workstation | 97887
12.0 RTX PRO 5000 Blackwell | 48935
12.0 RTX PRO 4500 Blackwell | 32623
12.0 RTX PRO 4000 Blackwell | 24467
12.0 RTX PRO 2000 Blackwell | 16311
12.0 RTX 5090 | 32607
12.0 RTX 5080 | 16303
12.0 RTX 5070 Ti | 16303
12.0 RTX 5070 | 12227
12.0 RTX 5060 Ti | 8151 16311
12.0 RTX 5060
12.0 RTX 5050
11.0 Thor
10.3 B300 SXM6 AC | 275040
10.3 GB300 | 284208
10.0 B200 | 183359
10.0 GB200 | 189471
9.0 H200 | 143771
9.0 H200 NVL | 143771
9.0 H100 80GB HBM3 | 81559
9.0 H100 PCIe | 81559
9.0 H100 NVL | 95830
9.0 H800 | 81559
9.0 H20 | 97871
9.0 GH200 480GB | 97871
9.0 GH200 120GB | 97871
9.0 GH200 144G HBM3e | 147456
8.9 L40S | 46068
8.9 L40 | 46068
8.9 L20 | 46068
8.9 L4 | 23034
8.9 RTX 6000 Ada | 49140
8.9 RTX 5000 Ada | 32760
8.9 RTX 4500 Ada | 24570
8.9 RTX 4000 Ada | 20475
8.9 RTX 4000 SFF Ada | 20475
8.9 RTX 2000 Ada | 16380
8.9 RTX 4090 D | 24564
8.9 RTX 4090 | 24564
8.9 RTX 4080 SUPER | 16376
8.9 RTX 4080 | 16376
8.9 RTX 4070 Ti SUPER | 16376
8.9 RTX 4070 Ti | 12282
8.9 RTX 4070 | 12282
8.9 RTX 4060 Ti | 8188 16380
8.9 RTX 4060 | 8188
8.9 RTX 4050
8.7 Orin
8.6 A40 | 46068
8.6 A10 | 23028
8.6 A10G | 23028
8.6 A16 | 15356
8.6 A2 | 15356
8.6 RTX A6000 | 49140
8.6 RTX A5500 | 24564
8.6 RTX A5000 | 24564
8.6 RTX A4500 | 20470
8.6 RTX A4000 | 16376
8.6 RTX A2000 12GB | 12282
8.6 RTX 3090 Ti | 24564
8.6 RTX 3090 | 24576
8.6 RTX 3080 Ti | 12288
8.6 RTX 3080 | 10240 12288
8.6 RTX 3070 Ti | 8192
8.6 RTX 3070 | 8192
8.6 RTX 3060 Ti | 8192
8.6 RTX 3060 | 8192 12288
8.6 RTX 3050
8.0 A100-SXM4-80GB | 81920
8.0 A100 80GB PCIe | 81920
8.0 A100-SXM4-40GB | 40960
8.0 A100-PCIE-40GB | 40960
8.0 A800-SXM4-80GB | 81920
8.0 A30 | 24576
7.5 T4 | 15360
7.5 Quadro RTX 8000 | 49152
7.5 Quadro RTX 6000 | 24576
7.5 Quadro RTX 5000 | 16384
7.5 Quadro RTX 4000 | 8192
7.5 TITAN RTX | 24576
7.5 RTX 2080 Ti | 11264
7.5 RTX 2080 SUPER | 8192
7.5 RTX 2080 | 8192
7.5 RTX 2070 SUPER | 8192
7.5 RTX 2070 | 8192
7.5 RTX 2060
7.5 GTX 1660 Ti | 6144
7.5 GTX 1660
7.5 GTX 1650
7.2 Xavier
7.0 V100-SXM2-16GB | 16384
7.0 V100-SXM2-32GB | 32768
7.0 V100-PCIE-16GB | 16384
7.0 V100-PCIE-32GB | 32768
7.0 V100S-PCIE-32GB | 32768
7.0 Quadro GV100 | 32768
7.0 TITAN V | 12288
6.1 P40 | 23040
6.1 P4 | 7680
6.1 GTX 1080 Ti | 11264
6.1 GTX 1080 | 8192
6.1 GTX 1070
6.1 GTX 1060
6.1 TITAN Xp | 12288
6.0 P100-PCIE-16GB | 16384
6.0 P100-SXM2-16GB | 16384
5.2 M60
5.2 M40 | 11520
3.7 K80
"""

# Words that name the maker or the product line, and tell no two boards apart. `Quadro` does: the Quadro RTX 6000 is a
# Turing board, the RTX 6000 Ada is not.
_BRANDS = frozenset({"nvidia", "tesla", "geforce", "grid", "generation", "edition", "gpu"})

MAXIMUM_NAME_CHARACTERS = 128

Key = tuple[str, ...]


class GpuModel(Struct, frozen=True):
    """A board; `memory_mib` holds every size that is sold under the name, none where the name says nothing of it."""

    name: str
    compute_capability: str
    memory_mib: tuple[int, ...]


def find(name: str) -> GpuModel | None:
    """The board of exactly that name, whatever stands around it (`NVIDIA`, `Tesla`, `GeForce`, hyphens, case)."""
    return _catalogue().get(_key(name))


def compute_capability(name: str) -> str | None:
    """`MAJOR.MINOR` by the name; variants (a laptop's, a vGPU profile, a MIG device) have that of their family."""
    key = _key(name)
    if (exact := _catalogue().get(key)) is not None:
        return exact.compute_capability
    while key:
        family = {m.compute_capability for k, m in _catalogue().items() if k[: len(key)] == key}
        if len(family) == 1 and _names_a_board(key):
            return family.pop()
        key = key[:-1]
    return None


def memory_bytes(name: str) -> int | None:
    """The memory that NVML reports for a board of exactly that name; None where the name does not tell."""
    model = find(name)
    return model.memory_mib[0] * 2**20 if model is not None and len(model.memory_mib) == 1 else None


def models() -> tuple[GpuModel, ...]:
    """Every board of the table, in its order."""
    return tuple(_catalogue().values())


def _names_a_board(key: Key) -> bool:
    """Whether the words are more than a product line: `rtx` alone says nothing."""
    return key in _catalogue() or any(c.isdigit() for c in key[-1])


@lru_cache(maxsize=1)
def _catalogue() -> Mapping[Key, GpuModel]:
    return {_key(model.name): model for model in _models()}


def _models() -> Iterator[GpuModel]:
    for row in _TABLE.strip().split("\n"):
        head, _, sizes = row.partition("|")
        capability, _, name = head.strip().partition(" ")
        yield GpuModel(name, capability, tuple(int(size) for size in sizes.split()))


def _key(name: str) -> Key:
    text = "".join(c if c.isalnum() else " " for c in name[:MAXIMUM_NAME_CHARACTERS].lower())
    return tuple(word for word in text.split() if word not in _BRANDS)
