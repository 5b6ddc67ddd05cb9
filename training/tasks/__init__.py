"""One file a training task.

SR_PHASES: networks that are trained in a way of their own: name in SR_NETWORKS -> module, which has
`phases(network, config, optim, device) -> list[Phase]`, see training/sr_phases.py.
"""

from __future__ import annotations

SR_PHASES: dict[str, str] = {
    "difiisr_dwt": "training.tasks.difiisr_dwt",
    "one_step_diffusion": "training.tasks.one_step_diffusion",
    "ldcsr": "training.tasks.ldcsr",
}
