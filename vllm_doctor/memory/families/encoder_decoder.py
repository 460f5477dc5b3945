"""Encoder-decoders: Whisper, whose decoder keeps a cache of its own tokens and one of the encoder's states."""

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, full, linear, mlp, norm, norms, plain


def _attention(width: int, name: str) -> Tensors:
    """Whisper's attention: the keys have no bias, but vLLM allocates one with the fused projection (whisper.py)."""
    return (
        *linear(f"{name}.q_proj", width, width, Split.ROWS, bias=True),
        *linear(f"{name}.k_proj", width, width, Split.ROWS),
        plain(f"{name}.k_proj.bias", width, split=Split.ROWS, added=True),
        *linear(f"{name}.v_proj", width, width, Split.ROWS, bias=True),
        *linear(f"{name}.out_proj", width, width, Split.COLUMNS, bias=True),
    )


def audio_layer(config: Config) -> Tensors:
    """One layer of Whisper's encoder."""
    width = config.positive("d_model", "hidden_size")
    feed = config.positive("encoder_ffn_dim", "intermediate_size")
    return (
        *_attention(width, "encoder.self_attn"),
        *mlp(width, feed, gated=False, bias=True, prefix="encoder."),
        *norms(2, width, bias=True),
    )


def audio_encoder(config: Config) -> Tensors:
    """Whisper's encoder: two convolutions, positions, layers (whisper.py WhisperEncoder)."""
    width = config.positive("d_model", "hidden_size")
    layers = config.positive("encoder_layers", "num_hidden_layers", largest=LARGEST_LAYERS)
    mels = config.positive("num_mel_bins")
    return (
        plain("encoder.conv1", width, mels * 3),
        plain("encoder.conv1.bias", width),
        plain("encoder.conv2", width, width * 3),
        plain("encoder.conv2.bias", width),
        plain("encoder.embed_positions", config.positive("max_source_positions"), width),
        *norm("encoder.layer_norm", width, bias=True),
        *audio_layer(config) * layers,
    )


def read_whisper(config: Config) -> Architecture:
    """Whisper (whisper.py); the decoder's layers are the ones with a cache."""
    width = config.positive("d_model")
    layers = config.positive("decoder_layers", largest=LARGEST_LAYERS)
    heads, feed = config.positive("decoder_attention_heads"), config.positive("decoder_ffn_dim")
    size = width // heads
    vocabulary = config.positive("vocab_size")
    cross = Cache(kind=CacheKind.CROSS, kv_heads=heads, head_size=size, value_size=size)
    layer = Layer(
        tensors=(
            *_attention(width, "self_attn"),
            *_attention(width, "encoder_attn"),
            *mlp(width, feed, gated=False, bias=True),
            *norms(3, width, bias=True),
        ),
        caches=(full(heads, size), cross),
    )
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=width,
        vocabulary_size=vocabulary,
        layers=(0,) * layers,
        kinds=(layer,),
        first=(
            plain("model.decoder.embed_tokens", vocabulary, width),
            plain("model.decoder.embed_positions", config.positive("max_target_positions"), width),
        ),
        last=norm("model.decoder.layer_norm", width, bias=True),
        towers=audio_encoder(config),
        attention_heads=heads,
        kv_heads=heads,
        head_size=size,
        tied_embeddings=True,
        largest_intermediate=feed,
        is_encoder_decoder=True,
        is_multimodal=True,
        encoder_tokens=config.positive("max_source_positions"),
    )


def read_nemotron_parse(config: Config) -> Architecture:
    """Nemotron Parse: mBART's decoder without positions, over what RADIO sees (nemotron_parse.py)."""
    own = config.section("decoder") or config
    width, feed = own.positive("d_model"), own.positive("decoder_ffn_dim")
    heads = own.positive("decoder_attention_heads")
    size = width // heads
    vocabulary = own.positive("vocab_size")
    cross = Cache(kind=CacheKind.CROSS, kv_heads=heads, head_size=size, value_size=size)
    layer = Layer(
        tensors=(
            *attention(width, heads, heads, size, qkv_bias=True, out_bias=True) * 2,
            *mlp(width, feed, gated=False, bias=True),
            *norms(3, width, bias=True),
        ),
        caches=(full(heads, size), cross),
    )
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=width,
        vocabulary_size=vocabulary,
        layers=(0,) * own.positive("decoder_layers", largest=LARGEST_LAYERS),
        kinds=(layer,),
        first=(embedding(vocabulary, width), *norm("model.layernorm_embedding", width, bias=True)),
        last=norm("model.layer_norm", width, bias=True),
        attention_heads=heads,
        kv_heads=heads,
        head_size=size,
        tied_embeddings=True,
        largest_intermediate=feed,
        is_encoder_decoder=True,
        is_multimodal=True,
    )
