"""What flags for media do to the towers: those that take none are not built, and ranks may hold all of an encoder."""

from msgspec.structs import replace

from vllm_doctor.memory.facts import LASTING, Architecture, LaunchSettings, Release, Split, Tensor
from vllm_doctor.memory.implementation import BACKEND_FROM

# Towers that take images and no videos; other towers for images take both (0.32 models/*.py, _mark_tower_model).
_IMAGES_ONLY = frozenset(
    (
        "AriaForConditionalGeneration",
        "BagelForConditionalGeneration",
        "Blip2ForConditionalGeneration",
        "CLIPModel",
        "Cohere2VisionForConditionalGeneration",
        "CohereCompassForConditionalGeneration",
        "ColPaliForRetrieval",
        "DeepseekOCR2ForCausalLM",
        "DeepseekOCRForCausalLM",
        "DeepseekVLV2ForCausalLM",
        "Dots3NoteForCausalLM",
        "DotsOCRForCausalLM",
        "Eagle2_5_VLForConditionalGeneration",
        "GLM4VForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Granite4VisionForConditionalGeneration",
        "Idefics3ForConditionalGeneration",
        "IsaacForConditionalGeneration",
        "KananaVForConditionalGeneration",
        "KimiVLForConditionalGeneration",
        "Lfm2VlForConditionalGeneration",
        "LightOnOCRForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "LlamaNemotronVLModel",
        "Llama_Nemotron_Nano_VL",
        "LlavaForConditionalGeneration",
        "LlavaNextForConditionalGeneration",
        "MiniCPMOcrForConditionalGeneration",
        "MiniCPMV4_6ForConditionalGeneration",
        "MiniCPMV4_7ForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "MolmoForCausalLM",
        "OpenCUAForConditionalGeneration",
        "OpenVLAForActionPrediction",
        "Ovis",
        "PaddleOCRVLForConditionalGeneration",
        "PaliGemmaForConditionalGeneration",
        "Phi3VForCausalLM",
        "Phi4ForCausalLMV",
        "PixtralForConditionalGeneration",
        "SiglipModel",
        "SkyworkR1VChatModel",
        "SmolVLMForConditionalGeneration",
        "Step3VLForConditionalGeneration",
        "StepVLForConditionalGeneration",
    )
)
# Much of these is built whatever the flags say.
_ALWAYS_BUILT = frozenset(
    (
        "BeeForConditionalGeneration",
        "ColModernVBertForRetrieval",
        "Gemma4UnifiedForConditionalGeneration",
        "JinaVLForRanking",
        "RForConditionalGeneration",
    )
)
# Encoders that --mm-encoder-tp-mode data leaves undivided (supports_encoder_tp_data; others warn and divide theirs).
_UNDIVIDED = frozenset(
    (
        "CohereCompassForConditionalGeneration",
        "ColQwen3",
        "ColQwen3_5",
        "Cosmos3EdgeForConditionalGeneration",
        "Cosmos3ForConditionalGeneration",
        "DeepseekV41ForCausalLM",
        "Dots3NoteForCausalLM",
        "DotsOCRForCausalLM",
        "Eagle2_5_VLForConditionalGeneration",
        "Exaone4_5_ForConditionalGeneration",
        "Glm5NextForConditionalGeneration",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "GlmOcrForConditionalGeneration",
        "H2OVLChatModel",
        "InternS2PreviewForConditionalGeneration",
        "InternVLChatModel",
        "IsaacForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "KimiVLForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "MiniCPMO",
        "MiniCPMOcrForConditionalGeneration",
        "MiniCPMV",
        "MiniCPMV4_6ForConditionalGeneration",
        "MiniCPMV4_7ForConditionalGeneration",
        "MiniMaxM3SparseForConditionalGeneration",
        "NVLM_D",
        "OpenCUAForConditionalGeneration",
        "OpsColQwen3Model",
        "QianfanOCRForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3VLNemotronEmbedModel",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
        "Step3VLForConditionalGeneration",
        "StepVLForConditionalGeneration",
    )
)


def towers_under(architecture: Architecture, settings: LaunchSettings, release: Release) -> tuple[Tensor, ...]:
    """The towers as this launch builds them; releases before the one that was read build all of them, divided."""
    towers = architecture.towers
    if not towers or release < BACKEND_FROM:
        return towers
    if (
        architecture.name not in _ALWAYS_BUILT
        and not architecture.is_encoder_decoder
        and _takes_none(architecture, settings)
    ):
        return tuple(t for t in towers if t.name.startswith(LASTING))
    if settings.mm_encoder_tp_mode == "data" and architecture.name in _UNDIVIDED:
        return tuple(t if t.split is Split.VOCABULARY else replace(t, split=Split.WHOLE) for t in towers)
    return towers


def _takes_none(architecture: Architecture, settings: LaunchSettings) -> bool:
    """Whether no medium is allowed that a tower takes (0.32 models/interfaces.py _mark_tower_model)."""
    if settings.language_model_only:
        return True
    limits = settings.limit_mm_per_prompt or {}
    taken = ("image",) if architecture.name in _IMAGES_ONLY else architecture.media
    return bool(taken) and all(limits.get(medium) == 0 for medium in taken)
