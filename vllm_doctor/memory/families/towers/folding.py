"""Inkling's towers: patches that are folded into fewer and deeper ones step by step, and a table of sounds."""

from itertools import pairwise
from math import log
from typing import NamedTuple

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.families.parts import Tensors
from vllm_doctor.memory.families.towers.blocks import Towers, kept, numbers, rms_norm

# Channels between the layers are a multiple of so many (0.32 models/inkling/common/towers.py plan_out_scales).
_CHANNELS = 64


class _Scale(NamedTuple):
    """What one patch covers at a layer, in frames and pixels of a side, and its channels."""

    frames: int
    side: int
    channels: int


def inkling(whole: Config) -> Towers:
    """The towers that the config names a width for (models/inkling/common/towers.py)."""
    vision, audio = whole.section("vision_config") or Config({}), whole.section("audio_config") or Config({})
    width, heard = vision.optional("decoder_dmodel"), audio.optional("decoder_dmodel")
    layers = vision.positive("n_layers", largest=LARGEST_LAYERS) if width else 0
    tensors = (*(_patches(vision, width, layers) if width else ()), *(_sounds(audio, heard) if heard else ()))
    media = (*(("image",) if width else ()), *(("audio",) if heard else ()))
    return Towers(tensors, True, width or 0, layers, media=media)


def _sounds(audio: Config, width: int) -> Tensors:
    rows = audio.positive("n_mel_bins") * audio.positive("mel_vocab_size")
    return (*numbers(rows, width), *(rms_norm(width) if audio.flag("use_audio_norm") else ()))


def _patches(vision: Config, width: int, layers: int) -> Tensors:
    scales = _chosen(_scales(vision), layers)
    tensors: Tensors = ()
    for number, (start, end) in enumerate(pairwise(scales)):
        folded = start.channels * (end.frames // start.frames) * (end.side // start.side) ** 2
        if number == layers - 1:
            tensors = (*tensors, *kept(width, folded, bias=False))
        else:
            tensors = (*tensors, *kept(end.channels, folded, bias=False), *rms_norm(end.channels))
    return (*tensors, *(rms_norm(width) if vision.flag("use_vision_norm") else ()))


def _scales(vision: Config) -> tuple[_Scale, ...]:
    """Every step there is: the sides grow by the patch's prime factors, the largest first, then the frames do."""
    patch, frames, channels = (vision.positive(k) for k in ("patch_size", "temporal_patch_size", "n_channels"))
    if patch == 1:
        raise ConfigError("patch_size is 1, which vLLM refuses")
    found, side, depth = [_Scale(1, 1, channels)], 1, 1
    for factor in reversed(_factors(patch)):
        side *= factor
        found.append(_Scale(1, side, _rounded(side**2 * channels)))
    for factor in reversed(_factors(frames)):
        depth *= factor
        found.append(_Scale(depth, side, _rounded(side**2 * channels * depth)))
    return tuple(found)


def _rounded(channels: int) -> int:
    return -(-channels // _CHANNELS) * _CHANNELS


def _factors(number: int) -> tuple[int, ...]:
    """The prime factors in ascending order."""
    found, factor = [], 2
    while factor * factor <= number:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return (*found, number) if number > 1 else tuple(found)


def _chosen(scales: tuple[_Scale, ...], layers: int) -> tuple[_Scale, ...]:
    """The steps of so many layers, as even in the logarithm of what they fold as there are."""
    last = scales[-1]
    step = log(last.side**2 * last.frames * scales[0].channels) / layers
    sizes = [log(s.side**2 * s.frames) for s in scales]
    costs = [[abs(step * row - size) for size in sizes] for row in range(layers + 1)]
    many = layers >= len(scales)
    picked = [min(range(len(row)), key=row.__getitem__) for row in costs] if many else _cheapest(costs)
    return (scales[0], *(scales[i] for i in picked[1:-1]), last)


def _cheapest(costs: list[list[float]]) -> list[int]:
    """The column of every row, each to the right of the row's before, that together cost least."""
    columns = len(costs[0])
    best: list[list[tuple[float, int]]] = []
    for row in reversed(costs):
        after = best[-1] if best else None
        line: list[tuple[float, int]] = [(float("inf"), columns)] * (columns + 1)
        for column in reversed(range(columns)):
            here = row[column] + (after[column + 1][0] if after is not None else 0.0)
            line[column] = min((here, column), line[column + 1])
        best.append(line)
    picked, start = [], 0
    for line in reversed(best):
        picked.append(line[start][1])
        start = picked[-1] + 1
    return picked
