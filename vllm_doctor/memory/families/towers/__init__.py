"""Vision and audio towers: what a multi-modal model holds beside its language model, by architecture."""

from collections.abc import Callable, Mapping
from importlib import import_module

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.families.towers.blocks import EVERY_MEDIUM, Block, MissingPart, Towers, times

__all__ = ["THROUGH_TRANSFORMERS", "TOWERS", "Towers", "language_model_of", "through_transformers", "towers_of"]

Reader = Callable[[Config], Towers]

# The module and the function that read the towers of an architecture; modules are imported when one is asked for.
TOWERS: Mapping[str, str] = {
    "Qwen2VLForConditionalGeneration": "qwen.qwen_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen.qwen_vl",
    "Qwen3VLForConditionalGeneration": "qwen.qwen_vl",
    "Qwen3VLMoeForConditionalGeneration": "qwen.qwen_vl",
    "Qwen3_5ForConditionalGeneration": "qwen.qwen_vl",
    "Qwen3_5MoeForConditionalGeneration": "qwen.qwen_vl",
    "Cosmos3ForConditionalGeneration": "qwen.qwen_vl",
    "InternS1ProForConditionalGeneration": "qwen.qwen_vl",
    "Exaone4_5_ForConditionalGeneration": "qwen.exaone4_5",
    "HCXVisionV2ForCausalLM": "qwen.hyperclovax",
    "Qwen2_5OmniModel": "qwen.qwen2_5_omni",
    "Qwen2_5OmniForConditionalGeneration": "qwen.qwen2_5_omni",
    "Qwen3OmniMoeForConditionalGeneration": "qwen.qwen3_omni",
    "Qwen3ASRForConditionalGeneration": "qwen.qwen3_asr",
    "Qwen3ASRRealtimeGeneration": "qwen.qwen3_asr",
    "LlavaForConditionalGeneration": "llava.llava",
    "LlavaNextForConditionalGeneration": "llava.llava_next",
    "LlavaNextVideoForConditionalGeneration": "llava.llava_video",
    "LlavaOnevisionForConditionalGeneration": "llava.llava_onevision",
    "Gemma3ForConditionalGeneration": "llava.gemma3",
    "PaliGemmaForConditionalGeneration": "llava.paligemma",
    "ColPaliForRetrieval": "llava.colpali",
    "Mistral3ForConditionalGeneration": "llava.mistral3",
    "LightOnOCRForConditionalGeneration": "llava.mistral3",
    "Idefics3ForConditionalGeneration": "llava.idefics3",
    "SmolVLMForConditionalGeneration": "llava.idefics3",
    "Cohere2VisionForConditionalGeneration": "llava.cohere2_vision",
    "Blip2ForConditionalGeneration": "llava.blip2",
    "Llama4ForConditionalGeneration": "llava.llama4",
    "MiniMaxM3SparseForConditionalGeneration": "llava.minimax_m3",
    "InternVLChatModel": "intern.chat",
    "SkyworkR1VChatModel": "intern.chat",
    "H2OVLChatModel": "intern.chat",
    "NVLM_D": "intern.nvlm",
    "Eagle2_5_VLForConditionalGeneration": "intern.eagle",
    "InternVLForConditionalGeneration": "intern.transformers",
    "InternS1ForConditionalGeneration": "intern.transformers",
    "Glm4vForConditionalGeneration": "glm.glm4v",
    "Glm4vMoeForConditionalGeneration": "glm.glm4v",
    "GlmOcrForConditionalGeneration": "glm.glm_ocr",
    "Glm5NextForConditionalGeneration": "glm.glm_next",
    "Gemma3nForConditionalGeneration": "gemma.gemma3n",
    "Gemma4ForConditionalGeneration": "gemma.gemma4",
    "Gemma4UnifiedForConditionalGeneration": "gemma.gemma4_unified",
    "KimiVLForConditionalGeneration": "navit.kimi",
    "KimiK25ForConditionalGeneration": "navit.kimi",
    "Lfm2VlForConditionalGeneration": "navit.lfm2",
    "Cosmos3EdgeForConditionalGeneration": "navit.cosmos3_edge",
    "PaddleOCRVLForConditionalGeneration": "navit.paddleocr",
    "Ovis": "navit.ovis",
    "MuseGlimmerForConditionalGeneration": "navit.muse_glimmer",
    "MiniCPMV4_6ForConditionalGeneration": "navit.minicpm_v4_6",
    "MiniCPMV4_7ForConditionalGeneration": "navit.minicpm_v4_7",
    "MiniCPMOcrForConditionalGeneration": "navit.minicpm_v4_7",
    "QianfanOCRForConditionalGeneration": "intern.chat",
    "Qwen2AudioForConditionalGeneration": "audio.qwen2_audio",
    "UltravoxModel": "audio.ultravox",
    "AudioFlamingo3ForConditionalGeneration": "audio.audio_flamingo",
    "GlmAsrForConditionalGeneration": "audio.glm_asr",
    "GraniteSpeechForConditionalGeneration": "audio.granite_speech",
    "GraniteSpeechPlusForConditionalGeneration": "audio.granite_speech",
    "MossTranscribeDiarizeForConditionalGeneration": "audio.moss_diarize",
    "MoonshotKimiaForCausalLM": "audio.kimi_audio",
    "MossAudioModel": "audio.moss_audio",
    "DeepseekVLV2ForCausalLM": "deepseek.vl2",
    "DeepseekOCRForCausalLM": "deepseek.ocr",
    "DeepseekOCR2ForCausalLM": "deepseek.ocr2",
    "UnlimitedOCRForCausalLM": "deepseek.ocr",
    "DeepseekV4ForConditionalGeneration": "deepseek.v4",
    "DeepseekV41ForCausalLM": "deepseek.v4_1",
    "Step3VLForConditionalGeneration": "deepseek.step3",
    "Ovis2_5": "navit.ovis2_5",
    "Ovis2_6ForCausalLM": "navit.ovis2_5",
    "Ovis2_6_MoeForCausalLM": "navit.ovis2_5",
    "DotsOCRForCausalLM": "navit.dots_ocr",
    "Dots3NoteForCausalLM": "note.dots_note",
    "KeyeForConditionalGeneration": "navit.keye",
    "KeyeVL1_5ForConditionalGeneration": "navit.keye1_5",
    "IsaacForConditionalGeneration": "navit.isaac",
    "ColQwen3": "qwen.colqwen",
    "OpsColQwen3Model": "qwen.colqwen",
    "Qwen3VLNemotronEmbedModel": "qwen.colqwen",
    "ColQwen3_5": "qwen.colqwen",
    "VoxtralForConditionalGeneration": "speech.voxtral",
    "FunAudioChatForConditionalGeneration": "speech.fun_audio_chat",
    "Qwen3ASRForcedAlignerForTokenClassification": "speech.aligner",
    "GLM4VForCausalLM": "glm.glm4v_chat",
    "StepVLForConditionalGeneration": "perception.step",
    "Step3p7ForConditionalGeneration": "perception.step",
    "Granite4VisionForConditionalGeneration": "perception.granite4",
    "Phi4ForCausalLMV": "perception.phi4",
    "KananaVForConditionalGeneration": "perception.kanana",
    "JinaVLForRanking": "qwen.ranking",
    "InternS2PreviewForConditionalGeneration": "qwen.qwen_vl",
    "PixtralForConditionalGeneration": "llava.pixtral_chat",
    "NemotronH_Nano_VL_V2": "others.nemotron_nano",
    "NemotronH_Nano_Omni_Reasoning_V3": "others.nemotron_nano",
    "NemotronH_Super_Omni_Reasoning_V3": "others.nemotron_nano",
    "NemotronH_Omni_Reasoning_V3": "others.nemotron_nano",
    "Phi4MMForCausalLM": "phi.phi4_multimodal",
    "Ernie4_5_VLMoeForConditionalGeneration": "qwen.ernie",
    "CLIPModel": "embedding.clip_model",
    "SiglipModel": "embedding.siglip_model",
    "EmbeddingGemma2Model": "embedding.gemma",
    "LlamaNemotronVLModel": "embedding.nemotron",
    "LlamaNemotronVLForSequenceClassification": "embedding.nemotron_score",
    "ColModernVBertForRetrieval": "embedding.modern",
    "VibeVoiceAsrForConditionalGeneration": "speech.vibe_voice",
    "DiffusionGemmaForBlockDiffusion": "gemma.diffusion",
    "HunYuanVLForConditionalGeneration": "navit.hunyuan",
    "MiMoV2OmniForCausalLM": "qwen.mimo",
    "Qwen4ExpForConditionalGeneration": "qwen.qwen_vl",
    "NemotronParseForConditionalGeneration": "others.nemotron_parse",
    "InternS2MobiusForConditionalGeneration": "qwen.qwen_vl",
    "MiniCPMV": "minicpm.vision",
    "MiniCPMO": "minicpm.omni",
    "LlavaOnevision2ForConditionalGeneration": "navit.onevision2",
    "Molmo2ForConditionalGeneration": "navit.molmo2",
    "BeeForConditionalGeneration": "llava.bee",
    "RForConditionalGeneration": "llava.r_vl",
    "BagelForConditionalGeneration": "llava.bagel",
    "OpenCUAForConditionalGeneration": "qwen.opencua",
    "Moondream3ForCausalLM": "others.moondream3",
    "HfMoondream": "others.moondream3",
    "Llama_Nemotron_Nano_VL": "others.nemotron_vl",
    "OpenVLAForActionPrediction": "others.openvla",
    "Phi3VForCausalLM": "phi.phi3_vision",
    "MolmoForCausalLM": "phi.molmo",
    "AriaForConditionalGeneration": "llava.aria",
    "CohereCompassForConditionalGeneration": "qwen.qwen_vl",
    "BailingMoeV3VLForConditionalGeneration": "kin.ling_vl",
    "OpenPanguVLForConditionalGeneration": "kin.pangu_vl",
    "KimiK3ForConditionalGeneration": "kin.kimi_k3",
    "MiDashengLMModel": "speech.dasheng",
    "FireRedASR2ForConditionalGeneration": "speech.fire_red",
    "FunASRForConditionalGeneration": "speech.fun_asr",
    "InklingForConditionalGeneration": "folding.inkling",
}

# Multi-modal models that run through the Transformers backend: its own names, Emu3 (0.32 models/registry.py
# _TRANSFORMERS_BACKEND_MODELS, _TRANSFORMERS_SUPPORTED_MODELS), and classes of Transformers that vLLM itself lacks.
THROUGH_TRANSFORMERS = frozenset(
    (
        "AyaVisionForConditionalGeneration",
        "DeepseekVLForConditionalGeneration",
        "Emu3ForConditionalGeneration",
        "GotOcr2ForConditionalGeneration",
        "Idefics2ForConditionalGeneration",
        "TransformersMultiModalForCausalLM",
        "TransformersMultiModalMoEForCausalLM",
        "VideoLlavaForConditionalGeneration",
        "VipLlavaForConditionalGeneration",
    )
)


# Architectures whose config does not say which language model they have inside.
LANGUAGE_MODELS: Mapping[str, str] = {
    "DeepseekV4ForConditionalGeneration": "DeepseekV4ForCausalLM",
    "DeepseekV41ForCausalLM": "DeepseekV41TextModel",
    "OpenVLAForActionPrediction": "LlamaForCausalLM",
    "Moondream3ForCausalLM": "Moondream3TextModel",
    "HfMoondream": "Moondream3TextModel",
    "DotsOCRForCausalLM": "Qwen2ForCausalLM",
    "Dots3NoteForCausalLM": "Dots3NoteTextModel",
    "InternS1ProForConditionalGeneration": "InternS1ProTextModel",
    "InternS2MobiusForConditionalGeneration": "InternS2MobiusModel",
    "NemotronParseForConditionalGeneration": "MBartDecoderNoPos",
    "MiMoV2OmniForCausalLM": "MiMoV2FlashForCausalLM",
    "CLIPModel": "CLIPTextTransformer",
    "SiglipModel": "SiglipTextTransformer",
    "EmbeddingGemma2Model": "EmbeddingGemma2TextModel",
    "LlamaNemotronVLModel": "LlamaBidirectionalModel",
    "LlamaNemotronVLForSequenceClassification": "LlamaBidirectionalModel",
    "ColModernVBertForRetrieval": "ModernBertModel",
    "FunAudioChatForConditionalGeneration": "Qwen3ForCausalLM",
    "Phi4MMForCausalLM": "Phi3ForCausalLM",
    "Ernie4_5_VLMoeForConditionalGeneration": "Ernie4_5_VLMoeForCausalLM",
    "GLM4VForCausalLM": "ChatGLMModel",
    "Glm5NextForConditionalGeneration": "Glm5NextForCausalLM",
    "Phi4ForCausalLMV": "Phi3ForCausalLM",
    "Granite4VisionForConditionalGeneration": "GraniteForCausalLM",
    "KeyeForConditionalGeneration": "Qwen3ForCausalLM",
    "KeyeVL1_5ForConditionalGeneration": "Qwen3ForCausalLM",
    "IsaacForConditionalGeneration": "Qwen3ForCausalLM",
    "MoonshotKimiaForCausalLM": "Qwen2ForCausalLM",
    "Molmo2ForConditionalGeneration": "Molmo2TextModel",
    "Phi3VForCausalLM": "Phi3ForCausalLM",
    "MolmoForCausalLM": "MolmoModel",
    "BailingMoeV3VLForConditionalGeneration": "BailingMoeV3ForCausalLM",
    "OpenPanguVLForConditionalGeneration": "PanguEmbeddedForCausalLM",
    "KimiK3ForConditionalGeneration": "KimiLinearForCausalLM",
    "FireRedASR2ForConditionalGeneration": "Qwen2ForCausalLM",
    "FunASRForConditionalGeneration": "Qwen3ForCausalLM",
    "InklingForConditionalGeneration": "InklingForCausalLM",
}


def language_model_of(name: str, text: Config) -> str | None:
    """The language model inside of such an architecture; None where the config says which it is."""
    if name in ("MiniCPMV", "MiniCPMO"):
        from vllm_doctor.memory.families.towers.minicpm import language_model

        return language_model(text)
    return LANGUAGE_MODELS.get(name)


def towers_of(name: str, whole: Config) -> Towers:
    """The towers of an architecture; of one that is not known, or lacks its numbers, an estimate that says so."""
    found = TOWERS.get(name)
    if found is None:
        return unknown_towers(whole)
    module, _, function = found.rpartition(".")
    reader: Reader = getattr(import_module(f"{__name__}.{module}"), function)
    try:
        return reader(whole)
    except MissingPart:
        return unknown_towers(whole)


def through_transformers(whole: Config) -> Towers:
    """The towers as Transformers' own class of the config's type has them; of a type nobody compared, an estimate."""
    from vllm_doctor.memory.families.towers.through import towers_of_type  # Few models run so.

    try:
        return towers_of_type(whole) or unknown_towers(whole)
    except MissingPart:
        return unknown_towers(whole)


def unknown_towers(whole: Config) -> Towers:
    """A tower whose layers are not known: a plain vision transformer by the numbers it has, marked as an estimate."""
    vision = whole.section("vision_config", "vit_config", "visual", "vision_tower_config")
    doubt = ("the vision or audio tower is an estimate",)
    if vision is None:
        return Towers((), True, 0, 0, ("the vision or audio tower is not counted",), EVERY_MEDIUM)
    width = vision.count("hidden_size", "embed_dim", "width", default=0)
    layers = vision.count("num_hidden_layers", "depth", "layers", default=0, largest=LARGEST_LAYERS)
    if not width or not layers:
        return Towers((), True, 0, 0, ("the vision tower is not counted",))
    feed = vision.count("intermediate_size", default=0) or 4 * width
    return Towers(times(Block(width, feed).tensors(), layers), True, width, layers, doubt)
