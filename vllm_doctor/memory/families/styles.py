"""One table: how the decoder of each architecture differs from Llama's."""

from collections.abc import Mapping
from typing import NamedTuple

from vllm_doctor.memory.families import experts as moe

Switch = bool | str
"""On, off, or the name of the config's key that says."""


class Style(NamedTuple):
    """How an architecture's layers differ from Llama's (vLLM 0.32 model_executor/models, one file per name).

    `qk_norm`: `head` over one head's size, `full` over all heads at once, `heads` with a weight for every head.
    `sides`: how many norms of the hidden size a layer has. `positions`: the key of learned positions.
    """

    qkv_bias: Switch = False
    out_bias: Switch = False
    mlp_bias: Switch = False
    gated: bool = True
    sides: int = 2
    norm_bias: Switch = False
    plain_norms: bool = False
    qk_norm: str | None = None
    positions: str | None = None
    tied: bool | None = None
    head_bias: Switch = False
    experts: moe.Finder | None = None
    per_layer_window: bool = False
    widen: int = 0
    sinks: bool = False
    gated_attention: bool = False
    scalars: int = 0
    embedding_norm: bool = False


_LLAMA = Style(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", per_layer_window=True)
_GPT = Style(qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True)

STYLES: Mapping[str, Style] = {
    "LlamaForCausalLM": _LLAMA,
    "LLaMAForCausalLM": _LLAMA,
    "AquilaForCausalLM": _LLAMA,
    "AquilaModel": _LLAMA,
    "InternLMForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "InternLM2ForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "InternLM3ForCausalLM": _LLAMA._replace(qkv_bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "MistralForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "Ministral3ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "MistralModel": _LLAMA,
    "LlamaModel": _LLAMA,
    "TeleChat3ForCausalLM": _LLAMA,
    "IQuestCoderForCausalLM": _LLAMA,
    "CwmForCausalLM": _LLAMA,
    "XverseForCausalLM": _LLAMA._replace(tied=False),
    "YiForCausalLM": _LLAMA,
    "SolarForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": _LLAMA,
    "NanbeigeForCausalLM": _LLAMA,
    "BitnetForCausalLM": _LLAMA,
    "HyperCLOVAXForCausalLM": _LLAMA._replace(sides=4),
    "SeedOssForCausalLM": _LLAMA._replace(qkv_bias="attention_bias", out_bias="attention_out_bias"),
    "ArceeForCausalLM": _LLAMA._replace(gated=False),
    "ApertusForCausalLM": _LLAMA._replace(gated=False, qk_norm="head", scalars=2),
    "HeliumForCausalLM": _LLAMA,
    "Ernie4_5ForCausalLM": _LLAMA._replace(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "GlmForCausalLM": _LLAMA._replace(out_bias=False),
    "Glm4ForCausalLM": _LLAMA._replace(out_bias=False, sides=4),
    "GemmaForCausalLM": _LLAMA._replace(tied=True),
    "Gemma2ForCausalLM": _LLAMA._replace(sides=4, tied=True),
    "VaultGemmaForCausalLM": _LLAMA._replace(tied=True),
    "Gemma3ForCausalLM": _LLAMA._replace(sides=4, qk_norm="head", tied=True),
    "Gemma3TextModel": _LLAMA._replace(sides=4, qk_norm="head", tied=True),
    "Rnj1ForCausalLM": _LLAMA._replace(sides=4, qk_norm="head"),
    "Qwen2ForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=False, mlp_bias=False, per_layer_window=False),
    "Qwen2Model": _LLAMA._replace(qkv_bias=True, out_bias=False, mlp_bias=False, per_layer_window=False),
    "MiMoForCausalLM": _LLAMA._replace(qkv_bias="attention_bias", out_bias=False, per_layer_window=False),
    "Qwen3ForCausalLM": _LLAMA._replace(qk_norm="head", out_bias="attention_bias"),
    "Exaone4ForCausalLM": _LLAMA._replace(qk_norm="head", qkv_bias=False, out_bias=False, mlp_bias=False),
    "ExaoneForCausalLM": _LLAMA._replace(tied=None),
    "OlmoForCausalLM": _LLAMA._replace(plain_norms=True),
    "Olmo2ForCausalLM": _LLAMA._replace(qk_norm="full"),
    "Olmo3ForCausalLM": _LLAMA._replace(qk_norm="full"),
    "GraniteForCausalLM": _LLAMA,
    "GraniteSWAForCausalLM": _LLAMA._replace(sinks=True),
    "CohereForCausalLM": _LLAMA._replace(sides=1, qk_norm="heads?", tied=True),
    "Cohere2ForCausalLM": _LLAMA._replace(sides=1, qk_norm="heads?", tied=True, widen=1),
    "Phi3ForCausalLM": _LLAMA._replace(per_layer_window=False),
    "PhiForCausalLM": _GPT._replace(sides=1, head_bias=True, tied=False),
    "StableLmForCausalLM": _LLAMA._replace(qkv_bias="use_qkv_bias", out_bias=False, norm_bias=True),
    "StableLMEpochForCausalLM": _LLAMA._replace(qkv_bias="use_qkv_bias", out_bias=False, norm_bias=True),
    "Starcoder2ForCausalLM": _GPT._replace(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "NemotronForCausalLM": _LLAMA._replace(gated=False, norm_bias=True),
    "BaiChuanForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, mlp_bias=False, tied=False),
    "BaichuanForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, mlp_bias=False, tied=False),
    "OrionForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, norm_bias=True),
    "MiniCPMForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "TeleFLMForCausalLM": _LLAMA,
    "TeleChat2ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=True, mlp_bias=True),
    "Step1ForCausalLM": _LLAMA,
    "PanguEmbeddedForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "ChatGLMModel": _LLAMA._replace(qkv_bias=True, out_bias="add_bias_linear", mlp_bias="add_bias_linear", tied=False),
    "ChatGLMForConditionalGeneration": _LLAMA._replace(
        qkv_bias=True, out_bias="add_bias_linear", mlp_bias="add_bias_linear", tied=False
    ),
    "HunYuanDenseV1ForCausalLM": _LLAMA._replace(qk_norm="head"),
    "JAISLMHeadModel": _GPT._replace(gated=True, positions=None, tied=True),
    "Jais2ForCausalLM": _GPT._replace(positions=None),
    "GPT2LMHeadModel": _GPT._replace(positions="n_positions", tied=True),
    "GPTBigCodeForCausalLM": _GPT._replace(positions="n_positions"),
    "GPTJForCausalLM": _GPT._replace(qkv_bias=False, out_bias=False, sides=1, head_bias=True, tied=False),
    "CodeGenForCausalLM": _GPT._replace(qkv_bias=False, out_bias=False, sides=1, head_bias=True, tied=False),
    "GPTNeoXForCausalLM": _GPT,
    "BloomForCausalLM": _GPT._replace(tied=True, embedding_norm=True),
    "FalconForCausalLM": _GPT._replace(qkv_bias="bias", out_bias="bias", mlp_bias="bias", sides=1),
    "RWForCausalLM": _GPT._replace(qkv_bias="bias", out_bias="bias", mlp_bias="bias", sides=1),
    "MPTForCausalLM": Style(gated=False, tied=True),
    "MptForCausalLM": Style(gated=False, tied=True),
    "PersimmonForCausalLM": _GPT._replace(qk_norm="head", tied=False),
    "MixtralForCausalLM": _LLAMA._replace(
        qkv_bias=False, out_bias=False, experts=moe.every_layer, per_layer_window=False
    ),
    "PhiMoEForCausalLM": _LLAMA._replace(
        experts=moe.phimoe, norm_bias=True, head_bias="lm_head_bias", per_layer_window=False
    ),
    "GptOssForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=True, experts=moe.gpt_oss, sinks=True),
    "Qwen2MoeForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=False, experts=moe.qwen, per_layer_window=False),
    "Qwen3MoeForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.qwen, out_bias=False, per_layer_window=False),
    "OlmoeForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="full", experts=moe.every_layer),
    "FlexOlmoForCausalLM": _LLAMA._replace(qk_norm="full", experts=moe.every_layer),
    "GraniteMoeForCausalLM": _LLAMA._replace(experts=moe.every_layer),
    "GraniteMoeSharedForCausalLM": _LLAMA._replace(experts=moe.granite),
    "GraniteMoeSWAForCausalLM": _LLAMA._replace(experts=moe.granite, sinks=True),
    "DeepseekForCausalLM": _LLAMA._replace(experts=moe.deepseek, out_bias=False),
    "Glm4MoeForCausalLM": _LLAMA._replace(qk_norm="head?", out_bias=False, experts=moe.glm),
    "Dots1ForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.corrected),
    "Ernie4_5_MoeForCausalLM": _LLAMA._replace(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.ernie
    ),
    "BailingMoeForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.sarvam, qk_norm="head?"
    ),
    "BailingMoeV2ForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.sarvam, qk_norm="head?"
    ),
    "Param2MoEForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias=False, experts=moe.param2, qk_norm="head?"
    ),
    "MuseGlimmerForCausalLM": _LLAMA._replace(sides=4, gated_attention=True, tied=False),
    "MellumForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.deepseek, out_bias="attention_bias"),
    "SarvamMoEForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.sarvam, qk_norm="head?"
    ),
    "Llama4ForCausalLM": _LLAMA._replace(experts=moe.llama4, qk_norm="none"),
    "MiniMaxM2ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="full", experts=moe.minimax),
    "Cohere2MoeForCausalLM": _LLAMA._replace(sides=1, tied=True, widen=1, experts=moe.every_layer),
    "ExaoneMoeForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="head", experts=moe.exaone),
    "ExaoneMoEForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="head", experts=moe.exaone),
    "HunYuanMoEV1ForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.hunyuan),
    "AfmoeForCausalLM": _LLAMA._replace(sides=4, qk_norm="head", experts=moe.corrected, gated_attention=True),
}
