"""How the experts of MXFP4 checkpoints are packed: the kernel that runs them pads and keeps what it needs."""

from vllm_doctor.memory.facts import MARLIN, Architecture, ExpertLayout, LaunchSettings, Release, Split, Tensor
from vllm_doctor.memory.sharding import Shard

# The wheel brings Triton's kernels from here on (setup.py: vllm/third_party/triton_kernels); before, Hopper runs Marlin
# unless the user installs them.
_TRITON_SHIPPED: Release = (0, 12, 0)
# Triton's copy of the scales is swizzled; the loaded ones stay beside it to 0.24 (fused_moe/oracle/mxfp4.py).
_LOADED_SCALES_FREED: Release = (0, 25, 0)
# FlashInfer's kernels of data-centre Blackwell pad the width to 256, from here on to 128 (the same file).
_NARROWER_PADDING: Release = (0, 27, 0)

_HOPPER, _BLACKWELL = 90, (100, 103)


_FLASHINFER_WIDE = ExpertLayout(width=256, hidden=256)
# triton_kernels' HopperMXScaleLayout rounds rows up to 256 with eight warps; HopperMXValueLayout's 16 x 64 always fits.
_TRITON = ExpertLayout(width=64, hidden=1, scale_rows=256)
_TRITON_WITH_LOADED_SCALES = ExpertLayout(width=64, hidden=1, scale_rows=256, keeps_loaded_scales=True)


def expert_layout(
    architecture: Architecture, settings: LaunchSettings, release: Release, capability: int | None
) -> ExpertLayout:
    """The layout of the kernel that vLLM takes on a GPU of that capability (`get_mxfp4_backend`, the priorities)."""
    if architecture.model_type != "gpt_oss" or settings.enable_lora:
        return MARLIN
    if capability in _BLACKWELL:
        return _FLASHINFER_WIDE if release < _NARROWER_PADDING else MARLIN
    asked = settings.environment.get("VLLM_MXFP4_USE_MARLIN", "0").strip().lower() in ("1", "true")
    if capability != _HOPPER or release < _TRITON_SHIPPED or asked:
        return MARLIN
    return _TRITON if release >= _LOADED_SCALES_FREED else _TRITON_WITH_LOADED_SCALES


def expert_bytes(tensor: Tensor, part: Shard, layout: ExpertLayout) -> int:
    """Bytes of the experts' matrices on one rank: half a byte a number, and a byte of scale for every 32."""
    rows, columns = part.rows, part.columns
    if tensor.split is Split.EXPERT_ROWS:
        rows, columns = 2 * _up(rows // 2, layout.width), _up(columns, layout.hidden)
    else:
        rows, columns = _up(rows, layout.hidden), _up(columns, layout.width)
    scales = _up(rows, layout.scale_rows) * columns // 32
    loaded = rows * columns // 32 if layout.keeps_loaded_scales else 0
    return part.copies * (rows * columns // 2 + scales + loaded)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
