"""What follows from how vLLM implements an architecture, rather than from its config: what every stage holds."""

from msgspec.structs import replace

from vllm_doctor.memory.facts import Architecture, Layer, Release, Split, Tensor

# vLLM 0.32 model_executor/models: these build the embedding on every pipeline stage, not on the first alone.
EMBEDDING_ON_ALL = frozenset(
    (
        "BloomForCausalLM",
        "ChatGLMForConditionalGeneration",
        "ChatGLMModel",
        "Cohere2ForCausalLM",
        "Cohere2MoeForCausalLM",
        "CohereForCausalLM",
        "Cosmos3EdgeForCausalLM",
        "DbrxForCausalLM",
        "FalconForCausalLM",
        "FalconMambaForCausalLM",
        "GPT2LMHeadModel",
        "GPTBigCodeForCausalLM",
        "GPTJForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3TextModel",
        "Gemma3nForCausalLM",
        "Gemma4ForCausalLM",
        "GemmaForCausalLM",
        "GptOssForCausalLM",
        "GraniteMoeForCausalLM",
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeSWAForCausalLM",
        "GraniteMoeSharedForCausalLM",
        "HYV3ForCausalLM",
        "InklingForCausalLM",
        "InternLM2ForCausalLM",
        "InternS2MobiusModel",
        "JambaForCausalLM",
        "K2HorizonForCausalLM",
        "Lfm2ForCausalLM",
        "Lfm2MoeForCausalLM",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "MiniCPMForCausalLM",
        "MixtralForCausalLM",
        "Molmo2TextModel",
        "MolmoModel",
        "Moondream3TextModel",
        "MuseGlimmerForCausalLM",
        "NemotronHForCausalLM",
        "NemotronHPuzzleForCausalLM",
        "OPTForCausalLM",
        "OlmoeForCausalLM",
        "OrionForCausalLM",
        "PhiMoEForCausalLM",
        "Plamo3ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5MoeForCausalLM",
        "Qwen4ExpForCausalLM",
        "Rnj1ForCausalLM",
        "StableLmForCausalLM",
    )
)

# The same for norm and lm_head, which others build on the last stage alone (Gemma and Cohere: the norm, their head is
# the embedding).
HEAD_ON_ALL = frozenset(
    (
        "AriaTextModel",
        "ChatGLMForConditionalGeneration",
        "ChatGLMModel",
        "Cohere2ForCausalLM",
        "Cohere2MoeForCausalLM",
        "CohereForCausalLM",
        "Cosmos3EdgeForCausalLM",
        "DbrxForCausalLM",
        "FalconForCausalLM",
        "FalconMambaForCausalLM",
        "GPTJForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3TextModel",
        "Gemma3nForCausalLM",
        "Gemma4ForCausalLM",
        "GemmaForCausalLM",
        "GptOssForCausalLM",
        "GraniteMoeForCausalLM",
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeSWAForCausalLM",
        "GraniteMoeSharedForCausalLM",
        "HYV3ForCausalLM",
        "Idefics3ForConditionalGeneration",
        "InklingForCausalLM",
        "InternLM2ForCausalLM",
        "JambaForCausalLM",
        "K2HorizonForCausalLM",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "MiniCPMForCausalLM",
        "MixtralForCausalLM",
        "Molmo2TextModel",
        "MolmoModel",
        "Moondream3TextModel",
        "MuseGlimmerForCausalLM",
        "NemotronHForCausalLM",
        "NemotronHPuzzleForCausalLM",
        "OlmoeForCausalLM",
        "OrionForCausalLM",
        "PhiMoEForCausalLM",
        "Plamo3ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen4ExpForCausalLM",
        "Rnj1ForCausalLM",
        "SmolVLMForConditionalGeneration",
        "StableLmForCausalLM",
    )
)

# These cannot be split into pipeline stages (no SupportsPP among the bases of their classes, 0.32 and 0.33).
WITHOUT_STAGES = frozenset(
    (
        "AriaForConditionalGeneration",
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForTokenClassification",
        "BertModel",
        "BertSpladeSparseEmbeddingModel",
        "BgeM3EmbeddingModel",
        "CLIPModel",
        "CohereAsrForConditionalGeneration",
        "ColBERTJinaRobertaModel",
        "ColBERTLfm2Model",
        "ColBERTModernBertModel",
        "ColModernVBertForRetrieval",
        "DiffusionGemmaForBlockDiffusion",
        "EmbeddingGemma2Model",
        "FireRedASR2ForConditionalGeneration",
        "FunASRForConditionalGeneration",
        "GPT2ForSequenceClassification",
        "Gemma3TextModel",
        "Gemma3nForCausalLM",
        "Gemma3nForConditionalGeneration",
        "GteModel",
        "GteNewForSequenceClassification",
        "GteNewModel",
        "HF_ColBERT",
        "HrmTextForCausalLM",
        "IQuestLoopCoderForCausalLM",
        "Idefics3ForConditionalGeneration",
        "JinaForRanking",
        "Mamba2ForCausalLM",
        "ModernBertForSequenceClassification",
        "ModernBertForTokenClassification",
        "ModernBertModel",
        "NemotronH_Nano_Omni_Reasoning_V3",
        "NemotronH_Nano_VL_V2",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Super_Omni_Reasoning_V3",
        "NemotronParseForConditionalGeneration",
        "NomicBertModel",
        "OpenAIPrivacyFilterForTokenClassification",
        "PaddleOCRVLForConditionalGeneration",
        "Phi4MMForCausalLM",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaModel",
        "SiglipModel",
        "SmolVLMForConditionalGeneration",
        "VoyageQwen3BidirectionalEmbedModel",
        "WhisperForConditionalGeneration",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaModel",
        "Zamba2ForCausalLM",
    )
)

# These run through the Transformers backend (0.32 models/registry.py _TRANSFORMERS_SUPPORTED_MODELS): no RoPE table.
THROUGH_TRANSFORMERS = frozenset(
    (
        "ArceeForCausalLM",
        "AyaVisionForConditionalGeneration",
        "CwmForCausalLM",
        "DeepseekVLForConditionalGeneration",
        "Emu3ForConditionalGeneration",
        "FlexOlmoForCausalLM",
        "GPTBigCodeForCausalLM",
        "GPTNeoXForCausalLM",
        "GlmForCausalLM",
        "GotOcr2ForConditionalGeneration",
        "HeliumForCausalLM",
        "HunYuanDenseV1ForCausalLM",
        "HunYuanMoEV1ForCausalLM",
        "HunYuanVLForConditionalGeneration",
        "Idefics2ForConditionalGeneration",
        "Jais2ForCausalLM",
        "MellumForCausalLM",
        "NanbeigeForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
        "OlmoForCausalLM",
        "PersimmonForCausalLM",
        "PhiForCausalLM",
        "SeedOssForCausalLM",
        "SmolLM3ForCausalLM",
        "Starcoder2ForCausalLM",
        "TransformersForCausalLM",
        "TransformersMoEForCausalLM",
        "TransformersMultiModalForCausalLM",
        "TransformersMultiModalMoEForCausalLM",
        "VaultGemmaForCausalLM",
        "VibeVoiceAsrForConditionalGeneration",
        "VideoLlavaForConditionalGeneration",
        "VipLlavaForConditionalGeneration",
    )
)
# The release whose registry was read; older ones have layers of their own for these.
BACKEND_FROM = (0, 32, 0)
# Kimi Linear has no narrow experts on a rank since it is built as Kimi K3 is (0.27 model_executor/models/registry.py).
WIDENED_FROM = (0, 27, 0)
# Transformers has no plan of parallelism for GPTBigCode: its MLPs are whole on every rank.
WHOLE_MLP = frozenset(("GPTBigCodeForCausalLM",))


def built_as(architecture: Architecture) -> str:
    """The name of the model that vLLM builds: of a pooling or multi-modal model, the one inside."""
    return architecture.inside or architecture.name


def served(architecture: Architecture, release: Release) -> Architecture:
    """The architecture as this release builds it."""
    if release < WIDENED_FROM and built_as(architecture) == "KimiLinearForCausalLM":
        return _unwidened(architecture)
    through = {architecture.name, built_as(architecture)} & THROUGH_TRANSFORMERS
    if release < BACKEND_FROM and through and architecture.towers and architecture.inside not in THROUGH_TRANSFORMERS:
        doubts = (*architecture.approximations, "how vLLM before 0.32 divides Transformers' towers is not known")
        return replace(architecture, exact=False, approximations=doubts)
    if release < BACKEND_FROM or not through:
        return architecture
    kinds = architecture.kinds
    if built_as(architecture) in WHOLE_MLP:
        kinds = tuple(Layer(tensors=tuple(_whole(t) for t in k.tensors), caches=k.caches) for k in kinds)
    return replace(architecture, kinds=kinds, rope_elements=0)


def _unwidened(architecture: Architecture) -> Architecture:
    def plain(kind: Layer) -> Layer:
        return Layer(tensors=tuple(replace(t, smallest=0) for t in kind.tensors), caches=kind.caches)

    return replace(architecture, kinds=tuple(plain(k) for k in architecture.kinds))


def _whole(tensor: Tensor) -> Tensor:
    return replace(tensor, split=Split.WHOLE) if tensor.name.startswith("mlp.") else tensor
