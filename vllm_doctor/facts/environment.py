"""Facts about the Python environment that vLLM runs in, read from outside: nothing of it was imported."""

from collections.abc import Mapping

from vllm_doctor.facts.base import Count, Facts, Section, Unknown
from vllm_doctor.releases.facts import Release

# How the reason ends where the interpreter is too old even to be inspected: no release of vLLM ever ran on it.
TOO_OLD_PYTHON = "too old for any vLLM"


class Distribution(Facts, frozen=True):
    """An installed distribution; `name` is normalised (PEP 503), `requires` as in its metadata (Requires-Dist).

    `missing` are files of its RECORD that are not there (a sample of at most 20 of `missing_count`); `location` the
    folder that holds its metadata. `version` is None where the metadata lacks one (a half deleted distribution).
    """

    name: str
    version: str | None
    location: str
    requires: tuple[str, ...] = ()
    requires_python: str | None = None
    missing: tuple[str, ...] = ()
    missing_count: Count = 0
    editable: bool = False


class TorchBuild(Facts, frozen=True):
    """torch as its `torch/version.py` says; `platform` is cuda, rocm, xpu, cpu; `cuda` like `12.8`, None without.

    `cuda_available` is what `torch.cuda.is_available()` answered on that machine; None where nobody asked it.
    `driver_cuda` is the CUDA version (`11.4`) of the driver that torch called too old; None where it did not.
    """

    version: str
    platform: str
    cuda: str | None
    path: str
    cuda_available: bool | None = None
    driver_cuda: str | None = None


class VllmBuild(Facts, frozen=True):
    """The package `vllm`, whatever its distribution is called; `distribution` None: no metadata names it.

    `platform` is cuda, rocm, xpu, tpu or cpu; Unknown where neither the version nor the files tell. `metadata_version`
    is what `importlib.metadata.version("vllm")` says: None is what makes `vllm serve` crash. `package_version` is the
    one in `vllm/_version.py`. `extensions` are the compiled modules (`_C.abi3.so`) found. `cuda` is the CUDA major
    (`12`) that they need libcudart of, None where none does.
    """

    path: str
    distribution: str | None
    metadata_version: str | None
    package_version: str | None
    platform: str | Unknown
    extensions: tuple[str, ...]
    editable: bool = False
    cuda: str | None = None

    @property
    def version(self) -> str | None:
        """The version of the sources; where the package names none, that of the metadata."""
        return self.package_version or self.metadata_version


class Extension(Facts, frozen=True):
    """A compiled module of vLLM, flash-attn, torchvision, ..., against the libraries that it will find.

    `undefined` are symbols that no library it loads defines (a sample of at most 20 of `undefined_count`),
    `needed_missing` the DT_NEEDED libraries that are nowhere in its search path; the driver's own (libcuda.so.1, ...)
    are never among them. `problem` says why the file could not be judged (truncated, no ELF file, a torch library that
    cannot be read): the three others are then not to be read as "nothing missing".
    """

    owner: str
    path: str
    needed_missing: tuple[str, ...]
    undefined: tuple[str, ...]
    undefined_count: Count
    problem: str | None = None


class Shadow(Facts, frozen=True):
    """A file or folder that Python would import in place of an installed package: `name` is the import name.

    `over` is the installed copy that loses, `standard library` for a module of that, None where none is installed.
    """

    name: str
    path: str
    over: str | None


class ImportTrial(Facts, frozen=True):
    """What an import in a child of that interpreter raised (`--deep`); `error` None: it went well."""

    module: str
    error: str | None
    seconds: float


class Environment(Section, frozen=True):
    """One Python environment.

    `markers` are the values for PEP 508 markers there. `kind` is venv, uv, conda or system. `commands` maps `vllm` to
    the script found in its bin folder. `vllm`/`torch` are None where the package is not there. `named_by` says why this
    environment is the one that is examined (`--python`, `vllm on PATH`, ...). `leftovers` are the folders that an
    interrupted pip left behind (`~orch`). `source_release` is what the installed sources themselves say of flags,
    variables and registries: of a vLLM that the generated data does not have, or that is a source build; else None.
    `other_site_packages` are those of a virtual environment's other Python
    versions, which this interpreter does not see (its base Python was upgraded under it). `complete` is False where a
    bound cut the lists short, and for an environment known only from a report: what is empty or None there proves
    nothing. `externally_managed` says that it is its system's own and bears the mark at which pip refuses (PEP 668).
    """

    python: str
    python_version: str
    implementation: str
    prefix: str
    kind: str
    named_by: str
    markers: Mapping[str, str]
    openssl_version: str | Unknown
    search_path: tuple[str, ...]
    commands: Mapping[str, str]
    distributions: tuple[Distribution, ...]
    torch: TorchBuild | None
    vllm: VllmBuild | None
    extensions: tuple[Extension, ...] | Unknown
    shadows: tuple[Shadow, ...]
    imports: tuple[ImportTrial, ...] | None = None
    source_release: Release | None = None
    complete: bool = True
    leftovers: tuple[str, ...] = ()
    other_site_packages: tuple[str, ...] = ()
    externally_managed: bool = False

    def distribution(self, name: str) -> Distribution | None:
        """The distribution of that normalised name that the import system takes (the first on the search path)."""
        return next((d for d in self.distributions if d.name == name), None)
