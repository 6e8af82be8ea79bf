"""The control segment's table: every field, its offset and who writes it.

Standard library only, and imported by commands that must start fast. Everything is little-endian and 8-byte
aligned; a group of fields starts on a cache line of its own and has one writer. docs/shared-memory.md is generated
from this table.
"""

from __future__ import annotations

MAGIC = int.from_bytes(b"TANDEM\x00\x01", "little")
LAYOUT_VERSION = 6

MAX_SLOTS = 16
MAX_LANES = 16
HISTORY_ROWS = 4096
LATENCY_BUCKETS = 24
"""Decisions are counted by duration: bucket i holds those of at most 16 us * 2**(i/2); the last one is open."""

FRESHNESS_BUCKETS = 24
"""Rewards are counted by the time until weights trained after them decide: at most 4 ms * 2**(i/2); the last one is
open."""

SERVERS = ("inference", *(f"inference-{number}" for number in range(2, MAX_LANES + 1)))
"""What the processes of the bundled server are called (`inference.workers`): one lane each, so there are no more."""
PROCESSES = ("trainer", *SERVERS)
"""The children that a supervisor may have, as in `process.<name>.pid`."""

STATES = ("stopped", "starting", "running", "backoff", "fatal", "stopping")
"""A child's state as the supervisor sees it; the table stores the index."""

COMMANDS = ("none", "checkpoint", "rollback", "reset", "reload")
"""What an operator may ask of the trainer; the table stores the index."""

ANSWERS = ("none", "done", "refused", "missing", "unreadable", "invalid", "failed")
"""How a command ended: `missing` no such checkpoint, `unreadable` it is damaged or another model's, `invalid` settings
were refused, `failed` it raised; the trainer's log says more."""

Field = tuple[str, str, str]

_HEADER: list[Field] = [
    ("magic", "u64", "TANDEM and two bytes; written last, after every segment of the instance is complete"),
    ("layout_version", "u64", "version of this table"),
    ("segment_bytes", "u64", "size of the control segment"),
    ("schema_hash", "u64", "first 8 bytes of the SHA-256 of the schema text"),
    ("epoch", "u64", "random number drawn when the instance was created"),
    ("boot_id_low", "u64", "the machine's boot id, low half"),
    ("boot_id_high", "u64", "the machine's boot id, high half"),
    ("created_at", "f64", "wall clock, seconds since 1970"),
    ("slots", "u64", "number of weights slots"),
    ("lanes", "u64", "number of writer lanes"),
    ("capacity", "u64", "records in the ring of one lane"),
    ("record_bytes", "u64", "size of one record"),
    ("pending_capacity", "u64", "entries in the pending table of one lane"),
    ("pending_bytes", "u64", "size of one pending entry"),
    ("weights_bytes", "u64", "size of one weights slot's segment"),
    ("weights_offset", "u64", "where the tensors start in a weights slot's segment"),
    ("schema_bytes", "u64", "length of the schema text"),
]
_WEIGHTS: list[Field] = [
    ("version", "u64", "the version counter: number of the newest published weights"),
    ("published_ns", "u64", "when, on the monotonic clock"),
    ("published_at", "f64", "when, on the wall clock"),
    ("generation", "u64", "rises with every reset"),
    ("restored_version", "u64", "the version that the newest rollback restored (0: none)"),
    ("rollbacks", "u64", "rollbacks so far"),
    ("first_version", "u64", "experiences decided by versions below this one are not trained on (raised by a reset)"),
    ("series", "u64", "random number that begins the ids of decisions; saved and restored with the rings"),
]
_SUPERVISOR: list[Field] = [
    ("supervisor.pid", "u64", "process id"),
    ("supervisor.start_ticks", "u64", "its start time in clock ticks since boot"),
    ("supervisor.progress", "u64", "turns of its loop"),
    ("supervisor.progress_ns", "u64", "last turn, on the monotonic clock"),
    ("supervisor.port", "u64", "the port of the bundled server (0: none)"),
    ("supervisor.unwritten", "u64", "logs that could not be opened or rotated at the last attempt (0: none)"),
    ("supervisor.disk_errors", "u64", "failures of the file system that this supervisor handled"),
]


def _child(name: str) -> list[Field]:
    return [
        (f"{name}.pid", "u64", "process id (0: none)"),
        (f"{name}.start_ticks", "u64", "its start time in clock ticks since boot"),
        (f"{name}.state", "u64", "index into STATES"),
        (f"{name}.restarts", "u64", "times it was started again"),
        (f"{name}.started_ns", "u64", "when it was started, on the monotonic clock"),
    ]


_TRAINER: list[Field] = [
    ("trainer.progress", "u64", "turns of the training loop, idle ones included"),
    ("trainer.progress_ns", "u64", "last turn, on the monotonic clock"),
    ("trainer.ready", "u64", "process id of the trainer that is warmed up and in its loop"),
    ("trainer.answered", "u64", "sequence of the command answered last"),
    ("trainer.answer", "u64", "index into ANSWERS"),
    ("trainer.answer_version", "u64", "version that command published or saved (0: none)"),
    ("history.head", "u64", "rows ever written to the history"),
    ("metrics.total_steps", "u64", "successful training steps of the instance"),
    ("metrics.training_steps", "u64", "successful training steps of this trainer process"),
    ("metrics.total_samples", "u64", "experiences trained on"),
    ("metrics.total_errors", "u64", "training steps that raised"),
    ("metrics.skipped_steps", "u64", "ticks with fewer than min_batch_size experiences"),
    ("metrics.overruns", "u64", "ticks that were missed because a step took longer than the interval"),
    ("metrics.refused", "u64", "candidates that the publish guard refused"),
    ("metrics.torn_rows", "u64", "rows given up because they were overwritten while read"),
    ("metrics.total_sampled", "u64", "rows sampled"),
    ("metrics.average_loss", "f64", "mean of the last 100 steps"),
    ("metrics.average_batch_size", "f64", "mean of the last 100 steps"),
    ("metrics.average_step_ms", "f64", "mean of the last 100 steps, milliseconds"),
    ("metrics.last_step_ms", "f64", "milliseconds"),
    ("metrics.steps_per_second", "f64", "steps in the last 60 s window"),
    ("metrics.mean_reward", "f64", "mean training reward of the last 100 steps"),
    ("metrics.entropy", "f64", "mean entropy of the policy in the last step, nats"),
    ("metrics.gradient_norm", "f64", "before clipping, last step"),
    ("metrics.clipped_share", "f64", "share of importance weights that were clipped, last step"),
    ("metrics.lag_mean", "f64", "versions between decision and training, last step"),
    ("metrics.lag_max", "f64", "the same, largest"),
    ("metrics.actual_reward", "f64", "mean actual reward of the last 100 completed SEND decisions that were sampled"),
    ("metrics.started_ns", "u64", "start of this trainer, on the monotonic clock"),
    ("metrics.pass_rate", "f64", "share of SEND in the reward guard's window"),
    ("metrics.live_reward", "f64", "mean actual reward of the SEND decisions in the reward guard's window"),
    ("metrics.live_score", "f64", "mean of actual rewards in that window, a blocked decision counting 0"),
    ("metrics.live_best", "f64", "the score of the best version saved, to which the guard compares"),
    ("metrics.live_best_version", "u64", "that version (0: none yet)"),
    ("metrics.guard_rollbacks", "u64", "rollbacks that the reward guard made by itself"),
    ("trainer.config_revision", "u64", "reloads so far; above 0 config.json in the data folder is in force"),
    ("trainer.unsaved", "u64", "checkpoints in a row that could not be saved (0: the last one was)"),
    ("trainer.refused_in_row", "u64", "candidates refused since the last successful step"),
    ("trainer.failed_in_row", "u64", "steps that raised since the last successful one"),
    ("trainer.loss_not_finite", "u64", "steps in a row whose loss was not a finite number"),
    (
        "trainer.still_in_row",
        "u64",
        "successful steps in a row that moved no parameter but by momentum",
    ),
    ("trainer.unsampled_ticks", "u64", "ticks in a row without a batch, although enough new experiences had come in"),
    ("trainer.unsampled", "u64", "experiences that had come in since the last batch, at the newest of these ticks"),
    ("trainer.rejected_in_row", "u64", "decisions refused for their values since the last experience came in"),
    ("trainer.untrained_in_row", "u64", "blocked decisions not stored since the last experience came in"),
    ("trainer.rewarded", "u64", "decisions that were sent and got their reward, of those settled lately"),
    ("trainer.unrewarded", "u64", "decisions that were sent and expired, were superseded or dropped, of those"),
    ("trainer.rewards_missing", "u64", "ticks in a row at which clearly most of them had no reward"),
    ("trainer.rewards_found", "u64", "rewards that found their decision, of those reported lately"),
    ("trainer.rewards_lost", "u64", "rewards that came late or under a key where nothing waited, of those"),
    ("trainer.rewards_unmatched", "u64", "ticks in a row at which clearly most rewards found no decision"),
    ("trainer.abandoned", "u64", "choices that were taken and, in the same situation, are not any more, of all heads"),
    ("trainer.abandoned_head", "u64", "the head of the one among them that earned most"),
    ("trainer.abandoned_choice", "u64", "that choice"),
    ("trainer.abandoned_window", "u64", "newest decisions in which it was not taken"),
    ("trainer.abandoned_reward", "f64", "mean actual reward that it earned when it was taken last (NaN: none)"),
    ("trainer.recent_reward", "f64", "mean actual reward of the newest decisions that were sent (NaN: none)"),
    ("metrics.clipped_rewards", "u64", "experiences whose reward lay outside the declared or learned range"),
    ("metrics.left_out", "u64", "experiences not trained on: their numbers are absurd, or a step with them fails"),
    ("metrics.shortened", "u64", "steps that moved too far, as the refused one before, and were shortened"),
    ("metrics.idle_ticks", "u64", "ticks at which training rested, as nothing had been new for a while"),
    ("metrics.bounded_ticks", "u64", "ticks whose budget did not allow the steps that the data asked for"),
    ("metrics.logged", "u64", "decisions that were written to the decision log"),
    ("metrics.unlogged", "u64", "decisions that were overwritten before they could be logged"),
    ("metrics.log_failures", "u64", "failures to write the decision log"),
    ("trainer.claims", "u64", "times the trainer's flock was taken; who finds another number publishes no more"),
]
_COMMANDS: list[Field] = [
    ("command.pause", "u64", "1: the trainer idles; decisions go on"),
    ("command.sequence", "u64", "rises with each command; written after code and argument"),
    ("command.code", "u64", "index into COMMANDS"),
    ("command.argument", "u64", "for rollback: the version (0: previous, 2**64-1: best)"),
    ("command.discard", "u64", "1: the supervisor saves nothing when it stops (`ctl down --discard`)"),
    ("command.shown_since", "f64", "/api/nn-dashboard shows decisions from then on (wall clock; 0: all)"),
]
_SLOT: list[Field] = [
    ("sequence", "u64", "2v-1 while version v is being written, 2v when it is complete"),
    ("checksum", "u64", "xor of the slot's tensor bytes as 64-bit words, zero padded"),
    ("publication", "u64", "number of the publication in it; the next one goes into the next slot"),
    ("drawn_ns", "u64", "when its last step drew its experiences, on the monotonic clock (0: it came from no step)"),
]
_LANE: list[Field] = [
    ("owner", "u64", "process id of the owner (the flock on the ring's file says whether it lives)"),
    ("owner_ticks", "u64", "the owner's start time in clock ticks since boot"),
    ("progress", "u64", "turns of the owner's main loop"),
    ("progress_ns", "u64", "last turn, on the monotonic clock"),
    ("ready", "u64", "process id of the owner once it serves"),
    ("head", "u64", "records ever appended; record n (from 1) lies in row (n-1) mod capacity"),
    ("floor", "u64", "records up to this one were cleared"),
    ("decided", "u64", "decisions recorded"),
    ("completed", "u64", "decisions that became experiences"),
    ("pending", "u64", "decisions that wait for their reward"),
    ("expired", "u64", "waited too long and were dropped, having earned nothing"),
    ("superseded", "u64", "dropped, having earned nothing, for a newer decision under the same key"),
    ("dropped", "u64", "given up, having earned nothing: their key went away, the table was full, or a reset"),
    ("rejected", "u64", "refused because a value was not finite or had the wrong shape"),
    ("lost", "u64", "in flight when an owner was killed or a call was interrupted"),
    ("send", "u64", "decisions that the gate let through"),
    ("wait", "u64", "decisions that the gate blocked"),
    (
        "mail_head",
        "u64",
        "messages ever left by this lane for others: rewards, and notices of newer decisions",
    ),
    ("delivered", "u64", "rewards that reached this lane's decisions through other lanes' segments"),
    ("untrained", "u64", "blocked decisions that were counted, not stored (train_on_wait: false)"),
    ("unmatched", "u64", "rewards that found no pending decision"),
    ("errors", "u64", "failures on the decision path that were handled"),
    ("lock_timeouts", "u64", "calls that gave up on the process-local lock"),
    ("refreshes", "u64", "times new weights were taken"),
    ("refresh_misses", "u64", "times a slot was being written and the decision kept the weights it had"),
    ("version", "u64", "version of the newest decision"),
    ("reward_sum", "f64", "sum of the actual rewards"),
    ("reward_count", "u64", "number of actual rewards"),
    ("claims", "u64", "times the lane was claimed; an owner that finds another number has lost the lane"),
    ("tickets", "u64", "decisions numbered so far in this lane"),
    ("latency_sum_ns", "u64", "time spent deciding, nanoseconds"),
    *[(f"latency_{i}", "u64", "decisions in this duration bucket") for i in range(LATENCY_BUCKETS)],
    ("forwarded", "u64", "rewards that came in here and were sent on to the lane of their decision"),
    ("repeated", "u64", "rewards for a decision that had its reward already; refused"),
    ("refused_rewards", "u64", "rewards refused because they are not numbers that a record can hold"),
    ("damaged", "u64", "entries, messages and counters in shared memory that made no sense and were skipped"),
    ("defaulted", "u64", "decisions that earned the default reward, as none came in time"),
    ("partial", "u64", "rewards that were not the last of their decision, which goes on waiting"),
    ("late", "u64", "rewards refused because their decision had been given up by then"),
    ("displaced", "u64", "decisions that a full pending table had to give up for a newer one"),
    ("rewarding", "u64", "ticket of the decision that gets or got the newest reward (0: the two fields below change)"),
    ("reward_due", "u64", "what reward_count is once that decision is complete"),
    ("sum_due", "f64", "what reward_sum is then"),
    ("freshness_sum_ns", "u64", "time that rewards waited for a decision by weights trained after them, nanoseconds"),
    *[(f"freshness_{i}", "u64", "rewards that waited so long") for i in range(FRESHNESS_BUCKETS)],
]
HISTORY_COLUMNS: tuple[tuple[str, str], ...] = (
    ("version", "version published by the step"),
    ("time", "wall clock, seconds since 1970"),
    ("loss", "mean loss"),
    ("reward", "mean training reward of the batch"),
    ("actual_reward", "mean actual reward of the batch's SEND decisions (NaN: none)"),
    ("batch", "experiences in the batch"),
    ("step_ms", "milliseconds"),
    ("gradient_norm", "before clipping"),
    ("entropy", "mean entropy of the policy, nats"),
    ("lag_mean", "versions between decision and training"),
    ("lag_max", "the same, largest"),
    ("clipped_share", "share of importance weights that were clipped"),
    ("event", "0 step, 1 rollback, 2 reset"),
    ("send_share", "share of SEND in the batch"),
    ("expected_reward", "mean expected reward of the batch"),
)
"""A history row is its number (u64, from 1; 0 while it is written) and these columns as f64."""

HISTORY_ROW_BYTES = 8 * (1 + len(HISTORY_COLUMNS))
SCHEMA_ROOM = 64 * 1024

_LINE = 64
GROUPS: list[tuple[str, str, int, list[Field]]] = []
FIELDS: dict[str, tuple[int, str]] = {}


def _place(title: str, writer: str, fields: list[Field], at: int) -> int:
    start = -(-at // _LINE) * _LINE
    GROUPS.append((title, writer, start, fields))
    for index, (name, kind, _) in enumerate(fields):
        FIELDS[name] = (start + 8 * index, kind)
    return start + 8 * len(fields)


_end = _place("header", "ctl, once", _HEADER, 0)
_end = _place("weights", "trainer", _WEIGHTS, _end)
_end = _place("supervisor", "supervisor", _SUPERVISOR, _end)
_end = _place("trainer process", "supervisor", _child("process.trainer"), _end)
_end = _place("inference process", "supervisor", _child("process.inference"), _end)
_end = _place("trainer", "trainer", _TRAINER, _end)
_end = _place("commands", "operator commands, under the flock of the control segment", _COMMANDS, _end)
for _name in SERVERS[1:]:
    _end = _place(f"process {_name}", "supervisor", _child(f"process.{_name}"), _end)

HEADER_FIELDS = tuple(name for name, _, _ in _HEADER)
SLOT_FIELDS = {name: (8 * index, kind) for index, (name, kind, _) in enumerate(_SLOT)}
SLOT_BYTES = _LINE
SLOTS_AT = -(-_end // 4096) * 4096
LANE_FIELDS = {name: (8 * index, kind) for index, (name, kind, _) in enumerate(_LANE)}
LANE_BYTES = -(-8 * len(_LANE) // _LINE) * _LINE
LANES_AT = SLOTS_AT + MAX_SLOTS * SLOT_BYTES
HISTORY_AT = -(-(LANES_AT + MAX_LANES * LANE_BYTES) // 4096) * 4096
SCHEMA_AT = HISTORY_AT + HISTORY_ROWS * HISTORY_ROW_BYTES
CONTROL_BYTES = -(-(SCHEMA_AT + SCHEMA_ROOM) // 4096) * 4096

TABLES = (
    ("slot", "trainer", SLOTS_AT, SLOT_BYTES, MAX_SLOTS, _SLOT),
    ("lane", "the lane's owner", LANES_AT, LANE_BYTES, MAX_LANES, _LANE),
)
"""The repeated groups: name, writer, offset, stride, count, fields."""


def offset(name: str) -> int:
    """Byte offset of a field: `version`, `slot.2.sequence`, `lane.0.head`, ...

    Raises KeyError if there is no such field.
    """
    table, _, rest = name.partition(".")
    index, _, field = rest.partition(".")
    if table == "slot" and index.isdecimal():
        return SLOTS_AT + int(index) * SLOT_BYTES + SLOT_FIELDS[field][0]
    if table == "lane" and index.isdecimal():
        return LANES_AT + int(index) * LANE_BYTES + LANE_FIELDS[field][0]
    return FIELDS[name][0]


def kind(name: str) -> str:
    """`u64` or `f64`. Raises KeyError if there is no such field."""
    table, _, rest = name.partition(".")
    index, _, field = rest.partition(".")
    if table == "slot" and index.isdecimal():
        return SLOT_FIELDS[field][1]
    if table == "lane" and index.isdecimal():
        return LANE_FIELDS[field][1]
    return FIELDS[name][1]
