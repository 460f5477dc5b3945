"""Encoders of sound, and the projectors behind them."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    Towers,
    cut,
    depth_of,
    joined,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    perceptron,
    rms_norm,
    text_width,
    times,
)
from vllm_doctor.memory.families.towers.vits import (
    conformer_convolutions,
    q_former,
    whisper,
    whisper_layer,
    whole_whisper,
)


def heard(tensors: Tensors) -> Towers:
    """The towers of a model that listens."""
    return Towers(tensors, True, media=("audio",))


def _width(audio: Config) -> int:
    return audio.positive("d_model", "hidden_size")


def qwen2_audio(whole: Config) -> Towers:
    """Qwen2-Audio: Whisper's encoder and one projection (qwen2_audio.py)."""
    audio = part(whole, "audio_config")
    return heard((*whole_whisper(audio), *kept(text_width(whole), _width(audio))))


def audio_flamingo(whole: Config) -> Towers:
    """Audio Flamingo 3: Whisper's encoder and two projections (audioflamingo3.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    bias = whole.flag("projector_bias", default=True)
    return heard((*whole_whisper(audio), *perceptron(_width(audio), hidden, hidden, bias=bias, split=False)))


def glm_asr(whole: Config) -> Towers:
    """GLM-ASR: convolutions, blocks without positions, two projections (glmasr.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    width, feed = audio.positive("hidden_size"), audio.positive("intermediate_size")
    tensors = (
        *conformer_convolutions(width, audio.positive("num_mel_bins")),
        *times(Block(width, feed).tensors(), depth_of(audio)),
        *layer_norm(width),
        *perceptron(feed, 2 * hidden, hidden),
    )
    return heard(tensors)


def granite_speech(whole: Config) -> Towers:
    """Granite Speech: conformer blocks, and a Q-Former over windows of their output (granite_speech.py)."""
    encoder, former = part(whole, "encoder_config"), part(whole, "projector_config")
    width, out = encoder.positive("hidden_dim"), encoder.positive("output_dim")
    feed = width * encoder.positive("feedforward_mult")
    inner = encoder.positive("num_heads") * encoder.positive("dim_head")
    wide = width * encoder.positive("conv_expansion_factor")
    feeding = (*layer_norm(width), *perceptron(width, feed, width))
    block = (
        *times(feeding, 2),
        *layer_norm(width),
        *kept(3 * inner, width, bias=False),
        *kept(width, inner),
        *numbers(2 * encoder.positive("max_pos_emb") + 1, encoder.positive("dim_head")),
        *layer_norm(width),
        *kept_numbers(2 * wide, width),
        *numbers(wide, encoder.positive("conv_kernel_size")),
        *layer_norm(wide),
        *kept_numbers(width, wide),
        *layer_norm(width),
    )
    queries = whole.positive("window_size") // whole.positive("downsample_rate")
    size = former.positive("hidden_size")
    tensors = (
        *kept(width, encoder.positive("input_dim")),
        *times(block, depth_of(encoder)),
        *cut(out, width),
        *joined(width, out),
        *numbers(queries, size),
        *q_former(former),
        *kept(text_width(whole), size),
    )
    return heard(tensors)


def ultravox(whole: Config) -> Towers:
    """Ultravox: Whisper's encoder, frames joined, a projector with norms or with blocks of its own (ultravox.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    width = _width(audio)
    columns = width * whole.positive("stack_factor", default=8)
    blocks = whole.count("num_projector_layers", default=0, largest=2048)
    if blocks:
        layer = tuple(t for t in whisper_layer(audio))
        joins = (
            *rms_norm(columns),
            *kept(width, columns),
            *numbers(audio.positive("max_source_positions"), width),
            *times(layer, blocks),
            *rms_norm(width),
            *kept(hidden, width),
        )
        return heard((*whisper(audio), *joins))
    inner = whole.positive("hidden_size", default=4096)
    middle = inner // 2 if (whole.text("projector_act") or "swiglu") == "swiglu" else inner
    normed = middle if whole.flag("projector_ln_mid") else hidden
    joins = (
        *rms_norm(columns),
        *kept(inner, columns, bias=False),
        *kept(hidden, middle, bias=False),
        *rms_norm(normed),
    )
    return heard((*whisper(audio), *joins))


def moss_diarize(whole: Config) -> Towers:
    """MOSS-Transcribe-Diarize: Whisper's encoder, frames joined, an adaptor (moss_transcribe_diarize.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    columns = whole.optional("adaptor_input_dim") or _width(audio) * whole.positive("audio_merge_size", default=4)
    return heard((*whisper(audio), *perceptron(columns, hidden, hidden, split=False), *layer_norm(hidden)))


# The encoder inside of Kimi-Audio, and the frames that its adaptor joins (kimi_audio.py).
_KIMI_WHISPER = "whisper"


def kimi_audio(whole: Config) -> Towers:
    """Kimi-Audio: Whisper's encoder by the defaults of its class, an adaptor (kimi_audio.py)."""
    hidden = whole.positive("hidden_size")
    columns = whole.positive("kimia_adaptor_input_dim", default=5120)
    audio = whole.section("audio_config", "whisper_config") or Config({}, _KIMI_WHISPER)
    return heard((*whisper(audio), *perceptron(columns, hidden, hidden, split=False), *layer_norm(hidden)))


def moss_audio(whole: Config) -> Towers:
    """MOSS-Audio: convolutions in two dimensions, Whisper's blocks, gated adapters (moss_audio.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    width, channels = _width(audio), audio.positive("downsample_hidden_size", default=480)
    taken = audio.get("deepstack_encoder_layer_indexes")
    adapters = 1 + (len(taken) if isinstance(taken, list) else 3)
    inner = whole.positive("adapter_hidden_size", default=8192)
    adapter = (*cut(2 * inner, width, bias=False), *joined(hidden, inner, bias=False))
    tensors = (
        *kept_numbers(channels, 9),
        *kept_numbers(channels, channels * 9),
        *kept_numbers(channels, channels * 9),
        *kept(width, channels),
        *(t for t in times(whisper_layer(audio), depth_of(audio)) if not t.added),
        *layer_norm(width),
        *times(adapter, adapters),
    )
    return heard(tensors)
