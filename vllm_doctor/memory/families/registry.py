"""Which reader knows the layers of an architecture, and which towers stand beside its language model."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture
from vllm_doctor.memory.families import towers as beside
from vllm_doctor.memory.families.decoder import decoder
from vllm_doctor.memory.families.lazily import Lazily
from vllm_doctor.memory.families.pooling import POOLED, Pooled, looks_both_ways, pooled_name, with_head, without_caches
from vllm_doctor.memory.families.styles import STYLES
from vllm_doctor.memory.families.towers import Towers

Reader = Callable[[Config], Architecture]

cohere_asr = Lazily("cohere_asr")
deepseek_v4 = Lazily("deepseek_v4")
deepseek_v41 = Lazily("deepseek_v41")
dots = Lazily("dots")
encoder_decoder = Lazily("encoder_decoder")
glm_next = Lazily("glm_next")
hybrid = Lazily("hybrid")
hyper = Lazily("hyper")
inkling = Lazily("inkling")
inside = Lazily("inside")
kimi = Lazily("kimi")
latent = Lazily("latent")
lightning = Lazily("lightning")
linear_hybrid = Lazily("linear_hybrid")
mllama = Lazily("mllama")
pangu = Lazily("pangu")
recent = Lazily("recent")
relatives = Lazily("relatives")
singles = Lazily("singles")
sparse = Lazily("sparse")
voxtral = Lazily("voxtral")
wrapped = Lazily("wrapped")

_OWN: Mapping[str, Reader] = {
    "DeepseekV2ForCausalLM": latent.read_deepseek,
    "DeepseekV3ForCausalLM": latent.read_deepseek,
    "DeepseekV32ForCausalLM": latent.read_latent,
    "DeepseekV4ForCausalLM": deepseek_v4.read_v4,
    "DeepseekV41TextModel": deepseek_v41.read_v41,
    "Dots3NoteTextModel": dots.read_dots_note,
    "AXK1ForCausalLM": singles.read_axk1,
    "Glm4MoeLiteForCausalLM": latent.read_glm_lite,
    "Glm5NextForCausalLM": glm_next.read_glm_next,
    "GlmMoeDsaForCausalLM": latent.read_corrected,
    "LongcatFlashForCausalLM": latent.read_longcat,
    "HYV4ForCausalLM": hyper.read_hy_v4,
    "LongcatFlashNgramForCausalLM": latent.read_longcat_ngram,
    "PanguProMoEV2ForCausalLM": pangu.read_pangu,
    "PanguUltraMoEForCausalLM": pangu.read_pangu,
    "MiniCPM3ForCausalLM": latent.read_minicpm3,
    "KimiLinearForCausalLM": kimi.read_kimi_linear,
    "BailingMoeV3ForCausalLM": linear_hybrid.read_ling_3,
    "MambaForCausalLM": hybrid.read_mamba,
    "FalconMambaForCausalLM": hybrid.read_mamba,
    "Mamba2ForCausalLM": hybrid.read_mamba2,
    "JambaForCausalLM": hybrid.read_jamba,
    "BambaForCausalLM": hybrid.read_bamba,
    "FalconH1ForCausalLM": hybrid.read_falcon_h1,
    "NemotronHForCausalLM": hybrid.read_nemotron_h,
    "NemotronHPuzzleForCausalLM": hybrid.read_nemotron_puzzle,
    "GraniteMoeHybridForCausalLM": hybrid.read_granite_hybrid,
    "Qwen3NextForCausalLM": linear_hybrid.read_delta_hybrid,
    "Qwen3_5ForCausalLM": linear_hybrid.read_delta_hybrid,
    "Qwen3_5MoeForCausalLM": linear_hybrid.read_delta_hybrid,
    "OlmoHybridForCausalLM": relatives.read_olmo_hybrid,
    "QWenLMHeadModel": relatives.read_first_qwen,
    "InternS1ProTextModel": relatives.read_interns1_pro,
    "Zamba2ForCausalLM": linear_hybrid.read_zamba2,
    "Lfm2ForCausalLM": linear_hybrid.read_lfm2,
    "Lfm2MoeForCausalLM": linear_hybrid.read_lfm2,
    "OPTForCausalLM": singles.read_opt,
    "DbrxForCausalLM": singles.read_dbrx,
    "FalconForCausalLM": singles.read_falcon,
    "RWForCausalLM": singles.read_falcon,
    "MPTForCausalLM": singles.read_mpt,
    "MptForCausalLM": singles.read_mpt,
    "Gemma4ForCausalLM": singles.read_gemma4,
    "Gemma3nForCausalLM": singles.read_gemma3n,
    "LagunaForCausalLM": singles.read_laguna,
    "DeciLMForCausalLM": singles.read_deci,
    "MiMoV2FlashForCausalLM": singles.read_mimo_v2,
    "MiMoV2ForCausalLM": singles.read_mimo_v2,
    "ArcticForCausalLM": recent.read_arctic,
    "MiniMaxForCausalLM": lightning.read_minimax_01,
    "MiniMaxM1ForCausalLM": lightning.read_minimax_01,
    "MiniMaxText01ForCausalLM": lightning.read_minimax_01,
    "BailingMoeV2_5ForCausalLM": lightning.read_ling_25,
    "InklingForCausalLM": inkling.read_inkling,
    "K2HorizonForCausalLM": recent.read_k2_horizon,
    "MistralLarge3ForCausalLM": latent.read_deepseek,
    "SarvamMLAForCausalLM": recent.read_sarvam_latent,
    "Step3TextForCausalLM": recent.read_step3,
    "Step3p5ForCausalLM": recent.read_step35,
    "HYV3ForCausalLM": recent.read_hunyuan_v3,
    "IQuestLoopCoderForCausalLM": recent.read_loop_coder,
    "Plamo3ForCausalLM": recent.read_plamo3,
    "MiniMaxM3SparseForCausalLM": sparse.read_minimax_m3,
    "HrmTextForCausalLM": recent.read_hrm,
    "WhisperForConditionalGeneration": encoder_decoder.read_whisper,
    "MllamaForConditionalGeneration": mllama.read_mllama,
    "CohereAsrForConditionalGeneration": cohere_asr.read_cohere_asr,
    "VoxtralRealtimeGeneration": voxtral.read_realtime,
    "VoxtralRealtimeForConditionalGeneration": voxtral.read_realtime,
    "MolmoModel": inside.read_molmo,
    "InternS2MobiusModel": inside.read_mobius,
    "MBartDecoderNoPos": encoder_decoder.read_nemotron_parse,
    "Qwen4ExpForCausalLM": inside.read_qwen4,
    "AriaTextModel": inside.read_aria,
    "CLIPTextTransformer": inside.read_clip,
    "SiglipTextTransformer": inside.read_siglip,
    "EmbeddingGemma2TextModel": inside.read_embedding_gemma2,
    "Ernie4_5_VLMoeForCausalLM": inside.read_ernie_vl,
    "Molmo2TextModel": inside.read_molmo2,
    "Moondream3TextModel": inside.read_moondream3,
    "Cosmos3EdgeForCausalLM": inside.read_cosmos3_edge,
    "CohereCompassForCausalLM": inside.read_compass,
    "TransformersForCausalLM": wrapped.read_wrapped,
    "TransformersMoEForCausalLM": wrapped.read_wrapped,
    **dict.fromkeys(beside.THROUGH_TRANSFORMERS, wrapped.read_inside),
}

# The language model inside of a multi-modal one, by the model type of its config.
TEXT_BY_TYPE: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral3": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_vl": "Qwen2ForCausalLM",
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_omni_text": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_omni_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_asr_text": "Qwen3ForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3n_text": "Gemma3nForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phi": "PhiForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "internlm3": "InternLM3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "granite": "GraniteForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "glm_ocr_text": "Glm4ForCausalLM",
    "paddleocr_vl_text": "Ernie4_5ForCausalLM",
    "kimi_k25_text": "DeepseekV3ForCausalLM",
    "kimi_linear": "KimiLinearForCausalLM",
    "muse_glimmer_text": "MuseGlimmerForCausalLM",
    "aria_text": "AriaTextModel",
    "qwen4_exp_text": "Qwen4ExpForCausalLM",
    "hunyuan_vl_text": "HunYuanDenseV1ForCausalLM",
    "diffusion_gemma_text": "Gemma4ForCausalLM",
    "molmo2_text": "Molmo2TextModel",
    "cosmos3_edge_text": "Cosmos3EdgeForCausalLM",
    "gemma4_unified_text": "Gemma4ForCausalLM",
    "hyperclovax": "HyperCLOVAXForCausalLM",
    "cohere_compass_text": "CohereCompassForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "minicpm": "MiniCPMForCausalLM",
    "minimax_m3_text": "MiniMaxM3SparseForCausalLM",
    "minimax_m3_vl_text": "MiniMaxM3SparseForCausalLM",
    "step3_text": "Step3TextForCausalLM",
    "step3p5": "Step3p5ForCausalLM",
    "opt": "OPTForCausalLM",
}


def reader_of(name: str, text: Config) -> Reader:
    """The reader of an architecture; of a multi-modal one, that of its language model.

    Raises ConfigError for one whose layers are not known: a plan would be a guess.
    """
    if (found := pooled_name(name, is_known)) is not None:
        return _pooled(name, *found, text)
    text_model = _text_model(name, text)
    for candidate in (name, text_model):
        reader = _OWN.get(candidate) or (decoder(STYLES[candidate]) if candidate in STYLES else None)
        if reader is not None:
            return _both_ways(reader) if looks_both_ways(name, candidate, text) else reader
    if (found := pooled_name(text_model, is_known)) is not None:
        return _pooled(text_model, *found, text)
    raise _refusal(name)


def _refusal(name: str) -> ConfigError:
    what = f"{name}: how its layers are made is not known, so its memory cannot be counted"
    return (
        ConfigError(f"{what}: the terratorch package makes them", _ALONE) if name in _TERRATORCH else ConfigError(what)
    )


# What TerraTorch builds is attention free and no part of vLLM's own code (0.32 model_executor/models/terratorch.py; the
# second name is its older one).
_TERRATORCH = ("Terratorch", "PrithviGeoSpatialMAE")
_ALONE = "it keeps no KV cache; every GPU holds all of its weights, in the dtype that they are served in"


def is_known(name: str) -> bool:
    """Whether the layers behind the name are known, be it with towers beside them."""
    return name in _OWN or name in STYLES or name in beside.TOWERS


def language_model(name: str, text: Config) -> str | None:
    """The language model inside of a multi-modal one; None for one that is a language model itself."""
    return None if name in _OWN or name in STYLES else _text_model(name, text) or None


def _pooled(name: str, inside: str, pooled: Pooled, text: Config) -> Reader:
    base = pooled.inside if callable(pooled.inside) else reader_of(inside, text)
    found = pooled._replace(both_ways=pooled.both_ways or looks_both_ways(name, inside, text))
    within = language_model(inside, text) or inside
    return lambda config: replace(with_head(base(config), found, config), inside=within)


def _both_ways(reader: Reader) -> Reader:
    return lambda config: without_caches(reader(config))


def _text_model(name: str, text: Config) -> str:
    if (fixed := beside.language_model_of(name, text)) is not None:
        return fixed
    named = text.values.get("architectures") if text.outer else None
    if isinstance(named, list) and named and isinstance(named[0], str) and (named[0] in _OWN or named[0] in STYLES):
        return named[0]
    has_towers = text.outer or any(key in text.values for key in _TOWER_KEYS)
    return TEXT_BY_TYPE.get(text.model_type, "") if has_towers else ""


# Where a multi-modal config keeps its towers, also when the language model's numbers stand beside them (Qwen2-VL).
_TOWER_KEYS = ("vision_config", "audio_config", "visual", "vision_tower", "mm_vision_tower")


def towers_of(name: str, whole: Config) -> Towers:
    """What stands beside the language model: vision, audio, and what joins them to it."""
    built = (pooled_name(name, is_known) or (name,))[0]
    if built == "MuseGlimmerForCausalLM" and whole.section("text_config") is not None:
        built = "MuseGlimmerForConditionalGeneration"  # One class for both: its tower is built where it is configured.
    if built in beside.THROUGH_TRANSFORMERS:
        return beside.through_transformers(whole)
    if built in _OWN or built in STYLES or built in POOLED:
        return Towers()
    return beside.towers_of(built, whole)
