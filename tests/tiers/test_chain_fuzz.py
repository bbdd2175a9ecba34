"""Any operations in any order keep every budget and every law, and serve nobody what is another's."""

import pytest
from benchmarks.tier_fuzz import FuzzedChain, RandomOperations
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

TOKENS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), min_size=1, max_size=5).map(
    lambda runs: [token for token, length in runs for _ in range(length)]
)
TENANTS = st.sampled_from(["", "a", "b", "passing"])
PINS = st.lists(st.tuples(st.integers(1, 60), st.floats(1, 90)), max_size=4)


class ChainMachine(RuleBasedStateMachine):
    @initialize(
        num_shelves=st.integers(1, 2),
        policy=st.sampled_from(["tail", "learned", "dense:8", "sglang"]),
        is_stateless=st.booleans(),
        compression=st.sampled_from([1.0, 2.5]),
    )
    def begin_chain(self, num_shelves, policy, is_stateless, compression):
        self.fuzzed = FuzzedChain(
            num_shelves=num_shelves, policy=policy, is_stateless=is_stateless, compression=compression
        )

    @rule(tokens=TOKENS, tenant=TENANTS, pins=PINS)
    def begin(self, tokens, tenant, pins):
        self.fuzzed.begin(tokens, tenant, pins)

    @rule(index=st.integers(0, 2), keeps=st.booleans(), answer=st.lists(st.integers(0, 2), max_size=20))
    def finish(self, index, keeps, answer):
        self.fuzzed.finish(index, keeps=keeps, answer=answer)

    @rule(index=st.integers(0, 2))
    def distrust(self, index):
        self.fuzzed.finish(index, keeps=False, is_trusted=False)

    @rule(which=st.integers(0, 1), share=st.sampled_from([0.0, 0.2, 1.0]))
    def damage(self, which, share):
        self.fuzzed.damage(which, share)

    @rule(which=st.integers(0, 1), refuses=st.booleans())
    def refuse(self, which, refuses):
        self.fuzzed.refuse(which, refuses)

    @rule(memory=st.integers(0, 2_500), below=st.integers(0, 6_000))
    def resize(self, memory, below):
        self.fuzzed.resize(memory, below)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds):
        self.fuzzed.pass_time(seconds)

    @rule(computing=st.sampled_from([1e-3, 1.0]), reading=st.sampled_from([1e-3, 1e3]))
    def measure(self, computing, reading):
        self.fuzzed.measure(computing, reading)

    @rule(tenant=TENANTS)
    def forget(self, tenant):
        self.fuzzed.forget(tenant)

    @rule()
    def restart(self):
        self.fuzzed.memory, self.fuzzed.below = max(600, self.fuzzed.memory), max(600, self.fuzzed.below)
        self.fuzzed.restart()

    @invariant()
    def every_law_holds(self):
        if hasattr(self, "fuzzed"):
            self.fuzzed.check()


ChainMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestAnyOrder = ChainMachine.TestCase


@pytest.mark.parametrize("seed", range(4))
def test_random_operations_keep_every_law(seed):
    operations = RandomOperations(seed)
    for _ in range(250):
        operations.step()
    assert operations.fuzzed.done["resumed"] > 0


def test_the_fuzz_would_see_a_payload_of_another_prompt():
    fuzzed = FuzzedChain(policy="tail")
    fuzzed.begin([1] * 40, "", [])
    fuzzed.finish(0, keeps=True)
    fuzzed.chain.fastest.forget_everything()
    held = fuzzed.shelves[0].held._held
    keys = [key for key in held if key.startswith("k")]
    held[keys[0]], held[keys[1]] = held[keys[1]], held[keys[0]]
    with pytest.raises(AssertionError):
        fuzzed.begin([1] * 40, "", [])


def test_the_fuzz_would_see_what_lies_on_a_shelf_for_ever():
    fuzzed = FuzzedChain(policy="tail")
    fuzzed.begin([1] * 40, "", [])
    fuzzed.finish(0, keeps=True)
    fuzzed.check()
    shelf = fuzzed.shelves[0]
    entry = next(iter(shelf.entries()))
    shelf.remove = lambda keys: None
    fuzzed.chain.forget_everything()
    with pytest.raises(AssertionError, match="does not know"):
        fuzzed.check()
    assert entry
