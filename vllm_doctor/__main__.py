"""`python -m vllm_doctor` is `vllm-doctor`."""

from vllm_doctor.cli import main

main()
