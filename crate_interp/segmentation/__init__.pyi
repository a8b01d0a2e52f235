from .affinity import BACKGROUND_WEIGHT as BACKGROUND_WEIGHT
from .affinity import affinity as affinity
from .attention import attention_masks as attention_masks
from .dense_crf import dense_crf as dense_crf
from .dense_crf import dense_crf_labels as dense_crf_labels
from .maskcut import (
    MaskCutResult as MaskCutResult,
)
from .maskcut import (
    maskcut as maskcut,
)
from .maskcut import (
    maskcut_batch as maskcut_batch,
)
from .normalized_cut import NormalizedCut as NormalizedCut
from .normalized_cut import normalized_cut as normalized_cut
from .predictor import MaskCut as MaskCut
from .principal_components import (
    PrincipalComponents as PrincipalComponents,
)
from .principal_components import (
    principal_components as principal_components,
)
from .principal_mask import (
    PrincipalComponent as PrincipalComponent,
)
from .principal_mask import (
    principal_component as principal_component,
)
from .refinement import (
    fill_holes as fill_holes,
)
from .refinement import (
    on_original as on_original,
)
from .refinement import (
    refine_masks as refine_masks,
)
from .segmenter import (
    SEGMENTERS as SEGMENTERS,
)
from .segmenter import (
    FeatureSegmenter as FeatureSegmenter,
)
from .segmenter import (
    Segmenter as Segmenter,
)
from .tokencut import TokenCutResult as TokenCutResult
from .tokencut import tokencut as tokencut
