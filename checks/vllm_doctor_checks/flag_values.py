"""The check of flag values: numbers, choices, JSON, files and names that the release does not take."""

from collections.abc import Iterator

from vllm_doctor.check import NotKnown, check
from vllm_doctor.facts import FlagUse
from vllm_doctor.facts.launch import integer
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import Flag, Release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import flag_json, flag_registries
from vllm_doctor_checks.launching import is_placeholder, numbers, options_of, planned_release

# What a number may be, lowest and highest. SOURCE: pydantic `Field(ge=, gt=, le=)` of vllm/config/*.py, 0.32.0.
_WHOLE: dict[str, tuple[int, int | None]] = {
    "--tensor-parallel-size": (1, None),
    "--pipeline-parallel-size": (1, None),
    "--data-parallel-size": (1, None),
    "--data-parallel-size-local": (0, None),
    "--data-parallel-rank": (0, None),
    "--data-parallel-rpc-port": (1, 65535),
    "--decode-context-parallel-size": (1, None),
    "--prefill-context-parallel-size": (1, None),
    "--max-parallel-loading-workers": (1, None),
    "--nnodes": (1, None),
    "--node-rank": (0, None),
    "--port": (0, 65535),
    "--grpc-port": (0, 65535),
    "--master-port": (0, 65535),
    "--max-model-len": (-1, None),
    "--max-logprobs": (-1, None),
    "--max-num-seqs": (1, None),
    "--max-num-batched-tokens": (1, None),
    "--max-num-active-seqs": (1, None),
    "--long-prefill-token-threshold": (0, None),
    "--stream-interval": (1, None),
    "--block-size": (1, None),
    "--max-loras": (1, None),
    "--sse-keep-alive-interval": (0, None),
    "--shutdown-timeout": (0, None),
    "--spec-tokens": (1, None),
}
# Lowest, highest, and whether the lowest itself is taken.
_FRACTIONS: dict[str, tuple[float, float | None, bool]] = {
    "--gpu-memory-utilization": (0.0, 1.0, False),
    "--cpu-offload-gb": (0.0, None, True),
    "--mm-processor-cache-gb": (0.0, None, True),
    "--kv-cache-metrics-sample": (0.0, 1.0, False),
}
# `-O` takes a level only: what follows it is handed to --optimization-level (vllm/utils/argparse_utils.py, 0.32.0).
_LEVEL_ONLY_FROM = (0, 32)
# What people write for a choice by the names that other programs have: torch, llama.cpp, DeepSpeed, ONNX.
_SYNONYMS = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "fp32": "float32",
    "f32": "float32",
    "torch.bfloat16": "bfloat16",
    "torch.float16": "float16",
    "torch.float32": "float32",
    "fp8_e4m3fn": "fp8_e4m3",
    "float8": "fp8",
    "multiprocessing": "mp",
}
# What is written for --dtype where quantized weights are meant.
_FEW_BITS = ("fp8", "float8", "int8", "int4", "fp4", "nvfp4", "mxfp4", "4bit", "8bit", "q4", "q8", "e4m3", "e5m2")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@check("flag-value", causes=("bad-flag",), needs=("launch",))
def flag_value(snapshot: Snapshot) -> Iterator[Finding]:
    """A value that its flag does not take.

    A word where a number must stand, a number out of range, a choice that does not exist, JSON that is none or has
    unknown keys, a value given to a switch, a `--config` file that cannot be read.

    Why: vLLM ends the start, with argparse's `invalid ... value` (exit code 2) or with a ValidationError of the config.
    Fix: give a value of the kind that the evidence names.
    """
    assert snapshot.launch is not None
    yield from _config_file(snapshot.launch.problems)
    release = planned_release(snapshot)
    options = options_of(release)
    for use in snapshot.launch.flags:
        if use.spelled.startswith("-O.") and numbers(release.version)[:2] >= _LEVEL_ONLY_FROM:
            yield _key_of_level(use)
        flag = options.flag(use.name if use.spelled.startswith("-O") else use.spelled)
        if flag is None or any(is_placeholder(value) for value in use.values):
            continue
        if "." in use.name:
            yield from flag_json.judge_dotted(use, release)
        elif flag.nargs == "0":
            # With `=` the parser has complained already, which launch-form reports.
            complained = any(p.startswith(f"{use.spelled} takes no value") for p in snapshot.launch.problems)
            yield from () if complained else _switch(use)
        else:
            yield from _valued(snapshot, use, flag, release)
    yield from _host(snapshot.launch.uses("--host")[-1:])
    if unread := next((p for p in snapshot.launch.problems if p.startswith("--config:") and "was not read" in p), None):
        raise NotKnown(unread)


def _key_of_level(use: FlagUse) -> Finding:
    meant = f"-cc.{use.spelled[3:]}"
    edit = LaunchEdit(set={f"--compilation-config.{use.spelled[3:]}": use.value}, unset=(use.spelled,))
    return error(
        "bad-flag",
        f"-O takes a level from 0 to 3: keys of the compilation are {meant}",
        evidence=(f"{use.spelled} {use.value or ''}".strip(), "vLLM ends with `Input should be 0, 1, 2 or 3`"),
        fixes=(Fix(title=f"Write {meant}", launch=edit, automatic=use.value is not None),),
    )


def _config_file(problems: tuple[str, ...]) -> Iterator[Finding]:
    for problem in problems:
        if problem.startswith("--config:") and "was not read" not in problem:
            yield error(
                "bad-flag",
                problem.replace("--config: ", "The file of --config, ", 1),
                evidence=(problem,),
                fixes=(Fix(title="Name a YAML file of flags and values that vLLM can read"),),
            )


def _switch(use: FlagUse) -> Iterator[Finding]:
    if not use.values:
        return
    word = use.values[0].lower()
    on, off = word in _TRUE, word in _FALSE
    wanted = f"--no-{use.name[2:]}" if off and not use.name.startswith("--no-") else use.name
    yield error(
        "bad-flag",
        f"{use.spelled} is a switch and takes no value; {use.values[0]!r} was given",
        evidence=(
            f"{use.spelled} {use.values[0]}",
            "vLLM takes the word for the model, or as an unrecognized argument",
        ),
        fixes=(Fix(title=f"Write {wanted}", launch=LaunchEdit(set={wanted: None}), automatic=on or off),),
    )


def _valued(snapshot: Snapshot, use: FlagUse, flag: Flag, release: Release) -> Iterator[Finding]:
    name = flag.alias_of or flag.name
    for value in use.values:
        if value in ("", "None") and _may_be_none(flag):
            continue
        if name == "--max-lora-rank":
            # lora-flags judges the rank.
            continue
        if flag.choices and not flag.open_choices:
            yield from _choice(use, flag, value, release)
        elif flag.kind in ("int", "human-int", "human-int-or-auto"):
            yield from _integer(use, name, flag.kind, value)
        elif flag.kind == "float":
            yield from _float(use, name, value)
        elif flag.kind == "json" or (flag.kind == "json-or-str" and flag_json.is_braced(value)):
            yield from flag_json.judge(use, name, value, release)
        else:
            yield from flag_registries.judge(snapshot, use, flag, value, release)


def _may_be_none(flag: Flag) -> bool:
    """Whether `None` may stand for nothing: vLLM reads it so where the field is optional, which the default shows."""
    if flag.name == "--prefix-cache-retention-interval":
        # The one optional number of 0.32.0 with a default.
        return True
    return flag.default is None or flag.default.startswith("<") or (flag.kind == "str" and not flag.choices)


def _choice(use: FlagUse, flag: Flag, value: str, release: Release) -> Iterator[Finding]:
    assert flag.choices is not None
    folded = value.lower().replace("-", "_") if flag.folded else value
    if folded in flag.choices or "<" in "".join(flag.choices):
        return
    meant = _SYNONYMS.get(value.lower())
    guess = meant if meant in flag.choices else nearest(folded.lower(), flag.choices)
    guess = None if folded.isdecimal() else guess
    if flag.name == "--dtype" and value.lower().startswith(_FEW_BITS):
        yield _quantized_dtype(use, value, release)
        return
    shown = ", ".join(flag.choices[:20])
    yield error(
        "bad-flag",
        f"{use.name} takes no {value!r} in vLLM {release.version}",
        evidence=(f"{use.spelled} {value}", f"the choices are {shown}"),
        fixes=_instead(use, guess) or (Fix(title=f"Choose one of {shown}"),),
    )


def _quantized_dtype(use: FlagUse, value: str, release: Release) -> Finding:
    """8 and 4 bits are a quantization: the nearest dtype would take twice the memory and more."""
    drop = LaunchEdit(unset=(use.spelled,))
    wants_fp8 = value.lower().startswith(("fp8", "float8"))
    instead = "--quantization fp8" if wants_fp8 else "a checkpoint that is quantized so"
    return error(
        "bad-flag",
        f"{use.name} takes no {value!r} in vLLM {release.version}: it names the 16 or 32 bits that are computed in",
        evidence=(f"{use.spelled} {value}", f"the choices are {', '.join(release.flags['--dtype'].choices or ())}"),
        fixes=(Fix(title=f"Drop {use.spelled}; for weights of fewer bits give {instead}", launch=drop),),
    )


def _instead(use: FlagUse, value: str | None) -> tuple[Fix, ...]:
    if value is None or len(use.values) != 1:
        return ()
    return (Fix(title=f"Write {use.name} {value}", launch=LaunchEdit(set={use.name: value}), automatic=True),)


def _integer(use: FlagUse, name: str, kind: str, value: str) -> Iterator[Finding]:
    automatic = kind == "human-int-or-auto" and value.strip().lower() in ("auto", "-1")
    number = _whole(value) if kind == "int" else integer(value)
    if automatic:
        return
    if number is None:
        yield error(
            "bad-flag",
            f"{name} needs a whole number, and {value!r} is none",
            evidence=(f"{use.spelled} {value}", _reading(kind)),
            fixes=_plain(use, value),
        )
        return
    low, high = _WHOLE.get(name, (None, None))
    if name == "--max-model-len" and number == 0:
        # SOURCE: `max_model_len must be a positive integer, got int: 0` of vllm/config/model.py, 0.32.0.
        low = 1
    if (low is not None and number < low) or (high is not None and number > high):
        limits = f"from {low} to {high}" if high is not None else f"{low} or more"
        yield error(
            "bad-flag",
            f"{name} {value} is out of range: it must be {limits}",
            evidence=(f"{use.spelled} {value}", f"allowed: {limits}"),
            fixes=(Fix(title=f"Give a number {limits}"),),
        )


def _reading(kind: str) -> str:
    if kind == "int":
        return "read as a plain whole number: no unit, no fraction"
    return "read as a whole number with an optional k, m, g, t (decimal) or K, M, G, T (binary)"


def _plain(use: FlagUse, value: str) -> tuple[Fix, ...]:
    """`4,096`, `4096 tokens`, `16GB`: what was plainly meant."""
    digits = value.replace(",", "").replace("'", "").replace(" ", "")
    if _whole(digits) is not None:
        return _instead(use, digits)
    if digits[-1:] in "bB" and integer(digits[:-1]) is not None and integer(digits[:-1].upper()):
        return (Fix(title=f"Write the number without the B, as {digits[:-1]}, where the flag takes units"),)
    return (Fix(title="Give a whole number"),)


def _whole(value: str) -> int | None:
    """What int() reads, of at most 30 characters."""
    text = value.strip()
    digits = text[1:] if text[:1] in ("+", "-") else text
    valid = len(text) <= 30 and text.isascii() and all(part.isdecimal() for part in digits.split("_"))
    return int(text) if valid else None


def _float(use: FlagUse, name: str, value: str) -> Iterator[Finding]:
    try:
        number = float(value)
    except ValueError:
        percent = _percent(value.rstrip("% ")) if value.endswith("%") else value.replace(",", ".", 1)
        yield error(
            "bad-flag",
            f"{name} needs a number, and {value!r} is none",
            evidence=(f"{use.spelled} {value}", "read as a number with a decimal point, without a unit"),
            fixes=_instead(use, percent) if percent and _is_number(percent) else (Fix(title="Give a number"),),
        )
        return
    low, high, closed = _FRACTIONS.get(name, (None, None, True))
    below = low is not None and (number < low or (number == low and not closed))
    if number != number or below or (high is not None and number > high):
        limits = f"more than {low:g}" if not closed else f"{low:g} or more"
        limits += f" and at most {high:g}" if high is not None else ""
        meant = _percent(value) if high == 1.0 and 1 < number <= 100 else None
        yield error(
            "bad-flag",
            f"{name} {value} is out of range: it must be {limits}",
            evidence=(
                f"{use.spelled} {value}",
                f"allowed: {limits}" + ("; it is a fraction, no percentage" if meant else ""),
            ),
            fixes=_instead(use, meant) or (Fix(title=f"Give a number {limits}"),),
        )


def _percent(value: str) -> str | None:
    return f"{float(value) / 100:g}" if _is_number(value) and 0 < float(value) <= 100 else None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _host(uses: tuple[FlagUse, ...]) -> Iterator[Finding]:
    """`--host http://0.0.0.0` and `--host 0.0.0.0:8000` are no addresses to bind."""
    for use in uses:
        value = use.value or ""
        bare = value.partition("://")[2] or value
        address, colon, port = bare.rstrip("/").rpartition(":")
        with_port = bool(colon) and port.isdecimal() and ":" not in address
        if is_placeholder(value) or not ("://" in value or with_port):
            continue
        edit: dict[str, str | None] = {"--host": address if with_port else bare.rstrip("/")}
        if with_port:
            edit["--port"] = port
        yield error(
            "bad-flag",
            f"--host {value} is no address: it takes a host name or an IP address alone",
            evidence=(f"{use.spelled} {value}", "the port belongs to --port, and http:// to the clients"),
            fixes=(
                Fix(
                    title="Write " + " ".join(f"{k} {v}" for k, v in edit.items()),
                    launch=LaunchEdit(set=edit),
                    automatic=True,
                ),
            ),
        )
