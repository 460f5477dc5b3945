"""Towers of models that make embeddings or scores of images and texts."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.families.towers.blocks import Towers, fp32, kept, part, text_width
from vllm_doctor.memory.families.towers.intern import projector, shuffled_width
from vllm_doctor.memory.families.towers.llava import seen
from vllm_doctor.memory.families.towers.vits import clip, siglip


def clip_model(whole: Config) -> Towers:
    """CLIP: the image side and its projection (clip.py)."""
    vision = part(whole, "vision_config")
    width = whole.optional("projection_dim") or vision.positive("projection_dim")
    return seen((*clip(vision), *kept(width, vision.positive("hidden_size"), bias=False)), vision)


def siglip_model(whole: Config) -> Towers:
    """SigLIP: the image side with its pooling head (siglip.py)."""
    vision = part(whole, "vision_config")
    return seen(siglip(vision, head=vision.flag("vision_use_head", default=True)), vision)


def gemma(whole: Config) -> Towers:
    """EmbeddingGemma 2: without towers it reads text alone (embedding_gemma2.py)."""
    beside = [key for key in ("vision_config", "audio_config") if whole.section(key) is not None]
    return Towers((), True, 0, 0, ("the vision or audio tower is not counted",) if beside else ())


def nemotron(whole: Config) -> Towers:
    """Llama Nemotron VL for embeddings: SigLIP, pixels shuffled, two projections (nemotron_vl.py)."""
    vision = part(whole, "vision_config")
    return seen((*siglip(vision), *projector(shuffled_width(whole, vision), text_width(whole))), vision)


def nemotron_score(whole: Config) -> Towers:
    """The same with a score in fp32."""
    base = nemotron(whole)
    score = kept(whole.positive("num_labels", default=2), text_width(whole), bias=False)
    return base._replace(tensors=(*base.tensors, *fp32(score)))


def modern(whole: Config) -> Towers:
    """ColModernVBert: SigLIP, pixels shuffled, a projection of each token (colmodernvbert.py)."""
    vision, hidden = part(whole, "vision_config"), text_width(whole)
    factor = whole.positive("pixel_shuffle_factor", default=4)
    columns = vision.positive("hidden_size") * factor * factor
    tensors = (
        *siglip(vision),
        *kept(hidden, columns, bias=False),
        *fp32(kept(whole.positive("embedding_dim", default=128), hidden)),
    )
    return seen(tensors, vision)
