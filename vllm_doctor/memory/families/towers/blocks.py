"""The parts that towers are made of: blocks of a transformer, patches, projectors, with vLLM's way of dividing each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Split, Tensor
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norm, norms, plain

# What the towers of a model for everything take.
EVERY_MEDIUM = ("image", "video", "audio")


class Towers(NamedTuple):
    """The tensors beside the language model, and the media that they take.

    `doubts` says what of them is not counted exactly.
    """

    tensors: Tensors = ()
    multimodal: bool = False
    hidden_size: int = 0
    layers: int = 0
    doubts: tuple[str, ...] = ()
    media: tuple[str, ...] = ("image", "video")

    def changes(self, base: Architecture) -> Mapping[str, Any]:
        """The fields of the architecture that the towers fill."""
        if not self.multimodal:
            return {}
        towers: tuple[Tensor, ...] = (*base.towers, *self.tensors)
        return {
            "towers": towers,
            "is_multimodal": True,
            "vision_hidden_size": self.hidden_size,
            "vision_layers": self.layers,
            "media": self.media,
            "exact": base.exact and not self.doubts,
            "approximations": (*base.approximations, *self.doubts),
        }


class MissingPart(ConfigError):
    """A config without the section or the numbers that its tower is made of."""


def part(config: Config, *keys: str) -> Config:
    """A nested config; raises MissingPart where there is none."""
    found = config.section(*keys)
    if found is None:
        raise MissingPart(f"{keys[0]} is missing")
    return found


def text_of(whole: Config) -> Config:
    """The numbers of the language model: nested, or at the top."""
    return whole.section("text_config", "llm_config", "language_config") or whole


def text_width(whole: Config) -> int:
    """The hidden size of the language model, which projectors end in."""
    return text_of(whole).positive("hidden_size")


def depth_of(vision: Config) -> int:
    """Blocks of a tower."""
    return vision.positive("num_hidden_layers", "depth", "encoder_layers", "num_layers", largest=LARGEST_LAYERS)


def times(tensors: Tensors, count: int) -> Tensors:
    """The tensors so many times."""
    return tuple(replace(t, copies=t.copies * count) for t in tensors) if count else ()


def whole_on_ranks(tensors: Tensors) -> Tensors:
    """Transformers' own modules: no rank divides them, and nothing of vLLM is beside them."""
    return tuple(replace(t, split=Split.WHOLE) for t in tensors if not t.added)


def cut(rows: int, columns: int, *, bias: bool = True) -> Tensors:
    """A column-parallel layer of `rows` outputs."""
    return linear("vision.linear", rows, columns, Split.ROWS, bias=bias)


def joined(rows: int, columns: int, *, bias: bool = True) -> Tensors:
    """A row-parallel layer, which joins what the ranks have."""
    return linear("vision.linear", rows, columns, Split.COLUMNS, bias=bias)


def kept(rows: int, columns: int, *, bias: bool = True) -> Tensors:
    """A layer that is whole on every rank."""
    return linear("vision.linear", rows, columns, Split.WHOLE, bias=bias)


def numbers(rows: int, columns: int = 0) -> Tensors:
    """A table or a vector that is no linear layer."""
    return (plain("vision.weight", rows, columns),)


def perceptron(columns: int, inner: int, rows: int, *, bias: bool = True, split: bool = True) -> Tensors:
    """Two layers with an activation between them; `split`: the first cut, the second joined."""
    if not split:
        return (*kept(inner, columns, bias=bias), *kept(rows, inner, bias=bias))
    return (*cut(inner, columns, bias=bias), *joined(rows, inner, bias=bias))


class Block(NamedTuple):
    """One block of a transformer's encoder; a plain vision transformer's has biases everywhere and layer norms.

    `query_key_norm`: elements of each of the two norms. `scales`: vectors of the width beside the layers. `norms`: how
    many of the width. `heads_size`: all heads together where they are not as wide as the hidden state. `key_values`:
    (key-value heads, size of a head) where there are fewer than query heads.
    """

    width: int
    feed: int
    gated: bool = False
    rms: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    feed_bias: bool = True
    query_key_norm: int = 0
    norm_bias: bool = False
    scales: int = 0
    norms: int = 2
    heads_size: int = 0
    key_values: tuple[int, int] | None = None

    def tensors(self) -> Tensors:
        """Attention, MLP and norms."""
        return (*self._attention(), *self._feed(), *norms(self.norms, self.width, bias=not self.rms), *self._more())

    def _attention(self) -> Tensors:
        heads = self.heads_size or self.width
        name = "vision.attn"
        if self.key_values is None:
            qkv = linear(f"{name}.qkv", 3 * heads, self.width, Split.ROWS, bias=self.qkv_bias)
        else:
            count, size = self.key_values
            pairs = 2 * count * size
            qkv = (
                *linear(f"{name}.q", heads, self.width, Split.ROWS, bias=self.qkv_bias),
                *linear(f"{name}.kv", pairs, self.width, Split.HEADS, bias=self.qkv_bias, heads=count),
            )
        return (*qkv, *linear(f"{name}.proj", self.width, heads, Split.COLUMNS, bias=self.out_bias))

    def _feed(self) -> Tensors:
        return mlp(self.width, self.feed, gated=self.gated, bias=self.feed_bias, prefix="vision.mlp.")

    def _more(self) -> Tensors:
        pair = norms(2, self.query_key_norm, bias=self.norm_bias) if self.query_key_norm else ()
        return (*pair, *(numbers(self.scales, self.width) if self.scales else ()))


def patches(vision: Config, width: int, depth: int = 1, *, bias: bool = True) -> Tensors:
    """The convolution that makes tokens of patches; `depth`: of so many frames."""
    channels = vision.count("num_channels", "in_channels", "in_chans", default=3)
    return kept_numbers(width, channels * depth * side_of(vision, "patch_size") ** 2, bias=bias)


def kept_numbers(rows: int, columns: int, *, bias: bool = True) -> Tensors:
    """A convolution: whole on every rank and never packed."""
    return (*numbers(rows, columns), *(numbers(rows) if bias else ()))


def side_of(vision: Config, key: str) -> int:
    """An image's or a patch's side, which some configs give for both directions."""
    listed = vision.get(key)
    return max(vision.counts(key), default=1) if isinstance(listed, list) else vision.positive(key)


def grid(vision: Config) -> int:
    """Patches of a square image."""
    return (side_of(vision, "image_size") // side_of(vision, "patch_size")) ** 2


def layer_norm(size: int) -> Tensors:
    """A layer norm, with its bias."""
    return norm("vision.norm", size, bias=True)


def rms_norm(size: int) -> Tensors:
    """A norm without a bias."""
    return norm("vision.norm", size)


def fp32(tensors: Tensors) -> Tensors:
    """Kept in fp32 whatever the model's dtype is."""
    return tuple(replace(t, element_bytes=4) for t in tensors)
