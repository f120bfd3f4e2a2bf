"""Ray: the cluster, Tune, metrics.

Imports `runs` and below.
"""

import os

# Ray reads its environment when it is imported. This file runs before any module of this package imports Ray.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger is the record
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000000")  # a run is never restored from Tune's files
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the engine handles Ctrl-C
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the command line has its own live view
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees no GPU
os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job may have its own environment
