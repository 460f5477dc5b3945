"""What stands for a fact that an environment report does not tell."""

from vllm_doctor.facts import Unknown

UNSAID = Unknown("the environment report does not say")

# For paths and identities, which are printed and never compared.
NOT_SAID = "(not in the environment report)"
