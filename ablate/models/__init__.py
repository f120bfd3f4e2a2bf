"""Pre-trained models: found, loaded, checked, their heads, image processing and layer groups.

Imports `config` and the base modules.
"""

from ablate.models.loading import digest as digest
from ablate.models.loading import load as load
from ablate.models.loading import preprocess as preprocess
