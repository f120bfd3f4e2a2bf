"""Pareto fronts, under the name that users import: `from ablate.analysis import pareto`."""

from ablate.analysis.fitted_front import FrontFit as FrontFit
from ablate.analysis.fitted_front import SizeEstimate as SizeEstimate
from ablate.analysis.fitted_front import fit as fit
from ablate.analysis.front_uncertainty import attainment as attainment
from ablate.analysis.front_uncertainty import front_probability as front_probability
from ablate.analysis.hypervolume import hypervolume as hypervolume
from ablate.analysis.hypervolume import hypervolume_over_trials as hypervolume_over_trials
from ablate.analysis.hypervolume import reference_point as reference_point
from ablate.analysis.nondominated import front as front
from ablate.analysis.nondominated import front_of as front_of
from ablate.analysis.nondominated import knee as knee
