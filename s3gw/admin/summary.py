"""The store at a glance: health, summary, ledger."""

from __future__ import annotations

from collections import Counter

from s3gw.admin import models
from s3gw.admin.health import score
from s3gw.admin.port import AdminPort, Refusal
from s3gw.admin.survey import FRESH_SECONDS, Survey
from s3gw.cluster.ledger import Amount, Ledger, Redundancy
from s3gw.cluster.topology import UnknownProfile


def _health_of(survey: Survey) -> models.Health:
    points, reasons = score(survey.facts)
    return models.Health(points, reasons)


async def health(port: AdminPort) -> models.Health:
    """The health score with its reasons, a few seconds old at most."""
    return _health_of(await port.surveyor.survey.get())


async def _survey(port: AdminPort) -> tuple[Survey, Ledger]:
    """The survey, and the ledger even if it takes long."""
    survey = await port.surveyor.survey.get()
    if survey.engine_error:
        raise Refusal(503, "ServiceUnavailable", survey.engine_error)
    return survey, survey.ledger or await _ledger_now(port)


async def _ledger_now(port: AdminPort) -> Ledger:
    """The ledger, a few seconds old at most: whoever waits for `healed` must not be told what was
    so before the loss that they wait for the end of."""
    try:
        return await port.surveyor.ledger.get(within=FRESH_SECONDS)
    except (LookupError, UnknownProfile) as error:
        raise Refusal(503, "ServiceUnavailable", str(error)) from error


async def summary(port: AdminPort) -> models.Summary:
    """What an operator asks first."""
    survey, ledger = await _survey(port)
    assert survey.layout is not None
    totals = await port.surveyor.totals.get()
    identity = port.storage.store.identity
    directory = port.storage.blobs.directory
    members = {node.node for node in survey.layout.record.nodes}
    return models.Summary(
        store_id=identity.store_id,
        incarnation=identity.incarnation,
        version=port.version,
        epoch=survey.layout.epoch,
        health=_health_of(survey),
        nodes=models.NodeCounts(
            known=len(members | {node.id for node in directory.all()}),
            live=sum(1 for node in directory.all() if node.live),
            by_state=dict(Counter(node.state for node in survey.layout.record.nodes)),
        ),
        capacity_bytes=survey.capacity_bytes,
        free_bytes=survey.free_bytes,
        buckets=totals.buckets,
        objects=totals.usage.objects,
        bytes=totals.usage.bytes,
        ledger=_ledger(ledger),
        rebalance=survey.rebalance,
        repairs_waiting=ledger.repairs_waiting,
        repair_oldest_seconds=survey.repair_oldest_seconds,
        engine_used_bytes=survey.space.used_bytes,
        engine_quota_bytes=survey.space.quota_bytes,
    )


async def rebalances(port: AdminPort) -> models.Rebalance:
    """What is left to move, now."""
    return await port.surveyor.signals.rebalance()


async def show_ledger(port: AdminPort) -> models.LedgerView:
    """How much lies at which redundancy, by bucket and profile."""
    ledger = await _ledger_now(port)
    rows = [
        models.LedgerRow(
            row.bucket,
            row.profile,
            *(_amount(row.amounts[redundancy]) for redundancy in Redundancy),
        )
        for row in ledger.rows
    ]
    return models.LedgerView(
        healed=ledger.healed,
        total=_ledger(ledger),
        rows=rows,
        repairs_waiting=ledger.repairs_waiting,
        groups=ledger.groups,
        groups_moving=ledger.groups_moving,
        groups_degraded=ledger.groups_degraded,
        nodes_down=list(ledger.nodes_down),
    )


def _ledger(ledger: Ledger) -> models.LedgerTotal:
    return models.LedgerTotal(*(_amount(ledger.total(redundancy)) for redundancy in Redundancy))


def _amount(amount: Amount) -> models.Amount:
    return models.Amount(amount.blobs, amount.bytes)
