"""Models served for vectors and scores: which model is inside of each, and the head that it has instead of words."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, LARGEST_NUMBER, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families.decoder import read_decoder
from vllm_doctor.memory.families.encoders import read_bert, read_gte, read_modern_bert, read_nomic, read_roberta
from vllm_doctor.memory.families.parts import Tensors, norm, norms, plain
from vllm_doctor.memory.families.styles import STYLES

Reader = Callable[[Config], Architecture]
Head = Callable[[Config, int], Tensors]

# Heads are computed in fp32 (0.32 config/model.py head_dtype).
_HEAD_BYTES = 4
# 0.32 config/model.py _SUFFIX_TO_DEFAULTS: the ends of names that are read as one of a language model.
_ENDS = (
    "ForTextEncoding",
    "EmbeddingModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ClassificationModel",
    "ForRewardModeling",
    "RewardModel",
    "Model",
)
_BASES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
# These get one linear layer for the labels (0.32 model_executor/models/adapters.py as_seq_cls_model).
_SCORED = ("ForSequenceClassification", "ForTokenClassification", "ClassificationModel")

# Clef-Omni's kinds of questions (0.32 clef_omni.py NUM_QUESTION_TYPES).
_QUESTION_TYPES = 3


class Pooled(NamedTuple):
    """A pooling architecture: the reader or the name of the model inside, its head, and whether it looks both ways.

    `keeps_words`: lm_head is made all the same.
    """

    inside: Reader | str
    head: Head | None = None
    both_ways: bool = False
    keeps_words: bool = False


def labels(config: Config) -> int:
    """The classes of a classifier: `id2label`, else `num_labels`, else 2 as Transformers has it.

    Of a config with a text part the outer one counts (0.32 adapters.py _resolve_num_labels).
    """
    for values in (config.outer, config.values):
        named = values.get("id2label")
        if isinstance(named, dict) and named:
            return len(named)
        if values.get("num_labels") is not None:
            return Config(values).positive("num_labels", largest=2**20)
    return 2


def dense(name: str, rows: int, columns: int, *, bias: bool = True, element_bytes: int | None = _HEAD_BYTES) -> Tensors:
    """A linear layer of a head, whole on every rank."""
    weight = plain(name, rows, columns, element_bytes=element_bytes)
    return (weight, plain(f"{name}.bias", rows, element_bytes=element_bytes)) if bias else (weight,)


def _classifier(config: Config, hidden: int) -> Tensors:
    return dense("classifier", labels(config), hidden)


def _score(config: Config, hidden: int) -> Tensors:
    return dense("score", labels(config), hidden, bias=False)


def _score_with_bias(config: Config, hidden: int) -> Tensors:
    return dense("score", labels(config), hidden)


def _pooled_classifier(config: Config, hidden: int) -> Tensors:
    return (*dense("pooler.dense", hidden, hidden), *_classifier(config, hidden))


def _modern_classifier(config: Config, hidden: int) -> Tensors:
    scale = plain("pooling.norm", hidden, element_bytes=_HEAD_BYTES)
    shift = plain("pooling.norm.bias", hidden, element_bytes=_HEAD_BYTES)
    return (
        *dense("pooling.dense", hidden, hidden, bias=config.flag("classifier_bias")),
        *((scale, shift) if config.flag("norm_bias") else (scale,)),
        *_classifier(config, hidden),
    )


def _modern_tokens(config: Config, hidden: int) -> Tensors:
    scale = norm("head.norm", hidden, bias=config.flag("norm_bias"))
    return (
        *dense("head.dense", hidden, hidden, bias=config.flag("classifier_bias"), element_bytes=None),
        *scale,
        *_classifier(config, hidden),
    )


def _masked_words(config: Config, hidden: int) -> Tensors:
    """BERT's head for masked words, in the model's dtype and whole on every rank (bert.py BertMLMHead)."""
    return (
        *dense("mlm_head.dense", hidden, hidden, element_bytes=None),
        *norm("mlm_head.layer_norm", hidden, bias=True),
        *dense("mlm_head.decoder", config.positive("vocab_size"), hidden, element_bytes=None),
    )


def _bge_m3(_: Config, hidden: int) -> Tensors:
    return (*dense("sparse_linear", 1, hidden), *dense("colbert_linear", hidden, hidden))


def _colbert(config: Config, hidden: int) -> Tensors:
    """ColBERT's projection of every token (colbert.py get_colbert_dim_from_config)."""
    size = config.optional("colbert_dim", "dim", "projection_dim", largest=LARGEST_NUMBER)
    if not size:
        raise ConfigError("colbert_dim is missing: the size of the projection is in its weights only")
    return dense("colbert_linear", size, hidden, bias=False)


def _reward(count: int) -> Head:
    """Qwen2's reward models: two layers, divided as an MLP is (qwen2_rm.py)."""

    def head(_: Config, hidden: int) -> Tensors:
        return (
            plain("score.0", hidden, hidden, Split.ROWS, element_bytes=_HEAD_BYTES),
            plain("score.0.bias", hidden, split=Split.ROWS, element_bytes=_HEAD_BYTES),
            plain("score.2", count, hidden, Split.COLUMNS, element_bytes=_HEAD_BYTES),
            plain("score.2.bias", count, element_bytes=_HEAD_BYTES),
        )

    return head


def _value_head(_: Config, hidden: int) -> Tensors:
    return (plain("v_head", 1, hidden, Split.COLUMNS, element_bytes=_HEAD_BYTES),)


def _ranking(_: Config, hidden: int) -> Tensors:
    """Jina's reranker: a projection of two layers (jina.py JinaForRanking; config.py JinaForRankingConfig)."""
    inner = hidden // 2
    return (
        *dense("projector.0", inner, hidden, bias=False, element_bytes=None),
        *dense("projector.2", 512, inner, bias=False, element_bytes=None),
    )


def _joint_schema(config: Config, _: int) -> Tensors:
    """Clef-Omni's head: options that attend to the prompt, questions that attend to both (clef_omni.py)."""
    own = config.outer.get("joint_head_config")
    if not isinstance(own, dict):
        raise ConfigError("joint_head_config is missing, and the memory of its head depends on it")
    head = Config(own)
    columns, width, feed = (head.positive(key) for key in ("hidden_size", "width", "feedforward"))
    routing, layers = (head.count(key, largest=LARGEST_LAYERS) for key in ("routing_layers", "layers"))
    attending = (*_own("in_proj", 3 * width, width), *_own("out_proj", width, width))
    feeding = (*_own("linear1", feed, width), *_own("linear2", width, feed), *norms(3, width, bias=True))
    return (
        *norm("hidden_norm", columns, bias=True),
        *_own("projection", width, columns, bias=False) * 6,
        plain("type_embedding", _QUESTION_TYPES, width),
        *(*attending, *feeding) * routing,
        *(*attending * 2, *feeding) * layers,
        *norms(3, width, bias=True),
        *_own("scorer.0", width, 4 * width),
        *_own("scorer.3", 1, width),
        plain("scales", 3),
    )


def _own(name: str, rows: int, columns: int, *, bias: bool = True) -> Tensors:
    return dense(name, rows, columns, bias=bias, element_bytes=None)


def _voyage(config: Config, hidden: int) -> Tensors:
    return dense("linear", labels(config), hidden, bias=False, element_bytes=None)


def _colbert_bert(config: Config) -> Architecture:
    """ColBERT of BERT: the size of its projection is in its weights only (colbert.py); 128 in the published ones."""
    base = read_bert(config)
    doubt = "the size of ColBERT's projection is in its weights; 128 was taken"
    head = dense("colbert_linear", 128, base.hidden_size, bias=False)
    return replace(base, towers=head, exact=False, approximations=(doubt,))


def _jina_v5(config: Config) -> Architecture:
    """Qwen3, or for the nano size an encoder of Llama's layers (jina.py JinaEmbeddingsV5Model)."""
    decodes = config.flag("is_decoder", default=True)
    return read_decoder(config, STYLES["Qwen3ForCausalLM" if decodes else "LlamaForCausalLM"])


POOLED: Mapping[str, Pooled] = {
    "BertModel": Pooled(read_bert),
    "BertForMaskedLM": Pooled(read_bert, _masked_words),
    "BertSpladeSparseEmbeddingModel": Pooled(read_bert, _masked_words),
    "BertForSequenceClassification": Pooled(read_bert, _pooled_classifier),
    "BertForTokenClassification": Pooled(read_bert, _classifier),
    "HF_ColBERT": Pooled(_colbert_bert),
    "RobertaModel": Pooled(read_roberta),
    "RobertaForMaskedLM": Pooled(read_roberta),
    "RobertaForSequenceClassification": Pooled(read_bert, _pooled_classifier),
    "RobertaForTokenClassification": Pooled(read_bert, _classifier),
    "XLMRobertaModel": Pooled(read_roberta),
    "XLMRobertaForSequenceClassification": Pooled(read_bert, _pooled_classifier),
    "XLMRobertaForTokenClassification": Pooled(read_bert, _classifier),
    "BgeM3EmbeddingModel": Pooled(read_roberta, _bge_m3),
    "ColBERTJinaRobertaModel": Pooled(read_roberta, _colbert),
    "NomicBertModel": Pooled(read_nomic),
    "GteModel": Pooled(read_gte),
    "GteNewModel": Pooled(read_gte),
    "GteNewForSequenceClassification": Pooled(read_gte, _pooled_classifier),
    "ModernBertModel": Pooled(read_modern_bert),
    "ModernBertForSequenceClassification": Pooled(read_modern_bert, _modern_classifier),
    "ModernBertForTokenClassification": Pooled(read_modern_bert, _modern_tokens),
    "ColBERTModernBertModel": Pooled(read_modern_bert, _colbert),
    "LlamaBidirectionalModel": Pooled("LlamaForCausalLM", None, True),
    "LlamaBidirectionalForSequenceClassification": Pooled("LlamaForCausalLM", _score, True),
    "DeepseekV3BidirectionalModel": Pooled("DeepseekV3ForCausalLM", None, True, True),
    "GPT2ForSequenceClassification": Pooled("GPT2LMHeadModel", _score),
    "Gemma2Model": Pooled("Gemma2ForCausalLM"),
    "InternLM2ForRewardModel": Pooled("InternLM2ForCausalLM", _value_head),
    "JambaForSequenceClassification": Pooled("JambaForCausalLM", _score, False, True),
    "JinaEmbeddingsV5Model": Pooled(_jina_v5),
    "JinaForRanking": Pooled("Qwen3ForCausalLM", _ranking),
    "Qwen2ForRewardModel": Pooled("Qwen2ForCausalLM", _reward(1)),
    "Qwen2ForProcessRewardModel": Pooled("Qwen2ForCausalLM", _reward(2)),
    "Gemma3TextModel": Pooled("Gemma3ForCausalLM"),
    "VoyageQwen3BidirectionalEmbedModel": Pooled("Qwen3ForCausalLM", _voyage, True),
    "OpenAIPrivacyFilterForTokenClassification": Pooled("GptOssForCausalLM", _score_with_bias, True),
    "ClefOmniForJointSchema": Pooled("Qwen3OmniMoeForConditionalGeneration", _joint_schema, False, True),
    "ColBERTLfm2Model": Pooled("Lfm2ForCausalLM", _colbert),
}


def pooled_name(name: str, known: Callable[[str], bool]) -> tuple[str, Pooled] | None:
    """The model inside of a pooling architecture's name; None for a name that is none (0.32 registry _normalize_arch).

    Of a reader in POOLED the name itself comes back.
    """
    found = POOLED.get(name)
    if found is not None:
        return (found.inside if isinstance(found.inside, str) else name), found
    end = next((e for e in _ENDS if name.endswith(e)), None)
    if end is None or known(name):
        return None
    base = next((b for e in _BASES if known(b := name.removesuffix(end) + e)), None)
    return None if base is None else (base, Pooled(base, _score if end in _SCORED else None))


# These look both ways where the config says `is_causal: false` (llama.py, qwen2.py, qwen3.py, gemma3.py, apertus.py).
_SWITCHED = frozenset(
    (
        "ApertusForCausalLM",
        "Gemma3ForCausalLM",
        "IQuestLoopCoderForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "TeleChat3ForCausalLM",
    )
)


def looks_both_ways(name: str, inside: str, config: Config) -> bool:
    """Whether no layer is causal, so that none has a cache."""
    if name == "Gemma3TextModel":
        return config.flag("use_bidirectional_attention")
    if name == "JinaEmbeddingsV5Model":
        return not config.flag("is_decoder", default=True)
    return inside in _SWITCHED and config.get("is_causal") is False


def without_caches(base: Architecture) -> Architecture:
    """The model without a cache in any layer."""
    return replace(base, kinds=tuple(Layer(tensors=k.tensors) for k in base.kinds), absorbed_elements=0)


def with_head(base: Architecture, pooled: Pooled, config: Config) -> Architecture:
    """The model with its head instead of lm_head; one that looks both ways keeps no cache."""
    head = pooled.head(config, base.hidden_size) if pooled.head is not None else ()
    base = base if pooled.keeps_words else without_words(base)
    if pooled.both_ways:
        base = without_caches(base)
    return replace(base, towers=(*base.towers, *head), is_pooling=True)


def without_words(base: Architecture) -> Architecture:
    """The model as it is served for pooling: lm_head is not made (adapters.py _create_pooling_model_cls)."""
    return replace(base, last=tuple(t for t in base.last if not t.name.startswith("lm_head")), is_pooling=True)
