"""`--deep`: imports vLLM and its companions, each in a child of the examined interpreter with a time limit."""

import os
import time
from pathlib import Path

from vllm_doctor import redact
from vllm_doctor.facts import Environment, ImportTrial, Launch
from vllm_doctor.probes.environment import child
from vllm_doctor.probes.environment.interpreter import first_folder

# Importing vLLM takes 8 s on an idle host and a minute on a cold network disk.
TRIAL_SECONDS = 120

_OUTPUT_BYTES = 4 * 2**20

# What is imported besides vLLM, and the distribution that must be there for it to be worth trying.
_TRIALS = (
    ("torch", "torch"),
    ("numpy", "numpy"),
    ("transformers", "transformers"),
    ("torchvision", "torchvision"),
    ("torchaudio", "torchaudio"),
    ("flash_attn", "flash-attn"),
    ("flashinfer", "flashinfer-python"),
    ("xformers", "xformers"),
    ("boto3", "boto3"),
    ("requests", "requests"),
)
# `import vllm` is lazy and survives most faults: this is what `vllm serve` imports (vllm/entrypoints/cli/main.py).
_SERVER = "vllm.entrypoints.cli.main"

# `-c` puts the working folder in front; a launch by the `vllm` script does not.
_CODE = """
import sys
if sys.argv[2] == "script" and sys.path[:1] == [""]:
    del sys.path[0]
for name in sys.argv[1].split():
    __import__(name)
"""


def import_trials(environment: Environment, launch: Launch | None) -> tuple[ImportTrial, ...]:
    """What each import raised; one that hangs is ended and says so."""
    installed = {d.name for d in environment.distributions}
    modules = [module for module, distribution in _TRIALS if distribution in installed]
    if environment.vllm is not None:
        modules += ["vllm", *_compiled(environment.vllm.extensions), _SERVER]
    return tuple(_trial(environment.python, module, launch) for module in modules)


def _compiled(extensions: tuple[str, ...]) -> list[str]:
    """The compiled modules that vLLM imports on every start (`vllm._C`), by their import names."""
    names = {e.split(".", 1)[0] for e in extensions}
    return [f"vllm.{n}" for n in ("_C", "_C_stable_libtorch", "_moe_C") if n in names]


def _trial(python: str, module: str, launch: Launch | None) -> ImportTrial:
    given = launch.environment if launch is not None else {}
    environment = {**os.environ, **given, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    # A compiled module finds torch's libraries only once torch has loaded them.
    names = f"torch {module}" if module.startswith("vllm._") else module
    argv = [python, "-c", _CODE, names, "module" if first_folder(launch) else "script"]
    started = time.monotonic()
    try:
        error = _error(child.run(argv, environment, TRIAL_SECONDS, _OUTPUT_BYTES))
    except OSError as problem:
        error = f"{Path(python).name} cannot be started: {problem.strerror or problem}"
    return ImportTrial(module=module, error=error, seconds=round(time.monotonic() - started, 3))


def _error(ended: child.Ended) -> str | None:
    if ended.status == 0:
        return None
    if ended.status is None:
        return "printed without end" if ended.too_much else f"did not end within {TRIAL_SECONDS} s"
    if ended.status < 0:
        return redact.line(f"the interpreter died of signal {-ended.status} {ended.last_line}")
    return redact.line(_exception(ended.errors.decode("utf-8", "replace")) or ended.last_line)


def _exception(text: str) -> str:
    """The last exception of a traceback: its line and what follows it without indentation."""
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        head = line.partition(":")[0]
        if head.replace(".", "").replace("_", "").isalnum() and head.endswith(
            ("Error", "Exception", "Exit", "Warning")
        ):
            return " ".join(lines[number : number + 6])
    return ""
