"""What ``/metrics`` says, in Prometheus' text form: one table of names, texts and where each value is from.

Names are vLLM's where it has the same thing, after ``milepost_``: a colon, as in ``vllm:``, is meant for
recording rules. Prompt tokens that a cache was asked for, reused and recomputed are those of the cache's own
account, which prompts that were computed ahead, or given up, are part of.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from milepost.server.sight.look import Look, TierLook
from milepost.server.sight.tally import Tally
from milepost.server.usage import CAUSES
from milepost.server.worker import Worker

__all__ = ["METRICS", "Metric", "Scene", "written"]

# The values of a metric: those of its labels, and the number.
_Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is known at one moment.

    Attributes:
        worker: For how many wait and run.
        tally: What became of requests.
        look: At the engine.
    """

    worker: Worker
    tally: Tally
    look: Look


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table.

    Attributes:
        name: In full; a counter's ends in ``_total``.
        text: What it is.
        read: Returns its values.
        labels: Names of its labels.
    """

    name: str
    text: str
    read: Callable[[Scene], _Values]
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.name.endswith("_total")

    def family(self, scene: Scene) -> Any:
        """Return it with its values, as prometheus_client writes it."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(self.name, self.text, labels=self.labels)
        for labels, value in self.read(scene):
            family.add_metric(labels, value)
        return family


def _one(read: Callable[[Scene], float]) -> Callable[[Scene], _Values]:
    return lambda scene: [((), read(scene))]


def _by_tier(read: Callable[[TierLook], float | None]) -> Callable[[Scene], _Values]:
    def values(scene: Scene) -> Iterator[tuple[tuple[str, ...], float]]:
        for tier in scene.look.tiers:
            value = read(tier)
            if value is not None:
                yield (tier.statistics.name,), value

    return values


def _bytes_by_kind(scene: Scene) -> _Values:
    for tier in scene.look.tiers:
        yield (tier.statistics.name, "state"), tier.statistics.checkpoint_bytes
        yield (tier.statistics.name, "kv"), tier.statistics.kv_bytes


def _shelf_counts(scene: Scene) -> _Values:
    for tier in scene.look.tiers:
        for outcome, count in tier.shelf.items():
            yield (tier.statistics.name, outcome), count


def _recomputed(scene: Scene) -> _Values:
    return [((cause,), getattr(scene.look.totals, cause)) for cause in CAUSES]


def _audits(scene: Scene) -> _Values:
    audits = scene.look.audits
    return [
        (("passed",), audits.num_audits - audits.num_mismatches),
        (("failed",), audits.num_mismatches),
    ]


_TIER = ("tier",)

#: All but the histograms, which are the tally's.
METRICS = (
    Metric(
        "milepost_serving",
        "1 while requests are served, 0 once the engine has stopped; figures of the cache are its last then.",
        _one(lambda scene: scene.worker.stopped is None),
    ),
    Metric(
        "milepost_num_requests_running",
        "Answers that the engine works on.",
        _one(lambda scene: scene.worker.num_running),
    ),
    Metric(
        "milepost_num_requests_waiting",
        "Answers that are read and not begun.",
        _one(lambda scene: scene.worker.num_waiting),
    ),
    Metric(
        "milepost_request_success_total",
        "Answers that ended, by how: stop, length, abort (the client went away) or error.",
        lambda scene: [((reason,), count) for reason, count in scene.tally.finished.items()],
        ("finished_reason",),
    ),
    Metric(
        "milepost_request_refused_total",
        "Requests of HTTP that were answered with an error, by its status.",
        lambda scene: [((str(status),), count) for status, count in sorted(scene.tally.refused.items())],
        ("status",),
    ),
    Metric(
        "milepost_prompt_tokens_total",
        "Prompt tokens of answers whose first token came.",
        _one(lambda scene: scene.tally.prompt_tokens),
    ),
    Metric(
        "milepost_generation_tokens_total",
        "Tokens made.",
        _one(lambda scene: scene.tally.generated_tokens),
    ),
    Metric(
        "milepost_prefix_cache_queries_total",
        "Prompt tokens that were looked up.",
        _one(lambda scene: scene.look.totals.num_tokens),
    ),
    Metric(
        "milepost_prefix_cache_hits_total",
        "Prompt tokens that were not computed again.",
        _one(lambda scene: scene.look.totals.reused),
    ),
    Metric(
        "milepost_cached_tokens_total",
        "Prompt tokens that were not computed again, by the tier that had them.",
        _by_tier(lambda tier: tier.statistics.traffic.reused_tokens),
        _TIER,
    ),
    Metric(
        "milepost_recomputed_tokens_total",
        "Prompt tokens that were computed, by cause; with the hits, they add up to the queries.",
        _recomputed,
        ("cause",),
    ),
    Metric(
        "milepost_cache_bytes",
        "Bytes that a tier holds, as in memory, by kind: state or kv.",
        _bytes_by_kind,
        ("tier", "kind"),
    ),
    Metric(
        "milepost_cache_stored_bytes",
        "Bytes that a tier's content takes there; less than in memory where it is compressed.",
        _by_tier(lambda tier: tier.statistics.stored_bytes),
        _TIER,
    ),
    Metric(
        "milepost_cache_capacity_bytes",
        "Bytes that a tier may hold, as in memory.",
        _by_tier(lambda tier: tier.statistics.capacity_bytes),
        _TIER,
    ),
    Metric(
        "milepost_checkpoints",
        "Checkpoints that a tier holds.",
        _by_tier(lambda tier: tier.statistics.num_checkpoints),
        _TIER,
    ),
    Metric(
        "milepost_evictions_total",
        "Checkpoints that had to go from a tier.",
        _by_tier(lambda tier: tier.statistics.num_evictions),
        _TIER,
    ),
    Metric(
        "milepost_price_of_a_byte",
        "What a byte of a tier is worth: the cost that it saves a request, in the units of the model's "
        "footprint. Policies without prices have none.",
        _by_tier(lambda tier: tier.price),
        _TIER,
    ),
    Metric(
        "milepost_tier_hits_total",
        "Requests that resumed from what a slower tier gave back.",
        _by_tier(lambda tier: tier.statistics.traffic.num_hits),
        _TIER,
    ),
    Metric(
        "milepost_tier_fetched_bytes_total",
        "Bytes read from a slower tier, as in memory.",
        _by_tier(lambda tier: tier.statistics.traffic.fetched_bytes),
        _TIER,
    ),
    Metric(
        "milepost_tier_fetch_seconds_total",
        "Seconds that reading from a slower tier took.",
        _by_tier(lambda tier: tier.statistics.traffic.fetch_seconds),
        _TIER,
    ),
    Metric(
        "milepost_tier_declined_total",
        "Fetches that were left, since computing was found to take less.",
        _by_tier(lambda tier: tier.statistics.traffic.num_declined),
        _TIER,
    ),
    Metric(
        "milepost_tier_damaged_total",
        "Payloads of a slower tier that could not be read back: each was a miss.",
        _by_tier(lambda tier: tier.statistics.traffic.num_damaged),
        _TIER,
    ),
    Metric(
        "milepost_tier_lost_total",
        "Payloads that a slower tier could not keep.",
        _by_tier(lambda tier: tier.statistics.traffic.num_lost),
        _TIER,
    ),
    Metric(
        "milepost_shelf_total",
        "What happened to the files of a tier, by outcome: written, fetched, skipped, failed, damaged_...",
        _shelf_counts,
        ("tier", "outcome"),
    ),
    Metric(
        "milepost_audits_total",
        "Hits that were computed again and compared bit for bit, by outcome: passed or failed.",
        _audits,
        ("outcome",),
    ),
    Metric(
        "milepost_audited_tokens_total",
        "Prompt tokens that were computed again for that.",
        _one(lambda scene: scene.look.audits.num_tokens),
    ),
)


def written(scene: Scene, histograms: CollectorRegistry, *, accept: str) -> tuple[bytes, str]:
    """Return the text, and its content type, in the form that a scraper asks for.

    Args:
        scene: All but the histograms.
        histograms: The tally's registry.
        accept: The request's header.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # Of a version that is no number, the library makes an error.
        encode, content_type = choose_encoder("")
    return encode(_Both(scene, histograms)), content_type


@final
class _Both:
    """The table's values, and then the histograms."""

    def __init__(self, scene: Scene, histograms: CollectorRegistry) -> None:
        self._scene = scene
        self._histograms = histograms

    def collect(self) -> Iterator[Any]:
        """Yield every metric."""
        yield from (metric.family(self._scene) for metric in METRICS)
        yield from self._histograms.collect()
