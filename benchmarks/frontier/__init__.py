"""What a byte of memory buys in time: every policy under several budgets, on a real engine, capture included.

    python -m benchmarks.frontier --logs DIR --output frontier.json
    milepost report frontier.json

The paper's experiment and more. Documents with questions and shared system prompts are the requests of its
logged runs (``benchmarks.paper.rebuild``), agents and traffic that shares nothing are made up. Each request
is computed under each policy in turn, in an order that rotates, before the next one is: whatever else the
machine does falls on all alike. The time of a request is the time to its first token: look-up, restoring,
prefill, capture, storing. Numerics are strict, so what a request answers must not hang on the policy, and it
is counted where it does.

``--replay`` runs no model and says in a minute what each policy saves of the prompts, at any number of
budgets and requests.

On a CPU the experiment is scaled down, and what must keep its proportions does: prompts are a fourth as
long, states a fourth as large, and cuts lie a fourth as far apart. ``--full`` is the published size, for a
GPU.
"""
