"""Exact states against lossy ones, at equal bytes and at equal time; built for this comparison alone.

    python -m benchmarks.lossy [--part NAME] [--family NAME ...] [--prompts 100] [--traces DIR] [--json]

========  ==================================================================================================
int8      recurrent states as 8-bit integers, a scale for each row (``quantiser``, ``quantised_states``)
6 bit     the same with 6 bits, four numbers in three bytes
replay R  no state is kept: the last R tokens before the resume position are run again from zeros, over the
          KV that is there (``suffix_replay``)
zeroed    the control: states lost, as a cache that forgot them would have it
========  ==================================================================================================

*Divergence*, for each model: how far the next token and the greedy answer after a resumed prompt are from the
cold run's. *Equal bytes*, on the embedded model: what an engine with each reuses in one budget, and whether
its answers are the cold engine's. *Equal time*: what the replay may spend until it has computed as much as
exact states have. With ``--traces``: the same budgets on recorded traffic.
"""
