"""Datasets: CIFAR, image folders, tables of the Hugging Face hub, their splits and sizes.

Imports `models`, `config` and the base modules.
"""

from ablate.data.datasets import Dataset as Dataset
from ablate.data.datasets import Split as Split
from ablate.data.datasets import load as load
