"""A run's metrics, which Ray's agents export to Prometheus."""

from ray.util.metrics import Gauge, Histogram

from ablate.labels import ascii_tag

# A metric's name -> its values, each with its labels.
Readings = dict[str, list[tuple[dict[str, str], float]]]
TRIAL_SECONDS = [float(2**i) for i in range(15)]  # buckets, up to 4.5 hours


class Metrics:
    """The metrics of a run. Their tags are ASCII. Ray must be connected.

    Args:
        gauges: A gauge's name -> its description, and its labels beside `run`.
        run: The run's name.
    """

    def __init__(self, gauges: dict[str, tuple[str, tuple[str, ...]]], run: str) -> None:
        self.gauges = {name: Gauge(name, text, ("run", *labels)) for name, (text, labels) in gauges.items()}
        self.trial_seconds = Histogram(
            "ablate_trial_seconds", "Seconds that a trial trained", TRIAL_SECONDS, ("run",)
        )
        self.run = run

    def show(self, readings: Readings) -> None:
        """Set each gauge to its values."""
        for name, values in readings.items():
            for labels, value in values:
                tags = {key: ascii_tag(text) for key, text in {"run": self.run, **labels}.items()}
                self.gauges[name].set(value, tags)

    def observe(self, seconds: float) -> None:
        """Count the training time of a trial."""
        self.trial_seconds.observe(seconds, {"run": ascii_tag(self.run)})
