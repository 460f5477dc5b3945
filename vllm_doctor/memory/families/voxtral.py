"""Voxtral Realtime: Mistral's layers, and an encoder that looks back only and so keeps a cache of its own.

SOURCE: vLLM 0.32 voxtral_realtime.py, whisper_causal.py, transformers_utils/configs/mistral.py; the config as Mistral's
own format is remapped there, or as Transformers has it.
"""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families.decoder import read_decoder
from vllm_doctor.memory.families.parts import Tensors, linear, norm, norms, plain
from vllm_doctor.memory.families.styles import STYLES

# Transformers' own layers have so many (5.19 voxtral_realtime/modeling_voxtral_realtime.py); Mistral's format says it.
_CONDITIONED = 32
_FRAMES = 4


def read_realtime(config: Config) -> Architecture:
    """Every text token has so many frames, whose states share a block with it."""
    whole = Config(config.outer)
    audio = whole.section("audio_config")
    if audio is None:
        raise ConfigError("audio_config is missing, and the memory of its encoder depends on it")
    base = read_decoder(config, STYLES["MistralForCausalLM"])
    frames = audio.optional("downsample_factor") or whole.positive("downsample_factor", default=_FRAMES)
    pooled = audio.positive("block_pool_size", default=frames)
    width, size = audio.positive("d_model", "hidden_size"), audio.positive("encoder_head_dim", "head_dim")
    conditioned = _conditioned(config, base.hidden_size)
    kinds = tuple(Layer(tensors=(*k.tensors, *conditioned), caches=k.caches) for k in base.kinds)
    encoder = Layer(tensors=_encoder_layer(audio, width, size), caches=(_cache(audio, size, pooled),))
    depth = audio.positive("encoder_layers", "num_hidden_layers", largest=LARGEST_LAYERS)
    positions = config.positive("max_position_embeddings")
    return replace(
        base,
        kinds=(*kinds, encoder),
        side_layers=(len(kinds),) * depth,
        towers=(*_convolutions(audio, width), *_adapter(width * frames, base.hidden_size)),
        is_multimodal=True,
        media=("audio",),
        rope_elements=size * pooled * positions,
    )


def _conditioned(config: Config, hidden: int) -> Tensors:
    """The two layers that make a scale of the delay, where the decoder has them."""
    if not config.flag("ada_rms_norm_t_cond", default=config.model_type == "voxtral_realtime_text"):
        return ()
    inner = config.positive("ada_rms_norm_t_cond_dim", default=_CONDITIONED)
    up = linear("ada_rms_norm_t_cond.0", inner, hidden, Split.ROWS)
    return (*up, *linear("ada_rms_norm_t_cond.2", hidden, inner, Split.COLUMNS))


def _cache(audio: Config, size: int, pooled: int) -> Cache:
    """Sliding: the window in text tokens, and one more."""
    heads = audio.positive("encoder_attention_heads", "num_attention_heads")
    window = -(-audio.positive("sliding_window") // pooled) + 1
    return Cache(
        kind=CacheKind.SLIDING, kv_heads=heads, head_size=size, value_size=size, window=window, states_per_token=pooled
    )


def _encoder_layer(audio: Config, width: int, size: int) -> Tensors:
    inner = audio.positive("encoder_attention_heads", "num_attention_heads") * size
    feed = audio.positive("encoder_ffn_dim", "intermediate_size")
    return (
        *linear("encoder.qkv_proj", 3 * inner, width, Split.ROWS, bias=True),
        *linear("encoder.out_proj", width, inner, Split.COLUMNS, bias=True),
        *linear("encoder.gate_up_proj", 2 * feed, width, Split.ROWS),
        *linear("encoder.down_proj", width, feed, Split.COLUMNS, bias=True),
        *norms(2, width),
    )


def _convolutions(audio: Config, width: int) -> Tensors:
    """Two convolutions over three frames, and the norm behind the layers."""
    mels = audio.positive("num_mel_bins")
    return (
        plain("encoder.conv1", width, mels * 3),
        plain("encoder.conv2", width, width * 3),
        plain("encoder.conv", 2, width),
        *norm("encoder.layer_norm", width),
    )


def _adapter(columns: int, hidden: int) -> Tensors:
    return (
        *linear("adapter.w_in", hidden, columns, Split.WHOLE),
        *linear("adapter.w_out", hidden, hidden, Split.WHOLE),
    )
