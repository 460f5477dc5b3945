#!/usr/bin/env python3
"""How many recorded launch faults the check-up names by their cause, before anything is launched.

    prelaunch.py FAULTS.json --python VENV/bin/python --models DIR --work DIR [--only ID ...] [-v]

FAULTS.json holds records with `id`, `cause` and `inject` (what was done to a launch of a real vLLM). Every launch that
needs no wrapper is prepared in the same way, and `vllm-doctor run` is asked in its place. A record without `inject`
and with a `command` is a healthy launch: it must bring no finding. `right`: the first finding has the recorded cause
(or one of `also`); `silent`: no finding; `wrong`: another cause first.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]

DEFAULTS = {"--enforce-eager": None, "--max-model-len": "2048"}
BASE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
FILLED = re.compile(r"\$(BIN|PY|MODELS|WORK|PORT)\b")
LAUNCHES = ("launch", "env", "command")


class Bench:
    """The environment, the models and the scratch folder."""

    def __init__(self, python: Path, models: Path, work: Path) -> None:
        # The interpreter of a virtual environment is a link that must not be followed.
        self.venv = Path(os.path.abspath(python)).parent.parent  # noqa: PTH100
        self.models = models.resolve()
        self.work = work.resolve()

    def judge(self, record: Record) -> tuple[str, list[str]]:
        """`right`, `silent` or `wrong`, and the causes found, root cause first."""
        causes = self.causes(record)
        wanted = {record["cause"], *(record.get("also") or ())} - {None}
        if not wanted:
            return ("wrong" if causes else "right"), causes
        if not causes:
            return "silent", causes
        return ("right" if causes[0] in wanted else "wrong"), causes

    def causes(self, record: Record) -> list[str]:
        """What the check-up says of the launch of one record."""
        inject = record.get("inject") or {"kind": "launch", "given": record["command"]}
        run = self._fresh_folder()
        venv = self._variant(inject["variant"]) if inject.get("variant") else self.venv
        names = {
            "BIN": f"{venv}/bin",
            "PY": f"{venv}/bin/python",
            "MODELS": str(self.models),
            "WORK": str(run),
            "PORT": str(_free_port()),
        }
        environment = _environment(inject, run, venv, names)
        with _prepared(inject, run, environment | names):
            return self._ask(self._words(inject, names, venv), run, environment)

    def _ask(self, words: list[str], run: Path, environment: dict[str, str]) -> list[str]:
        argv = [sys.executable, "-m", "vllm_doctor", "run", "--format", "json", "--", *words]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(
            argv,
            cwd=run / "cwd",
            env=environment | {"PYTHONPATH": f"{root}:{root}/checks"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode not in (0, 1):
            return [f"exit {done.returncode}: {done.stderr.strip()[-300:]}"]
        return [f["cause"] for f in json.loads(done.stdout)["findings"]]

    def _words(self, inject: Record, names: dict[str, str], venv: Path) -> list[str]:
        if "given" in inject:
            words = shlex.split(inject["given"].replace("/srv/models", str(self.models)))
            return [f"{venv}/bin/vllm", *words[1:]] if words[0] == "vllm" else words
        if inject.get("command"):
            return [w for w in shlex.split(_filled(inject["command"], names)) if w != "exec"]
        words = [f"{venv}/bin/vllm", "serve"]
        if model := inject.get("model", "tiny-llama"):
            words.append(_filled(model, names) if "/" in model or "$" in model else str(self.models / model))
        words += [_filled(a, names) for a in inject.get("args", [])]
        defaults = DEFAULTS if inject.get("defaults", True) else {}
        for flag, value in {**defaults, "--host": "127.0.0.1", "--port": names["PORT"]}.items():
            if not any(w == flag or w.startswith(f"{flag}=") for w in words):
                words += [flag] if value is None else [flag, value]
        return words

    def _fresh_folder(self) -> Path:
        run: Path = self.work / "run"
        shutil.rmtree(run, ignore_errors=True)
        for name in ("cwd", "hf", "tmp", "cache"):
            (run / name).mkdir(parents=True)
        return run

    def _variant(self, spec: Record) -> Path:
        """A copy of the environment with hard links, changed by the record's script."""
        folder: Path = self.work / "env" / spec["name"]
        if (folder / ".built").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", self.venv, folder], check=True)
        script = folder / "bin" / "vllm"
        body = script.read_text().split("\n", 1)[1]
        script.unlink()
        script.write_text(f"#!{folder}/bin/python\n{body}")
        script.chmod(0o755)
        site = next((folder / "lib").glob("python*/site-packages"))
        pip = f"{folder}/bin/python -m pip --disable-pip-version-check install -q --no-deps"
        environment = {**os.environ, "V": str(folder), "SITE": str(site), "PIP": pip}
        subprocess.run(["bash", "-ec", spec["build"]], env=environment, cwd=folder, check=True, capture_output=True)
        (folder / ".built").touch()
        return folder


def _environment(inject: Record, run: Path, venv: Path, names: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "HF_", "RAY_", "PYTHON", "VIRTUAL_ENV"))}
    environment = kept | BASE | {"HF_HOME": f"{run}/hf", "TMPDIR": f"{run}/tmp", "VLLM_CACHE_ROOT": f"{run}/cache"}
    environment["PATH"] = f"{venv}/bin:{environment['PATH']}"
    for name, value in (inject.get("env") or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = _filled(value, names)
    return environment


@contextlib.contextmanager
def _prepared(inject: Record, run: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run the record's preparation; what it leaves in the background (a fake hub) is ended afterwards."""
    if not inject.get("prepare"):
        yield
        return
    with (run / "prepare.log").open("w") as log:
        script = ["bash", "-ec", inject["prepare"]]
        process = subprocess.Popen(
            script, env=environment, cwd=run / "cwd", stdout=log, stderr=log, start_new_session=True
        )
        process.wait(timeout=60)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _filled(text: str, names: dict[str, str]) -> str:
    return FILLED.sub(lambda match: names[match[1]], text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def applies(record: Record) -> bool:
    """Whether the record is a launch, healthy or not, that needs no wrapper."""
    inject = record.get("inject")
    if inject is None:
        return str(record.get("command", "")).startswith("vllm serve")
    return inject["kind"] in LAUNCHES and not inject.get("wrap")


def main() -> None:
    """Ask for every record, print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="+", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    bench = Bench(options.python, options.models, options.work)
    counts: Counter[str] = Counter()
    healthy: Counter[str] = Counter()
    for record in (r for path in options.faults for r in json.loads(path.read_text()) if applies(r)):
        if options.only and record["id"] not in options.only:
            continue
        verdict, causes = bench.judge(record)
        (healthy if record["cause"] is None else counts)[verdict] += 1
        if options.verbose or verdict == "wrong":
            print(f"{verdict:6} {record['id']:32} {record['cause']!s:24} {causes}")
    total = sum(counts.values())
    print(
        f"prelaunch: {total} faults: right {counts['right']} ({_percent(counts['right'], total)}), silent"
        f" {counts['silent']}, wrong {counts['wrong']} ({_percent(counts['wrong'], total)});"
        f" healthy {sum(healthy.values())}: false alarms {healthy['wrong']}"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


if __name__ == "__main__":
    main()
