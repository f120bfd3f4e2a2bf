"""The specifications of a trial, under the name that users import: `from ablate.spec import LayerSpec`."""

from ablate.config.trial_spec import LayerSpec as LayerSpec
from ablate.config.trial_spec import Recipe as Recipe
from ablate.config.trial_spec import TrialSpec as TrialSpec
