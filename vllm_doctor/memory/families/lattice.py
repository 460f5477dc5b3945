"""LiLiCorr: DFlash whose candidates a small transformer scores, slot by slot (lilicorr.py)."""

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Split
from vllm_doctor.memory.families.dflash import convolutions, read_dflash, with_more
from vllm_doctor.memory.families.draft_parts import MOST, draft_vocabulary
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norm, plain

# Numbers that describe a candidate (LiLiCorrHead.num_candidate_features).
_FEATURES = 5
# No draft is trained for longer blocks of tokens.
_LONGEST_BLOCK = 4096


def read_lilicorr(config: Config, target: Architecture) -> Architecture:
    """DFlash with the scorer of its candidates, whose MLPs alone the ranks share out (lilicorr.py LiLiCorrHead)."""
    if draft_vocabulary(config) != target.vocabulary_size:
        raise ConfigError("draft_vocab_size is not the target's vocabulary, which vLLM refuses of LiLiCorr")
    section = config.section("dflash_config")
    if section is None:
        raise ConfigError("dflash_config is missing, and the scorer's sizes with it")
    base = read_dflash(config, target)
    each = convolutions(section, base.hidden_size) if section.optional("conv_kernel_size") else ()
    block = section.optional("block_size") or config.positive("block_size", largest=_LONGEST_BLOCK)
    return with_more(base, each, _scorer(section, base.hidden_size, block))


def _scorer(section: Config, outer: int, block: int) -> Tensors:
    width = section.optional("lilicorr_hidden_size") or outer
    heads, factors = section.positive("lilicorr_num_heads"), section.positive("lilicorr_factor_dim")
    kept = section.positive("lilicorr_candidate_topk", largest=16)
    layers = section.positive("lilicorr_num_layers", largest=MOST)
    if not width or not block or width % heads:
        raise ConfigError(f"lilicorr_num_heads {heads} does not divide the scorer's width, which vLLM refuses")
    joins = ("pass_hidden_proj", "context_proj", *(("token_proj",) if width != outer else ()))
    return (
        *(t for name in joins for t in linear(name, width, outer, Split.WHOLE, bias=True)),
        *norm("feature_norm", _FEATURES, bias=True),
        *linear("feature_mlp.up_proj", width, _FEATURES, Split.ROWS, bias=True),
        *linear("feature_mlp.down_proj", width, width, Split.COLUMNS, bias=True),
        plain("slot_embedding", block - 1, width),
        plain("rank_embedding", kept, width),
        plain("slot_bias", heads, 2 * block),
        *_layer(width, int(section.number("lilicorr_mlp_ratio", 0.0) * width)) * layers,
        *norm("output_norm", width),
        *norm("anchor_norm", width),
        *linear("factor_input_proj", width, 3 * width, Split.WHOLE, bias=True),
        *linear("factor_head", factors, width, Split.WHOLE, bias=True) * 3,
    )


def _layer(width: int, feed: int) -> Tensors:
    if feed <= 0:
        raise ConfigError("lilicorr_mlp_ratio makes no MLP")
    return (
        *norm("attn_norm", width),
        plain("attn.in_proj", 3 * width, width),
        plain("attn.in_proj.bias", 3 * width),
        *linear("attn.out_proj", width, width, Split.WHOLE, bias=True),
        *norm("mlp_norm", width),
        *mlp(width, feed, gated=False, bias=True),
    )
