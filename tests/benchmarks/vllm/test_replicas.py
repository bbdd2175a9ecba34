"""The table of the running replicas shows the median of several runs, the least and the most."""

from benchmarks.vllm.replicas import Outcome, table


def outcome(cached, **known):
    unknown = dict.fromkeys(
        ("believed_share", "beyond_attention_share", "beyond_states_share", "gone_states_share")
    )
    return Outcome(
        setting="stock",
        way="states",
        num_requests=48,
        prompt_tokens=1000,
        cached_share=cached,
        busiest=1.0,
        num_lost=0,
        **unknown | known,
    )


def cells(*outcomes):
    return [list(column.cells) for column in table(outcomes).columns]


def test_runs_of_one_way_share_a_row():
    shares = dict.fromkeys(("beyond_states_share", "gone_states_share"), 0.02)
    shown = cells(outcome(0.5, **shares), outcome(0.3, **shares), outcome(0.4, **shares))
    assert shown == [
        ["stock, states"],
        ["3"],
        ["48"],
        ["40.0% (30.0% to 50.0%)"],
        ["1.00"],
        [""],
        [""],
        ["2.0%"],
        ["2.0%"],
    ]


def test_of_two_runs_the_lower_is_shown():
    assert cells(outcome(0.5), outcome(0.3))[3] == ["30.0% (30.0% to 50.0%)"]
