"""The peak of what the profile run allocates and frees again: forward pass, sampler, vision encoder."""

from vllm_doctor.memory import coefficients
from vllm_doctor.memory.defaults import NEWEST, Defaults, Engine
from vllm_doctor.memory.estimate import GIB, Estimate, banded, exactly, widest
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release

# Sampler peak in units of max_num_seqs x vocabulary x 4 bytes. To 0.17 the profile run sorts the whole logits
# (vllm/v1/sample/ops/topk_topp_sampler.py; vllm/model_executor/layers/sampler.py in V0): 9.7 units fit six logged
# start-ups within 1 %. From 0.22 FlashInfer samples by default; model runner V2 skips top-k and top-p in the profile.
_SORTED_UNITS, _SORTED_BAND = 9.7, 0.04
_TRITON_FROM: Release = (0, 18, 0)
_FLASHINFER_FROM: Release = (0, 22, 0)
_FLASHINFER_BELOW, _FLASHINFER_ABOVE = 0.4, 0.4
_RUNNER_V2_UNITS, _RUNNER_V2_BAND = 2.0, 0.3

# vllm/envs.py VLLM_FUSED_MOE_CHUNK_SIZE: the experts' buffers are made for this many tokens at most. From 0.12 on they
# lie in a workspace that stays (vllm/v1/worker/workspace.py), so they add to the sampler's peak.
_EXPERT_CHUNK_TOKENS = 32768
_WORKSPACE_FROM: Release = (0, 12, 0)

_FORWARD_BELOW, _FORWARD_ABOVE = 0.1, 0.15
_FLOOR_BYTES = 32 * 2**20

# V1 of 0.8: start-ups ran out of memory in the sampler's warm-up after the capture (vLLM issue 17462, 0.8.5), and what
# was left for the cache there says that the profile run had not counted the sampler wholly.
_SAMPLER_COUNTED_FROM: Release = (0, 9, 0)

# V0 left 0.13 GiB of a 24 GB card to Qwen2.5-VL-7B (gpustack issue 1800), and took 7 GiB for a 32B: three times what
# the encoder's linear layers hold.
_V0_ENCODER = 3

# Image tokens per patch side: patches that the encoder sees for one token of the language model, by model type
# (spatial_merge_size 2 of Qwen-VL, Pixtral and Kimi-VL, pixel shuffle of InternVL; 4 x 4 pooling of Gemma 3).
_PATCHES_PER_TOKEN = {"gemma3": 16, "gemma3_text": 16, "llava": 1, "llava_next": 1, "phi3_v": 1}
_DEFAULT_PATCHES_PER_TOKEN = 4

# The largest item of families whose images may be larger than a batch, in tokens of the language model
# (max_pixels 12845056 of Qwen's preprocessor_config.json: 16384).
_LARGEST_ITEM_TOKENS = {
    "qwen2_vl": 16384, "qwen2_5_vl": 16384, "qwen3_vl": 16384, "qwen3_vl_moe": 16384, "qwen2_5_omni": 16384,
}  # fmt: skip

# The first Qwen-VLs count a video of as many frames as the context holds, two to an image of the largest size, as their
# largest item (qwen2_vl.py `_MAX_FRAMES_PER_VIDEO` 16, and 14 from 0.11 on): "profiled with 1 video items".
_VIDEOS_OF_IMAGES = frozenset({"qwen2_vl", "qwen2_5_vl"})
_VIDEO_IMAGES, _FEWER_VIDEO_IMAGES = 8, 7
_FEWER_FRAMES_FROM: Release = (0, 11, 0)

# V0 profiles max_num_seqs images at once (mllama: 4 tiles of 1601 patches each, vllm/model_executor/models/mllama.py).
# 36.63 GiB were logged for 128 of them (vLLM pull request 12126): bytes of a patch and unit of the encoder's width.
_MLLAMA_PATCHES = 4 * 1601
_MLLAMA_BYTES, _MLLAMA_BAND = 37.5, 0.25


def activation_peak(
    architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release | None
) -> Estimate:
    """Bytes on the last pipeline stage's rank, where the logits are: the largest of the moments of the profile run."""
    version = release or NEWEST
    experts = expert_workspace_bytes(architecture, settings, defaults)
    forward = _forward(architecture, settings, defaults, experts)
    sampler = _sampler(architecture, settings, defaults, version)
    if experts and version >= _WORKSPACE_FROM:
        sampler = sampler.plus(banded(experts, 0.15, 0.15))
    peak = widest(forward, sampler)
    if defaults.engine is Engine.V1 and version < _SAMPLER_COUNTED_FROM:
        peak = Estimate(forward.low, peak.typical, peak.high)
    if _profiles_media(architecture, settings):
        peak = peak.plus(banded(coefficients.MULTIMODAL_BYTES, 0.8, 1.5))
        peak = widest(peak, _encoder(architecture, settings, defaults, version))
    return peak


def sampler_peak(
    architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release | None
) -> Estimate:
    """Bytes of the sampler's warm-up, which runs once more when the cache and the graphs have their memory."""
    return _sampler(architecture, settings, defaults, release or NEWEST)


def forward_bytes(architecture: Architecture, settings: LaunchSettings, defaults: Defaults) -> int:
    """One layer's buffers: gate, up and their product, and four times the hidden state (attention is not profiled)."""
    inner = -(-architecture.largest_intermediate // settings.tensor_parallel_size)
    row = 3 * inner + 4 * architecture.hidden_size
    return defaults.max_num_batched_tokens * element_bytes(settings) * row


def expert_workspace_bytes(architecture: Architecture, settings: LaunchSettings, defaults: Defaults) -> int:
    """The two buffers of the fused experts (vllm/model_executor/layers/fused_moe, `workspace_shapes`); 0 without."""
    if not architecture.experts_per_token or not architecture.expert_intermediate:
        return 0
    split = 1 if settings.expert_parallel else settings.tensor_parallel_size
    inner = -(-architecture.expert_intermediate // split)
    hidden = architecture.hidden_size
    row = max(inner, hidden) + max(2 * inner, hidden)
    tokens = min(defaults.max_num_batched_tokens, _EXPERT_CHUNK_TOKENS)
    return tokens * architecture.experts_per_token * row * element_bytes(settings)


def unit_bytes(architecture: Architecture, defaults: Defaults) -> int:
    """The logits of one batch in float32: every rank that gathers them has the whole vocabulary."""
    return defaults.max_num_seqs * architecture.vocabulary_size * 4


def element_bytes(settings: LaunchSettings) -> int:
    """Bytes of an activation: those of the dtype that the model computes in (float32 runs as 16 bit under `auto`)."""
    if settings.dtype in ("float32", "float"):
        return 4
    return 2


def _forward(architecture: Architecture, settings: LaunchSettings, defaults: Defaults, experts: int) -> Estimate:
    dense = forward_bytes(architecture, settings, defaults) + coefficients.FORWARD_EXTRA_BYTES
    held = 4 * defaults.max_num_batched_tokens * architecture.hidden_size * element_bytes(settings)
    return banded(max(dense, experts + held), _FORWARD_BELOW, _FORWARD_ABOVE, _FLOOR_BYTES)


def _sampler(architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release) -> Estimate:
    if architecture.is_pooling:
        return exactly(held_bytes(architecture, settings, defaults))
    unit = unit_bytes(architecture, defaults)
    if defaults.engine is Engine.V2_RUNNER:
        peak = banded(_RUNNER_V2_UNITS * unit, _RUNNER_V2_BAND, _RUNNER_V2_BAND)
    elif release < _TRITON_FROM:
        peak = banded(_SORTED_UNITS * unit, _SORTED_BAND, _SORTED_BAND)
    elif release < _FLASHINFER_FROM:
        band = 2 * coefficients.SAMPLER_RESIDUAL
        peak = banded(coefficients.SAMPLER_UNITS * unit, band, band)
    else:
        peak = banded(coefficients.SAMPLER_UNITS * unit, _FLASHINFER_BELOW, _FLASHINFER_ABOVE)
    return peak.plus(exactly(held_bytes(architecture, settings, defaults))) if release >= _TRITON_FROM else peak


def held_bytes(architecture: Architecture, settings: LaunchSettings, defaults: Defaults) -> int:
    """What is alive while the sampler runs: the hidden states, and float32 logits where the model computes in those."""
    size = element_bytes(settings)
    wider = (size - 2) * unit_bytes(architecture, defaults) // 4
    return defaults.max_num_batched_tokens * architecture.hidden_size * size + wider


def _profiles_media(architecture: Architecture, settings: LaunchSettings) -> bool:
    if not architecture.is_multimodal or settings.skip_mm_profiling or settings.language_model_only:
        return False
    limits = settings.limit_mm_per_prompt or {}
    return any(limits.get(medium, 1) > 0 for medium in architecture.media or ("image",))


def _encoder(architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release) -> Estimate:
    """One batch of the largest items: linear layers of four times the width, few points known: a wide band."""
    if not architecture.vision_hidden_size:
        return exactly(0)
    kind = architecture.model_type
    if kind == "mllama" and defaults.engine is Engine.V0:
        patches = defaults.max_num_seqs * _MLLAMA_PATCHES
        return banded(patches * _MLLAMA_BYTES * architecture.vision_hidden_size, _MLLAMA_BAND, _MLLAMA_BAND)
    tokens = max(defaults.max_num_batched_tokens, _LARGEST_ITEM_TOKENS.get(kind, 0))
    patches = tokens * _PATCHES_PER_TOKEN.get(kind, _DEFAULT_PATCHES_PER_TOKEN)
    size = patches * 24 * architecture.vision_hidden_size
    if defaults.engine is Engine.V0:
        return banded(size * _V0_ENCODER, 0.75, 0.4, GIB // 8)
    one = banded(size, 0.75, 0.75, GIB // 8)
    images = _images_of_a_video(architecture, settings, defaults, release)
    return Estimate(one.low, one.typical * images, one.high * images)


def _images_of_a_video(
    architecture: Architecture, settings: LaunchSettings, defaults: Defaults, release: Release
) -> int:
    """How many of the largest images the largest item is, where videos are made of such: 1 without them."""
    limits = settings.limit_mm_per_prompt or {}
    if architecture.model_type not in _VIDEOS_OF_IMAGES or limits.get("video") == 0:
        return 1
    most = _VIDEO_IMAGES if release < _FEWER_FRAMES_FROM else _FEWER_VIDEO_IMAGES
    return max(1, min(most, defaults.max_model_len // _LARGEST_ITEM_TOKENS[architecture.model_type]))
