"""Reads the text of `vllm collect-env`, `collect_env.py` or torch's collect_env into facts, as they stand in issues."""

from vllm_doctor import redact
from vllm_doctor.errors import InputFileError
from vllm_doctor.probes.env_report.environment import environment
from vllm_doctor.probes.env_report.gpus import gpus
from vllm_doctor.probes.env_report.host import host
from vllm_doctor.probes.env_report.text import take_apart
from vllm_doctor.probes.env_report.words import UNSAID
from vllm_doctor.snapshot import Snapshot

MAXIMUM_CHARACTERS = 1_000_000


def read_env_report(text: str) -> Snapshot:
    """The facts that the report states, secrets masked; everything else is Unknown.

    Knows torch's `torch/utils/collect_env.py` and vLLM's own `collect_env.py` from 0.4 (plain lines) to 0.32 (headed
    sections), alone or inside an issue. Where a text holds several reports, the first one counts. Raises InputFileError
    where the text holds none.
    """
    report = take_apart(text[:MAXIMUM_CHARACTERS])
    if not report.is_report:
        raise InputFileError(
            "the text holds no environment report",
            "give it the output of `vllm collect-env`, or an issue that holds one",
        )
    return redact.clean(Snapshot(host=host(report), gpus=gpus(report), environment=environment(report), servers=UNSAID))
