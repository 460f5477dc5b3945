"""Every fact that a probe can write down, as frozen types; one that could not be had is `Unknown` with its reason."""

from vllm_doctor.facts.base import Bytes, Count, Facts, Section, Unknown, known_or_none
from vllm_doctor.facts.environment import (
    Distribution,
    Environment,
    Extension,
    ImportTrial,
    Shadow,
    TorchBuild,
    VllmBuild,
)
from vllm_doctor.facts.gpus import Gpu, GpuProcess, Gpus, MigDevice, NvmlFailure, NvmlUnavailable, ProcessRole
from vllm_doctor.facts.host import FileSystem, Host, PciGpu
from vllm_doctor.facts.launch import DEFAULT_PORT, Docker, FlagUse, Launch, LaunchForm
from vllm_doctor.facts.model import ChatTemplate, LoraAdapter, Model, ModelConfig, ModelProblem, ModelSource, WeightFile
from vllm_doctor.facts.servers import Listener, Metric, Server, ServerAnswer, Servers

__all__ = [
    "DEFAULT_PORT",
    "Bytes",
    "ChatTemplate",
    "Count",
    "Distribution",
    "Docker",
    "Environment",
    "Extension",
    "Facts",
    "FileSystem",
    "FlagUse",
    "Gpu",
    "GpuProcess",
    "Gpus",
    "Host",
    "ImportTrial",
    "Launch",
    "LaunchForm",
    "Listener",
    "LoraAdapter",
    "Metric",
    "MigDevice",
    "Model",
    "ModelConfig",
    "ModelProblem",
    "ModelSource",
    "NvmlFailure",
    "NvmlUnavailable",
    "PciGpu",
    "ProcessRole",
    "Section",
    "Server",
    "ServerAnswer",
    "Servers",
    "Shadow",
    "TorchBuild",
    "Unknown",
    "VllmBuild",
    "WeightFile",
    "known_or_none",
]
