"""The checks of GPUs: whether they are seen, sound, supported by the wheels, and free."""

from vllm_doctor_checks.gpu_health import fabric_manager, gpu_fault
from vllm_doctor_checks.gpu_memory import gpu_busy, stray_process
from vllm_doctor_checks.gpu_presence import gpu_visible, mig_instance
from vllm_doctor_checks.gpu_support import gpu_arch, gpu_feature

__all__ = [
    "fabric_manager",
    "gpu_arch",
    "gpu_busy",
    "gpu_fault",
    "gpu_feature",
    "gpu_visible",
    "mig_instance",
    "stray_process",
]
