"""Pre-trained models: loading and checking, heads, image processing, layer groups.

Imports `config` and the base modules.
"""

from ablate.models.checkpoints import load as load
from ablate.models.checkpoints import load_with_report as load_with_report
from ablate.models.loading import preprocess as preprocess
