"""Cohere Transcribe: a conformer that listens, and a decoder that looks at what it makes (vLLM 0.32 cohere_asr.py)."""

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families.parts import Tensors, attention, full, mlp, norm, norms, plain

# More halvings than any length in frames has.
_LARGEST_FACTOR = 2**10


def read_cohere_asr(config: Config) -> Architecture:
    """The decoder's layers are those with caches; the encoder is whole on every rank, and so are the embeddings."""
    encoder = _section(config, "encoder")
    decoder = _section(_section(config, "transf_decoder"), "config_dict")
    head = _section(config, "head")
    width, feed = decoder.positive("hidden_size"), decoder.positive("inner_size")
    heads, vocabulary = decoder.positive("num_attention_heads"), head.positive("num_classes")
    size, positions = width // heads, decoder.positive("max_sequence_length")
    cross = Cache(kind=CacheKind.CROSS, kv_heads=heads, head_size=size, value_size=size)
    layer = Layer(
        tensors=(
            *attention(width, heads, heads, size, qkv_bias=True, out_bias=True) * 2,
            *mlp(width, feed, gated=False, bias=True),
            *norms(3, width, bias=True),
        ),
        caches=(full(heads, size), cross),
    )
    table = 2 * encoder.positive("pos_emb_max_len") - 1
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=width,
        vocabulary_size=vocabulary,
        layers=(0,) * decoder.positive("num_layers", largest=LARGEST_LAYERS),
        kinds=(layer,),
        first=(plain("model.embed_tokens", vocabulary, width), *norm("model.embed_norm", width, bias=True)),
        last=(
            *norm("model.norm", width, bias=True),
            plain("proj_out", vocabulary, head.positive("hidden_size"), Split.VOCABULARY),
            plain("proj_out.bias", vocabulary, split=Split.VOCABULARY),
        ),
        towers=(*_encoder(encoder), *_projection(encoder.positive("d_model"), width)),
        attention_heads=heads,
        kv_heads=heads,
        head_size=size,
        largest_intermediate=feed,
        is_encoder_decoder=True,
        is_multimodal=True,
        media=("audio",),
        rope_elements=table * encoder.positive("d_model") + positions * width,
    )


def _section(config: Config, key: str) -> Config:
    found = config.section(key)
    if found is None:
        raise ConfigError(f"{key} is missing, and the memory of {config.model_type or 'the model'} depends on it")
    return found


def _kept(name: str, rows: int, columns: int, *, bias: bool = True) -> Tensors:
    """A layer of the encoder: torch's own, so whole on every rank and never packed."""
    return (plain(name, rows, columns), *((plain(f"{name}.bias", rows),) if bias else ()))


def _projection(columns: int, rows: int) -> Tensors:
    return _kept("encoder_decoder_proj", rows, columns) if columns != rows else ()


def _encoder(config: Config) -> Tensors:
    layers = config.positive("n_layers", largest=LARGEST_LAYERS)
    width, out = config.positive("d_model"), config.get("feat_out")
    other = isinstance(out, int) and out > 0 and out != width
    last = _kept("encoder.out_proj", out, width) if other else ()
    return (*_subsampling(config, width), *_conformer(config, width) * layers, *last)


def _subsampling(config: Config, width: int) -> Tensors:
    """Convolutions that halve the frames, depthwise from the second on, and a projection."""
    asked = config.get("subsampling_conv_channels")
    channels = width if asked == -1 else config.positive("subsampling_conv_channels")
    halvings = config.positive("subsampling_factor", largest=_LARGEST_FACTOR).bit_length() - 1
    height = config.positive("feat_in")
    for _ in range(halvings):
        height = (height - 1) // 2 + 1
    pair = (*_kept("encoder.depthwise", channels, 9), *_kept("encoder.pointwise", channels, channels))
    return (
        *_kept("encoder.conv", channels, 9),
        *pair * (halvings - 1),
        *_kept("encoder.out", width, channels * height),
    )


def _conformer(config: Config, width: int) -> Tensors:
    """A layer: two MLPs, attention with relative positions, a convolution, norms."""
    bias, own = config.flag("use_bias", default=True), config.flag("untie_biases")
    feed = width * config.positive("ff_expansion_factor")
    feeding = (*_kept("encoder.linear1", feed, width, bias=bias), *_kept("encoder.linear2", width, feed, bias=bias))
    return (
        *feeding * 2,
        *_kept("encoder.attention", width, width, bias=bias) * 4,
        plain("encoder.linear_pos", width, width),
        *((plain("encoder.pos_bias", 2, width),) if own else ()),
        *_kept("encoder.pointwise1", 2 * width, width, bias=bias),
        *_kept("encoder.depthwise", width, config.positive("conv_kernel_size"), bias=bias),
        *_kept("encoder.pointwise2", width, width, bias=bias),
        *norms(6, width, bias=True),
    )
