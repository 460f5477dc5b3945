"""The draft of a launch that speculates: of the model's own MTP layers, or of the config that it names."""

from msgspec.structs import replace

from vllm_doctor.facts.model import text_part
from vllm_doctor.memory.architecture import parse, read_architecture
from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, DraftModel, Layer
from vllm_doctor.memory.quantization import read_quantization

# 0.32 config/speculative.py MTPModelTypes; older releases name the methods after their models.
MTP_METHODS = frozenset(
    (
        "mtp",
        "deepseek_mtp",
        "dots3_note_mtp",
        "ernie_mtp",
        "exaone4_5_mtp",
        "exaone_moe_mtp",
        "glm4_moe_lite_mtp",
        "glm4_moe_mtp",
        "glm5_next_mtp",
        "hy_v3_mtp",
        "inkling_mtp",
        "longcat_flash_mtp",
        "mimo_mtp",
        "mimo_v2_mtp",
        "nemotron_h_mtp",
        "pangu_ultra_moe_mtp",
        "qwen3_5_mtp",
        "qwen3_next_mtp",
        "step3p5_mtp",
    )
)
# These make no model: what they propose comes from the prompt.
WITHOUT_DRAFT = frozenset(("ngram", "[ngram]", "ngram_gpu", "suffix"))

# The model of the method `extract_hidden_states`, which is made of the launch and of no config.
KEEPER = "ExtractHiddenStatesModel"


def draft_of(asked: DraftModel | None, target: Architecture, config: str, draft: str | None) -> Architecture | None:
    """What is loaded beside the target; None where nothing is, or where its config is not known.

    `config` and `draft` are the config.json of the target and of the draft as text.
    """
    if asked is None or asked.method in WITHOUT_DRAFT or asked.model in WITHOUT_DRAFT:
        return None
    if asked.method == "extract_hidden_states":
        return _keeper(asked, target)
    try:
        if draft is not None:
            return _named(asked, target, config, draft)
        if asked.method == "dspark":
            return _own_dspark(target, config)
        return _mtp(asked, target, config) if asked.method in MTP_METHODS else None
    except ConfigError:
        return None


def _keeper(asked: DraftModel, target: Architecture) -> Architecture:
    """What keeps hidden states for a connector: one layer with a cache and without a weight.

    SOURCE: vLLM 0.32 model_executor/models/extract_hidden_states.py; every rank holds all of it.
    """
    cache = Cache(kind=CacheKind.HIDDEN, kv_heads=asked.hidden_states, head_size=target.hidden_size)
    packed = any(c.record for kind in target.kinds for c in kind.caches)
    doubts = ("how kept hidden states lie beside packed caches was compared with nothing",) if packed else ()
    return Architecture(
        name=KEEPER,
        model_type="extract_hidden_states",
        dtype=target.dtype,
        hidden_size=target.hidden_size,
        vocabulary_size=target.vocabulary_size,
        layers=(0,) if asked.hidden_states else (),
        kinds=(Layer(tensors=(), caches=(cache,)),),
        first=(),
        last=(),
        exact=not packed,
        approximations=doubts,
    )


def _mtp(asked: DraftModel, target: Architecture, config: str) -> Architecture:
    from vllm_doctor.memory.families.mtp import read_mtp  # Most plans have no draft.

    return read_mtp(_text_of(target, config), target, asked.tokens)


def _text_of(target: Architecture, config: str) -> Config:
    values = parse(config)
    text = text_part(values)
    return Config(text, target.model_type, None if text is values else values)


def _own_dspark(target: Architecture, config: str) -> Architecture | None:
    """The layers of DSpark that a model brings along: its own config is the draft's (0.32 config/speculative.py)."""
    from vllm_doctor.memory.families.drafts import read_draft

    return read_draft(_text_of(target, config), target, "dspark")


def _named(asked: DraftModel, target: Architecture, config: str, draft: str) -> Architecture:
    from vllm_doctor.memory.families.drafts import DRAFTS, draft_name, read_draft
    from vllm_doctor.memory.families.mtp import MTP_LAYERS

    values = parse(draft)
    named = Config(values)
    name = draft_name(named, None)
    if name in MTP_LAYERS or (asked.method in MTP_METHODS and name not in DRAFTS):
        return _mtp(asked, target, config)
    found = read_draft(named, target, _method(asked))
    if found is None:
        return read_architecture(draft)
    # A draft computes in the target's dtype (0.32 config/speculative.py: dtype=self.target_model_config.dtype), and is
    # packed as its own config says (models/utils.py get_draft_quant_config).
    return replace(found, dtype=target.dtype, quantization=read_quantization(values, values))


def _method(asked: DraftModel) -> str | None:
    """The method, which vLLM guesses from the draft's name where none is given."""
    name = (asked.model or "").lower()
    guesses = (("eagle-", "eagle"), ("eagle3", "eagle3"), ("dflash", "dflash"), ("dspark", "dspark"))
    return asked.method or next((method for part, method in guesses if part in name), None)
