"""Random prompts, aborts, priorities, preemptions and resets, and chats, for any engine without a model."""

import random

import pool_account


def traffic(seed, *, longest):
    """Yield prompts that share beginnings with earlier ones, and how they are asked."""
    rng = random.Random(seed)
    documents = [[rng.randrange(1000) for _ in range(2500)] for _ in range(12)]
    while True:
        shared = rng.randrange(min(2500, longest))
        tokens = rng.choice(documents)[:shared]
        tokens = tokens + [rng.randrange(1000) for _ in range(rng.choice([1, 5, 60, 64, 300]))]
        if rng.random() < 0.1:
            tokens = tokens[: max(1, len(tokens) // 64 * 64)]
        yield {
            "tokens": tokens,
            "max_tokens": rng.choice([1, 2, 20, 150]),
            "priority": rng.randrange(3),
            "cache_salt": rng.choice([None, None, None, "another"]),
            "extra_args": {"milepost_breakpoints": [shared]} if shared and rng.random() < 0.3 else None,
            "prompt_logprobs": 1 if rng.random() < 0.02 else None,
        }


def soak(engine, *, num_requests, seed, longest):
    rng = random.Random(seed)
    scheduler, requests, recent = engine.scheduler, traffic(seed, longest=longest), []
    for number in range(1, num_requests + 1):
        recent = [*recent[-11:], engine.add(**next(requests))]
        for _ in range(rng.choice([0, 0, 1, 3, 8])):
            engine.step()
        if rng.random() < 0.15:
            engine.abort(rng.choice(recent))
        if rng.random() < 0.003:
            scheduler.reset_prefix_cache(reset_running_requests=rng.random() < 0.5)
        while len(scheduler.waiting) > 20:
            engine.step()
        if number % 50 == 0:
            pool_account.assert_no_orphans(scheduler)
        if number % 500 == 0 or number == num_requests:
            engine.run()
            pool_account.assert_idle(scheduler, most_missing=pool_account.blocks_of_a_prompt(scheduler))


def serve_chats(engine, *, seed, num_turns=4):
    """Serve six chats side by side, turn by turn."""
    rng = random.Random(seed)
    chats = [[rng.randrange(512) for _ in range(rng.randrange(40, 160))] for _ in range(6)]
    for _ in range(num_turns):
        asked = []
        for chat in chats:
            asked.append(engine.scheduler.requests[engine.add(chat, max_tokens=rng.choice([20, 33, 50]))])
            for _ in range(rng.choice([0, 0, 1, 5])):
                engine.step()
        engine.run()
        for chat, request in zip(chats, asked, strict=True):
            chat[:] = [*request.all_token_ids, *(rng.randrange(512) for _ in range(rng.randrange(5, 200)))]
