"""The text of an environment report taken apart: its fields, GPUs, packages, topology and variables."""

from collections.abc import Iterator

from msgspec import Struct

from vllm_doctor import redact

# The longest reports (8 GPUs, a conda environment) are about 40 kB; an issue around one may hold logs.
MAXIMUM_LINES = 100_000
MAXIMUM_LINE_CHARACTERS = 4096
MAXIMUM_PACKAGES = 4096
MAXIMUM_GPUS = 1024
MAXIMUM_VARIABLES = 1024

# The first line of every report (torch/utils/collect_env.py and vllm/collect_env.py: main).
BEGINNING = "Collecting environment information"

# The fields that are read, as torch's and vLLM's `collect_env.py` label them, in lower case.
KEYS = frozenset(
    {
        "os",
        "libc version",
        "pytorch version",
        "cuda used to build pytorch",
        "rocm used to build pytorch",
        "xpu used to build pytorch",
        "python version",
        "python platform",
        "is cuda available",
        "is xpu available",
        "gpu models and configuration",
        "nvidia driver version",
        "architecture",
        "cpu(s)",
        "model name",
        "flags",
        "vllm version",
    }
)

# What no other text says: a report has one of these at least.
_TELLING = frozenset(
    {"pytorch version", "cuda used to build pytorch", "gpu models and configuration", "nvidia driver version"}
)

# What collect_env prints where it has no answer.
_NO_ANSWER = frozenset({"", "n/a", "none", "could not collect", "no cuda", "no xpu", "not set", "n/a (dev)"})

Package = tuple[str, str]


class GpuLine(Struct, frozen=True):
    """One GPU as `nvidia-smi -L` names it, and its MIG profiles (`1g.10gb`)."""

    index: int
    name: str
    mig_profiles: tuple[str, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """What the text says; `fields` maps labels in lower case to values, those without an answer left out.

    `unanswered` are the labels whose value collect_env could not collect. `other_gpu` is the name of a GPU that is not
    NVIDIA's. `driver_cuda` is the CUDA version of the driver where torch called that too old. `topology` maps a GPU's
    number to its links to the other GPUs (`NV12`, `SYS`, ...).
    """

    fields: dict[str, str]
    unanswered: frozenset[str]
    gpus: tuple[GpuLine, ...]
    other_gpu: str | None
    packages: tuple[Package, ...]
    topology: dict[int, tuple[str, ...]]
    variables: dict[str, str]
    uses_uv: bool
    driver_cuda: str | None = None

    @property
    def is_report(self) -> bool:
        """Whether the text holds an environment report at all."""
        said = self.fields.keys() | self.unanswered
        return len(said) > 1 and not _TELLING.isdisjoint(said)


def take_apart(text: str) -> Report:
    """The first report in the text; what stands around it is passed over, and nothing is judged."""
    lines = list(_lines(text))
    fields, unanswered = _fields(lines)
    gpus, other = _gpus(lines)
    return Report(
        fields=fields,
        unanswered=unanswered,
        gpus=gpus,
        other_gpu=other,
        packages=tuple(_packages(lines)),
        topology=_topology(lines),
        variables=_variables(lines),
        uses_uv="uv is set" in lines,
        driver_cuda=_driver_cuda(lines),
    )


def _lines(text: str) -> Iterator[str]:
    """The lines up to a second report, without the marks of a quotation, secrets masked."""
    seen = False
    for raw in redact.text(text).split("\n", MAXIMUM_LINES)[:MAXIMUM_LINES]:
        line = raw[:MAXIMUM_LINE_CHARACTERS].rstrip()
        if line.startswith(">"):
            line = line.lstrip("> ")
        if BEGINNING in line:
            if seen:
                return
            seen = True
        yield line


def _fields(lines: list[str]) -> tuple[dict[str, str], frozenset[str]]:
    fields: dict[str, str] = {}
    unanswered: set[str] = set()
    for line in lines:
        label, value = _labelled(line)
        # The first one counts; `{name}` is the script's own template, pasted in place of its output.
        if label not in KEYS or label in fields or value.startswith("{"):
            continue
        if value.lower() in _NO_ANSWER:
            unanswered.add(label)
        else:
            fields[label] = value
    return fields, frozenset(unanswered - fields.keys())


def _labelled(line: str) -> tuple[str, str]:
    label, colon, value = line.partition(":")
    if not colon or len(label) > 80:
        return "", ""
    return " ".join(label.lower().strip("*- \t").split()), value.strip()


def _gpus(lines: list[str]) -> tuple[tuple[GpuLine, ...], str | None]:
    """The GPUs after their label, on the same line or on those that follow."""
    found: list[GpuLine] = []
    for text in _after(lines, "gpu models and configuration"):
        if text.startswith("MIG ") and found:
            last = found[-1]
            found[-1] = GpuLine(last.index, last.name, (*last.mig_profiles, text.split()[1])[:MAXIMUM_GPUS])
        elif (gpu := _gpu(text)) is not None:
            found.append(gpu)
        elif not found and text.lower() not in _NO_ANSWER and "{" not in text:
            return (), text[:200]
        elif text:
            break
    return tuple(found[:MAXIMUM_GPUS]), None


def _after(lines: list[str], wanted: str) -> Iterator[str]:
    """The value of the label and the lines after it, up to the next label that is known."""
    for number, line in enumerate(lines):
        label, value = _labelled(line)
        if label != wanted or value.startswith("{"):
            continue
        yield value
        for following in lines[number + 1 :]:
            if _labelled(following)[0] in KEYS:
                return
            yield following.strip()
        return


def _gpu(text: str) -> GpuLine | None:
    head, colon, name = text.partition(":")
    number = head.removeprefix("GPU ").strip()
    if not colon or not text.startswith("GPU ") or not number.isascii() or not number.isdecimal() or len(number) > 4:
        return None
    return GpuLine(int(number), name.partition("(UUID")[0].strip()[:200])


def _packages(lines: list[str]) -> Iterator[Package]:
    """Name and version of every listed package: pip's as `name==version`, conda's as columns of those from PyPI."""
    count = 0
    for line in lines:
        manager, bracket, rest = line.strip().partition("] ")
        if not bracket or not manager.startswith("[") or count >= MAXIMUM_PACKAGES:
            continue
        package = _conda(rest) if manager == "[conda" else _pip(rest) if manager in _PIPS else None
        if package is not None:
            count += 1
            yield package


_PIPS = frozenset({"[pip", "[pip3", "[uv"})


def _pip(text: str) -> Package | None:
    name, equals, version = text.partition("==")
    return _package(name, version) if equals else None


def _conda(text: str) -> Package | None:
    columns = text.split()
    # conda's own packages bear conda's names; only those that pip brought are sure to be the distribution of that name.
    return _package(columns[0], columns[1]) if len(columns) > 2 and columns[-1] == "pypi" else None


def _package(name: str, version: str) -> Package | None:
    name, version = name.strip(), version.split(";")[0].strip()
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isascii() or not plain.isalnum() or len(name) > 128 or not is_version(version):
        return None
    return name, version


def is_version(text: str) -> bool:
    """Whether the text has the characters of a version and begins as one."""
    plain = text.replace(".", "").replace("+", "").replace("-", "").replace("_", "").replace("!", "")
    return len(text) <= 64 and text[:1].isdecimal() and plain.isascii() and plain.isalnum()


def _topology(lines: list[str]) -> dict[int, tuple[str, ...]]:
    """The matrix of `nvidia-smi topo -m`: of each GPU, its links to the other GPUs in their order."""
    rows: dict[int, tuple[str, ...]] = {}
    columns = 0
    for text in _after(lines, "gpu topology"):
        words = text.split()
        if not words or not words[0].startswith("GPU"):
            if rows:
                break
            continue
        if not columns:
            columns = sum(1 for word in words if word[3:].isdecimal() and word.startswith("GPU"))
        elif (number := words[0][3:]).isascii() and number.isdecimal() and len(number) <= 4:
            links = words[1 : columns + 1]
            rows[int(number)] = tuple(link for link in links if link != "X")
        if len(rows) >= MAXIMUM_GPUS:
            break
    return rows


# torch, c10/cuda/CUDAFunctions.cpp: the number is cudaDriverGetVersion's, 1000 * major + 10 * minor.
_TOO_OLD = "NVIDIA driver on your system is too old (found version "


def _driver_cuda(lines: list[str]) -> str | None:
    """`11.4` where torch warned of a driver with CUDA 11040."""
    for line in lines:
        digits = line.partition(_TOO_OLD)[2].partition(")")[0]
        if digits.isascii() and digits.isdecimal() and len(digits) == 5:
            return f"{int(digits) // 1000}.{int(digits) % 1000 // 10}"
    return None


def _variables(lines: list[str]) -> dict[str, str]:
    """NAME=value after vLLM's own part, up to the end of the code block; torch's reports list none."""
    found: dict[str, str] = {}
    begun = False
    for line in lines:
        if _labelled(line)[0] == "vllm build flags":
            begun = True
        elif begun and line.strip().startswith(("```", "~~~", "</details", "</pre")):
            break
        elif begun and len(found) < MAXIMUM_VARIABLES:
            name, equals, value = line.strip().partition("=")
            if equals and name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdecimal():
                found.setdefault(name[:128], value)
    return found
