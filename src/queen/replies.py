"""Building the data of the game's replies from decisions and statistics."""

from __future__ import annotations

import platform
import time
from typing import Any

import psutil
from msgspec import UNSET

from .observation import SPAWN_TYPES, Observation, rate
from .reward import RewardTrend
from .wire import NoAction, Pong, SpawnDecision, TrainingStatus

_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12


def decision_reply(decision: Any, territory_id: str) -> tuple[str, SpawnDecision | NoAction]:
    """Type and data of the answer to an observation."""
    has_last = decision.last_reward is not None
    last_reward = decision.last_reward if has_last else UNSET
    trend = reward_trend(decision.recent_rewards) if has_last else UNSET
    if decision.send:
        return "spawn_decision", SpawnDecision(
            spawnChunk=decision.action[0],
            spawnType=SPAWN_TYPES[decision.action[1]],
            confidence=decision.confidence,
            typeConfidence=decision.head_probabilities[1],
            territoryId=territory_id,
            gateReason=decision.reason,
            expectedReward=decision.expected_reward,
            modelVersion=decision.version,
            lastReward=last_reward,
            rewardTrend=trend,
        )
    return "no_action", NoAction(
        territoryId=territory_id,
        reason=decision.reason,
        gateReason=decision.reason,
        confidence=decision.confidence,
        expectedReward=decision.expected_reward,
        modelVersion=decision.version,
        lastReward=last_reward,
        rewardTrend=trend,
    )


def reward_trend(rewards: tuple[float, ...]) -> str:
    """Where the last rewards of a territory are heading, see `RewardTrend`."""
    trend = RewardTrend()
    for reward in rewards:
        trend.add(reward)
    return trend.trend


def pong(client_id: str, sent: float | None, statistics: dict[str, Any]) -> Pong:
    """The answer to a ping with the time `sent`: milliseconds since 1970 (browser), seconds (simulator), or neither."""
    now = time.time()
    if sent is None or sent < _EPOCH_SECONDS:
        elapsed = 0.0
    elif sent < _EPOCH_MILLISECONDS:
        elapsed = (now - sent) * 1e3
    else:
        elapsed = now * 1e3 - sent
    return Pong(client_id, sent, max(0.0, elapsed), statistics)


def health(is_degraded: bool, uses_gpu: bool, handler: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """The answer to a health check."""
    import torch

    return {
        "status": "degraded" if is_degraded else "healthy",
        "aiEngine": "running",
        "neuralNetwork": "ready",
        "gpuAcceleration": uses_gpu,
        "messageHandler": {"status": "active", **handler},
        "systemInfo": {
            "pythonVersion": platform.python_version(),
            "pytorchVersion": str(torch.__version__),
            "memoryUsage": psutil.Process().memory_info().rss / 2**20,
        },
        "training": training,
    }


def training_status(stats: dict[str, Any]) -> TrainingStatus:
    """The summary of `training_stats`."""
    running = stats["is_running"]
    return TrainingStatus(
        status="not_available" if not stats["enabled"] else "active" if running else "stopped",
        modelVersion=stats["model_version"],
        trainingIterations=stats["training"]["total_steps"],
        averageLoss=stats["training"]["average_loss"],
        bufferSize=stats["buffer"]["size"],
        isRunning=running,
    )


def training_details(stats: dict[str, Any]) -> dict[str, Any]:
    """`training_stats` under the names of `background_training_stats_response`."""
    return {
        "status": training_status(stats).status,
        "model_version": stats["model_version"],
        "is_running": stats["is_running"],
        "buffer": stats["buffer"],
        "training": stats["training"],
    }


def game_state(seen: Observation | None) -> dict[str, Any]:
    """What the newest observation showed."""
    return {
        "queen_energy": seen.queen_energy if seen else None,
        "workers_visible": len(seen.present) if seen else 0,
        "protectors_visible": len(seen.protectors) if seen else 0,
        "territory_id": seen.territory_id if seen else None,
    }


def pipeline(seen: Observation, decision: Any, names: tuple[str, ...], weights: dict[str, float]) -> dict[str, Any]:
    """The newest decision, step by step: observation, network, gate components, expected reward, decision."""
    output = {
        "chunk_id": decision.action[0],
        "spawn_type": SPAWN_TYPES[decision.action[1]],
        "confidence": decision.confidence,
        "skip": False,
    }
    formula = " + ".join([*(f"{weight:g} * {name}" for name, weight in weights.items()), "exploration"])
    return {
        "observation": {
            "workers_count": len(seen.present),
            "protectors_count": len(seen.protectors),
            "parasites_count": len(seen.parasites_end),
            "queen_energy": seen.queen_energy,
            "player_energy_rate": rate(seen.energy_start, seen.energy_end),
            "player_mineral_rate": rate(seen.minerals_start, seen.minerals_end),
            "worker_chunks": sorted(seen.present),
            "protector_chunks": sorted(seen.protectors),
            "parasite_chunks": sorted(chunk for chunk, _ in seen.parasites_end),
        },
        "nn_output": output,
        "nn_inference": {**output, "nn_decision": "spawn"},
        "gate_components": {**dict(zip(names, decision.components, strict=False)), "weights": weights},
        "combined_reward": {"expected_reward": decision.expected_reward, "formula": formula},
        "decision": {
            "action": "SEND" if decision.send else "WAIT",
            "reason": decision.reason,
            "timestamp": decision.timestamp,
            "model_version": decision.version,
        },
    }
