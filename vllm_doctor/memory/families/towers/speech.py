"""Encoders of speech that are not Whisper's as it is: Voxtral's, FunAudioChat's, Qwen3's aligner, Parakeet."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.audio import heard
from vllm_doctor.memory.families.towers.blocks import (
    Block,
    MissingPart,
    Towers,
    depth_of,
    fp32,
    kept,
    kept_numbers,
    layer_norm,
    numbers,
    part,
    perceptron,
    rms_norm,
    text_width,
    times,
    whole_on_ranks,
)
from vllm_doctor.memory.families.towers.qwen import audio_transformer, thinker_of
from vllm_doctor.memory.families.towers.vits import conformer_convolutions, whisper, whisper_layer

# Frames that Voxtral joins: mistral-common's downsample_factor, which a config in Transformers' form leaves out.
_VOXTRAL_FRAMES = 4
# Fun-ASR's frames, the states that its adapter takes, and the adapter's own two widths (funasr.py FunASREncoder).
_FUN_ASR_INPUTS, _FUN_ASR_STATES = 560, 512
_FUN_ASR_ADAPTER = (2048, 1024)
# Channels of FireRedASR's first convolutions (conformer_encoder.py Conv2dSubsampling).
_FIRE_RED_CHANNELS = 32


def voxtral(whole: Config) -> Towers:
    """Voxtral: Whisper's encoder, its positions in fp32, frames joined, two projections (voxtral.py)."""
    audio, hidden = part(whole, "audio_config"), text_width(whole)
    width = audio.positive("d_model", "hidden_size")
    encoder = whisper(audio)
    positions = fp32(tuple(t for t in encoder if t.name == "encoder.embed_positions"))
    others = tuple(t for t in encoder if t.name != "encoder.embed_positions")
    columns = width * audio.positive("downsample_factor", default=_VOXTRAL_FRAMES)
    return heard((*others, *positions, *perceptron(columns, hidden, hidden, bias=False, split=False)))


def fun_audio_chat(whole: Config) -> Towers:
    """Fun-Audio-Chat: Whisper's blocks without stored positions, and a table of speech tokens (funaudiochat.py)."""
    audio = part(whole, "audio_config")
    width, out = audio.positive("d_model", default=1280), audio.positive("output_dim", default=3584)
    layer = whisper_layer(audio)
    attending = tuple(t for t in layer if "self_attn" in t.name)
    feeding = tuple(t for t in layer if "self_attn" not in t.name)
    tensors = (
        *conformer_convolutions(width, audio.positive("num_mel_bins", default=128)),
        *times((*attending, *whole_on_ranks(feeding)), depth_of(audio)),
        *layer_norm(width),
        *kept(out, width),
        *numbers(2, out),
        *numbers(audio.positive("codebook_size"), out),
        *kept(2 * out, out, bias=False),
    )
    return heard(tensors)


def aligner(whole: Config) -> Towers:
    """Qwen3-ASR's aligner: the encoder, and a head over so many classes (qwen3_asr_forced_aligner.py)."""
    thinker = thinker_of(whole)
    classes = thinker.optional("classify_num") or whole.positive("classify_num")
    return heard((*audio_transformer(part(thinker, "audio_config")), *kept(classes, text_width(thinker), bias=False)))


def parakeet(sound: Config, hidden: int) -> Tensors:
    """NVIDIA's FastConformer as Transformers has it, without biases, and a projection with a norm (parakeet.py)."""
    width, feed = sound.positive("hidden_size"), sound.positive("intermediate_size")
    channels, kernel = sound.positive("subsampling_conv_channels"), sound.positive("conv_kernel_size")
    factor, mels = sound.positive("subsampling_factor", default=8), sound.positive("num_mel_bins", default=128)
    heads = sound.positive("num_attention_heads")
    conv_bias = sound.flag("convolution_bias", default=True)
    halvings = max(1, factor.bit_length() - 1)
    feeding = perceptron(width, feed, width, bias=False, split=False)
    block = (
        *times(feeding, 2),
        *times(kept(width, width, bias=False), 5),
        *numbers(2, width // heads * heads),
        *kept_numbers(2 * width, width, bias=conv_bias),
        *kept_numbers(width, kernel, bias=conv_bias),
        *kept_numbers(width, width, bias=conv_bias),
        *times(layer_norm(width), 6),
    )
    stem = (
        *kept_numbers(channels, 9),
        *times((*kept_numbers(channels, 9), *kept_numbers(channels, channels)), halvings - 1),
        *kept(width, channels * max(1, mels // factor)),
    )
    inner = sound.positive("projection_hidden_size")
    joins = (
        *rms_norm(width),
        *perceptron(width, inner, hidden, bias=sound.flag("projection_bias"), split=False),
    )
    return (*stem, *times(block, depth_of(sound)), *joins)


def dasheng(whole: Config) -> Towers:
    """MiDashengLM: patches of a spectrogram, a vision transformer's blocks, frames joined (midashenglm.py)."""
    audio, hidden = part(whole, "audio_encoder_config"), text_width(whole)
    width, mels = audio.positive("embed_dim"), audio.positive("n_mels")
    high, wide = _sides(audio, "patch_size")
    rows, columns = _sides(audio, "patch_stride")
    block = Block(
        width,
        int(audio.number("mlp_ratio", 4.0) * width),
        qkv_bias=audio.flag("qkv_bias", default=True),
        scales=2 if audio.number("init_values", 0.0) else 0,
    )
    tensors = (
        *numbers(2, mels),
        *kept_numbers(width, audio.positive("input_channels", default=1) * high * wide),
        *numbers(mels // rows + audio.positive("target_length") // columns, width),
        *times(block.tensors(), depth_of(audio)),
        *layer_norm(width),
        *perceptron(width * whole.positive("subsample_factor", default=5), hidden, hidden),
    )
    return heard(tensors)


def fire_red(whole: Config) -> Towers:
    """FireRedASR 2: a Conformer and an adapter, whole on every rank (conformer_encoder.py, fireredasr2.py)."""
    audio, hidden = part(whole, "audio_encoder_conf"), text_width(whole)
    width, mels = audio.positive("d_model"), audio.positive("idim")
    kernel = audio.positive("kernel_size", default=33)
    rows = ((mels - 1) // 2 - 1) // 2
    if rows < 1:
        raise MissingPart("idim leaves nothing of a spectrogram")
    feeding = (*layer_norm(width), *perceptron(width, 4 * width, width, split=False))
    block = (
        *times(feeding, 2),
        *times(layer_norm(width), 3),
        *times(kept(width, width, bias=False), 5),
        *numbers(2, width),
        *layer_norm(width),
        *kept_numbers(4 * width, width, bias=False),
        *kept_numbers(2 * width, kernel, bias=False),
        *layer_norm(2 * width),
        *kept_numbers(width, 2 * width, bias=False),
        *layer_norm(width),
    )
    tensors = (
        *kept_numbers(_FIRE_RED_CHANNELS, 9),
        *kept_numbers(_FIRE_RED_CHANNELS, _FIRE_RED_CHANNELS * 9),
        *kept(width, _FIRE_RED_CHANNELS * rows),
        *times(block, audio.positive("n_layers_enc", largest=LARGEST_LAYERS)),
        *perceptron(width * whole.positive("encoder_downsample_rate"), hidden, hidden, split=False),
    )
    return heard(tuple(replace(t, linear=False) for t in tensors))


def fun_asr(whole: Config) -> Towers:
    """Fun-ASR: SenseVoice's encoder, whole but for its MLPs, and an adapter of fixed sizes (funasr.py)."""
    audio = part(whole, "audio_encoder_conf")
    width = audio.positive("output_size", default=256)
    feed, kernel = audio.positive("linear_units", default=2048), audio.positive("kernel_size", default=11)
    later = audio.positive("num_blocks", default=6, largest=LARGEST_LAYERS) - 1
    later += audio.count("tp_blocks", default=0, largest=LARGEST_LAYERS)
    inner, adapted = _FUN_ASR_ADAPTER

    def block(inputs: int) -> Tensors:
        return (
            *kept(width, width),
            *kept(3 * width, inputs),
            *kept_numbers(width, kernel, bias=False),
            *perceptron(width, feed, width),
            *layer_norm(inputs),
            *layer_norm(width),
        )

    tensors = (
        *block(_FUN_ASR_INPUTS),
        *times(block(width), later),
        *times(layer_norm(width), 2),
        *perceptron(_FUN_ASR_STATES, inner, adapted),
        *times(Block(adapted, adapted // 4).tensors(), 2),
    )
    return heard(tuple(replace(t, linear=False) for t in tensors))


def _sides(config: Config, key: str) -> tuple[int, int]:
    """Height and width, one number where both are the same."""
    if not isinstance(config.get(key), list):
        return (config.positive(key),) * 2
    found = config.counts(key)
    if len(found) != 2 or not all(found):
        raise MissingPart(f"{key} is no pair of sides")
    return found[0], found[1]


def vibe_voice(whole: Config) -> Towers:
    """VibeVoice ASR: two encoders of convolutions, whole on every rank, and a projector behind each."""
    hidden = text_width(whole)
    tensors: Tensors = ()
    for name in ("acoustic_tokenizer_encoder_config", "semantic_tokenizer_encoder_config"):
        config = part(whole, name)
        joins = (*kept(hidden, config.positive("hidden_size")), *rms_norm(hidden), *kept(hidden, hidden))
        tensors = (*tensors, *_convolved(config), *joins)
    return heard(tensors)


def _convolved(config: Config) -> Tensors:
    """Stages of depthwise convolutions with MLPs, each stage twice as wide (Transformers, modeling_vibevoice)."""
    width, kernel = config.positive("num_filters"), config.positive("kernel_size")
    depths, ratios = config.counts("depths"), config.counts("downsampling_ratios")
    if not depths or len(depths) != len(ratios) + 1 or len(depths) > 64:
        raise MissingPart("depths and downsampling_ratios are no stages")
    tensors: Tensors = kept_numbers(width, config.positive("channels") * kernel)
    for index, depth in enumerate(depths):
        if index:
            tensors = (*tensors, *kept_numbers(2 * width, width * 2 * ratios[index - 1]))
            width *= 2
        wide = config.positive("ffn_expansion", default=4) * width
        block = (*numbers(4, width), *perceptron(width, wide, width, split=False), *kept_numbers(width, kernel))
        tensors = (*tensors, *times(block, depth))
    return (*tensors, *kept_numbers(config.positive("hidden_size"), width * kernel))
