"""Emu3's tower: a VQ-VAE whose encoder makes tokens of images, and whose decoder is built as well (Transformers')."""

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Split
from vllm_doctor.memory.families.parts import Tensors, linear
from vllm_doctor.memory.families.towers.blocks import Towers, layer_norm, numbers, part
from vllm_doctor.memory.families.towers.through import divided, lasting

# More levels and blocks than any VQ-VAE has.
_LARGEST = 64


class _Shape:
    """The numbers of the VQ-VAE (Transformers 5.19 emu3/configuration_emu3.py)."""

    def __init__(self, config: Config) -> None:
        self.base = config.positive("base_channels", default=256)
        multipliers = config.counts("channel_multiplier") or (1, 2, 2, 4)
        self.blocks = config.positive("num_res_blocks", default=2, largest=_LARGEST)
        if len(multipliers) > _LARGEST or 0 in multipliers:
            raise ConfigError("channel_multiplier is no list of a VQ-VAE's levels")
        self.levels = tuple(self.base * m for m in multipliers)
        self.attending = config.counts("attn_resolutions") if config.has("attn_resolutions") else (3,)
        self.latent = config.positive("latent_channels", default=4)
        self.embedded = config.positive("embed_dim", default=4)
        self.width = config.positive("hidden_size", default=1024)
        self.heads = config.positive("num_attention_heads", default=1)
        self.halvings = config.positive("temporal_downsample_factor", default=4).bit_length() - 1
        self.code = self.latent * (2 if config.flag("double_latent") else 1)


def emu3(whole: Config) -> Towers:
    """Emu3: convolutions are whole on every rank, attention is dealt out by its heads; no flag leaves it out."""
    config = part(whole, "vq_config")
    shape = _Shape(config)
    tensors = (
        *_encoder(shape, config.positive("in_channels", default=3)),
        *_decoder(shape, config.positive("out_channels", default=3)),
        *numbers(config.positive("codebook_size", default=32768), shape.embedded),
        *_convolution(shape.latent, shape.embedded, 3),
        *_convolution(shape.embedded, shape.latent, 3),
    )
    return Towers(lasting(divided(tensors, shape.heads)), True, shape.width, len(shape.levels), media=("image",))


def _convolution(columns: int, rows: int, points: int) -> Tensors:
    """A convolution over so many points, with its bias."""
    return (*numbers(rows, columns * points), *numbers(rows))


def _norm(size: int, guide: int) -> Tensors:
    """A norm; the decoder's is scaled and shifted by what two convolutions make of the code (`guide`: its channels)."""
    return (*layer_norm(size), *(_convolution(guide, size, 1) * 2 if guide else ()))


def _residual(columns: int, rows: int, guide: int = 0) -> Tensors:
    """Two convolutions with norms, and a short cut where the channels change."""
    short = _convolution(columns, rows, 1) if columns != rows else ()
    convolutions = (*_convolution(columns, rows, 9), *_convolution(rows, rows, 9))
    return (*_norm(columns, guide), *_norm(rows, guide), *convolutions, *short)


def _attention(shape: _Shape, channels: int, guide: int = 0) -> Tensors:
    width = shape.width
    return (
        *linear("vision.attn.qkv", 3 * width, width, Split.ROWS, bias=True),
        *linear("vision.attn.proj", width, width, Split.COLUMNS, bias=True),
        *_norm(channels, guide),
    )


def _level(shape: _Shape, index: int, columns: int, blocks: int, guide: int = 0) -> Tensors:
    """The blocks of one level, with attention where the level has it."""
    rows = shape.levels[index]
    attention = _attention(shape, rows, guide) * blocks if index in shape.attending else ()
    return (*_residual(columns, rows, guide), *_residual(rows, rows, guide) * (blocks - 1), *attention)


def _middle(shape: _Shape, guide: int = 0) -> Tensors:
    last = shape.levels[-1]
    return (*_residual(last, last, guide) * 2, *_attention(shape, last, guide))


def _frames(channels: int, shape: _Shape, points: int) -> Tensors:
    """Convolutions over time: one per halving, and residual blocks."""
    residual = (*layer_norm(channels) * 2, *_convolution(channels, channels, 27) * 2)
    return (*_convolution(channels, channels, points) * shape.halvings, *residual * shape.blocks)


def _encoder(shape: _Shape, channels: int) -> Tensors:
    levels, last = shape.levels, shape.levels[-1]
    entries = (shape.base, *levels[:-1])
    downs = tuple(t for i, columns in enumerate(entries) for t in _level(shape, i, columns, shape.blocks))
    smaller = tuple(t for size in levels[:-1] for t in _convolution(size, size, 9))
    ends = (*_convolution(channels, shape.base, 9), *layer_norm(last), *_convolution(last, shape.code, 9))
    return (*ends, *downs, *smaller, *_middle(shape), *_frames(shape.code, shape, 36))


def _decoder(shape: _Shape, channels: int) -> Tensors:
    levels, guide = shape.levels, shape.embedded
    entries = (*levels[1:], levels[-1])
    ups = tuple(t for i, columns in enumerate(entries) for t in _level(shape, i, columns, shape.blocks + 1, guide))
    larger = tuple(t for size in levels[1:] for t in _convolution(size, size, 9))
    start = _convolution(shape.latent, levels[-1], 9)
    ends = (*start, *_norm(levels[0], guide), *_convolution(levels[0], channels, 9))
    return (*ends, *ups, *larger, *_middle(shape, guide), *_frames(shape.latent, shape, 27))
