"""Masks from features and attention: normalized cuts, attention masks, PCA, refinement."""

from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT, affinity
from crate_interp.segmentation.attention import attention_masks
from crate_interp.segmentation.dense_crf import dense_crf, dense_crf_labels
from crate_interp.segmentation.maskcut import MaskCutResult, maskcut, maskcut_batch
from crate_interp.segmentation.normalized_cut import NormalizedCut, normalized_cut
from crate_interp.segmentation.predictor import MaskCut
from crate_interp.segmentation.principal_components import PrincipalComponents, principal_components
from crate_interp.segmentation.principal_mask import PrincipalComponent, principal_component
from crate_interp.segmentation.refinement import fill_holes, on_original, refine_masks
from crate_interp.segmentation.segmenter import SEGMENTERS, FeatureSegmenter, Segmenter
from crate_interp.segmentation.tokencut import TokenCutResult, tokencut

__all__ = [
    "BACKGROUND_WEIGHT",
    "SEGMENTERS",
    "FeatureSegmenter",
    "MaskCut",
    "MaskCutResult",
    "NormalizedCut",
    "PrincipalComponent",
    "PrincipalComponents",
    "Segmenter",
    "TokenCutResult",
    "affinity",
    "attention_masks",
    "dense_crf",
    "dense_crf_labels",
    "fill_holes",
    "maskcut",
    "maskcut_batch",
    "normalized_cut",
    "on_original",
    "principal_component",
    "principal_components",
    "refine_masks",
    "tokencut",
]
