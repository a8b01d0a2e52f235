"""Measures of what a model does inside, without ground truth."""

from crate_interp.analysis.ablation import (
    estimate_logit_effects,
    logit_effects,
    mask_effects,
    mask_of,
    written_energy,
)
from crate_interp.analysis.atlas import Atlas, AtlasBuilder, class_selectivity
from crate_interp.analysis.attention_statistics import (
    AttentionStatistics,
    attention_statistics,
    uniform_distance,
)
from crate_interp.analysis.attribution import (
    IntegratedGradients,
    attention_relevance,
    check_captum,
    check_class_token,
    integrated_gradients,
)
from crate_interp.analysis.head_agreement import attended_keys, head_agreement
from crate_interp.analysis.joint_pca import JointPCA, component_maps, joint_pca
from crate_interp.analysis.layer_objective import (
    LayerObjective,
    coding_rate,
    layer_objective,
    objective_sites,
)
from crate_interp.analysis.model_check import STEPS, ModelCheck, check_model
from crate_interp.analysis.subspaces import SubspaceCoherence, subspace_coherence
from crate_interp.analysis.token_atlas import TokenAtlas, build_token_atlas

__all__ = [
    "STEPS",
    "Atlas",
    "AtlasBuilder",
    "AttentionStatistics",
    "IntegratedGradients",
    "JointPCA",
    "LayerObjective",
    "ModelCheck",
    "SubspaceCoherence",
    "TokenAtlas",
    "attended_keys",
    "attention_relevance",
    "attention_statistics",
    "build_token_atlas",
    "check_captum",
    "check_class_token",
    "check_model",
    "class_selectivity",
    "coding_rate",
    "component_maps",
    "estimate_logit_effects",
    "head_agreement",
    "integrated_gradients",
    "joint_pca",
    "layer_objective",
    "logit_effects",
    "mask_effects",
    "mask_of",
    "objective_sites",
    "subspace_coherence",
    "uniform_distance",
    "written_energy",
]
