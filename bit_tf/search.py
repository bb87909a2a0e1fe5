"""The paper's random search of hyper-parameters (appendix A)."""

import numpy as np

TRIALS = 40
STEPS = (500, 1_000, 2_000, 4_000, 8_000, 16_000)
MIXUP = (0.0, 0.05, 0.1, 0.2, 0.4)
CROPS = (64, 128, 192, 256, 320, 384)
_RATES, _DECAYS, _DROPOUT = (1e-4, 1e-1), (1e-6, 1e-1), 0.7


def draw(trial: int, *, seed: int = 0, max_steps: int | None = None) -> dict:
    """Returns the numbers of one trial, as `overrides.override` takes them.

    Rate and decay are log-uniform, the rest is uniform. Decay is towards the
    weights of the start.

    Args:
        trial: from 0.
        seed: of the search.
        max_steps: longer schedules are not drawn; None for all of STEPS.
    """
    rng = np.random.default_rng((seed, trial))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    steps = [s for s in STEPS if max_steps is None or s <= max_steps]
    return {
        "base_lr": log_uniform(*_RATES),
        "total_steps": int(rng.choice(steps or [max_steps])),
        "dropout": float(rng.uniform(0, _DROPOUT)),
        "weight_decay": log_uniform(*_DECAYS),
        "weight_decay_to": "start",
        "mixup_alpha": float(rng.choice(MIXUP)),
        "crop": int(rng.choice(CROPS)),
    }
